//! Single actions, carried out by a drive whose thread is the test's.

use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::drive::devices::tests::double;
use crate::ids::{Epoch, SlotId};
use crate::limits::CHUNK_BYTES_MIN;
use crate::machine::{PeerConfig, ReadResult};
use crate::metrics::Metrics;
use crate::receiver::ReceiverConfig;
use crate::wire::{DataPhase, Offer, WireLimits};

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
        abort_bound_ns: 1_000_000_000,
    });
    let config = DriveConfig {
        machines: Machines::Target(Box::new(machine)),
        devices: vec![double(|_, result| result)],
        sockets: vec![ours],
        slots: 4,
        chunk_bytes: CHUNK_BYTES_MIN,
        workers: 1,
        backend: BackendChoice::Auto,
        zero_copy: false,
        detach_bound: Duration::from_secs(1),
        wire_limits: WireLimits::from(&Offer::new(1, 1, CHUNK_BYTES_MIN)),
    };
    let live = Live::new(Arc::new(Mutex::new(Metrics::new(1, 1))));
    let outbox = Arc::new(Outbox::new().expect("an eventfd"));
    let budget = Arc::new(MessageBudget::default());
    let drive = Drive::open(config, outbox, budget, Arc::default(), live).expect("a drive");
    (drive, theirs)
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
