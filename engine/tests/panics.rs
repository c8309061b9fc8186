//! Code that panics: a device's on any thread that calls it, and the session's own thread. The
//! session ends, and claims no more of the devices than is true.

#[path = "../examples/demo/mod.rs"]
mod demo;
mod panics_at;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};
use vfio_ferry::{
    Capabilities, Cause, DeviceOptions, DeviceState, Error, MigrationDevice, Options, PrecopyInfo,
    SourceDevice, SourceEnding, SourceReport, SourceSession, TargetDevice, TargetEnding,
    TargetReport, TargetSession,
};

/// Panics once, in the method of this name: in set_state, on the way to a state.
struct Panics {
    device: Arc<demo::Demo>,
    at: &'static str,
    done: AtomicBool,
}

impl Panics {
    fn at(at: &'static str) -> Arc<Panics> {
        Arc::new(Panics { device: plain(), at, done: AtomicBool::new(false) })
    }

    fn passes(&self, what: &str) {
        if what == self.at && !self.done.swap(true, Ordering::SeqCst) {
            panic!("a defect that this test has put in");
        }
    }
}

impl MigrationDevice for Panics {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.passes("capabilities");
        self.device.capabilities()
    }
    fn state(&self) -> io::Result<DeviceState> {
        self.passes("state");
        self.device.state()
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        self.passes(state.name());
        self.device.set_state(state)
    }
    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.passes("precopy_info");
        self.device.precopy_info(data_fd)
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        self.passes("stop_copy_length");
        self.device.stop_copy_length()
    }
    fn reset(&self) -> io::Result<()> {
        self.passes("reset");
        self.device.reset()
    }
    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        self.passes("observe");
        self.device.observe(data_fd, result)
    }
    fn interrupt(&self) {
        self.passes("interrupt");
    }
}

fn plain() -> Arc<demo::Demo> {
    let state = File::from(memfd_create("state", MemfdFlags::CLOEXEC).expect("memory"));
    state.set_len(10_000).expect("memory");
    demo::Demo::over(state)
}

fn source(device: Arc<dyn MigrationDevice>, stream: UnixStream) -> Result<SourceSession, Error> {
    let options = DeviceOptions::default();
    let device = SourceDevice { name: "net0".to_owned(), device, options };
    SourceSession::start(vec![device], vec![stream.into()], Options::default())
}

fn target(device: Arc<dyn MigrationDevice>, stream: UnixStream) -> Result<TargetSession, Error> {
    let device = TargetDevice { name: "net0".to_owned(), device };
    TargetSession::start(vec![device], vec![stream.into()], Options::default())
}

/// A whole migration of these devices.
fn migrate(
    from: Arc<dyn MigrationDevice>,
    to: Arc<dyn MigrationDevice>,
) -> (SourceReport, TargetReport) {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let source = source(from, ours).expect("a session");
    let target = target(to, theirs).expect("a session");
    source.switchover();
    (source.finish(), target.finish())
}

fn state(device: &Panics) -> DeviceState {
    device.device.state().expect("a demo always knows")
}

#[test]
fn a_device_of_the_source_that_panics_is_brought_back() {
    let _alone = panics_at::alone();
    for at in ["STOP_COPY", "stop_copy_length", "observe", "state"] {
        let device = Panics::at(at);
        // Asked at the start, too.
        device.done.store(at == "state", Ordering::SeqCst);
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let source = source(device.clone(), ours).expect("a session");
        device.done.store(false, Ordering::SeqCst);
        let target = target(plain(), theirs).expect("a session");
        // Asked only while the VM runs.
        if at != "stop_copy_length" {
            source.switchover();
        }
        let report = source.finish();
        let SourceEnding::Returned(fault) = &report.ending else {
            panic!("{at}: {}", report.ending)
        };
        assert_eq!(fault.cause, Cause::Local, "{at}: {fault}");
        assert!(fault.message.contains("of device 0 panicked: a defect"), "{at}: {fault}");
        assert_eq!(state(&device), DeviceState::Running, "{at}");
        let report = target.finish();
        assert!(matches!(report.ending, TargetEnding::Blank(_)), "{at}: {}", report.ending);
    }
}

#[test]
fn no_session_begins_with_a_device_that_panics_when_it_is_asked_what_it_is() {
    let _alone = panics_at::alone();
    for at in ["capabilities", "state"] {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let devices = [Panics::at(at), Panics::at(at)];
        let errors =
            [source(devices[0].clone(), ours).err(), target(devices[1].clone(), theirs).err()];
        for error in errors {
            let error = error.expect("no session");
            assert!(matches!(error, Error::Device { ref name, .. } if name == "net0"), "{error}");
            let text = std::error::Error::source(&error).expect("what it said").to_string();
            assert!(text.contains("panicked: a defect that this test has put in"), "{text}");
        }
        for device in devices {
            assert_eq!((Arc::strong_count(&device), state(&device)), (1, DeviceState::Running));
        }
    }
}

#[test]
fn a_device_of_the_target_that_panics_is_made_blank() {
    let _alone = panics_at::alone();
    for at in ["RESUMING", "STOP", "observe"] {
        let device = Panics::at(at);
        let (source, target) = migrate(plain(), device.clone());
        let TargetEnding::Blank(fault) = &target.ending else { panic!("{at}: {}", target.ending) };
        assert_eq!(fault.cause, Cause::Local, "{at}: {fault}");
        assert_eq!(state(&device), DeviceState::Running, "{at}");
        assert!(matches!(source.ending, SourceEnding::Returned(_)), "{at}: {}", source.ending);
    }
}

