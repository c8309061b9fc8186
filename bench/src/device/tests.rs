//! The double keeps what a real device does: data, ends, resets, and who hears of them.

use super::*;
use crate::engine::DeviceState::{PreCopy, Resuming, Running, Stop, StopCopy};
use crate::spec::{DataKind, ResetAt, Size};

const STATE_BYTES: u64 = 3_000_001;

fn device(reset: Option<ResetAt>, dirty_rate: Option<u64>) -> TestDevice {
    TestDevice::new(DeviceConfig {
        index: 0,
        state_bytes: STATE_BYTES,
        content: content(),
        dirty_rate: dirty_rate.map(Rate),
        device_rate: None,
        reset: reset.map(ResetPlan),
    })
}

fn content() -> Content {
    Content::new(&DataKind::Structured).unwrap_or_else(|e| panic!("{e}"))
}

fn enter(device: &TestDevice, state: DeviceState) -> OwnedFd {
    let fd = device.set_state(state).unwrap_or_else(|e| panic!("{state}: {e}"));
    fd.unwrap_or_else(|| panic!("{state} gave no fd"))
}

fn read(device: &TestDevice, fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, i32> {
    let result = rustix::io::read(fd, buffer).map_err(io::Error::from);
    device.observe(result).map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// Reads until something other than data comes; an EAGAIN is waited out.
fn read_all(device: &TestDevice, fd: &OwnedFd, data: &mut Vec<u8>) -> Result<(), i32> {
    let mut buffer = vec![0; 100_000];
    loop {
        match read(device, fd, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => data.extend_from_slice(&buffer[..count]),
            Err(errno) if errno == Errno::AGAIN.raw_os_error() => std::thread::yield_now(),
            Err(errno) => return Err(errno),
        }
    }
}

fn expected(generation: u8, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let filled = content().fill(Origin { device: 0, generation }, 0, &mut bytes);
    filled.unwrap_or_else(|e| panic!("{e}"));
    bytes
}

fn digest(data: &[u8]) -> Option<u128> {
    Some(xxhash_rust::xxh3::xxh3_128(data))
}

const NODEV: i32 = Errno::NODEV.raw_os_error();
const NOMSG: i32 = Errno::NOMSG.raw_os_error();

#[test]
fn stop_copy_gives_the_state_then_its_end_again_and_again() {
    let device = device(None, None);
    assert_eq!(device.stop_copy_length().ok(), Some(STATE_BYTES));
    let fd = enter(&device, StopCopy);
    let mut data = Vec::new();
    assert_eq!(read_all(&device, &fd, &mut data), Ok(()));
    assert_eq!(read(&device, &fd, &mut [0; 8]), Ok(0));
    assert!(data == expected(0, STATE_BYTES as usize));
    assert_eq!(device.stop_copy_length().ok(), Some(0));
    assert!(device.set_state(Stop).is_ok_and(|fd| fd.is_none()));
    assert_eq!(device.passed(), Passed { bytes: STATE_BYTES, digest: digest(&data) });
}

#[test]
fn precopy_is_released_by_its_ioctl_and_ends_in_stop_copy_on_the_same_fd() {
    let device = device(None, Some(100_000_000));
    let fd = enter(&device, PreCopy);
    let initial = STATE_BYTES / 4 * 3;
    let info = || {
        use std::os::fd::AsFd;
        device.precopy_info(fd.as_fd()).unwrap_or_else(|e| panic!("{e}"))
    };
    assert_eq!(info().initial_bytes, initial);
    let mut data = Vec::new();
    assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
    assert_eq!(data.len() as u64, initial);
    // Drained for as long as nobody asks.
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(read(&device, &fd, &mut [0; 8]), Err(NOMSG));
    let dirty = info();
    assert!(dirty.initial_bytes == 0 && dirty.dirty_bytes >= 400_000, "{dirty:?}");
    assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
    assert_eq!(data.len() as u64, initial + dirty.dirty_bytes);
    // The device runs until here.
    let rest = device.stop_copy_length().unwrap_or(0);
    assert!(rest >= STATE_BYTES - initial);
    assert!(device.set_state(StopCopy).is_ok_and(|fd| fd.is_none()));
    assert_eq!(read_all(&device, &fd, &mut data), Ok(()));
    assert!(data.len() as u64 >= STATE_BYTES + dirty.dirty_bytes);
    assert!(data == expected(0, data.len()));
    assert_eq!(device.passed().digest, digest(&data));
}

#[test]
fn a_reset_is_enodev_and_a_new_session_has_other_content() {
    for at in [ResetAt::PreCopy, ResetAt::Bytes(Size(400_000))] {
        let device = device(Some(at), None);
        let fd = enter(&device, PreCopy);
        let mut data = Vec::new();
        assert_eq!(read_all(&device, &fd, &mut data), Err(NODEV), "{at:?}");
        assert_eq!(device.state().ok(), Some(Running));
        assert_eq!(read(&device, &fd, &mut [0; 8]), Err(NODEV));
        use std::os::fd::AsFd;
        let info = device.precopy_info(fd.as_fd()).map_err(|error| error.raw_os_error());
        assert_eq!(info, Err(Some(Errno::INVAL.raw_os_error())));
        assert_eq!(device.passed().digest, None);
        drop(fd);
        let fd = enter(&device, StopCopy);
        data.clear();
        assert_eq!(read_all(&device, &fd, &mut data), Ok(()));
        assert!(data == expected(1, STATE_BYTES as usize));
        assert_eq!((device.resets(), device.passed().digest), (1, digest(&data)));
    }
}

#[test]
fn a_reset_at_switchover_shows_as_a_new_fd() {
    let device = device(Some(ResetAt::Stop), None);
    let old = enter(&device, PreCopy);
    let mut data = Vec::new();
    assert_eq!(read_all(&device, &old, &mut data), Err(NOMSG));
    let new = enter(&device, StopCopy);
    drop(old);
    data.clear();
    assert_eq!(read_all(&device, &new, &mut data), Ok(()));
    assert!(data == expected(1, STATE_BYTES as usize));
}

#[test]
fn a_reset_wakes_a_waiting_reader() {
    let device = Arc::new(device(None, None));
    let fd = enter(&device, PreCopy);
    let mut data = Vec::new();
    assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
    rustix::io::ioctl_fionbio(&fd, false).unwrap_or_else(|e| panic!("{e}"));
    let other = Arc::clone(&device);
    let reader = std::thread::spawn(move || read(&other, &fd, &mut [0; 8]));
    std::thread::sleep(Duration::from_millis(20));
    assert!(device.reset().is_ok());
    assert_eq!(reader.join().unwrap_or(Ok(1)), Err(NODEV));
}

fn write(device: &TestDevice, fd: &OwnedFd, bytes: &[u8]) -> Result<usize, i32> {
    let result = rustix::io::write(fd, bytes).map_err(io::Error::from);
    device.observe(result).map_err(|error| error.raw_os_error().unwrap_or(0))
}

fn write_all(device: &TestDevice, fd: &OwnedFd, mut bytes: &[u8]) -> Result<(), i32> {
    while !bytes.is_empty() {
        bytes = &bytes[write(device, fd, bytes)?..];
    }
    Ok(())
}

#[test]
fn resuming_takes_a_whole_state_and_nothing_less() {
    let device = device(None, None);
    let state = expected(0, STATE_BYTES as usize);
    let fd = enter(&device, Resuming);
    assert_eq!(write_all(&device, &fd, &state[..1_000_000]), Ok(()));
    let early = device.set_state(Running).map_err(|error| error.raw_os_error());
    assert!(matches!(early, Err(Some(errno)) if errno == Errno::INVAL.raw_os_error()));
    assert_eq!(device.state().ok(), Some(Resuming));
    // The rest may follow, and the fd may still be open on leaving.
    assert_eq!(write_all(&device, &fd, &state[1_000_000..]), Ok(()));
    assert!(device.set_state(Running).is_ok());
    assert_eq!(device.passed(), Passed { bytes: STATE_BYTES, digest: digest(&state) });
}

#[test]
fn a_silent_reset_in_resuming_shows_in_the_state_alone() {
    let device = device(Some(ResetAt::Load), None);
    let state = expected(0, STATE_BYTES as usize);
    let fd = enter(&device, Resuming);
    assert_eq!(write_all(&device, &fd, &state), Ok(()));
    assert_eq!(device.state().ok(), Some(Running));
    assert!(device.set_state(Running).is_ok_and(|fd| fd.is_none()));
    assert_eq!(device.passed().digest, None);
    assert_eq!(write(&device, &fd, &[0; 8]), Err(NODEV));
}

#[test]
fn a_discarded_epoch_leaves_no_byte_in_the_next_one() {
    let device = device(None, None);
    let state = expected(1, STATE_BYTES as usize);
    let fd = enter(&device, Resuming);
    assert_eq!(write_all(&device, &fd, &[7; 500_000]), Ok(()));
    drop(fd);
    assert!(device.reset().is_ok());
    let fd = enter(&device, Resuming);
    assert_eq!(write_all(&device, &fd, &state), Ok(()));
    drop(fd);
    assert!(device.set_state(Running).is_ok());
    assert_eq!(device.passed(), Passed { bytes: STATE_BYTES, digest: digest(&state) });
}

#[test]
fn the_device_rate_holds() {
    let config =
        DeviceConfig { device_rate: Some(Rate(30_000_000)), ..device(None, None).config.clone() };
    let device = TestDevice::new(config);
    let started = std::time::Instant::now();
    let fd = enter(&device, StopCopy);
    assert_eq!(read_all(&device, &fd, &mut Vec::new()), Ok(()));
    let rate = STATE_BYTES as f64 / started.elapsed().as_secs_f64();
    // The last piece need not be waited for.
    assert!((10e6..35e6).contains(&rate), "{rate:.0} B/s");
}
