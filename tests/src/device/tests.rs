use super::*;
use DeviceState::{PreCopy, Resuming, Running, Stop, StopCopy};
use rustix::io::Errno;
use std::os::fd::AsFd;

fn enter(device: &TestDevice, state: DeviceState) -> OwnedFd {
    let fd = device.set_state(state).expect("a legal arc").expect("an fd");
    rustix::io::ioctl_fionbio(&fd, true).expect("O_NONBLOCK");
    fd
}

fn read(device: &TestDevice, fd: &OwnedFd) -> Result<usize, Option<i32>> {
    let result = rustix::io::read(fd, &mut [0; 10]).map_err(io::Error::from);
    device.observe(fd.as_fd(), result).map_err(|error| error.raw_os_error())
}

const NODEV: Result<usize, Option<i32>> = Err(Some(Errno::NODEV.raw_os_error()));

#[test]
fn a_deferred_reset_leaves_a_stale_state_or_a_dead_fd() {
    let device = TestDevice::new(Plan { conduit: Conduit::File, ..Plan::default() });
    let _fd = enter(&device, PreCopy);
    device.reset_deferred();
    assert_eq!(device.state().expect("stale"), PreCopy);
    assert_eq!(device.state().expect("settled"), Running);
    device.reset_deferred();
    let fd = enter(&device, StopCopy);
    assert_eq!(read(&device, &fd), NODEV);
    assert_eq!((device.holding(), device.resets()), (Holding::Blank, 2));
}

#[test]
fn a_device_knows_whose_state_it_has() {
    let plan = Plan { conduit: Conduit::File, expects_bytes: 3, ..Plan::default() };
    let device = TestDevice::new(plan);
    assert_eq!(device.holding(), Holding::Own);
    let fd = enter(&device, Resuming);
    let write = |bytes: &[u8]| {
        let result = rustix::io::write(&fd, bytes).map_err(io::Error::from);
        assert_eq!(device.observe(fd.as_fd(), result).expect("it takes them"), bytes.len());
    };
    write(&[1, 2]);
    assert!(device.set_state(Running).is_err(), "a byte is missing");
    assert_eq!((device.state_now(), device.holding()), (Resuming, Holding::Partial));
    write(&[3]);
    assert!(device.set_state(Stop).is_ok());
    assert_eq!(device.holding(), Holding::Loaded(device.passed()));
    assert_eq!(device.passed().bytes, 3);
    assert!(device.set_state(Running).is_ok());
    assert_eq!(device.holding(), Holding::Loaded(device.passed()));
    assert!(device.reset().is_ok());
    assert_eq!(device.holding(), Holding::Blank);
    assert_eq!(device.trail(), [Resuming, Running, Stop, Running]);
}

#[test]
fn a_reset_in_resuming_is_silent_and_leaves_it_blank() {
    let reset_at = Some(ResetAt::Written(1));
    let device = TestDevice::new(Plan { conduit: Conduit::File, reset_at, ..Plan::default() });
    let fd = enter(&device, Resuming);
    let result = rustix::io::write(&fd, &[1]).map_err(io::Error::from);
    assert!(device.observe(fd.as_fd(), result).is_ok());
    assert!(device.set_state(Running).expect("it says nothing").is_none());
    assert_eq!(device.holding(), Holding::Blank);
}

#[test]
fn what_nobody_may_do_is_noted() {
    let device = TestDevice::new(Plan { conduit: Conduit::File, ..Plan::default() });
    let fd = enter(&device, StopCopy);
    assert!(read(&device, &fd).is_ok());
    assert_eq!(device.violations(), [""; 0]);
    std::thread::scope(|scope| assert!(scope.spawn(|| read(&device, &fd)).join().is_ok()));
    assert_eq!(device.violations().len(), 1);
    assert!(device.set_state(PreCopy).is_err());
    assert_eq!(device.violations().len(), 2);
}
