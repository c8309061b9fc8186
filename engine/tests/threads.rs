//! What a session takes of its process: threads, descriptors, and none of its signals.

#[path = "../examples/demo/mod.rs"]
mod demo;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vfio_ferry::{
    BackendChoice, Capabilities, DeviceOptions, DeviceState, Error, MigrationDevice, Options,
    PrecopyInfo, SourceDevice, SourceEnding, SourceSession, TargetDevice, TargetEnding,
    TargetSession,
};

/// The limit and the threads are the process's.
static ALONE: Mutex<()> = Mutex::new(());

const DEVICES: usize = 3;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn demos() -> Vec<Arc<demo::Demo>> {
    let demo = |_| {
        let state = File::from(memfd_create("state", MemfdFlags::CLOEXEC).expect("memory"));
        state.set_len(100_000).expect("memory");
        demo::Demo::over(state)
    };
    (0..DEVICES).map(demo).collect()
}

fn source(
    devices: &[Arc<demo::Demo>],
    stream: UnixStream,
    options: Options,
) -> Result<SourceSession, Error> {
    let device = |(index, device): (usize, &Arc<demo::Demo>)| SourceDevice {
        name: format!("net{index}"),
        device: Arc::clone(device) as Arc<dyn MigrationDevice>,
        options: DeviceOptions::default(),
    };
    let devices = devices.iter().enumerate().map(device).collect();
    SourceSession::start(devices, vec![stream.into()], options)
}

fn target(
    devices: &[Arc<demo::Demo>],
    stream: UnixStream,
    options: Options,
) -> Result<TargetSession, Error> {
    let device = |(index, device): (usize, &Arc<demo::Demo>)| TargetDevice {
        name: format!("net{index}"),
        device: Arc::clone(device) as Arc<dyn MigrationDevice>,
    };
    let devices = devices.iter().enumerate().map(device).collect();
    TargetSession::start(devices, vec![stream.into()], options)
}

/// The session's threads by name, and the signals that each blocks.
fn threads() -> BTreeMap<String, Vec<u64>> {
    let mut threads = BTreeMap::<String, Vec<u64>>::new();
    for task in fs::read_dir("/proc/self/task").expect("a process has threads") {
        let folder = task.expect("an entry").path();
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(folder.join("status")) else { continue };
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
        let (name, blocked) = (field("Name:\t"), field("SigBlk:\t"));
        let name = name.expect("a name").to_owned();
        let blocked = u64::from_str_radix(blocked.expect("a mask"), 16).expect("hexadecimal");
        if name.starts_with("ferry-") {
            threads.entry(name).or_default().push(blocked);
        }
    }
    threads
}

#[test]
fn a_sessions_threads_are_there_from_its_start_and_take_no_signal() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for backend in [BackendChoice::Auto, BackendChoice::Syscalls] {
        let (from, to) = (demos(), demos());
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let options = || Options { backend, workers: 2, ..Options::default() };
        let source = source(&from, ours, options()).expect("a session");
        let of_devices = ["ferry-ctl-0", "ferry-ctl-1", "ferry-ctl-2"];
        let of_data = ["ferry-fd-0", "ferry-fd-1", "ferry-fd-2"];
        let others = ["ferry-net", "ferry-zstd-0", "ferry-zstd-1"];
        let expected = [&of_devices[..], &of_data, &others].concat();
        let start = Instant::now();
        // A thread gives itself its name once it runs.
        while threads().into_keys().ne(expected.iter().copied()) {
            assert!(start.elapsed() < LONG, "{:?}", threads().into_keys().collect::<Vec<_>>());
            std::thread::yield_now();
        }
        // All but SIGKILL and SIGSTOP, which cannot be, and what a thread does to itself.
        let own = [4, 5, 7, 8, 9, 11, 19, 31].into_iter().map(|signal| 1 << (signal - 1));
        let expected = (1u64 << 31) - 1 - own.sum::<u64>();
        for (name, masks) in threads() {
            for mask in masks {
                assert_eq!(mask & ((1 << 31) - 1), expected, "{name}: {mask:x}");
            }
        }
        let mine = fs::read_to_string("/proc/thread-self/status").expect("a thread");
        assert!(mine.contains("SigBlk:\t0000000000000000"), "the embedder's thread is its own");
        let target = target(&to, theirs, options()).expect("a session");
        source.switchover();
        assert!(source.wait_closed(Duration::MAX) && target.wait_closed(Duration::MAX));
        assert_eq!(source.finish().ending, SourceEnding::HandedOver);
        assert_eq!(target.finish().ending, TargetEnding::Running);
        while !threads().is_empty() {
            std::thread::yield_now();
        }
    }
}

fn open_descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").expect("a process has descriptors").count() as u64
}

/// With however few descriptors, a session either does not start or is carried to its end.
#[test]
fn a_migration_with_few_descriptors_fails_at_its_start_or_not_at_all() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let before = getrlimit(Resource::Nofile);
    let mut migrated = 0;
    let mut spare = 0;
    while migrated < 3 {
        while !threads().is_empty() {
            std::thread::yield_now();
        }
        let (from, to) = (demos(), demos());
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let limit = open_descriptors() + spare;
        setrlimit(Resource::Nofile, Rlimit { current: Some(limit), ..before }).expect("lower");
        let target = target(&to, theirs, Options::default());
        let source = source(&from, ours, Options::default());
        match (source, target) {
            (Ok(source), Ok(target)) => {
                source.switchover();
                assert_eq!(source.finish().ending, SourceEnding::HandedOver, "{spare} spare");
                assert_eq!(target.finish().ending, TargetEnding::Running, "{spare} spare");
                migrated += 1;
            }
            (source, target) => {
                for error in [source.err(), target.err()].into_iter().flatten() {
                    assert!(matches!(error, Error::System(_)), "{spare} spare: {error}");
                    assert!(error.to_string().contains("Too many open files"), "{error}");
                }
            }
        }
        setrlimit(Resource::Nofile, before).expect("as it was");
        spare += 1;
        assert!(spare < 200, "it never starts");
    }
    assert!(spare > 10, "nothing was refused");
}

/// A device whose last reference takes as long as the test likes to go.
struct Lingers(Arc<demo::Demo>, Mutex<Receiver<()>>);

impl Drop for Lingers {
    fn drop(&mut self) {
        let gone = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = gone.recv();
    }
}

impl MigrationDevice for Lingers {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.0.capabilities()
    }
    fn state(&self) -> io::Result<DeviceState> {
        self.0.state()
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        self.0.set_state(state)
    }
    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.0.precopy_info(data_fd)
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        self.0.stop_copy_length()
    }
    fn reset(&self) -> io::Result<()> {
        self.0.reset()
    }
}

/// A device that is long in being dropped holds neither the end nor the guest.
#[test]
fn the_end_is_told_though_a_device_is_still_being_dropped() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let demos = demos();
    let (let_go, gone) = channel();
    let device = Arc::new(Lingers(Arc::clone(&demos[0]), Mutex::new(gone)));
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let options = DeviceOptions::default();
    let device = SourceDevice { name: "net0".to_owned(), device, options };
    let source = SourceSession::start(vec![device], vec![ours.into()], Options::default());
    let source = source.expect("a session");
    source.cancel();
    let (told, ended) = channel();
    let waits = std::thread::spawn(move || told.send(source.finish().ending));
    let ending = ended.recv_timeout(LONG);
    // In any case, so that a failure is no hang.
    drop(let_go);
    assert!(matches!(ending, Ok(SourceEnding::Returned(_))), "{ending:?}");
    waits.join().expect("no panic").expect("it was taken");
    drop(theirs);
}
