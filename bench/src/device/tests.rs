//! The double keeps what a real device does: data, ends, resets, and who sees them.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use DeviceState::{PreCopy, Resuming, Running, Stop, StopCopy};

use super::*;
use crate::data::Content;
use crate::spec::Rate;

/// Every way in which a data fd can be one.
const FDS: [(Conduit, Drained); 6] = [
    (Conduit::Pipe, Drained::NoMsg),
    (Conduit::Pipe, Drained::Zero),
    (Conduit::File, Drained::NoMsg),
    (Conduit::File, Drained::Zero),
    (Conduit::Memory, Drained::NoMsg),
    (Conduit::Memory, Drained::Zero),
];

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

fn enter(device: &Double, state: DeviceState) -> OwnedFd {
    let fd = device.set_state(state).unwrap_or_else(|e| panic!("{state}: {e}"));
    let fd = fd.unwrap_or_else(|| panic!("{state} gave no fd"));
    rustix::io::ioctl_fionbio(&fd, true).unwrap_or_else(|e| panic!("{e}"));
    fd
}

fn errno(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| panic!("{error} is not the kernel's"))
}

fn read(device: &Double, fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, i32> {
    let result = rustix::io::read(fd, buffer).map_err(io::Error::from);
    device.observe(fd.as_fd(), result).map_err(errno)
}

/// Reads until something other than data comes; an EAGAIN is waited out.
fn read_all(device: &Double, fd: &OwnedFd, data: &mut Vec<u8>) -> Result<(), i32> {
    let mut buffer = vec![0; 100_000];
    loop {
        match read(device, fd, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => data.extend_from_slice(&buffer[..count]),
            Err(errno) if errno == AGAIN => thread::yield_now(),
            Err(errno) => return Err(errno),
        }
    }
}

/// Writes all; a full pipe is waited out.
fn write_all(device: &Double, fd: &OwnedFd, mut bytes: &[u8]) -> Result<(), i32> {
    while !bytes.is_empty() {
        let result = rustix::io::write(fd, bytes).map_err(io::Error::from);
        match device.observe(fd.as_fd(), result).map_err(errno) {
            Ok(written) => bytes = &bytes[written..],
            Err(errno) if errno == AGAIN => thread::yield_now(),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Runs what is done with a session after the first one, as the engine does: in another thread.
fn elsewhere(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        scope.spawn(work);
    });
}

fn expected(generation: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    let filled = Content::structured().fill(Origin { device: 0, generation }, 0, &mut bytes);
    filled.unwrap_or_else(|e| panic!("{e}"));
    bytes
}

fn whole(data: &[u8]) -> Passed {
    Passed { bytes: data.len() as u64, digest: Some(xxhash_rust::xxh3::xxh3_128(data)) }
}

const AGAIN: i32 = Errno::AGAIN.raw_os_error();
const NODEV: i32 = Errno::NODEV.raw_os_error();
const NOMSG: i32 = Errno::NOMSG.raw_os_error();
const INVAL: i32 = Errno::INVAL.raw_os_error();

#[test]
fn stop_copy_gives_the_state_then_its_end_again_and_again() {
    for (conduit, drained) in FDS {
        let device = Double::new(plan(conduit, drained));
        let total = device.plan().total_bytes();
        assert_eq!(device.stop_copy_length().ok(), Some(total));
        let fd = enter(&device, StopCopy);
        let mut data = Vec::new();
        assert_eq!(read_all(&device, &fd, &mut data), Ok(()));
        assert_eq!(read(&device, &fd, &mut [0; 8]), Ok(0));
        assert!(data == expected(0, total));
        assert_eq!(device.stop_copy_length().ok(), Some(0));
        assert!(device.set_state(Stop).is_ok_and(|fd| fd.is_none()));
        assert_eq!(device.passed(), whole(&data));
    }
}

#[test]
fn precopy_is_released_by_its_ioctl_and_stop_copy_gives_the_rest_on_the_same_fd() {
    for (conduit, drained) in FDS {
        let dry = if drained == Drained::Zero { Ok(()) } else { Err(NOMSG) };
        let device = Double::new(plan(conduit, drained));
        let fd = enter(&device, PreCopy);
        let info = || device.precopy_info(fd.as_fd()).unwrap_or_else(|e| panic!("{e}"));
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
        assert_eq!(device.passed(), Passed { bytes: 108_000, digest: None });
        assert_eq!(device.stop_copy_length().ok(), Some(302_001));
        assert!(device.set_state(StopCopy).is_ok_and(|fd| fd.is_none()));
        assert_eq!(read_all(&device, &fd, &mut data), Ok(()));
        assert!(data == expected(0, device.plan().total_bytes()));
        assert_eq!((device.passed(), device.strangers()), (whole(&data), 0));
    }
}

#[test]
fn a_round_that_lags_is_announced_first() {
    let device = Double::new(Plan { lags: true, ..plan(Conduit::File, Drained::NoMsg) });
    let fd = enter(&device, PreCopy);
    let mut data = Vec::new();
    for bytes in [100_000, 105_000] {
        assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
        assert_eq!(data.len(), bytes);
        for _announced_then_released in 0..2 {
            assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
            let info = device.precopy_info(fd.as_fd()).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(info.initial_bytes + info.dirty_bytes, [5_000, 3_000][bytes / 105_000]);
        }
    }
}

#[test]
fn a_running_device_gets_dirty_at_its_rate() {
    let device = Double::new(Plan {
        initial_bytes: 1_000_000,
        dirty_rate: Some(Rate(100_000_000)),
        ..Plan::default()
    });
    let fd = enter(&device, PreCopy);
    let info = || device.precopy_info(fd.as_fd()).unwrap_or_else(|e| panic!("{e}"));
    let mut data = Vec::new();
    assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
    thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(read(&device, &fd, &mut [0; 8]), Err(NOMSG));
    let dirty = info();
    assert!(dirty.initial_bytes == 0 && dirty.dirty_bytes >= 400_000, "{dirty:?}");
    assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
    assert_eq!(data.len() as u64, 1_000_000 + dirty.dirty_bytes);
    assert!(device.set_state(StopCopy).is_ok_and(|fd| fd.is_none()));
    assert_eq!(read_all(&device, &fd, &mut data), Ok(()));
    assert!(data.len() as u64 >= device.plan().total_bytes() + dirty.dirty_bytes);
    assert!(data == expected(0, data.len() as u64));
    assert_eq!(device.passed(), whole(&data));
}

#[test]
fn after_a_reset_the_fd_is_dead_and_the_next_session_is_another() {
    for (conduit, drained) in FDS {
        for at in [ResetAt::HalfOfInitial, ResetAt::Read(60_000)] {
            let device = Double::new(Plan { reset_at: Some(at), ..plan(conduit, drained) });
            let old = enter(&device, PreCopy);
            let mut data = Vec::new();
            assert_eq!(read_all(&device, &old, &mut data), Err(NODEV), "{at:?}");
            assert!((43_000..60_000).contains(&data.len()), "{at:?}: {}", data.len());
            assert_eq!(device.state_now(), Running);
            assert!(device.planned_reset_ns() > 0 && device.resets() == 1);
            assert_eq!(read(&device, &old, &mut [0; 8]), Err(NODEV));
            assert_eq!(device.precopy_info(old.as_fd()).map_err(errno), Err(INVAL));
            assert_eq!(device.passed().digest, None);
            elsewhere(|| {
                let new = enter(&device, StopCopy);
                let mut again = Vec::new();
                assert_eq!(read_all(&device, &new, &mut again), Ok(()));
                assert!(again == expected(1, device.plan().total_bytes()));
                assert_eq!(device.passed(), whole(&again));
            });
            assert_eq!(read(&device, &old, &mut [0; 8]), Err(NODEV), "whatever goes on");
        }
    }
}

#[test]
fn a_reset_at_switchover_shows_as_a_new_fd() {
    for (conduit, drained) in FDS {
        let reset_at = Some(ResetAt::Stopping);
        let device = Double::new(Plan { reset_at, ..plan(conduit, drained) });
        let old = enter(&device, PreCopy);
        let _dry = read_all(&device, &old, &mut Vec::new());
        let new = enter(&device, StopCopy);
        drop(old);
        elsewhere(|| {
            let mut data = Vec::new();
            assert_eq!(read_all(&device, &new, &mut data), Ok(()));
            assert!(data == expected(1, device.plan().total_bytes()));
        });
    }
}

#[test]
fn a_reset_half_way_through_the_rest_comes_after_the_stop() {
    let device = Double::new(Plan {
        reset_at: Some(ResetAt::HalfOfRest),
        ..plan(Conduit::Pipe, Drained::NoMsg)
    });
    let fd = enter(&device, PreCopy);
    let mut data = Vec::new();
    assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
    assert!(device.set_state(StopCopy).is_ok_and(|fd| fd.is_none()));
    assert_eq!(read_all(&device, &fd, &mut data), Err(NODEV));
    assert!((240_000..256_000).contains(&data.len()), "{}", data.len());
}

#[test]
fn a_reset_wakes_a_waiting_reader() {
    let device = Double::new(plan(Conduit::Pipe, Drained::NoMsg));
    let fd = enter(&device, PreCopy);
    let (mut data, drained) = (Vec::new(), AtomicBool::new(false));
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            assert_eq!(read_all(&device, &fd, &mut data), Err(NOMSG));
            drained.store(true, Ordering::Release);
            rustix::io::ioctl_fionbio(&fd, false).unwrap_or_else(|e| panic!("{e}"));
            read(&device, &fd, &mut [0; 8])
        });
        while !drained.load(Ordering::Acquire) && !reader.is_finished() {
            thread::yield_now();
        }
        assert!(device.reset().is_ok());
        assert_eq!(reader.join().unwrap_or(Ok(1)), Err(NODEV));
    });
}

