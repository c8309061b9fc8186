//! A device whose code panics on the session's own thread: the session ends, and claims no more of
//! the devices than can be known.

#[path = "../examples/demo/mod.rs"]
mod demo;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use vfio_ferry::{
    Capabilities, Cause, DeviceOptions, DeviceState, MigrationDevice, Notice, Options, Phase,
    PrecopyInfo, SessionEvent, SourceDevice, SourceEnding, SourceSession, TargetDevice,
    TargetEnding, TargetSession,
};

/// Panics when it is told that the session ends.
struct Panics(Arc<demo::Demo>);

impl MigrationDevice for Panics {
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
    fn interrupt(&self) {
        panic!("a defect that this test has put in");
    }
}

fn plain() -> Arc<demo::Demo> {
    demo::Demo::over(File::from(memfd_create("state", MemfdFlags::CLOEXEC).expect("memory")))
}

fn source(device: Arc<dyn MigrationDevice>, stream: UnixStream) -> SourceSession {
    let options = DeviceOptions::default();
    let device = SourceDevice { name: "net0".to_owned(), device, options };
    SourceSession::start(vec![device], vec![stream.into()], Options::default()).expect("a session")
}

fn target(device: Arc<dyn MigrationDevice>, stream: UnixStream) -> TargetSession {
    let device = TargetDevice { name: "net0".to_owned(), device };
    TargetSession::start(vec![device], vec![stream.into()], Options::default()).expect("a session")
}

#[test]
fn a_device_that_nobody_has_moved_is_where_it_was_found() {
    let (ours, _theirs) = UnixStream::pair().expect("sockets");
    let session = source(Arc::new(Panics(plain())), ours);
    session.cancel();
    let report = session.finish();
    let SourceEnding::Returned(fault) = &report.ending else { panic!("{}", report.ending) };
    assert_eq!(fault.cause, Cause::Local);

    let (ours, _theirs) = UnixStream::pair().expect("sockets");
    let session = target(Arc::new(Panics(plain())), ours);
    session.cancel();
    let report = session.finish();
    assert!(matches!(report.ending, TargetEnding::Blank(_)), "{}", report.ending);
}

#[test]
fn a_device_that_was_moved_is_not_said_to_be_back() {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let source = source(plain(), ours);
    let target = target(Arc::new(Panics(plain())), theirs);
    let loading = |event: &SessionEvent| {
        matches!(event, SessionEvent::Notice(Notice::Phase { phase: Phase::PreCopy, .. }))
    };
    while !loading(&target.wait_event(None).expect("it goes to RESUMING")) {}
    source.cancel();
    let report = target.finish();
    assert!(matches!(report.ending, TargetEnding::NotBlank(_)), "{}", report.ending);
    assert_eq!(report.devices[0].state, None);
    assert!(matches!(source.finish().ending, SourceEnding::Returned(_)));
}

#[test]
fn after_the_targets_word_the_devices_were_handed_over() {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let source = source(Arc::new(Panics(plain())), ours);
    let target = target(plain(), theirs);
    source.switchover();
    let report = source.finish();
    assert_eq!(report.ending, SourceEnding::HandedOver);
    assert_eq!(report.devices[0].state, None);
    assert_eq!(target.finish().ending, TargetEnding::Running);
}
