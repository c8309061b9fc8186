use std::os::fd::AsFd;

use super::*;
use DeviceState::{PreCopy, Resuming, Running, Stop, StopCopy};

fn plan(conduit: Conduit, drained: Drained) -> Plan {
    Plan {
        conduit,
        drained,
        initial_bytes: 100_000,
        rounds: vec![
            Round { bytes: 5_000, reinit: false },
            Round { bytes: 3_000, reinit: true },
            Round { bytes: 2_000, reinit: false },
        ],
        rest_bytes: 300_001,
        piece_bytes: Some(7_000),
        ..Plan::default()
    }
}

fn enter(device: &TestDevice, state: DeviceState) -> OwnedFd {
    let fd = device.set_state(state).expect("a legal arc").expect("an fd");
    rustix::io::ioctl_fionbio(&fd, true).expect("O_NONBLOCK");
    fd
}

fn errno(error: io::Error) -> i32 {
    error.raw_os_error().expect("the kernel's")
}

/// Reads until 0 or an error.
fn read_all(device: &TestDevice, fd: &OwnedFd, into: &mut Vec<u8>) -> Result<(), i32> {
    let mut buffer = [0; 10_000];
    loop {
        let result = rustix::io::read(fd, &mut buffer).map_err(io::Error::from);
        match device.observe(result).map_err(errno)? {
            0 => return Ok(()),
            bytes => into.extend_from_slice(&buffer[..bytes]),
        }
    }
}

const NOMSG: i32 = Errno::NOMSG.raw_os_error();
const NODEV: i32 = Errno::NODEV.raw_os_error();
const INVAL: i32 = Errno::INVAL.raw_os_error();

#[test]
fn precopy_is_released_by_its_ioctl_and_stop_copy_gives_the_rest_on_the_same_fd() {
    for (conduit, drained) in [
        (Conduit::Pipe, Drained::NoMsg),
        (Conduit::Pipe, Drained::Zero),
        (Conduit::File, Drained::NoMsg),
        (Conduit::File, Drained::Zero),
    ] {
        let dry = if drained == Drained::Zero { Ok(()) } else { Err(NOMSG) };
        let device = TestDevice::new(plan(conduit, drained));
        let fd = enter(&device, PreCopy);
        let info = || device.precopy_info(fd.as_fd()).expect("in PRE_COPY");
        let mut data = Vec::new();
        assert_eq!(info(), PrecopyInfo { initial_bytes: 100_000, dirty_bytes: 0, reinit: false });
        assert_eq!(read_all(&device, &fd, &mut data), dry);
        assert_eq!(read_all(&device, &fd, &mut data), dry, "for as long as nobody asks");
        assert_eq!(data.len(), 100_000);
        assert_eq!(info(), PrecopyInfo { initial_bytes: 0, dirty_bytes: 5_000, reinit: false });
        assert_eq!(read_all(&device, &fd, &mut data), dry);
        assert_eq!(info(), PrecopyInfo { initial_bytes: 3_000, dirty_bytes: 0, reinit: true });
        assert_eq!(read_all(&device, &fd, &mut data), dry);
        assert_eq!(data.len(), 108_000);
        assert_eq!(device.stop_copy_length().expect("known"), 302_001);
        assert!(device.set_state(StopCopy).expect("legal").is_none());
        assert_eq!(read_all(&device, &fd, &mut data), Ok(()));
        assert_eq!(read_all(&device, &fd, &mut data), Ok(()), "the end repeats");
        assert!(data == device.plan.content.bytes(device.plan.total_bytes()));
        let passed = device.passed();
        assert_eq!((passed.bytes, passed.digest.is_some()), (data.len() as u64, true));
        assert_eq!(device.violations(), [""; 0]);
    }
}