#[test]
fn resuming_takes_a_whole_state_and_nothing_less() {
    for conduit in [Conduit::Pipe, Conduit::File, Conduit::Memory] {
        let source = plan(conduit, Drained::Zero);
        let state = expected(0, source.total_bytes());
        let device = Double::new(Plan { keeps: true, ..source.target() });
        let fd = enter(&device, Resuming);
        assert_eq!(write_all(&device, &fd, &state[..200_000]), Ok(()));
        assert_eq!(device.set_state(Running).map_err(errno).err(), Some(INVAL));
        assert_eq!(device.state_now(), Resuming);
        // The rest may follow, and the fd may still be open on leaving.
        assert_eq!(write_all(&device, &fd, &state[200_000..]), Ok(()));
        assert!(device.set_state(Running).is_ok());
        assert_eq!(device.passed(), whole(&state));
        assert!(device.kept() == state);
        assert!(device.reset().is_ok());
        assert_eq!(device.passed().digest, None, "it is gone");
    }
}

#[test]
fn a_silent_reset_in_resuming_shows_in_the_state_alone() {
    for conduit in [Conduit::Pipe, Conduit::File, Conduit::Memory] {
        let source = plan(conduit, Drained::Zero);
        let state = expected(0, source.total_bytes());
        let reset_at = Some(ResetAt::Written(source.total_bytes()));
        let device = Double::new(Plan { reset_at, ..source.target() });
        let fd = enter(&device, Resuming);
        assert_eq!(write_all(&device, &fd, &state), Ok(()));
        assert_eq!(device.state_now(), Running);
        assert!(device.set_state(Running).is_ok_and(|fd| fd.is_none()));
        assert_eq!(device.passed().digest, None);
        assert_eq!(write_all(&device, &fd, &[0; 8]), Err(NODEV));
    }
}

