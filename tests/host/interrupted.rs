//! A driver that says EINTR to every read or write, though nobody interrupted it: it is asked a
//! bounded number of times, and has failed.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use fuser::Errno;
use vfio_ferry::outcome::{Cause, Observation, SourceEnding, TargetEnding};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{Options, SourceDevice, SourceSession, TargetDevice, TargetSession};
use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry_tests::device::{Plan, TestDevice};
use vfio_ferry_tests::fuse::{Asked, FuseFile};
use vfio_ferry_tests::pair::{end, streams};
use vfio_ferry_tests::skip::skip;

const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Syscalls];
/// One request of the kernel to FUSE.
const CHUNK_BYTES: usize = 32 << 10;

/// Its data fd is a file of this mount.
struct Interrupted {
    state: Mutex<DeviceState>,
    mounted: FuseFile,
    asked: Arc<AtomicU32>,
}

impl Interrupted {
    fn new(name: &str) -> Option<Arc<Interrupted>> {
        let asked = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&asked);
        let mounted = FuseFile::mount(name, move |asked| {
            counted.fetch_add(1, Ordering::SeqCst);
            match asked {
                Asked::Read(reply, _) => reply.error(Errno::EINTR),
                Asked::Write(reply, _) => reply.error(Errno::EINTR),
            }
        });
        match mounted {
            Ok(mounted) => {
                let state = Mutex::new(DeviceState::Running);
                Some(Arc::new(Interrupted { state, mounted, asked }))
            }
            Err(error) => {
                skip(&error);
                None
            }
        }
    }

    fn state_now(&self) -> DeviceState {
        *self.state.lock().expect("no panic")
    }
}

impl MigrationDevice for Interrupted {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: false, precopy: false })
    }
    fn state(&self) -> io::Result<DeviceState> {
        Ok(self.state_now())
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        *self.state.lock().expect("no panic") = state;
        match state {
            DeviceState::StopCopy | DeviceState::Resuming => Ok(Some(self.mounted.open()?.into())),
            _ => Ok(None),
        }
    }
    fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        Ok(1 << 20)
    }
    fn reset(&self) -> io::Result<()> {
        *self.state.lock().expect("no panic") = DeviceState::Running;
        Ok(())
    }
}

fn migrate(
    from: Arc<dyn MigrationDevice>,
    to: Arc<dyn MigrationDevice>,
    backend: BackendChoice,
) -> (SourceEnding, TargetEnding) {
    let (ours, theirs) = streams(1);
    let options = || Options { backend, chunk_bytes: CHUNK_BYTES, ..Options::default() };
    let name = || "net0".to_owned();
    let from = SourceDevice { name: name(), device: from, options: Default::default() };
    let source = SourceSession::start(vec![from], ours, options()).expect("a source");
    let to = TargetDevice { name: name(), device: to };
    let target = TargetSession::start(vec![to], theirs, options()).expect("a target");
    source.switchover();
    (end(source).report.ending, end(target).report.ending)
}

#[test]
fn a_source_whose_reads_are_interrupted_for_ever_gives_up() {
    for backend in BACKENDS {
        let Some(from) = Interrupted::new("interrupted-source") else { return };
        let to = Arc::new(TestDevice::new(Plan::default().target()));
        let (source, target) = migrate(from.clone(), to, backend);
        let SourceEnding::Returned(fault) = source else { panic!("{source}") };
        assert_eq!((fault.cause, fault.observed), (Cause::DeviceFailure, Observation::Read));
        assert_eq!(fault.errno, Some(libc::EINTR), "{fault}");
        assert!(matches!(target, TargetEnding::Blank(_)), "{target}");
        assert_eq!(from.state_now(), DeviceState::Running);
        let asked = from.asked.load(Ordering::SeqCst);
        // The ring asks four times, the machine a thousand times again.
        assert!((1001..=4 * 1002).contains(&asked), "{backend:?}: {asked}");
    }
}

#[test]
fn a_target_whose_writes_are_interrupted_for_ever_gives_up() {
    for backend in BACKENDS {
        let Some(to) = Interrupted::new("interrupted-target") else { return };
        let plan = Plan { rest_bytes: 10_000, ..Plan::default() };
        let (source, target) = migrate(Arc::new(TestDevice::new(plan)), to.clone(), backend);
        let TargetEnding::Blank(fault) = target else { panic!("{target}") };
        assert_eq!((fault.cause, fault.observed), (Cause::DeviceFailure, Observation::Write));
        assert_eq!(fault.errno, Some(libc::EINTR), "{fault}");
        assert!(matches!(source, SourceEnding::Returned(_)), "{source}");
        assert_eq!(to.state_now(), DeviceState::Running);
        // The ring asks four times, the device's thread ten times again.
        assert_eq!(to.asked.load(Ordering::SeqCst), 4 * 11, "{backend:?}");
    }
}