#[test]
fn after_a_reset_the_fd_is_dead_and_the_next_session_is_another() {
    for conduit in [Conduit::Pipe, Conduit::File] {
        let device = TestDevice::new(Plan {
            reset_at: Some(ResetAt::Read(50_000)),
            ..plan(conduit, Drained::Zero)
        });
        let old = enter(&device, PreCopy);
        let mut data = Vec::new();
        assert_eq!(read_all(&device, &old, &mut data), Err(NODEV));
        assert_eq!(device.state_now(), Running);
        let asked = device.precopy_info(old.as_fd()).map_err(errno);
        assert_eq!(asked, Err(INVAL));
        // The kernel's own rule: a second user of the device is another thread.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let new = enter(&device, StopCopy);
                let mut again = Vec::new();
                assert_eq!(read_all(&device, &new, &mut again), Ok(()));
                assert_eq!(again.len() as u64, device.plan.total_bytes());
                assert_ne!(again[8192..data.len()], data[8192..]);
            });
        });
        assert_eq!(read_all(&device, &old, &mut data), Err(NODEV));
    }
}

#[test]
fn a_deferred_reset_leaves_a_stale_state_or_a_dead_fd() {
    let device = TestDevice::new(plan(Conduit::Pipe, Drained::NoMsg));
    let _fd = enter(&device, PreCopy);
    device.reset_deferred();
    assert_eq!(device.state().expect("stale"), PreCopy);
    assert_eq!(device.state().expect("settled"), Running);
    device.reset_deferred();
    let fd = enter(&device, StopCopy);
    assert_eq!(read_all(&device, &fd, &mut Vec::new()), Err(NODEV));
}

fn write_all(device: &TestDevice, fd: &OwnedFd, mut bytes: &[u8]) -> Result<(), i32> {
    while !bytes.is_empty() {
        let result = rustix::io::write(fd, bytes).map_err(io::Error::from);
        bytes = &bytes[device.observe(result).map_err(errno)?..];
    }
    Ok(())
}

#[test]
fn resuming_takes_a_whole_state_and_nothing_less() {
    for conduit in [Conduit::Pipe, Conduit::File] {
        let source = plan(conduit, Drained::Zero);
        let state = source.content.bytes(source.total_bytes());
        let device = TestDevice::new(Plan { keeps: true, ..source.target() });
        let fd = enter(&device, Resuming);
        assert_eq!(write_all(&device, &fd, &state[..200_000]), Ok(()));
        assert_eq!(device.set_state(Running).map_err(errno).err(), Some(INVAL));
        assert_eq!((device.state_now(), device.holding()), (Resuming, Holding::Partial));
        assert_eq!(write_all(&device, &fd, &state[200_000..]), Ok(()));
        assert!(device.set_state(Stop).is_ok());
        assert_eq!(device.holding(), Holding::Loaded(device.passed()));
        assert!(device.kept() == state);
    }
}

#[test]
fn a_reset_in_resuming_shows_in_the_state_alone() {
    let source = plan(Conduit::Pipe, Drained::Zero);
    let state = source.content.bytes(source.total_bytes());
    let reset_at = Some(ResetAt::Written(source.total_bytes()));
    let device = TestDevice::new(Plan { reset_at, ..source.target() });
    let fd = enter(&device, Resuming);
    assert_eq!(write_all(&device, &fd, &state), Ok(()));
    assert_eq!((device.state_now(), device.holding()), (Running, Holding::Blank));
    assert!(device.set_state(Running).expect("it says nothing").is_none());
    assert_eq!(write_all(&device, &fd, &[1]), Err(NODEV));
}

#[test]
fn a_second_reader_is_seen() {
    let device = TestDevice::new(plan(Conduit::File, Drained::Zero));
    let fd = enter(&device, StopCopy);
    let read = |bytes: usize| {
        let mut buffer = vec![0; bytes];
        device.observe(rustix::io::read(&fd, &mut buffer).map_err(io::Error::from))
    };
    assert!(read(10).is_ok());
    std::thread::scope(|scope| assert!(scope.spawn(|| read(10)).join().is_ok()));
    assert_eq!(device.violations().len(), 1);
}
