//! A device whose code panics on the session's own thread: the session ends, and says that nobody
//! knows what became of the device. Never that it is back.

#[path = "../examples/demo/mod.rs"]
mod demo;

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, memfd_create};
use vfio_ferry::{
    Capabilities, Cause, DeviceOptions, DeviceState, MigrationDevice, Options, PrecopyInfo,
    SourceDevice, SourceEnding, SourceSession, TargetDevice, TargetEnding, TargetSession,
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
fn before_the_handover_a_source_is_not_said_to_be_back() {
    let (ours, _theirs) = UnixStream::pair().expect("sockets");
    let session = source(Arc::new(Panics(plain())), ours);
    session.cancel();
    let report = session.finish();
    let SourceEnding::NotReturned(fault) = &report.ending else { panic!("{}", report.ending) };
    assert_eq!(fault.cause, Cause::Local);
    assert_eq!(report.devices[0].state, None);
}

#[test]
fn after_the_handover_a_source_is_unconfirmed() {
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let source = source(Arc::new(Panics(plain())), ours);
    let target = target(plain(), theirs);
    source.switchover();
    let report = source.finish();
    assert!(matches!(report.ending, SourceEnding::Unconfirmed(_)), "{}", report.ending);
    assert_eq!(report.devices[0].state, None);
    assert_eq!(target.finish().ending, TargetEnding::Running);
}

#[test]
fn a_target_is_not_said_to_be_blank() {
    let (ours, _theirs) = UnixStream::pair().expect("sockets");
    let session = target(Arc::new(Panics(plain())), ours);
    session.cancel();
    let report = session.finish();
    assert!(matches!(report.ending, TargetEnding::NotBlank(_)), "{}", report.ending);
    assert_eq!(report.devices[0].state, None);
}
