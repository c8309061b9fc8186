//! The vocabulary that the pure machines ([`sender`](crate::sender), [`receiver`](crate::receiver),
//! [`abort`](crate::abort)) share: events in, actions out.
//!
//! A machine has no fd, clock, thread or memory. Time comes in as nanoseconds with each event,
//! memory is known by slot numbers, devices and streams by theirs. What runs the actions and
//! reports the events is [`drive`](crate::drive); in tests it is a simulated world under one seed.

mod links;
mod slots;

pub use links::{Links, LinksConfig};
pub use slots::SlotBudget;

use crate::ids::{DeviceId, Epoch, Sequence, SlotId, StreamId};
use crate::outcome::{Completion, Fault, Phase};
use crate::vfio::device::PrecopyInfo;
use crate::vfio::state::DeviceState;
use crate::wire::{Begin, DataHeader, DataPhase, Frame};
use bytes::Bytes;

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

/// What the embedder may ask of a running session.
#[derive(Debug)]
pub enum Command {
    /// The vCPUs are stopped: stop the devices and send the rest (source).
    Switchover,
    /// Give the migration up.
    Cancel,
    /// Carry these bytes to the peer's embedder.
    Message(Bytes),
    /// This device's epoch is worthless, the embedder saw: discard it (source).
    Discard(DeviceId, Fault),
}

/// Something only a control thread may do: it can block for as long as the driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SET_STATE.
    SetState(DeviceState),
    /// GET_STATE, asked twice, the second answer kept: the first may be stale after a deferred
    /// reset.
    GetState,
    /// VFIO_MIG_GET_PRECOPY_INFO on the attached data fd.
    PrecopyInfo,
    /// MIG_DATA_SIZE.
    StopCopyLength,
    /// VFIO_DEVICE_RESET.
    Reset,
}

/// The answer to a [`Request`] that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// SET_STATE: whether the kernel gave a data fd. The fd waits for [`Action::Attach`] or
    /// [`Action::DropFd`].
    Set {
        /// There is a new fd.
        fd: bool,
    },
    /// GET_STATE.
    State(DeviceState),
    /// VFIO_MIG_GET_PRECOPY_INFO.
    Info(PrecopyInfo),
    /// MIG_DATA_SIZE, in bytes.
    Length(u64),
    /// VFIO_DEVICE_RESET returned.
    Reset,
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

/// Which chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkKey {
    /// The device.
    pub device: DeviceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub sequence: Sequence,
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
    },
    /// Not worth it: the chunk goes raw.
    Incompressible {
        /// The worker's time in nanoseconds.
        worker_ns: u64,
    },
}

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// A frame that is not data.
    Frame(Frame),
    /// A data frame; the body stands in the slot, none for zeros.
    Data {
        /// The header.
        header: DataHeader,
        /// Where the body is.
        slot: Option<SlotId>,
    },
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Ask the device; one request of a device at a time.
    Control {
        /// The device.
        device: DeviceId,
        /// What.
        request: Request,
    },
    /// Start the thread that reads or writes the fd which the last SET_STATE gave.
    Attach {
        /// The device.
        device: DeviceId,
        /// Comes back with every event of this fd.
        epoch: Epoch,
    },
    /// Close the fd which the last SET_STATE gave without using it.
    DropFd {
        /// The device.
        device: DeviceId,
    },
    /// End the data fd's thread: cancel what is in flight, wait for it, close the fd.
    Detach {
        /// The device.
        device: DeviceId,
    },
    /// Read a chunk into the slot; in the order of the actions, one at a time.
    Read {
        /// The device.
        device: DeviceId,
        /// Where to.
        slot: SlotId,
        /// Whether SET_STATE(STOP_COPY) had returned when this was asked.
        phase: DataPhase,
    },
    /// Verify and write a chunk; in the order of the actions, one at a time.
    Write {
        /// The device.
        device: DeviceId,
        /// The chunk; `raw_bytes` of the slot's body are written, or zeros where there is no slot.
        header: DataHeader,
        /// Where from.
        slot: Option<SlotId>,
    },
    /// Compress a slot's chunk into another slot.
    Encode {
        /// The chunk.
        chunk: ChunkKey,
        /// Where it is.
        slot: SlotId,
        /// Where the body goes.
        into: SlotId,
        /// Size of the chunk in bytes.
        bytes: u32,
        /// zstd level.
        level: i32,
        /// Look at samples first.
        probe: bool,
    },
    /// Verify and decompress a slot's body into another slot.
    Decode {
        /// The chunk.
        header: DataHeader,
        /// Where the body is.
        slot: SlotId,
        /// Where the chunk goes.
        into: SlotId,
    },
    /// Send on an idle stream.
    Send {
        /// The stream.
        stream: StreamId,
        /// What.
        what: Outgoing,
    },
    /// Receive the announced body into the slot.
    ReceiveBody {
        /// The stream.
        stream: StreamId,
        /// What was announced.
        header: DataHeader,
        /// Where to.
        slot: SlotId,
    },
    /// Receive the announced body and throw it away.
    SkipBody {
        /// The stream.
        stream: StreamId,
    },
    /// Tell the embedder.
    Notify(Notice),
    /// The machine is at its end; streams are to be closed once what was sent is out.
    Finish(Finish),
}