#[test]
fn a_discarded_epoch_leaves_no_byte_in_the_next_one() {
    let source = plan(Conduit::Pipe, Drained::Zero);
    let state = expected(1, source.total_bytes());
    let device = Double::new(source.target());
    let fd = enter(&device, Resuming);
    assert_eq!(write_all(&device, &fd, &[7; 150_000]), Ok(()));
    drop(fd);
    assert!(device.reset().is_ok());
    elsewhere(|| {
        let fd = enter(&device, Resuming);
        assert_eq!(write_all(&device, &fd, &state), Ok(()));
        drop(fd);
        assert!(device.set_state(Running).is_ok());
        assert_eq!(device.passed(), whole(&state));
    });
}

#[test]
fn what_stalls_gives_and_takes_no_more() {
    for conduit in [Conduit::Pipe, Conduit::File] {
        let stalls_at = Some(50_000);
        let device = Double::new(Plan { stalls_at, ..plan(conduit, Drained::NoMsg) });
        let fd = enter(&device, PreCopy);
        while device.passed().bytes < 50_000 {
            assert!(matches!(read(&device, &fd, &mut [0; 9000]), Ok(1..) | Err(AGAIN)));
        }
        assert_eq!(rustix::io::read(&fd, &mut [0; 8]).unwrap_or(0), 0);
        let device = Double::new(Plan { conduit, stalls_at, expects_bytes: 1, ..Plan::default() });
        let fd = enter(&device, Resuming);
        assert_eq!(write_all(&device, &fd, &[1; 60_000]), Ok(()));
        assert!(device.set_state(Running).is_ok());
        assert_eq!(device.passed().bytes, 50_000);
    }
}

