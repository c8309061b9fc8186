//! One saving session of one device: everything that is worthless once the session is. It is born
//! with its begin or discard frame and replaced whole.

use std::collections::BTreeMap;

use super::{Sender, Stage};
use crate::ids::{DeviceId, Epoch as Number, Sequence, SlotId};
use crate::limits::{FRAMES_QUEUED_MAX, FRAMES_UNDER_WAY_MAX};
use crate::machine::{Outgoing, State, Wait, Waits};
use crate::vfio::device::PrecopyInfo;
use crate::wire::{DataHeader, DevicePlace, Frame};

/// A drained device that promised data which has not come is asked again after this part of the
/// poll interval; data that flows puts the question off for so many intervals at most.
const PROMISED_PART: u64 = 4;
const FLOWING_TIMES: u64 = 5;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) state: State,
    pub(super) reading: Reading,
    pub(super) precopy: Precopy,
    pub(super) queue: Queue,
    pub(super) stop_copy: Length,
}

/// Reads of the data fd.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// How many are in flight or follow.
    pub(super) reads: usize,
    /// There is nothing to read for now.
    pub(super) drained: bool,
    /// The fd's end was read.
    pub(super) ended: bool,
    /// Harmless failures (EINTR, EAGAIN) since the last chunk.
    pub(super) harmless: u32,
    /// Bytes that came out of this fd.
    pub(super) fd_bytes: u64,
}

/// What the device says of its PRE_COPY state, and when it is asked next.
#[derive(Debug)]
pub(super) struct Precopy {
    /// Bytes that the device has said to be still unread.
    pub(super) pending_bytes: u64,
    /// The last PRECOPY_INFO promised bytes and none has come since.
    promised: bool,
    poll_ns: u64,
    waits: Waits,
    /// How far data that flows may put the question off.
    ask_by_ns: u64,
    initial: Initial,
    /// Times that the initial data was sent and the target has not said that it is loaded: a
    /// device may have initial data more than once.
    unanswered: u32,
}

/// The initial data: what the target should have before the switchover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Initial {
    /// The device has more of it.
    Reading,
    /// The device has no more of it, but this many reads were under way when it said so: they may
    /// still bring the last of it.
    Draining(usize),
    /// The mark after it was sent, in this place.
    Sent(Sequence),
    /// The target has written it, and what was sent before this mark.
    Loaded(Sequence),
}

/// What MIG_DATA_SIZE says of STOP_COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Unasked,
    /// The driver does not say.
    Unknown,
    Bytes(u64),
}

/// Frames on their way to the target.
#[derive(Debug)]
pub(super) struct Queue {
    next: Sequence,
    credit: Sequence,
    /// How many sequences the target takes at once: its credit goes this far beyond what is done.
    window: Option<u64>,
    ready: BTreeMap<Sequence, Outgoing>,
    /// Raw chunks that may go as they are, and that a worker may still take.
    open: BTreeMap<Sequence, (DataHeader, SlotId)>,
    /// They wait for a worker: they may not go as they are for now.
    held: bool,
    /// Chunks that are with a worker, and the level.
    encoding: BTreeMap<Sequence, (DataHeader, i32)>,
    /// Data frames that were sent and that the target has not said to be done with.
    under_way: BTreeMap<Sequence, UnderWay>,
}

/// A data frame until the target has said that it is done with it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct UnderWay {
    pub(super) wire_bytes: u64,
    pub(super) raw_bytes: u64,
}

/// What a closed epoch leaves behind: to be given back, and to be forgotten.
#[must_use]
pub(super) struct Closed {
    /// Slots of chunks that will not be sent.
    pub(super) slots: Vec<SlotId>,
    /// Bytes of state that were read and that nobody will say to be done.
    pub(super) bytes: u64,
    /// What was read of it.
    pub(super) state: State,
}

impl Sender {
    /// The one gate for what answers for an epoch: whether it is only still coming back, because
    /// its epoch was discarded or the session is not active any more.
    pub(super) fn is_stale(&self, device: DeviceId, epoch: Number) -> bool {
        self.stage != Stage::Active || self.devices[device.index()].epoch.state.number != epoch
    }
}

