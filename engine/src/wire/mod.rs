//! The wire: what two engines say to each other, byte for byte. WIRE.md describes it so that another
//! implementation could be written from it.
//!
//! No fd, no clock, no thread, no panic on any input.
//!
//! Every frame is a 64-byte header with a checksum of its own, checked before any length in it is
//! believed, and a body whose length is bounded by [`WireLimits`] before anything is allocated.
//!
//! ```text
//!  0 u32 magic "VFRY"      4 u8 version      5 u8 encoding     6 u16 kind (bit 15: optional)
//!  8 u32 body_bytes       12 u32 raw_bytes  16 u32 device     20 u32 epoch
//! 24 u64 sequence         32 u64 offset     40 u64 body_hash  48 u64 raw_hash
//! 56 u32 number          60 u32 header_hash
//! ```

mod body;
mod check;
mod cursor;
mod digest;
mod fault;
mod handshake;
mod header;
mod kind;
mod layout;
mod number;
mod text;

pub use body::{decode, encode, padding};
pub use check::WireLimits;
pub use digest::{Digest, StateDigest, chunk_hash};
pub use fault::WireFault;
pub use handshake::{Accept, Features, Hello, Offer, VERSION_MAX, VERSION_MIN, negotiate};
pub use header::{Encoding, Header};
pub use kind::Kind;
pub use layout::{data_header, decode_header, encode_header};
pub use number::FrameNumbers;
pub(crate) use text::unseen;

use bytes::Bytes;

use crate::cause::{Cause, Observation};
use crate::ids::{DeviceId, Epoch, Sequence};

/// Size of a hello's body, in bytes: the same in every version.
pub const HELLO_BODY_BYTES: usize = kind::HELLO_BODY;

/// A frame that is not a chunk of state, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Source to target, first on every stream: versions, features, sizes, the stream's number.
    Hello(Hello),
    /// Target to source, first on every stream: what was agreed.
    Accept(Accept),
    /// First frame of a device's epoch 0: who it is.
    Begin(DevicePlace, Begin),
    /// The device's later data comes from this phase.
    Phase(DevicePlace, DataPhase),
    /// The device's initial PRE_COPY data has been sent up to here.
    InitialDataSent(DevicePlace),
    /// The target has written the initial data.
    InitialDataLoaded {
        /// The device.
        device: DeviceId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// First frame of a device's later epoch: everything of the epochs before it is worthless.
    Discard(DevicePlace, Discard),
    /// Last frame of an epoch: all state has been sent.
    End(DevicePlace, Total),
    /// The target's device holds the whole state and has left RESUMING for STOP.
    Loaded {
        /// The device.
        device: DeviceId,
        /// Its epoch.
        epoch: Epoch,
        /// What the target wrote.
        total: Total,
    },
    /// The source has let go of all devices; the target may go to RUNNING.
    Handover,
    /// All of the target's devices are RUNNING.
    Running,
    /// The target can take the device's frames whose sequence is below `up_to`.
    Credit {
        /// The device.
        device: DeviceId,
        /// Its epoch.
        epoch: Epoch,
        /// First sequence that may not be sent yet.
        up_to: Sequence,
    },
    /// The sender of this frame has given up the session, and why.
    Abort(Abort),
    /// Opaque bytes of the VMM.
    Message(Bytes),
    /// Are you there?
    Ping(u64),
    /// The answer to a ping, with its number.
    Pong(u64),
}

/// Where a frame stands among its device's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePlace {
    /// The device.
    pub device: DeviceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The frame's place in it.
    pub sequence: Sequence,
}

/// Who a device is, as the source's embedder named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// UTF-8, at most [`NAME_BYTES_MAX`](crate::limits::NAME_BYTES_MAX) bytes
    /// of characters that can be seen; must be the target's name for it.
    pub name: String,
    /// The device saves in PRE_COPY.
    pub precopy: bool,
    /// The device has the P2P states.
    pub p2p: bool,
    /// The embedder's own bytes.
    pub opaque: Bytes,
}

/// Which saving state data comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataPhase {
    /// The guest runs.
    PreCopy,
    /// The device is stopped.
    StopCopy,
}

/// Why and how much an epoch's end discards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discard {
    /// Bytes of device state that were sent in the epoch before.
    pub discarded_bytes: u64,
    /// The new epoch has only STOP_COPY data.
    pub stop_copy_only: bool,
}

/// Why a host gives up, as it tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abort {
    /// Who or what ended it.
    pub cause: Cause,
    /// How that was seen.
    pub observed: Observation,
    /// The kernel's answer, a positive errno.
    pub errno: Option<i32>,
    /// The device that it concerns; none if it concerns the whole session.
    pub device: Option<DeviceId>,
    /// One sentence for a person, of which at most
    /// [`TEXT_BYTES_MAX`](crate::limits::TEXT_BYTES_MAX) bytes travel. From a peer it is safe to
    /// print: characters that have no shape of their own (controls, line ends, marks of direction)
    /// were replaced by U+FFFD.
    pub message: String,
}

/// An epoch's state in two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// Bytes of device state.
    pub bytes: u64,
    /// Digest over the chunks' hashes in order.
    pub digest: Digest,
}

/// A chunk of state: a data frame's header, parsed and bounded. Its body follows on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// Its place.
    pub place: DevicePlace,
    /// Where its first byte stands in the epoch's state.
    pub offset: u64,
    /// How the body stands for the chunk.
    pub encoding: Encoding,
    /// Bytes of state, 1 to the agreed chunk size.
    pub raw_bytes: u32,
    /// Bytes that follow the header: 0 for zeros, `raw_bytes` for raw, fewer for zstd.
    pub body_bytes: u32,
    /// [`chunk_hash`] of the body as it travels.
    pub body_hash: u64,
    /// [`chunk_hash`] of the chunk.
    pub raw_hash: u64,
}

impl DataHeader {
    /// Bytes that the frame takes on the wire, its header included.
    pub fn wire_bytes(&self) -> u64 {
        u64::from(self.body_bytes) + crate::limits::HEADER_BYTES as u64
    }
}

impl Frame {
    /// The frame's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Frame::Hello(_) => Kind::HELLO,
            Frame::Accept(_) => Kind::ACCEPT,
            Frame::Begin(..) => Kind::BEGIN,
            Frame::Phase(..) => Kind::PHASE,
            Frame::InitialDataSent(_) => Kind::INITIAL_DATA_SENT,
            Frame::InitialDataLoaded { .. } => Kind::INITIAL_DATA_LOADED,
            Frame::Discard(..) => Kind::DISCARD,
            Frame::End(..) => Kind::END,
            Frame::Loaded { .. } => Kind::LOADED,
            Frame::Handover => Kind::HANDOVER,
            Frame::Running => Kind::RUNNING,
            Frame::Credit { .. } => Kind::CREDIT,
            Frame::Abort(_) => Kind::ABORT,
            Frame::Message(_) => Kind::MESSAGE,
            Frame::Ping(_) => Kind::PING,
            Frame::Pong(_) => Kind::PONG,
        }
    }

    /// Where it stands among its device's frames, if it is one of them.
    pub fn place(&self) -> Option<DevicePlace> {
        match self {
            Frame::Begin(place, _)
            | Frame::Phase(place, _)
            | Frame::InitialDataSent(place)
            | Frame::Discard(place, _)
            | Frame::End(place, _) => Some(*place),
            _ => None,
        }
    }
}