#[test]
fn what_blocks_goes_on_when_it_is_released() {
    let device = Double::new(Plan {
        holds: Some(StopCopy),
        sticks_at: Some(100),
        ..plan(Conduit::File, Drained::NoMsg)
    });
    thread::scope(|scope| {
        let caller = scope.spawn(|| device.set_state(StopCopy).is_ok_and(|fd| fd.is_some()));
        thread::sleep(std::time::Duration::from_millis(5));
        assert!(!caller.is_finished());
        device.release();
        assert!(caller.join().is_ok_and(|opened| opened));
    });
    let device = Double::new(Plan { sticks_at: Some(100), ..plan(Conduit::File, Drained::NoMsg) });
    let fd = enter(&device, StopCopy);
    assert_eq!(read(&device, &fd, &mut [0; 99]), Ok(99));
    // What the driver holds is asked for again, with what the fd has given.
    let again = || device.observe(fd.as_fd(), Ok(1)).map_err(errno);
    let held = Err(Errno::INPROGRESS.raw_os_error());
    assert_eq!(read(&device, &fd, &mut [0; 1]), held);
    assert_eq!(again(), held);
    assert!(device.reset().is_ok(), "what is stuck holds nobody else up");
    assert_eq!(again(), held, "and is held still");
    device.release();
    assert_eq!(again(), Err(NODEV));
}

#[test]
fn a_second_user_is_seen() {
    let device = Double::new(plan(Conduit::File, Drained::Zero));
    let fd = enter(&device, StopCopy);
    assert!(read(&device, &fd, &mut [0; 10]).is_ok());
    assert_eq!(device.strangers(), 0);
    elsewhere(|| assert!(read(&device, &fd, &mut [0; 10]).is_ok()));
    assert_eq!(device.strangers(), 1);
}

#[test]
fn the_device_rate_holds() {
    const STATE_BYTES: u64 = 3_000_000;
    let device = Double::new(Plan {
        rest_bytes: STATE_BYTES,
        device_rate: Some(Rate(30_000_000)),
        ..Plan::default()
    });
    let started = std::time::Instant::now();
    let fd = enter(&device, StopCopy);
    assert_eq!(read_all(&device, &fd, &mut Vec::new()), Ok(()));
    let rate = STATE_BYTES as f64 / started.elapsed().as_secs_f64();
    // The last piece need not be waited for.
    assert!(rate < 35e6, "{rate:.0} B/s");
}