#[test]
fn a_panic_over_the_news_of_the_end_changes_nothing() {
    let _alone = panics_at::alone();
    let (ours, _theirs) = UnixStream::pair().expect("sockets");
    let session = source(Panics::at("interrupt"), ours).expect("a session");
    session.cancel();
    let report = session.finish();
    let SourceEnding::Returned(fault) = &report.ending else { panic!("{}", report.ending) };
    assert_eq!(fault.cause, Cause::Cancelled);
    let (source, target) = migrate(Panics::at("interrupt"), Panics::at("interrupt"));
    assert_eq!((source.ending, target.ending), (SourceEnding::HandedOver, TargetEnding::Running));
}

/// The session's own thread, in each phase of each host.
#[test]
fn a_session_whose_thread_panics_says_what_is_true() {
    let _alone = panics_at::alone();
    use DeviceState::Running;
    let cases = [
        ("source", "stop", "returned", "blank"),
        ("source", "stop_copy", "returned", "blank"),
        ("source", "load", "returned", "blank"),
        ("source", "handover", "unconfirmed", "blank"),
        ("target", "start", "returned", "blank"),
        ("target", "stop_copy", "returned", "blank"),
        ("target", "load", "returned", "blank"),
        ("target", "resume", "unconfirmed", "not_blank"),
    ];
    for (host, phase, left, came) in cases {
        panics_at::arm(host, phase);
        let (from, to) = (plain(), plain());
        let (source, target) = migrate(from.clone(), to.clone());
        let what = format!("{host} in {phase}: {} and {}", source.ending, target.ending);
        assert!(panics_at::is_spent(), "{what}: it did not panic");
        assert_eq!((source.ending.name(), target.ending.name()), (left, came), "{what}");
        let fault = match host {
            "source" => source.ending.fault(),
            _ => target.ending.fault(),
        };
        let fault = fault.expect("a panic is a fault");
        assert_eq!(fault.cause, Cause::Local, "{what}");
        assert!(fault.message.contains("panicked"), "{what}");
        let (ours, theirs) = (&source.devices[0], &target.devices[0]);
        let runs = from.state().expect("a demo always knows") == Running;
        assert_eq!((ours.home, runs), (left == "returned", left == "returned"), "{what}: {ours:?}");
        // None also of one that nobody has asked since it was found.
        let known = if left == "returned" { Some(Running) } else { None };
        let epoch = if left == "unconfirmed" { "unconfirmed" } else { "aborted" };
        let endings = (&ours.ending, &theirs.ending);
        assert_eq!(endings.0.map(|ending| ending.name()), Some(epoch), "{what}");
        assert_eq!(endings.1.map(|ending| ending.name()), Some("aborted"), "{what}");
        assert!(!ours.was_reset && !theirs.was_reset, "{what}: only the target's, as ever");
        assert!(
            host != "source" || ours.state.is_none() || ours.state == known,
            "{what}: {ours:?}"
        );
        assert_eq!(theirs.home, came == "blank", "{what}: {theirs:?}");
        let comes = to.state().expect("a demo always knows");
        assert!(came != "blank" || comes == Running, "{what}: {comes}");
    }
}

/// A device that does not come back to RUNNING: for good, or before it is reset.
struct Refuses {
    device: Arc<demo::Demo>,
    /// VFIO_DEVICE_RESET brings it back from ERROR.
    resets: bool,
    broken: AtomicBool,
}

impl MigrationDevice for Refuses {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.device.capabilities()
    }
    fn state(&self) -> io::Result<DeviceState> {
        if self.resets && self.broken.load(Ordering::SeqCst) {
            return Ok(DeviceState::Error);
        }
        self.device.state()
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        if state == DeviceState::Running {
            self.broken.store(true, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.device.set_state(state)
    }
    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.device.precopy_info(data_fd)
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        self.device.stop_copy_length()
    }
    fn reset(&self) -> io::Result<()> {
        if !self.resets {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        self.broken.store(false, Ordering::SeqCst);
        self.device.reset()
    }
}

#[test]
fn a_session_whose_thread_panics_claims_no_device_that_does_not_come_back() {
    let _alone = panics_at::alone();
    let refuses = |resets| -> Arc<dyn MigrationDevice> {
        Arc::new(Refuses { device: plain(), resets, broken: AtomicBool::new(false) })
    };
    panics_at::arm("source", "stop_copy");
    let (source, _) = migrate(refuses(false), plain());
    assert_eq!(source.ending.name(), "not_returned", "{}", source.ending);
    assert!(panics_at::is_spent() && !source.devices[0].home && !source.devices[0].was_reset);
    panics_at::arm("source", "stop_copy");
    let (source, _) = migrate(refuses(true), plain());
    assert_eq!(source.ending.name(), "returned", "{}", source.ending);
    assert!(panics_at::is_spent() && source.devices[0].was_reset, "out of ERROR");
    panics_at::arm("target", "load");
    let (_, target) = migrate(plain(), refuses(false));
    assert_eq!(target.ending.name(), "not_blank", "{}", target.ending);
    assert!(panics_at::is_spent() && !target.devices[0].home);
}
