//! When a device in PRE_COPY is asked for its PRECOPY_INFO, what is estimated from it, and how soon
//! an abort is told. Everything else of the sender is tried
//! in the simulated world, `tests/host/world`.

use std::collections::VecDeque;

use super::*;
use crate::ids::{DeviceId, Epoch, Sequence, SlotId, StreamId};
use crate::machine::{Notice, Outgoing, ReadResult, Reply, Request};
use crate::outcome::{Cause, Completion, DeviceOptions, EpochEnding, OnReset};
use crate::vfio::device::PrecopyInfo;
use crate::vfio::state::{Capabilities, DeviceState};
use crate::wire::{Features, Frame};

const DEVICE: DeviceId = DeviceId(0);
const POLL_NS: u64 = 20_000_000;

/// A sender with one device.
struct Run {
    sender: Sender,
    now_ns: u64,
    /// What the device is asked, and the slots that wait for its data.
    asked: Option<Request>,
    slots: VecDeque<SlotId>,
    epoch: Epoch,
    /// What is being sent, and the slot that it is sent from.
    sending: Option<Option<SlotId>>,
    /// The last estimate's pending bytes.
    pending_bytes: Option<u64>,
    completions: Vec<Completion>,
}

impl Run {
    /// The device has just entered PRE_COPY.
    fn precopy() -> Run {
        Run::of(DeviceOptions::default())
    }

    fn of(options: DeviceOptions) -> Run {
        let device = DeviceConfig {
            name: "device".to_owned(),
            capabilities: Capabilities { p2p: false, precopy: true },
            options,
            paused: false,
            embedded: false,
        };
        let sender = Sender::new(SenderConfig {
            devices: vec![device],
            peer: PeerConfig { streams: 1, silence_ns: 1_000 * POLL_NS },
            session: 1,
            chunk_bytes: 4096,
            workers: 1,
            slots_per_device: 8,
            policy: Policy::Raw,
            path_bytes_per_s: None,
            precopy_poll_ns: POLL_NS,
            limits: TimeLimits::only_cancel(POLL_NS),
        });
        let mut run = Run {
            sender,
            now_ns: 0,
            asked: None,
            slots: VecDeque::new(),
            epoch: Epoch(0),
            sending: None,
            pending_bytes: None,
            completions: Vec::new(),
        };
        run.feed(Event::Start);
        let (version, features) = (1, Features::NONE);
        let accept = Accept { version, chunk_bytes: 4096, features, session: 1 };
        run.feed(Event::Frame { stream: StreamId(0), frame: Frame::Accept(accept) });
        run.answer(Request::SetState(DeviceState::PreCopy), Reply::Set { fd: true });
        run
    }

    fn feed(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.sender.handle(self.now_ns, event, &mut actions);
        for action in actions {
            match action {
                Action::Control { request, .. } => self.asked = Some(request),
                Action::Read { slot, .. } => self.slots.push_back(slot),
                Action::Attach { epoch, .. } => self.epoch = epoch,
                Action::Send { what: Outgoing::Data { slot, .. }, .. } => self.sending = Some(slot),
                Action::Send { .. } => self.sending = Some(None),
                Action::Notify(Notice::Estimate(estimate)) => {
                    self.pending_bytes = Some(estimate.pending_bytes);
                }
                Action::Notify(Notice::Completion(completion)) => {
                    self.completions.push(completion);
                }
                _ => {}
            }
        }
    }

    fn answer(&mut self, request: Request, reply: Reply) {
        assert_eq!(self.asked.take(), Some(request));
        self.feed(Event::Control { device: DEVICE, request, result: Ok(reply) });
    }

    fn informed(&mut self, dirty_bytes: u64) {
        let info = PrecopyInfo { dirty_bytes, ..PrecopyInfo::default() };
        self.answer(Request::PrecopyInfo, Reply::Info(info));
        self.answer(Request::StopCopyLength, Reply::Length(1));
    }

    fn read(&mut self, result: ReadResult) {
        let slot = self.slots.pop_front().expect("a read is under way");
        self.feed(Event::Read { device: DEVICE, epoch: self.epoch, slot, result });
    }

    fn chunk(&mut self) {
        self.read(ReadResult::Chunk { bytes: 1, zero: true, hash: 1 });
    }

    /// What is being sent is out, and what follows it.
    fn drain(&mut self) {
        while let Some(slot) = self.sending.take() {
            self.feed(Event::Sent { stream: StreamId(0), slot });
        }
    }

    /// The target is done with so many frames of the epoch.
    fn credit(&mut self, done: u64) {
        let (epoch, up_to) = (self.epoch, Sequence(done + 8));
        let frame = Frame::Credit { device: DEVICE, epoch, up_to };
        self.feed(Event::Frame { stream: StreamId(0), frame });
    }

    /// Lets time go on until the device is asked; how long that took.
    fn waits_ns(&mut self) -> u64 {
        let since_ns = self.now_ns;
        while self.asked.is_none() {
            self.now_ns = self.sender.deadline_ns().expect("it goes on");
            self.feed(Event::Tick);
        }
        assert_eq!(self.asked, Some(Request::PrecopyInfo));
        self.now_ns - since_ns
    }
}

