//! Events: what the drive tells a machine.

#[cfg(doc)]
use super::Action;
use bytes::Bytes;

use super::{ChunkKey, Reply, Request};
use crate::compress::policy::{Hosts, LEVELS, Sample};
use crate::ids::{DeviceId, Epoch, SlotId, StreamId};
use crate::outcome::Fault;
use crate::wire::{DataHeader, Frame};

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The session begins; streams are connected.
    Start,
    /// The embedder asks for something.
    Command(Command),
    /// An [`Action::Control`] was answered; errors are the kernel's positive errno.
    Control {
        /// The device.
        device: DeviceId,
        /// What was asked.
        request: Request,
        /// What the kernel said.
        result: Result<Reply, i32>,
    },
    /// An [`Action::Read`] ended; the slot is the machine's again.
    Read {
        /// The device.
        device: DeviceId,
        /// The epoch of the data fd that was read.
        epoch: Epoch,
        /// The slot, with the chunk in its body if there is one.
        slot: SlotId,
        /// How it ended.
        result: ReadResult,
    },
    /// A data fd that was drained in PRE_COPY reported by poll that it is dead.
    HungUp {
        /// The device.
        device: DeviceId,
        /// The epoch of the data fd.
        epoch: Epoch,
    },
    /// An [`Action::Write`] ended.
    Written {
        /// The device.
        device: DeviceId,
        /// The epoch of the data fd that was written.
        epoch: Epoch,
        /// Size of the chunk in bytes.
        raw_bytes: u32,
        /// The slot that it was written from, the machine's again; none for zeros.
        slot: Option<SlotId>,
        /// How it ended.
        result: WriteResult,
    },
    /// An [`Action::Detach`] is done: every slot that the data fd's thread had came back before.
    Detached {
        /// The device.
        device: DeviceId,
        /// The driver still holds an operation; its slots and its fd stay with the thread until
        /// the driver returns.
        stuck: bool,
    },
    /// An [`Action::Encode`] ended: both slots are the machine's again.
    Encoded {
        /// The chunk.
        chunk: ChunkKey,
        /// The slot that was read into, unchanged.
        slot: SlotId,
        /// The slot that was compressed into.
        into: SlotId,
        /// How it ended.
        result: EncodeResult,
    },
    /// What samples of a chunk that was compressed came to, at each of the adaptive policy's levels;
    /// comes before its [`Event::Encoded`].
    Sampled([Sample; LEVELS.len()]),
    /// What is known of the session's hosts, and of the path between them.
    Path {
        /// The hosts.
        hosts: Hosts,
        /// What the streams together take at most, or what the embedder says of them, in bytes per
        /// second.
        bytes_per_s: Option<u64>,
        /// How fast they are may be found out with padding: nobody else's bytes are on them.
        may_try: bool,
    },
    /// What the streams together take to the peer, as the kernel has just measured it.
    Link {
        /// Bytes per second.
        bytes_per_s: u64,
        /// There was too little to send: they may take more.
        at_least: bool,
        /// The shortest round trip of late, in nanoseconds, of the stream where it is longest; 0 where
        /// nobody knows.
        round_trip_ns: u64,
    },
    /// An [`Action::Decode`] ended: both slots are the machine's again.
    Decoded {
        /// The chunk.
        header: DataHeader,
        /// The slot with the body as it travelled.
        slot: SlotId,
        /// The slot with the chunk, if it went well.
        into: SlotId,
        /// Nothing, or the fault in the body.
        result: Result<(), Fault>,
    },
    /// An [`Action::Send`] ended well.
    Sent {
        /// The stream, idle again.
        stream: StreamId,
        /// The slot that was sent from, the machine's again.
        slot: Option<SlotId>,
    },
    /// A frame that is not data arrived whole and was parsed.
    Frame {
        /// The stream.
        stream: StreamId,
        /// The frame.
        frame: Frame,
    },
    /// A data frame's header arrived and was checked. The stream waits for
    /// [`Action::ReceiveBody`] or [`Action::SkipBody`] unless the body is empty.
    Data {
        /// The stream.
        stream: StreamId,
        /// The header.
        header: DataHeader,
    },
    /// The body asked for with [`Action::ReceiveBody`] arrived whole; not yet verified.
    Body {
        /// The stream, which goes on with the next header.
        stream: StreamId,
        /// The header that was given with the action.
        header: DataHeader,
        /// The slot, the machine's again.
        slot: SlotId,
    },
    /// Part of a frame has travelled on this stream, and not its end.
    Part {
        /// The stream.
        stream: StreamId,
        /// It went out; else it came in.
        sent: bool,
        /// How many bytes, since the last of these events.
        bytes: u32,
    },
    /// A stream is over: broken, ended by the peer, or it carried what the wire does not allow.
    /// Slots that it held came back with it.
    StreamLost {
        /// The stream.
        stream: StreamId,
        /// Slots that it was sending from or receiving into.
        slots: Vec<SlotId>,
        /// Why.
        fault: Fault,
    },
    /// This host cannot go on, or the embedder's side of the peer was flooded.
    Local(Fault),
    /// The deadline that the machine gave is over.
    Tick,
}

