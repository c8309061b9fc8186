//! A machine, and what it asked for so far. Sends end at once unless their stream is held; reads and
//! writes wait, and come back cancelled when their fd is detached; what workers do waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use vfio_ferry::ids::{DeviceId, Epoch, Sequence, SlotId, StreamId};
use vfio_ferry::machine::{Action, Event, Machine, Notice, Outgoing, ReadResult};
use vfio_ferry::machine::{Estimate, Reply, Request, WriteResult};
use vfio_ferry::outcome::{Cause, Completion, Fault};
use vfio_ferry::receiver::Receiver;
use vfio_ferry::sender::Sender;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{DataHeader, Frame};

/// A machine that says how its session ended: the ending's name, and why.
pub(crate) trait Ends: Machine {
    fn ended(&self) -> Option<(&'static str, Option<&Fault>)>;
}

impl Ends for Sender {
    fn ended(&self) -> Option<(&'static str, Option<&Fault>)> {
        self.ending().map(|ending| (ending.name(), ending.fault()))
    }
}

impl Ends for Receiver {
    fn ended(&self) -> Option<(&'static str, Option<&Fault>)> {
        self.ending().map(|ending| (ending.name(), ending.fault()))
    }
}

/// See the module's text.
pub(crate) struct Run<M> {
    pub(crate) machine: M,
    pub(crate) now_ns: u64,
    /// Frames that went out, data aside, and on which stream.
    pub(crate) said: Vec<(StreamId, Frame)>,
    /// Data frames that went out, and from which slot.
    pub(crate) sent_data: Vec<(DataHeader, Option<SlotId>)>,
    /// What was asked for and waits to be done: bodies to receive, work for the workers, writes.
    pub(crate) work: VecDeque<Action>,
    /// The fds and bodies that were thrown away.
    pub(crate) thrown_away: Vec<Action>,
    /// Bytes of the padding that went out.
    pub(crate) padding: Vec<u32>,
    /// The request that each device has not answered.
    pub(crate) asked: BTreeMap<DeviceId, Request>,
    pub(crate) notices: Vec<Notice>,
    /// The machine has said that it is at its end.
    finished: bool,
    /// Streams whose sends do not end.
    held: BTreeSet<StreamId>,
    sending: BTreeMap<StreamId, Option<SlotId>>,
    reads: Vec<(DeviceId, SlotId, u32)>,
    /// Devices whose data fds do not close.
    stuck: BTreeSet<DeviceId>,
    epochs: BTreeMap<DeviceId, Epoch>,
    events: u32,
}

impl<M: Ends> Run<M> {
    /// The session starts.
    pub(crate) fn start(machine: M) -> Run<M> {
        let mut run = Run {
            machine,
            now_ns: 0,
            said: Vec::new(),
            sent_data: Vec::new(),
            work: VecDeque::new(),
            thrown_away: Vec::new(),
            padding: Vec::new(),
            asked: BTreeMap::new(),
            notices: Vec::new(),
            finished: false,
            held: BTreeSet::new(),
            sending: BTreeMap::new(),
            reads: Vec::new(),
            stuck: BTreeSet::new(),
            epochs: BTreeMap::new(),
            events: 0,
        };
        run.feed(Event::Start);
        run
    }

