//! A fault comes where it is planned, and what it does not name goes through.

use super::*;
use crate::device::{Conduit, Double, Plan};

fn faulty(faults: Vec<DriverFault>) -> (Arc<Double>, Faulty) {
    let plan = Plan { conduit: Conduit::File, rest_bytes: 100_000, ..Plan::default() };
    let double = Arc::new(Double::new(plan));
    (double.clone(), Faulty::new(double, faults, Box::new(|_| {})))
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn a_fault_comes_where_and_as_often_as_it_is_planned() {
    let refused = Deed::Errno(Errno::IO.raw_os_error());
    let call = Call::SetState(DeviceState::PreCopy);
    let fault = DriverFault { call, deed: refused, skip: 1, times: 1 };
    let (double, device) = faulty(vec![fault]);
    assert!(device.set_state(DeviceState::PreCopy).is_ok());
    assert_eq!(errno(device.set_state(DeviceState::PreCopy)), Some(5));
    assert!(device.set_state(DeviceState::PreCopy).is_ok());
    assert_eq!(double.state_now(), DeviceState::PreCopy);
}

#[test]
fn error_is_left_by_a_reset_alone() {
    let call = Call::SetState(DeviceState::StopCopy);
    let (_, device) = faulty(vec![DriverFault::once(call, Deed::Error)]);
    assert_eq!(errno(device.set_state(DeviceState::StopCopy)), Some(5));
    assert_eq!(device.state().ok(), Some(DeviceState::Error));
    assert_eq!(errno(device.set_state(DeviceState::Running)), Some(5));
    assert!(device.reset().is_ok());
    assert_eq!(device.state().ok(), Some(DeviceState::Running));
}

#[test]
fn what_is_held_is_done_when_it_is_released() {
    let call = Call::SetState(DeviceState::StopCopy);
    let (double, device) = faulty(vec![DriverFault::always(call, Deed::Held)]);
    thread::scope(|scope| {
        let caller = scope.spawn(|| device.set_state(DeviceState::StopCopy).is_ok());
        thread::sleep(Duration::from_millis(5));
        assert_eq!(double.state_now(), DeviceState::Running);
        device.release();
        assert!(caller.join().is_ok_and(|done| done));
    });
    assert_eq!(double.state_now(), DeviceState::StopCopy);
}

#[test]
fn a_transfer_that_is_held_is_asked_for_again_until_it_is_released() {
    let call = Call::Transfer(0);
    let (_, device) = faulty(vec![DriverFault::once(call, Deed::Held)]);
    let fd = device.set_state(DeviceState::StopCopy).ok().flatten();
    let fd = fd.unwrap_or_else(|| panic!("no fd"));
    let read = rustix::io::read(&fd, &mut [0; 100]).unwrap_or_else(|error| panic!("{error}"));
    for _ in 0..3 {
        assert_eq!(
            errno(device.observe(fd.as_fd(), Ok(read))),
            Some(Errno::INPROGRESS.raw_os_error())
        );
    }
    device.release();
    assert!(device.observe(fd.as_fd(), Ok(read)).is_ok_and(|bytes| bytes == read));
}

#[test]
fn short_transfers_lose_nothing() {
    let short = DriverFault::always(Call::Transfer(0), Deed::Short(7_000));
    let (source, from) = faulty(vec![short.clone()]);
    let plan = Plan { expects_bytes: 100_000, ..source.plan().clone() };
    let target = Arc::new(Double::new(plan));
    let to = Faulty::new(target.clone(), vec![short], Box::new(|_| {}));
    let open = |device: &Faulty, state| {
        device.set_state(state).ok().flatten().unwrap_or_else(|| panic!("no fd"))
    };
    let (read_fd, write_fd) =
        (open(&from, DeviceState::StopCopy), open(&to, DeviceState::Resuming));
    let mut buffer = vec![0; 30_000];
    let count = |result: io::Result<usize>| result.unwrap_or_else(|error| panic!("{error}"));
    loop {
        let read = rustix::io::read(&read_fd, &mut buffer).map_err(io::Error::from);
        let read = count(from.observe(read_fd.as_fd(), read));
        if read == 0 {
            break;
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            let written = rustix::io::write(&write_fd, rest).map_err(io::Error::from);
            rest = &rest[count(to.observe(write_fd.as_fd(), written)).min(7_000)..];
        }
    }
    assert!(to.set_state(DeviceState::Stop).is_ok());
    assert!(source.passed().digest.is_some());
    assert_eq!(source.passed(), target.passed());
}

#[test]
fn a_read_that_fails_moves_nothing() {
    let again = Deed::Errno(Errno::AGAIN.raw_os_error());
    let (_, device) = faulty(vec![DriverFault::once(Call::Transfer(0), again)]);
    let fd = device.set_state(DeviceState::StopCopy).ok().flatten();
    let fd = fd.unwrap_or_else(|| panic!("no fd"));
    let read = || {
        let result = rustix::io::read(&fd, &mut [0; 60_000][..]).map_err(io::Error::from);
        device.observe(fd.as_fd(), result)
    };
    assert_eq!(errno(read()), Some(11));
    assert_eq!([read().ok(), read().ok(), read().ok()], [Some(60_000), Some(40_000), Some(0)]);
}

#[test]
fn an_endless_state_is_zeros() {
    let call = Call::SetState(DeviceState::StopCopy);
    let (_, device) = faulty(vec![DriverFault::once(call, Deed::Endless)]);
    let fd = device.set_state(DeviceState::StopCopy).ok().flatten();
    let fd = fd.unwrap_or_else(|| panic!("no fd"));
    let mut buffer = [7; 100];
    for _ in 0..3000 {
        let read = rustix::io::read(&fd, &mut buffer).map_err(io::Error::from);
        assert_eq!(device.observe(fd.as_fd(), read).ok(), Some(100));
    }
    assert_eq!(buffer, [0; 100]);
    assert!(device.set_state(DeviceState::Running).is_ok());
}