/// What the embedder is told while a session runs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The streams are agreed on.
    Connected {
        /// Version of the wire.
        version: u8,
        /// Agreed chunk size in bytes.
        chunk_bytes: u32,
    },
    /// A device entered a phase.
    Phase {
        /// The device.
        device: DeviceId,
        /// The phase.
        phase: Phase,
    },
    /// A device was announced (target): its name was checked, these are the embedder's bytes.
    Begin {
        /// The device.
        device: DeviceId,
        /// What the source said of it.
        begin: Begin,
    },
    /// The target has written a device's initial PRE_COPY data.
    InitialDataLoaded {
        /// The device.
        device: DeviceId,
    },
    /// What the downtime would be if the VM stopped now (source, in PRE_COPY).
    Estimate(Estimate),
    /// The epoch of a device, or its migration, ended.
    Completion(Completion),
    /// The source has let go, all devices are loaded; RUNNING follows (target).
    HandedOver,
    /// Bytes of the peer's embedder.
    Message(Bytes),
}

/// What the downtime would be, and from what that was reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Estimate {
    /// All devices' initial data is loaded at the target.
    pub initial_data_loaded: bool,
    /// Bytes of PRE_COPY data that devices report as still to be read, and those that were read and
    /// have not been sent.
    pub pending_bytes: u64,
    /// Bytes that the devices expect to give out in STOP_COPY; none where a driver does not say.
    pub stop_copy_bytes: Option<u64>,
    /// Measured: bytes of state per second through the whole path; 0 before the first chunk.
    pub state_bytes_per_s: u64,
    /// Measured: state bytes over wire bytes.
    pub ratio: f64,
    /// Pending and STOP_COPY bytes over the measured rate, in nanoseconds; none before there is a
    /// rate.
    pub downtime_ns: Option<u64>,
}

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finish {
    /// Complete, unconfirmed or aborted.
    pub ending: crate::outcome::EpochEnding,
    /// Why, unless complete.
    pub fault: Option<Fault>,
}

/// A pure machine as the drive and the simulated world see it.
pub trait Machine {
    /// Takes one event at time `now_ns` and appends what is to be done.
    fn handle(&mut self, now_ns: u64, event: Event, actions: &mut Vec<Action>);

    /// Whether the session is given up or over: nobody waits for a device's answer any more.
    fn is_ending(&self) -> bool;

    /// When [`Event::Tick`] is due, on the same clock.
    fn deadline_ns(&self) -> Option<u64>;
}
