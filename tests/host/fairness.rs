//! Which device's frame goes out next: the sender alone, without threads or time. Every device
//! always has chunks ready and every stream is always fast, so the order is the sender's choice.

use std::collections::VecDeque;

use bytes::Bytes;
use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::{DeviceId, Sequence, StreamId};
use vfio_ferry::machine::{
    Action, Command, Event, Machine, Outgoing, PeerConfig, ReadResult, Reply, Request, TimeLimits,
};
use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::sender::{DeviceConfig, Sender, SenderConfig};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{Accept, DevicePlace, Features, Frame, chunk_hash};

const CHUNK_BYTES: u32 = 256 << 10;
const STREAMS: u16 = 4;

fn sender(weights: &[u32]) -> Sender {
    let device = |(number, weight): (usize, &u32)| DeviceConfig {
        name: format!("device-{number}"),
        capabilities: Capabilities { p2p: false, precopy: false },
        paused: false,
        embedded: false,
        options: DeviceOptions {
            weight: *weight,
            opaque: Bytes::new(),
            ..DeviceOptions::default()
        },
    };
    Sender::new(SenderConfig {
        devices: weights.iter().enumerate().map(device).collect(),
        peer: PeerConfig { streams: STREAMS, silence_ns: u64::MAX / 4 },
        session: 5,
        chunk_bytes: CHUNK_BYTES,
        workers: 1,
        slots_per_device: 4,
        policy: Policy::Raw,
        path_bytes_per_s: None,
        precopy_poll_ns: 1_000_000,
        limits: TimeLimits::only_cancel(1_000_000),
    })
}

/// Runs the sender against devices that never end, and gives the devices of the first `count`
/// chunks in the order in which they go out. A device named in `late` has nothing before so many
/// chunks of others are out.
fn order(weights: &[u32], late: Option<(u32, usize)>, count: usize) -> Vec<usize> {
    let mut sender = sender(weights);
    let mut events = VecDeque::from([Event::Command(Command::Switchover), Event::Start]);
    let mut held = Vec::new();
    let mut sent = Vec::new();
    let mut actions = Vec::new();
    while sent.len() < count {
        if late.is_some_and(|(_, after)| sent.len() >= after) {
            events.extend(held.drain(..));
        }
        let event = events.pop_front().expect("something always goes on");
        sender.handle(1, event, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Control { device, request } => {
                    let reply = match request {
                        Request::SetState(state) => {
                            Reply::Set { fd: state == DeviceState::StopCopy }
                        }
                        Request::StopCopyLength => Reply::Length(1 << 40),
                        Request::GetState => Reply::State(DeviceState::StopCopy),
                        other => panic!("{other:?}"),
                    };
                    events.push_back(Event::Control { device, request, result: Ok(reply) });
                }
                Action::Read { device, slot, .. } => {
                    let hash = chunk_hash(&[]);
                    let result = ReadResult::Chunk { bytes: CHUNK_BYTES, zero: false, hash };
                    let read = Event::Read { device, epoch: Default::default(), slot, result };
                    match late {
                        Some((number, after)) if number == device.0 && sent.len() < after => {
                            held.push(read);
                        }
                        _ => events.push_back(read),
                    }
                }
                Action::Send { stream, what } => {
                    let mut slot = None;
                    match what {
                        Outgoing::Frame(Frame::Hello(hello)) => {
                            let accept = Accept {
                                version: 1,
                                features: Features::ALL,
                                chunk_bytes: CHUNK_BYTES,
                                session: hello.session,
                            };
                            events.push_back(Event::Frame { stream, frame: Frame::Accept(accept) });
                        }
                        Outgoing::Frame(Frame::Begin(place, _)) => {
                            events.push_back(credit(stream, place));
                        }
                        Outgoing::Frame(_) | Outgoing::Padding { .. } => {}
                        Outgoing::Data { header, slot: from } => {
                            sent.push(header.place.device.index());
                            events.push_back(credit(stream, header.place));
                            slot = from;
                        }
                    }
                    events.push_back(Event::Sent { stream, slot });
                }
                Action::Attach { .. } | Action::Notify(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    sent
}

/// The target is done with the frame at this place, and takes 1000 beyond it.
fn credit(stream: StreamId, place: DevicePlace) -> Event {
    let DevicePlace { device, epoch, sequence } = place;
    let frame = Frame::Credit { device, epoch, up_to: Sequence(sequence.0 + 1001) };
    Event::Frame { stream, frame }
}

/// How many chunks each device has in this order.
fn shares(order: &[usize], devices: usize) -> Vec<usize> {
    let count = |device| order.iter().filter(|each| **each == device).count();
    (0..devices).map(count).collect()
}

#[test]
fn equal_devices_take_turns() {
    let order = order(&[1; 8], None, 4000);
    // Whichever stretch one looks at: the first chunks of all are not ready at the same time.
    for stretch in order[100..].chunks_exact(80) {
        let shares = shares(stretch, 8);
        assert!(shares.iter().all(|n| (8..=12).contains(n)), "{shares:?}");
    }
}

#[test]
fn weights_are_shares_of_the_link() {
    let shares = shares(&order(&[1, 2, 4, 1], None, 8000)[100..], 4);
    for (share, expected) in shares.iter().zip([990, 1980, 3960, 990]) {
        assert!(share.abs_diff(expected) < expected / 10, "{shares:?}");
    }
}

#[test]
fn a_device_that_comes_late_neither_waits_nor_catches_up() {
    let late = DeviceId(3);
    let order = order(&[1; 4], Some((late.0, 2000)), 4000);
    assert!(!order[..2000].contains(&3));
    for stretch in order[2020..].chunks_exact(40) {
        let shares = shares(stretch, 4);
        assert!(shares.iter().all(|n| (8..=12).contains(n)), "{shares:?}");
    }
}