#[test]
fn memory_that_was_prepared_is_as_good_as_any() {
    for prepares in [true, false] {
        let memory = Plan { piece_bytes: None, ..plan(Conduit::Memory, Drained::Zero) };
        let (source, target) = (Double::new(memory.clone()), Double::new(memory.target()));
        for device in [&source, &target] {
            assert!(!prepares || device.prepare().is_ok());
        }
        let (from, to) = (enter(&source, PreCopy), enter(&target, Resuming));
        let mut data = Vec::new();
        assert_eq!(read_all(&source, &from, &mut data), Ok(()));
        assert_eq!(data.len(), 100_000, "PRE_COPY gives no more than its data");
        assert!(source.set_state(StopCopy).is_ok_and(|fd| fd.is_none()));
        assert_eq!(read_all(&source, &from, &mut data), Ok(()));
        assert_eq!(write_all(&target, &to, &data), Ok(()));
        assert!(target.set_state(Running).is_ok());
        assert_eq!((source.passed(), target.passed()), (whole(&data), whole(&data)));
    }
}

/// The file has bytes there, too: a digest over them would be one.
#[test]
fn memory_that_was_not_written_is_no_state() {
    let zeros = Plan { content: Content::zero(), ..plan(Conduit::Memory, Drained::Zero) };
    let target = Double::new(zeros.target());
    assert!(target.prepare().is_ok());
    let fd = enter(&target, Resuming);
    let total = zeros.total_bytes();
    assert_eq!(write_all(&target, &fd, &vec![0; total as usize - 5000]), Ok(()));
    assert_eq!(target.set_state(Running).map_err(errno).err(), Some(INVAL));
    // What was skipped is not zero.
    assert!(rustix::fs::seek(&fd, rustix::fs::SeekFrom::Current(4000)).is_ok());
    assert_eq!(write_all(&target, &fd, &[0; 1000]), Ok(()));
    assert!(target.set_state(Running).is_ok());
    assert_ne!(target.passed().digest, whole(&vec![0; total as usize]).digest);
}

#[test]
fn a_save_takes_its_time() {
    let save_latency = Duration::from_millis(20);
    let source = Double::new(Plan { save_latency, ..plan(Conduit::Pipe, Drained::Zero) });
    let begun = Instant::now();
    let fd = enter(&source, PreCopy);
    let mut data = Vec::new();
    assert_eq!(read_all(&source, &fd, &mut data), Ok(()));
    assert!(begun.elapsed() >= save_latency && data.len() == 100_000);
    let stopped = Instant::now();
    assert!(source.set_state(StopCopy).is_ok());
    assert_eq!(read_all(&source, &fd, &mut data), Ok(()));
    assert!(stopped.elapsed() >= save_latency && data == expected(0, data.len() as u64));
}

#[test]
fn a_save_ends_however_often_it_is_asked_for() {
    let save_latency = Duration::from_millis(20);
    let source = Double::new(Plan { save_latency, ..plan(Conduit::Pipe, Drained::Zero) });
    let fd = enter(&source, PreCopy);
    let readable = || {
        let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())) == Ok(1)
    };
    let asked = (0..1000).take_while(|_| {
        assert!(source.precopy_info(fd.as_fd()).is_ok_and(|info| info.initial_bytes > 0));
        std::thread::sleep(save_latency / 4);
        !readable()
    });
    assert!(asked.count() < 1000);
}

#[test]
fn an_arc_takes_its_time_and_nobody_else_waits() {
    let arc = |from, to, ms| ArcLatency { from, to, time: Duration::from_millis(ms) };
    let arc_latencies = vec![arc(Some(Running), Stop, 10), arc(None, StopCopy, 15)];
    let capabilities = Capabilities { p2p: false, precopy: true };
    let device =
        Double::new(Plan { arc_latencies, capabilities, ..plan(Conduit::Pipe, Drained::Zero) });
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| enter(&device, StopCopy));
        while device.state_now() != StopCopy {
            thread::yield_now();
        }
    });
    assert!(begun.elapsed() >= Duration::from_millis(25), "both arcs of the way");
    let begun = Instant::now();
    assert!(device.set_state(Stop).is_ok() && device.set_state(StopCopy).is_ok());
    assert!(begun.elapsed() >= Duration::from_millis(15));
}
