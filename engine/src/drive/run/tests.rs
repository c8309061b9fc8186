//! Single actions, carried out by a drive whose thread is the test's.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::start::Shared;
use super::*;
use crate::drive::devices::Tools;
use crate::drive::devices::tests::double;
use crate::errno::EINPROGRESS;
use crate::ids::{Epoch, SlotId, StreamId};
use crate::limits::{CHUNK_BYTES_MIN, MESSAGES_WAITING_MAX};
use crate::machine::{Command, Goal, Outgoing, PeerConfig, ReadResult, TimeLimits};
use crate::receiver::ReceiverConfig;
use crate::ring::BackendChoice;
use crate::threads::Threads;
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::DeviceState;
use crate::wire::{DataPhase, Frame, Offer, WireLimits};

const DEVICE: DeviceId = DeviceId(0);

/// A target's drive with one device, and the peer's end of its stream.
fn drive() -> (Drive, OwnedFd) {
    drive_of(double(|_, result| result))
}

fn drive_of(device: Arc<dyn MigrationDevice>) -> (Drive, OwnedFd) {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("sockets");
    let machine = Receiver::new(ReceiverConfig {
        devices: Vec::new(),
        peer: PeerConfig { streams: 1, silence_ns: u64::MAX / 4 },
        chunk_bytes: CHUNK_BYTES_MIN as u32,
        workers: 1,
        slots_per_device: 2,
        limits: TimeLimits::only_cancel(1_000_000_000),
    });
    let config = DriveConfig {
        machines: Machines::Target(Box::new(machine)),
        devices: vec![Found { device, state: DeviceState::Running, goal: Goal::Blank }],
        sockets: vec![ours.into()],
        slots: 4,
        chunk_bytes: CHUNK_BYTES_MIN,
        crew: Crew::Own(1),
        share: None,
        backend: BackendChoice::Auto,
        zero_copy: false,
        cancel_bound: Duration::from_secs(2),
        wire_limits: WireLimits::from(&Offer::new(1, 1, CHUNK_BYTES_MIN)),
        threads: Threads::default(),
        learned: None,
    };
    let shared = Shared::new(1, 1).expect("an eventfd");
    (Drive::open(config, &shared).expect("a drive"), theirs)
}

fn read(slot: u32, phase: DataPhase) -> Action {
    let bytes = CHUNK_BYTES_MIN as u32;
    Action::Read { device: DEVICE, slot: SlotId(slot), bytes, phase }
}

#[test]
fn an_fd_that_is_dropped_is_closed() {
    let (mut drive, _peer) = drive();
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drive.devices[DEVICE.index()].fresh = Some(reader);
    assert_eq!(rustix::io::write(&writer, b"open"), Ok(4));
    drive.act(0, Action::DropFd { device: DEVICE });
    assert_eq!(rustix::io::write(&writer, b"closed"), Err(rustix::io::Errno::PIPE));
}