impl Epoch {
    /// An epoch whose opening frame, begin or discard, takes sequence 0. A drained device in
    /// PRE_COPY is asked every `poll_ns`.
    pub(super) fn new(number: Number, poll_ns: u64) -> Epoch {
        Epoch {
            state: State::new(number),
            reading: Reading::default(),
            precopy: Precopy {
                pending_bytes: 0,
                promised: false,
                poll_ns,
                waits: Waits::default(),
                ask_by_ns: 0,
                initial: Initial::Reading,
                unanswered: 0,
            },
            queue: Queue {
                next: Sequence(1),
                credit: Sequence(1),
                window: None,
                ready: BTreeMap::new(),
                open: BTreeMap::new(),
                held: false,
                encoding: BTreeMap::new(),
                under_way: BTreeMap::new(),
            },
            stop_copy: Length::Unasked,
        }
    }

    /// The epoch that a discard begins.
    pub(super) fn after(&self) -> Epoch {
        Epoch::new(self.state.number.next(), self.precopy.poll_ns)
    }

    /// Where the opening frame stands.
    pub(super) fn opener(&self, device: DeviceId) -> DevicePlace {
        DevicePlace { device, epoch: self.state.number, sequence: Sequence(0) }
    }

    /// The epoch is over.
    pub(super) fn close(mut self) -> Closed {
        let under_way = self.queue.under_way_bytes();
        Closed {
            bytes: under_way + self.queue.unsent_bytes(),
            slots: self.queue.drop_waiting(),
            state: self.state,
        }
    }

    /// The next place in the epoch's order.
    pub(super) fn place(&mut self, device: DeviceId) -> DevicePlace {
        let place = DevicePlace { device, epoch: self.state.number, sequence: self.queue.next };
        self.queue.next = self.queue.next.next();
        place
    }

    /// Queues a frame at the next place.
    pub(super) fn frame(&mut self, device: DeviceId, make: impl FnOnce(DevicePlace) -> Frame) {
        let place = self.place(device);
        self.queue.ready.insert(place.sequence, Outgoing::Frame(make(place)));
    }

    /// A chunk came.
    pub(super) fn chunk_read(&mut self, now_ns: u64, bytes: u32) {
        self.reading.fd_bytes += u64::from(bytes);
        self.reading.harmless = 0;
        self.precopy.promised = false;
        if !self.reading.drained {
            self.precopy.flows(now_ns);
        }
    }

    /// A read found nothing.
    pub(super) fn found_empty(&mut self, now_ns: u64) {
        if !std::mem::replace(&mut self.reading.drained, true) {
            self.precopy.drained(now_ns);
        }
    }

    /// PRECOPY_INFO was answered.
    pub(super) fn informed(&mut self, now_ns: u64, device: DeviceId, info: PrecopyInfo) {
        self.precopy.flows_from(now_ns);
        self.precopy.pending_bytes = info.initial_bytes.saturating_add(info.dirty_bytes);
        if info.reinit {
            self.precopy.initial = Initial::Reading;
        }
        if info.initial_bytes == 0 {
            self.initial_read(device);
        }
        let promised = self.precopy.pending_bytes > 0;
        if promised && self.reading.drained && self.precopy.promised {
            // Promised and not there yet: the driver is still saving.
            self.precopy.ask_at(now_ns.saturating_add(self.precopy.poll_ns / PROMISED_PART));
        }
        self.precopy.promised = promised;
        self.reading.drained &= !promised;
    }

    /// The device says that there is no initial data left to read. That holds for what has come
    /// out of the fd, not for what has reached this machine: the reads that are under way come
    /// first. Where they wait for data that never comes the next answer decides.
    fn initial_read(&mut self, device: DeviceId) {
        let reads = self.reading.reads;
        match self.precopy.initial {
            Initial::Reading if reads > 0 && !self.reading.drained => {
                self.precopy.initial = Initial::Draining(reads);
            }
            Initial::Reading | Initial::Draining(_) => self.say_initial_sent(device),
            Initial::Sent(_) | Initial::Loaded(_) => {}
        }
    }

    /// A read came back, and its chunk has its place.
    pub(super) fn read_back(&mut self, device: DeviceId) {
        match &mut self.precopy.initial {
            Initial::Draining(1) => self.say_initial_sent(device),
            Initial::Draining(reads) => *reads -= 1,
            Initial::Reading | Initial::Sent(_) | Initial::Loaded(_) => {}
        }
    }