impl Event {
    /// The device and epoch that it belongs to, where it answers for a chunk or a data fd.
    pub(crate) fn epoch(&self) -> Option<(DeviceId, Epoch)> {
        match self {
            Event::Read { device, epoch, .. }
            | Event::HungUp { device, epoch }
            | Event::Written { device, epoch, .. } => Some((*device, *epoch)),
            Event::Encoded { chunk, .. } => Some((chunk.device, chunk.epoch)),
            Event::Decoded { header, .. } | Event::Body { header, .. } => {
                Some((header.place.device, header.place.epoch))
            }
            _ => None,
        }
    }

    /// The slots that come back with it.
    pub(crate) fn slots(&self) -> impl Iterator<Item = SlotId> {
        let (one, other) = match self {
            Event::Read { slot, .. } | Event::Body { slot, .. } => (Some(*slot), None),
            Event::Written { slot, .. } | Event::Sent { slot, .. } => (*slot, None),
            Event::Encoded { slot, into, .. } | Event::Decoded { slot, into, .. } => {
                (Some(*slot), Some(*into))
            }
            _ => (None, None),
        };
        one.into_iter().chain(other)
    }

    /// Whether it shows that the peer lives.
    pub(crate) fn is_heard(&self) -> bool {
        matches!(
            self,
            Event::Frame { .. }
                | Event::Data { .. }
                | Event::Body { .. }
                | Event::Part { sent: false, .. }
        )
    }
}

/// What the embedder may ask of a running session.
#[derive(Debug)]
pub enum Command {
    /// The vCPUs are stopped: stop the devices and send the rest (source).
    Switchover,
    /// Give the migration up.
    Cancel,
    /// Carry these bytes to the peer's embedder.
    Message(Bytes),
    /// This device's epoch is worthless, the embedder saw: discard it (source), or give up (target).
    Discard(DeviceId, Fault),
}

/// How a read of a data fd ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadResult {
    /// A chunk is in the slot.
    Chunk {
        /// Its size in bytes, at least 1.
        bytes: u32,
        /// All of it is zero.
        zero: bool,
        /// [`chunk_hash`](crate::wire::chunk_hash) of it.
        hash: u64,
    },
    /// Nothing for now: ENOMSG, or 0 in PRE_COPY.
    Empty,
    /// 0 from a read that was submitted in STOP_COPY: the end of the state.
    End,
    /// The kernel's positive errno.
    Failed(i32),
    /// Not read: the fd was being detached.
    Cancelled,
}

/// How a write of a chunk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteResult {
    /// All of it was written; the hash is that of the written bytes.
    Written {
        /// [`chunk_hash`](crate::wire::chunk_hash) of what was written.
        hash: u64,
    },
    /// The bytes were not those that the header promised; nothing was written.
    Corrupt(Fault),
    /// The kernel's positive errno.
    Failed(i32),
    /// Not, or not wholly, written: the fd was being detached.
    Cancelled,
}

/// How a compression ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeResult {
    /// The body is in the second slot.
    Compressed {
        /// Its size in bytes.
        body_bytes: u32,
        /// Its hash.
        body_hash: u64,
        /// The worker's time in nanoseconds.
        worker_ns: u64,
        /// What of it was on a core.
        cpu_ns: u64,
    },
    /// Not worth it: the chunk goes raw.
    Incompressible {
        /// The worker's time in nanoseconds.
        worker_ns: u64,
        /// What of it was on a core.
        cpu_ns: u64,
    },
}
