//! Simulated time: what is going to happen, in order, with every delay drawn from the seed.
//!
//! Whatever may be reordered in reality is an entry of its own with its own delay. What may not
//! (the frames of one stream, the results of one thread) goes through a [`Lane`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use vfio_ferry::ids::{DeviceId, SlotId, StreamId};
use vfio_ferry::machine::{ChunkKey, Command, Event};
use vfio_ferry::wire::DataHeader;

use super::rng::Rng;

/// 0 is the source, 1 the target.
pub(crate) type HostId = usize;
pub(crate) const SOURCE: HostId = 0;
pub(crate) const TARGET: HostId = 1;

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Occurrence {
    /// A machine takes an event.
    Feed(HostId, Box<Event>),
    /// A machine's deadline may have come.
    Tick(HostId),
    /// A control thread's call takes effect in the driver, and returns.
    ControlEnds(HostId, DeviceId),
    /// The operation in flight on a data fd takes effect, and completes.
    DataEnds(HostId, DeviceId, usize),
    /// The time that is given to a data fd's thread to end is over.
    DetachBound(HostId, DeviceId, usize),
    /// A device is reset from outside.
    Reset(HostId, DeviceId),
    /// A device falls into ERROR by itself.
    Error(HostId, DeviceId),
    /// Data that a device has promised is there.
    DataThere(DeviceId, usize),
    /// A worker is through.
    Encoded { chunk: ChunkKey, slot: SlotId, into: SlotId, bytes: u32 },
    /// A worker is through.
    Decoded { header: DataHeader, slot: SlotId, into: SlotId },
    /// A send on this host's end of a stream is out.
    SendEnds(HostId, StreamId),
    /// The next frame has arrived at this host.
    Arrives(HostId, StreamId),
    /// The body that this host is receiving, or skipping, is there.
    BodyEnds(HostId, StreamId),
    /// Part of what is on its way on this stream travels, again and again until then.
    Crawls { stream: StreamId, until_ns: u64, every_ns: u64, bytes: u32 },
    /// This host sees that a stream is over.
    LostSeen(HostId, StreamId),
    /// The embedders of both hosts have waited for long enough.
    Patience,
    /// The embedder asks for something.
    Asks(HostId, Command),
}

struct Entry {
    at_ns: u64,
    order: u64,
    occurrence: Occurrence,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at_ns, self.order) == (other.at_ns, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at_ns, self.order).cmp(&(other.at_ns, other.order))
    }
}

/// What is going to happen.
pub(crate) struct Schedule {
    pub(crate) now_ns: u64,
    pub(crate) rng: Rng,
    entries: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

impl Schedule {
    pub(crate) fn new(rng: Rng) -> Schedule {
        Schedule { now_ns: 1_000_000, rng, entries: BinaryHeap::new(), order: 0 }
    }

    pub(crate) fn at(&mut self, at_ns: u64, occurrence: Occurrence) {
        self.order += 1;
        let at_ns = at_ns.max(self.now_ns);
        self.entries.push(Reverse(Entry { at_ns, order: self.order, occurrence }));
    }

    /// A delay of up to `high_ns`: often short, at times long.
    pub(crate) fn delay(&mut self, high_ns: u64) -> u64 {
        self.rng.log(high_ns)
    }

    pub(crate) fn after(&mut self, high_ns: u64, occurrence: Occurrence) {
        let at_ns = self.now_ns + self.delay(high_ns);
        self.at(at_ns, occurrence);
    }

    /// After a delay, but not before what went through the lane already.
    pub(crate) fn through(&mut self, lane: &mut Lane, high_ns: u64, occurrence: Occurrence) {
        let at_ns = self.now_ns + self.delay(high_ns);
        lane.0 = lane.0.max(at_ns);
        self.at(lane.0, occurrence);
    }

    /// Takes out what comes next and moves time there.
    pub(crate) fn next(&mut self) -> Option<Occurrence> {
        let Reverse(entry) = self.entries.pop()?;
        self.now_ns = entry.at_ns;
        Some(entry.occurrence)
    }
}

/// Keeps an order: when the last entry that went through happens.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Lane(u64);

impl Lane {
    /// What comes next takes so long after what came before.
    pub(crate) fn takes(&mut self, now_ns: u64, ns: u64) {
        if ns > 0 {
            self.0 = self.0.max(now_ns) + ns;
        }
    }

    /// Nothing of this lane happens before.
    pub(crate) fn hold_until(&mut self, at_ns: u64) {
        self.0 = self.0.max(at_ns);
    }
}