    fn say_initial_sent(&mut self, device: DeviceId) {
        self.precopy.initial = Initial::Sent(self.queue.next);
        self.precopy.unanswered += 1;
        self.frame(device, Frame::InitialDataSent);
    }

    /// The target has written the initial data, and so all that was sent before its mark. Gives back
    /// what it was not known to be done with.
    pub(super) fn initial_data_done(&mut self) -> UnderWay {
        let Initial::Loaded(mark) = self.precopy.initial else { return UnderWay::default() };
        self.queue.done_before(mark)
    }

    /// Bytes of state that the device has not given out in PRE_COPY, and those that were read and
    /// have not been sent.
    pub(super) fn pending_bytes(&self) -> u64 {
        self.precopy.pending_bytes.saturating_add(self.queue.unsent_bytes())
    }
}

impl Precopy {
    /// The target says that it has written the initial data. None if it was not asked to say so;
    /// true if that is all of it.
    pub(super) fn initial_loaded(&mut self) -> Option<bool> {
        self.unanswered = self.unanswered.checked_sub(1)?;
        match self.initial {
            Initial::Sent(mark) if self.unanswered == 0 => self.initial = Initial::Loaded(mark),
            _ => return Some(false),
        }
        Some(true)
    }

    /// Whether the target owes its word that it has loaded initial data.
    pub(super) fn is_initial_awaited(&self) -> bool {
        self.unanswered > 0
    }

    /// Whether the target has all initial data.
    pub(super) fn is_initial_loaded(&self) -> bool {
        matches!(self.initial, Initial::Loaded(_))
    }

    /// When the device is to be asked.
    pub(super) fn ask_at_ns(&self) -> Option<u64> {
        self.waits.get(Wait::PrecopyInfo)
    }

    fn ask_at(&mut self, at_ns: u64) {
        self.waits.set(Wait::PrecopyInfo, at_ns);
    }

    /// The question failed without anything being wrong.
    pub(super) fn ask_again(&mut self, now_ns: u64) {
        self.ask_at(now_ns.saturating_add(self.poll_ns));
    }

    /// Data may come from now on. A device that is drained is asked at once; one whose read blocks
    /// instead of reporting ENOMSG, when nothing has come for an interval.
    pub(super) fn flows_from(&mut self, now_ns: u64) {
        self.ask_by_ns = now_ns.saturating_add(self.poll_ns.saturating_mul(FLOWING_TIMES));
        self.flows(now_ns);
    }

    /// Data came.
    fn flows(&mut self, now_ns: u64) {
        self.ask_at(self.ask_by_ns.min(now_ns.saturating_add(self.poll_ns)));
    }

    fn drained(&mut self, now_ns: u64) {
        if self.promised {
            let at_ns = now_ns.saturating_add(self.poll_ns / PROMISED_PART);
            self.ask_at(self.ask_at_ns().map_or(at_ns, |other| other.min(at_ns)));
        } else {
            self.ask_at(now_ns);
        }
    }
}

impl Queue {
    /// A chunk's data frame may be sent: from this slot, or without a body.
    pub(super) fn data(&mut self, header: DataHeader, slot: Option<SlotId>) {
        self.ready.insert(header.place.sequence, Outgoing::Data { header, slot });
    }

    /// A raw chunk may be sent from this slot, or compressed.
    pub(super) fn open(&mut self, header: DataHeader, slot: SlotId) {
        self.open.insert(header.place.sequence, (header, slot));
    }

    /// The open chunk that a worker is offered, and how many frames go out before it: where they
    /// wait for a worker the next to go, else the last.
    pub(super) fn offered(&self) -> Option<(Sequence, usize)> {
        let next = if self.held { self.open.first_key_value() } else { self.open.last_key_value() };
        let (&sequence, _) = next?;
        let before = |ready: &&Sequence| **ready < sequence;
        let ready = self.ready.keys().take_while(before).count();
        Some((sequence, ready + self.open.keys().take_while(before).count()))
    }

    /// An open chunk goes as it is.
    pub(super) fn leave_raw(&mut self, sequence: Sequence) {
        if let Some((header, slot)) = self.open.remove(&sequence) {
            self.data(header, Some(slot));
        }
    }