#[test]
fn a_device_is_asked_as_soon_as_it_is_drained() {
    let mut run = Run::precopy();
    run.chunk();
    assert_eq!(run.asked, None, "there may be more");
    run.read(ReadResult::Empty);
    assert_eq!(run.waits_ns(), 0);
    // Promised and there: at once again, when it is read.
    run.informed(1);
    run.chunk();
    run.read(ReadResult::Empty);
    assert_eq!(run.waits_ns(), 0);
    // Nothing new.
    run.informed(0);
    assert_eq!(run.waits_ns(), POLL_NS);
    // Promised, and still being saved.
    run.informed(1);
    run.read(ReadResult::Empty);
    assert_eq!(run.waits_ns(), POLL_NS / 4);
    // The same, and the next read waits: until more is promised, where no more is.
    run.informed(1);
    assert_eq!(run.waits_ns(), POLL_NS / 4);
    run.informed(1);
    assert_eq!(run.waits_ns(), POLL_NS);
    run.read(ReadResult::Empty);
    assert_eq!(run.waits_ns(), 0);
    run.informed(0);
    assert_eq!(run.waits_ns(), POLL_NS);
}

#[test]
fn a_device_whose_read_waits_is_asked_when_nothing_has_come_for_an_interval() {
    let mut run = Run::precopy();
    assert_eq!(run.waits_ns(), POLL_NS);
    run.informed(1);
    run.now_ns += POLL_NS / 2;
    run.chunk();
    assert_eq!(run.waits_ns(), POLL_NS);
}

#[test]
fn a_device_whose_data_flows_is_asked_now_and_then() {
    let mut run = Run::precopy();
    while run.asked.is_none() {
        run.now_ns += POLL_NS / 2;
        run.chunk();
    }
    assert_eq!(run.now_ns, 5 * POLL_NS);
}

#[test]
fn what_was_read_and_is_not_sent_is_still_pending() {
    let credit = |up_to| Event::Frame {
        stream: StreamId(0),
        frame: Frame::Credit { device: DEVICE, epoch: Epoch(0), up_to: Sequence(up_to) },
    };
    let mut run = Run::precopy();
    run.chunk();
    run.read(ReadResult::Empty);
    run.informed(10);
    assert_eq!(run.pending_bytes, Some(11));
    run.feed(credit(9));
    // The stream takes the handshake, what announces the device, and the chunk.
    for _ in 0..4 {
        run.feed(Event::Sent { stream: StreamId(0), slot: None });
    }
    run.read(ReadResult::Empty);
    run.waits_ns();
    run.informed(10);
    assert_eq!(run.pending_bytes, Some(10));
}

#[test]
fn a_reset_device_is_told_of_before_it_is_let_go() {
    let mut run = Run::precopy();
    run.chunk();
    run.feed(Event::HungUp { device: DEVICE, epoch: Epoch(0) });
    assert_eq!(run.completions, []);
    run.answer(Request::GetState, Reply::State(DeviceState::Running));
    // A read is still under way, and so is the data fd.
    let [told] = &run.completions[..] else { panic!("{:?}", run.completions) };
    let cause = told.fault.as_ref().map(|fault| fault.cause);
    assert_eq!((told.ending, cause), (EpochEnding::Aborted, Some(Cause::DeviceReset)));
    assert_eq!(told.state, Some(DeviceState::Running));
}

/// Nobody answers for what was under way of a discarded epoch: the time until the next one's first
/// chunk is not the path's.
#[test]
fn what_was_under_way_of_a_discarded_epoch_says_nothing_of_the_path() {
    const CHUNK: ReadResult = ReadResult::Chunk { bytes: 4096, zero: false, hash: 7 };
    let options = DeviceOptions { on_reset: OnReset::restart(), ..DeviceOptions::default() };
    let mut run = Run::of(options);
    run.drain();
    run.credit(1);
    run.drain();
    // Begin and phase come before the chunks.
    for done in 3..11 {
        run.read(CHUNK);
        run.drain();
        run.now_ns += 1_000_000;
        run.credit(done);
    }
    run.read(CHUNK);
    run.drain();
    let before = run.sender.controller.raw_bytes_per_s().expect("it is measured");

    let (cause, seen) = (Cause::DeviceReset, Observation::Embedder);
    let fault = Fault::device(DEVICE, cause, seen, None, "a guest's FLR");
    run.feed(Event::Command(Command::Discard(DEVICE, fault)));
    while !run.slots.is_empty() {
        run.read(ReadResult::Cancelled);
    }
    run.feed(Event::Detached { device: DEVICE, stuck: false });
    run.answer(Request::SetState(DeviceState::Running), Reply::Set { fd: false });
    run.answer(Request::GetState, Reply::State(DeviceState::Running));
    run.answer(Request::SetState(DeviceState::PreCopy), Reply::Set { fd: true });
    assert_eq!(run.epoch, Epoch(1));
    run.drain();
    run.now_ns += 10_000_000_000;
    run.credit(1);
    run.drain();
    run.read(CHUNK);
    run.drain();
    run.now_ns += 1_000_000;
    run.credit(3);
    let after = run.sender.controller.raw_bytes_per_s().expect("it was measured");
    assert!(after >= before, "{after} after {before} bytes a second");
}
