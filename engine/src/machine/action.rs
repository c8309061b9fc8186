//! Actions: what a machine wants done.

#[cfg(doc)]
use super::Event;
use super::{Notice, Request};
use crate::ids::{DeviceId, Epoch, Sequence, SlotId, StreamId};
use crate::wire::{DataHeader, DataPhase, Frame};

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
    /// A frame that the peer skips.
    Padding {
        /// Bytes of its body, at most
        /// [`CONTROL_BODY_BYTES_MAX`](crate::limits::CONTROL_BODY_BYTES_MAX).
        bytes: u32,
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
        /// How many bytes at most, and no more than was agreed on.
        bytes: u32,
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
        /// If it shrinks, find out from samples what each level makes of it.
        sample: bool,
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
    Finish,
}