    /// An open chunk goes to a worker.
    pub(super) fn encode(
        &mut self,
        sequence: Sequence,
        level: i32,
    ) -> Option<(DataHeader, SlotId)> {
        let (header, slot) = self.open.remove(&sequence)?;
        self.encoding.insert(sequence, (header, level));
        Some((header, slot))
    }

    /// Whether open chunks wait for a worker.
    pub(super) fn hold(&mut self, held: bool) {
        self.held = held;
    }

    /// A compression ended; none if the chunk is not waited for any more.
    pub(super) fn encoded(&mut self, sequence: Sequence) -> Option<(DataHeader, i32)> {
        self.encoding.remove(&sequence)
    }

    /// Whether frames wait to be sent.
    pub(super) fn is_waiting(&self) -> bool {
        self.next_out().is_some()
    }

    /// Whether so much waits that no more is read: a chunk of zeros needs no slot.
    pub(super) fn is_full(&self) -> bool {
        self.ready.len() + self.open.len() + self.encoding.len() >= FRAMES_QUEUED_MAX
    }

    /// Whether a frame may be sent: in order of sequence, as far as the credit goes.
    pub(super) fn is_sendable(&self) -> bool {
        self.under_way.len() < FRAMES_UNDER_WAY_MAX
            && self.next_out().is_some_and(|next| next < self.credit)
    }

    /// The lowest sequence that need not wait for a worker.
    fn next_out(&self) -> Option<Sequence> {
        let open = self.open.keys().next().filter(|_| !self.held);
        self.ready.keys().next().into_iter().chain(open).min().copied()
    }

    /// Takes out the frame that is sent next.
    pub(super) fn take(&mut self) -> Option<Outgoing> {
        if !self.is_sendable() {
            return None;
        }
        let next = self.next_out()?;
        self.leave_raw(next);
        self.ready.remove(&next)
    }

    /// A data frame that was taken out is being sent.
    pub(super) fn sending(&mut self, sequence: Sequence, frame: UnderWay) {
        self.under_way.insert(sequence, frame);
    }

    /// Whether this credit lets more frames go.
    pub(super) fn gains(&self, up_to: Sequence) -> bool {
        up_to > self.credit
    }

    /// Credit from the target. Gives back what it says to be done with, together.
    pub(super) fn credited(&mut self, up_to: Sequence) -> UnderWay {
        // The first credit of an epoch comes when only its first frame is done.
        let window = *self.window.get_or_insert(up_to.0.saturating_sub(1));
        self.credit = self.credit.max(up_to);
        self.done_before(Sequence(up_to.0.saturating_sub(window)))
    }

    /// The target is done with what comes before this place.
    fn done_before(&mut self, place: Sequence) -> UnderWay {
        let later = self.under_way.split_off(&place);
        let done = std::mem::replace(&mut self.under_way, later);
        done.into_values().fold(UnderWay::default(), |sum, frame| UnderWay {
            raw_bytes: sum.raw_bytes + frame.raw_bytes,
            wire_bytes: sum.wire_bytes + frame.wire_bytes,
        })
    }

    /// Bytes of state that were sent and that the target has not said to be done with.
    pub(super) fn under_way_bytes(&self) -> u64 {
        self.under_way.values().map(|frame| frame.raw_bytes).sum()
    }

    fn unsent_bytes(&self) -> u64 {
        let encoding = self.encoding.values().map(|(header, _)| u64::from(header.raw_bytes));
        let ready = self.ready.values().map(|what| match what {
            Outgoing::Data { header, .. } => u64::from(header.raw_bytes),
            Outgoing::Frame(_) | Outgoing::Padding { .. } => 0,
        });
        let open = self.open.values().map(|(header, _)| u64::from(header.raw_bytes));
        encoding.chain(ready).chain(open).sum()
    }

    /// Forgets what waits to be sent or is being compressed, and gives back the slots that waited.
    pub(super) fn drop_waiting(&mut self) -> Vec<SlotId> {
        self.encoding.clear();
        let open = std::mem::take(&mut self.open).into_values().map(|(_, slot)| slot);
        let ready = std::mem::take(&mut self.ready).into_values();
        let ready = ready.filter_map(|what| match what {
            Outgoing::Data { slot, .. } => slot,
            Outgoing::Frame(_) | Outgoing::Padding { .. } => None,
        });
        ready.chain(open).collect()
    }
}