    pub(crate) fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.events += 1;
            assert!(self.events < EVENTS_MAX, "the exchange leads nowhere");
            let mut actions = Vec::new();
            self.machine.handle(self.now_ns, event, &mut actions);
            for action in actions {
                self.act(action, &mut events);
            }
        }
    }

    fn act(&mut self, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Control { device, request } => {
                assert_eq!(self.asked.insert(device, request), None, "one request at a time");
            }
            Action::Attach { device, epoch } => {
                self.epochs.insert(device, epoch);
            }
            Action::Detach { device } if self.stuck.contains(&device) => {}
            Action::Detach { device } => self.detach(device, events),
            Action::Read { device, slot, bytes, .. } => self.reads.push((device, slot, bytes)),
            Action::Send { stream, what } => {
                let slot = match what {
                    Outgoing::Frame(frame) => {
                        self.said.push((stream, frame));
                        None
                    }
                    Outgoing::Padding { bytes } => {
                        self.padding.push(bytes);
                        None
                    }
                    Outgoing::Data { header, slot } => {
                        self.sent_data.push((header, slot));
                        slot
                    }
                };
                if self.held.contains(&stream) {
                    self.sending.insert(stream, slot);
                } else {
                    events.push_back(Event::Sent { stream, slot });
                }
            }
            Action::Notify(notice) => self.notices.push(notice),
            Action::Finish => {
                assert!(!self.finished, "a session finishes once");
                self.finished = true;
            }
            Action::DropFd { .. } | Action::SkipBody { .. } => self.thrown_away.push(action),
            Action::Encode { .. }
            | Action::ReceiveBody { .. }
            | Action::Decode { .. }
            | Action::Write { .. } => self.work.push_back(action),
        }
    }

    /// What is under way on the data fd comes back, and the fd is closed.
    fn detach(&mut self, device: DeviceId, events: &mut VecDeque<Event>) {
        let epoch = self.epochs[&device];
        let reads = std::mem::take(&mut self.reads).into_iter();
        let (back, others): (Vec<_>, _) = reads.partition(|(owner, ..)| *owner == device);
        self.reads = others;
        for (_, slot, _) in back {
            events.push_back(Event::Read { device, epoch, slot, result: ReadResult::Cancelled });
        }
        for action in std::mem::take(&mut self.work) {
            match action {
                Action::Write { device: owner, header, slot } if owner == device => {
                    let (raw_bytes, result) = (header.raw_bytes, WriteResult::Cancelled);
                    events.push_back(Event::Written { device, epoch, raw_bytes, slot, result });
                }
                other => self.work.push_back(other),
            }
        }
        events.push_back(Event::Detached { device, stuck: false });
    }

    /// From now on the driver of this device does not let its data fd be closed.
    pub(crate) fn hold_fd(&mut self, device: DeviceId) {
        self.stuck.insert(device);
    }

    /// The driver lets the data fd go, which is being closed.
    pub(crate) fn release_fd(&mut self, device: DeviceId) {
        self.stuck.remove(&device);
        let mut events = VecDeque::new();
        self.detach(device, &mut events);
        events.into_iter().for_each(|event| self.feed(event));
    }

    /// From now on sends on this stream do not end.
    pub(crate) fn hold(&mut self, stream: u16) {
        self.held.insert(StreamId(stream));
    }

    /// The send that was held ends, and those after it do.
    pub(crate) fn release(&mut self, stream: u16) {
        let stream = StreamId(stream);
        self.held.remove(&stream);
        if let Some(slot) = self.sending.remove(&stream) {
            self.feed(Event::Sent { stream, slot });
        }
    }

    /// A frame comes in.
    pub(crate) fn hears(&mut self, stream: u16, frame: Frame) {
        self.feed(Event::Frame { stream: StreamId(stream), frame });
    }

    /// A device answers what it was asked.
    pub(crate) fn answers(&mut self, device: DeviceId, expected: Request, answer: Reply) {
        self.replies(device, expected, Ok(answer));
    }

    pub(crate) fn replies(
        &mut self,
        device: DeviceId,
        expected: Request,
        result: Result<Reply, i32>,
    ) {
        let request = self.asked.remove(&device);
        assert_eq!(request, Some(expected), "what {device} was asked");
        self.feed(Event::Control { device, request: expected, result });
    }

    /// SET_STATE succeeds.
    pub(crate) fn set(&mut self, device: DeviceId, state: DeviceState, fd: bool) {
        self.answers(device, Request::SetState(state), Reply::Set { fd });
    }

    /// GET_STATE finds this.
    pub(crate) fn found(&mut self, device: DeviceId, state: DeviceState) {
        self.answers(device, Request::GetState, Reply::State(state));
    }

    /// The device's next read ends.
    pub(crate) fn reads(&mut self, device: DeviceId, result: ReadResult) {
        let at = self.reads.iter().position(|(owner, ..)| *owner == device).expect("a read");
        let (_, slot, _) = self.reads.remove(at);
        self.feed(Event::Read { device, epoch: self.epochs[&device], slot, result });
    }

    /// How many reads wait to end.
    pub(crate) fn waiting_reads(&self) -> usize {
        self.reads.len()
    }

    /// How many bytes each of them may give.
    pub(crate) fn read_bytes(&self) -> Vec<u32> {
        self.reads.iter().map(|(.., bytes)| *bytes).collect()
    }

    /// Time goes on to the machine's deadline.
    pub(crate) fn next_deadline(&mut self) {
        self.now_ns = self.machine.deadline_ns().expect("a deadline");
        self.feed(Event::Tick);
    }

    /// The streams on which the abort went out.
    pub(crate) fn aborted_on(&self) -> Vec<u16> {
        let aborts = self.said.iter().filter(|(_, frame)| matches!(frame, Frame::Abort(_)));
        aborts.map(|(stream, _)| stream.0).collect()
    }

    /// How often a frame like this went out.
    pub(crate) fn count(&self, like: fn(&Frame) -> bool) -> usize {
        self.said.iter().filter(|(_, frame)| like(frame)).count()
    }

    /// The name of the session's ending, and the cause if there is one.
    pub(crate) fn ending(&self) -> Option<(&'static str, Option<Cause>)> {
        let (name, fault) = self.machine.ended()?;
        assert!(self.finished, "an ending comes with its action");
        Some((name, fault.map(|fault| fault.cause)))
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.machine.ended().and_then(|(_, fault)| fault)
    }

    pub(crate) fn completions(&self) -> Vec<&Completion> {
        let mut completions = Vec::new();
        for notice in &self.notices {
            if let Notice::Completion(completion) = notice {
                completions.push(completion);
            }
        }
        completions
    }

    pub(crate) fn estimate(&self) -> Estimate {
        let last = self.notices.iter().rev().find_map(|notice| match notice {
            Notice::Estimate(estimate) => Some(*estimate),
            _ => None,
        });
        last.expect("an estimate")
    }

    /// Everything of this epoch may be sent, and is done with below `done`.
    pub(crate) fn credits(&mut self, device: DeviceId, epoch: u32, done: u64) {
        let up_to = Sequence(done + WINDOW);
        self.hears(0, Frame::Credit { device, epoch: Epoch(epoch), up_to });
    }
}

/// Far more than any exchange here takes: one that waits for what does not come fails, and does not
/// go on for ever.
const EVENTS_MAX: u32 = 200_000;

/// How far a credit goes beyond what is done.
const WINDOW: u64 = 1_000_000;