#[test]
fn an_fd_that_is_detached_is_closed() {
    let (mut drive, _peer) = drive();
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drive.devices[DEVICE.index()].fresh = Some(reader);
    drive.act(0, Action::Attach { device: DEVICE, epoch: Epoch(7) });
    drive.act(0, Action::Detach { device: DEVICE });
    match drive.data_events.pop_front() {
        Some(DataEvent::Closed { device: DEVICE, awaited: true }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(rustix::io::write(&writer, b"closed"), Err(rustix::io::Errno::PIPE));
}

#[test]
fn a_read_that_nobody_does_comes_back_with_its_slot() {
    let (mut drive, _peer) = drive();
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drive.devices[DEVICE.index()].fresh = Some(reader);
    drive.act(0, Action::Attach { device: DEVICE, epoch: Epoch(7) });
    drive.act(0, Action::Detach { device: DEVICE });
    drive.act(0, read(1, DataPhase::PreCopy));
    match drive.caused.pop_front() {
        Some(Event::Read {
            device: DEVICE,
            epoch: Epoch(7),
            slot: SlotId(1),
            result: ReadResult::Cancelled,
        }) => {}
        other => panic!("{other:?}"),
    }
    assert!(drive.slots.take(SlotId(1)).is_some(), "the slot is not here");
}

#[test]
fn a_message_that_is_sent_makes_room_for_another() {
    let (mut drive, _peer) = drive();
    assert!((0..MESSAGES_WAITING_MAX).all(|_| drive.message_budget.take()));
    let mut send = |frame| {
        let what = Outgoing::Frame(frame);
        drive.act(0, Action::Send { stream: StreamId(0), what });
        drive.wait(None);
        drive.message_budget.take()
    };
    assert!(!send(Frame::Ping(0)), "a ping is no message");
    assert!(send(Frame::Message(Bytes::from_static(b"the VMM's"))));
}

/// A data fd in which the driver holds a read.
fn held(drive: &mut Drive, epoch: u32) -> OwnedFd {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drive.devices[DEVICE.index()].fresh = Some(reader);
    drive.act(0, Action::Attach { device: DEVICE, epoch: Epoch(epoch) });
    rustix::io::write(&writer, b"state").expect("the pipe is open");
    drive.act(0, read(epoch, DataPhase::StopCopy));
    drive.wait(None);
    writer
}

#[test]
fn the_end_of_an_fd_that_was_given_up_is_not_the_next_ones() {
    let (mut drive, _peer) = drive_of(double(|n, result| match n {
        // The first one is held until it is asked for the fourth time.
        1..=3 => Err(std::io::Error::from_raw_os_error(EINPROGRESS)),
        _ => result,
    }));
    let _first = held(&mut drive, 0);
    drive.act(0, Action::Detach { device: DEVICE });
    assert!(drive.devices[DEVICE.index()].data.is_detaching());
    assert!(drive.devices[DEVICE.index()].data.give_up(u64::MAX), "its time is over");
    drive.take_data_event(DataEvent::Closed { device: DEVICE, awaited: false });
    assert!(drive.caused.is_empty(), "nobody waits for it");
    assert!(drive.devices[DEVICE.index()].is_late());
    while drive.devices[DEVICE.index()].is_late() {
        drive.look_at_the_clock();
    }
}

#[test]
fn the_loop_sleeps_until_the_first_of_its_deadlines() {
    let (mut drive, _peer) = drive();
    let at = |s: u64| now_ns() + s * 1_000_000_000;
    let between = |left: Option<Duration>, from, to| {
        let left = left.expect("a deadline").as_secs_f64();
        assert!((from..to).contains(&left), "{left} s");
    };
    drive.linger_until_ns = Some(at(30_000));
    between(drive.timeout(), 20_000.0, 30_001.0);
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drive.devices[DEVICE.index()].fresh = Some(reader);
    drive.act(0, Action::Attach { device: DEVICE, epoch: Epoch(2) });
    drive.act(0, read(1, DataPhase::StopCopy));
    let device = &mut drive.devices[DEVICE.index()];
    let mut ring = drive.ring.borrow_mut();
    let (zeros, events) = (&mut drive.zeros, &mut drive.data_events);
    let mut tools = Tools { ring: &mut **ring, zeros, events, now_ns: now_ns() };
    device.data.detach(at(20_000), &mut tools);
    drop(ring);
    between(drive.timeout(), 10_000.0, 20_001.0);
    drive.live.touch();
    assert_eq!(drive.timeout(), Some(Duration::ZERO), "figures were never published");
}

#[test]
fn the_ring_has_room_for_all_that_may_be_in_flight() {
    use super::start::{files, operations};
    assert_eq!((operations(1, 0), files(1, 0)), (2, 1), "a send and a receive");
    // Four data fds a device, each with a read or write, and a watch.
    assert_eq!((operations(0, 1), files(0, 1)), (8, 4));
    assert_eq!((operations(3, 5), files(3, 5)), (6 + 40, 3 + 20));
}

#[test]
fn a_device_is_released_once_and_not_while_its_data_fd_is_attached() {
    let (mut drive, _peer) = drive();
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    drive.devices[DEVICE.index()].fresh = Some(reader);
    drive.act(0, Action::Attach { device: DEVICE, epoch: Epoch(0) });
    assert!(drive.devices[DEVICE.index()].release().is_none(), "its data fd is attached");
    drive.act(0, Action::Detach { device: DEVICE });
    let released = drive.devices[DEVICE.index()].release().expect("nothing of it is left");
    assert!(released.recv().is_err(), "its thread has ended");
    assert!(drive.devices[DEVICE.index()].release().is_none(), "it was released");
}

#[test]
fn a_device_is_told_once_that_its_session_is_ending() {
    let device = double(|_, result| result);
    let (mut drive, _peer) = drive_of(device.clone());
    drive.feed(Event::Start);
    assert_eq!(device.interrupts(), 0);
    drive.feed(Event::Command(Command::Cancel));
    assert_eq!(device.interrupts(), 1);
    drive.feed(Event::Tick);
    assert_eq!(device.interrupts(), 1);
}
