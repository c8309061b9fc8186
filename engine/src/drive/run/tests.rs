//! Single actions, carried out by a drive whose thread is the test's.

use std::os::fd::OwnedFd;

use bytes::Bytes;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::start::Shared;
use super::*;
use crate::drive::devices::Detaching;
use crate::drive::devices::tests::double;
use crate::ids::{Epoch, SlotId, StreamId};
use crate::limits::{CHUNK_BYTES_MIN, MESSAGES_WAITING_MAX};
use crate::machine::{Goal, Outgoing, PeerConfig, ReadResult, TimeLimits};
use crate::outcome::{Cause, Fault, Observation};
use crate::receiver::ReceiverConfig;
use crate::ring::BackendChoice;
use crate::threads::Threads;
use crate::vfio::state::DeviceState;
use crate::wire::{DataPhase, Frame, Offer, WireLimits};

const DEVICE: DeviceId = DeviceId(0);

/// A target's drive with one device, and the peer's end of its stream.
fn drive() -> (Drive, OwnedFd) {
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
        devices: vec![Found {
            device: double(|_, result| result),
            state: DeviceState::Running,
            goal: Goal::Blank,
        }],
        sockets: vec![ours],
        slots: 4,
        chunk_bytes: CHUNK_BYTES_MIN,
        workers: 1,
        backend: BackendChoice::Auto,
        zero_copy: false,
        cancel_bound: Duration::from_secs(2),
        wire_limits: WireLimits::from(&Offer::new(1, 1, CHUNK_BYTES_MIN)),
        threads: Threads::default(),
    };
    let shared = Shared::new(1, 1).expect("an eventfd");
    (Drive::open(config, &shared).expect("a drive"), theirs)
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
    let awaited = drive.devices[DEVICE.index()].detaching.map(|detaching| detaching.epoch);
    assert_eq!(awaited, Some(Epoch(7)));
    match drive.inputs.recv() {
        Ok(Input::Detached { device: DEVICE, epoch: Epoch(7) }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(rustix::io::write(&writer, b"closed"), Err(rustix::io::Errno::PIPE));
}

#[test]
fn a_read_that_nobody_does_comes_back_with_its_slot() {
    let (mut drive, _peer) = drive();
    drive.devices[DEVICE.index()].epoch = Epoch(7);
    drive.act(0, Action::Read { device: DEVICE, slot: SlotId(1), phase: DataPhase::PreCopy });
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
        drive.streams.wait(None, || 0).expect("wait");
        drive.message_budget.take()
    };
    assert!(!send(Frame::Ping(0)), "a ping is no message");
    assert!(send(Frame::Message(Bytes::from_static(b"the VMM's"))));
}

#[test]
fn the_end_of_a_thread_that_was_given_up_is_not_the_next_ones() {
    let (mut drive, _peer) = drive();
    let detaching = Some(Detaching { epoch: Epoch(2), until_ns: u64::MAX });
    drive.devices[DEVICE.index()].detaching = detaching;
    drive.devices[DEVICE.index()].stuck = 1;
    drive.take(Input::Detached { device: DEVICE, epoch: Epoch(1) });
    assert_eq!(drive.devices[DEVICE.index()].stuck, 0);
    assert!(drive.devices[DEVICE.index()].detaching.is_some(), "the second one is still there");
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
    let detaching = Some(Detaching { epoch: Epoch(2), until_ns: at(20_000) });
    drive.devices[DEVICE.index()].detaching = detaching;
    between(drive.timeout(), 10_000.0, 20_001.0);
    drive.live.touch();
    assert_eq!(drive.timeout(), Some(Duration::ZERO), "figures were never published");
}

#[test]
fn a_data_fd_whose_thread_has_died_is_not_waited_for() {
    let (mut drive, _peer) = drive();
    let attach = |drive: &mut Drive, epoch| {
        let (reader, _) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        drive.devices[DEVICE.index()].fresh = Some(reader);
        drive.act(0, Action::Attach { device: DEVICE, epoch: Epoch(epoch) });
    };
    attach(&mut drive, 0);
    let fault = Fault::session(Cause::Local, Observation::Engine, "it died");
    drive.take(Input::Died { device: DEVICE, fault });
    assert!(drive.machines.machine().is_ending(), "the session is given up");
    attach(&mut drive, 1);
    drive.caused.clear();
    drive.act(0, Action::Detach { device: DEVICE });
    assert!(!drive.devices[DEVICE.index()].is_late());
    match drive.caused.pop_front() {
        Some(Event::Detached { device: DEVICE, stuck: true }) => {}
        other => panic!("{other:?}"),
    }
}
