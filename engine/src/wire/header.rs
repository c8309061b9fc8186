//! A frame's header as a value.

#![forbid(unsafe_code)]

use std::fmt;

use super::handshake::{HANDSHAKE_VERSION, VERSION_MAX};
use super::{DataHeader, DevicePlace, Kind, chunk_hash};
use crate::ids::{DeviceId, Epoch, Sequence};

/// The header's device field in an abort that concerns the whole session.
pub(super) const NO_DEVICE: u32 = u32::MAX;

/// How a data frame's body stands for its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Encoding {
    /// No body: the chunk is all zeros.
    Zero = 0,
    /// The body is the chunk.
    Raw = 1,
    /// The body is one independent zstd frame whose content is the chunk.
    Zstd = 2,
}

impl Encoding {
    /// The encoding of this number on the wire.
    pub fn from_wire(number: u8) -> Option<Encoding> {
        [Encoding::Zero, Encoding::Raw, Encoding::Zstd].get(usize::from(number)).copied()
    }

    /// The name used in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Zero => "zero",
            Encoding::Raw => "raw",
            Encoding::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A header that passed every check of [`decode_header`](super::decode_header), as integers: magic and header
/// hash carry nothing more. What a field means depends on the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Wire version of this frame.
    pub version: u8,
    /// Data: an [`Encoding`]. Others: 0.
    pub encoding: u8,
    /// What the frame is.
    pub kind: Kind,
    /// Bytes that follow the header.
    pub body_bytes: u32,
    /// Data: bytes of state in the chunk. Others: 0.
    pub raw_bytes: u32,
    /// The device, where the kind has one. In an abort `u32::MAX` stands for the whole session.
    pub device: u32,
    /// The device's epoch, where the kind has one.
    pub epoch: u32,
    /// The frame's place in the epoch; in a credit the first sequence that may not be sent yet; in
    /// a ping or pong its number.
    pub sequence: u64,
    /// Data: where the chunk's first byte stands in the epoch's state. Others: 0.
    pub offset: u64,
    /// [`chunk_hash`] of the body as it travels, also of an empty one.
    pub body_hash: u64,
    /// Data: [`chunk_hash`] of the chunk. Others: 0.
    pub raw_hash: u64,
    /// The frame's number on its stream: [`FrameNumbers`](super::FrameNumbers).
    pub number: u32,
}

impl Header {
    /// A frame of `kind` with nothing but the hash of its `body`, whose length the caller bounds.
    pub(super) fn of(kind: Kind, body: &[u8]) -> Header {
        Header {
            version: if kind.is_handshake() { HANDSHAKE_VERSION } else { VERSION_MAX },
            encoding: 0,
            kind,
            body_bytes: body.len() as u32,
            raw_bytes: 0,
            device: 0,
            epoch: 0,
            sequence: 0,
            offset: 0,
            body_hash: chunk_hash(body),
            raw_hash: 0,
            number: 0,
        }
    }

    /// The same at a device's place.
    pub(super) fn at(self, place: DevicePlace) -> Header {
        let DevicePlace { device, epoch, sequence } = place;
        Header { device: device.0, epoch: epoch.0, sequence: sequence.0, ..self }
    }

    /// The same as its stream's frame of this number.
    pub fn numbered(self, number: u32) -> Header {
        Header { number, ..self }
    }

    /// The device's place in the header.
    pub(super) fn place(&self) -> DevicePlace {
        DevicePlace {
            device: DeviceId(self.device),
            epoch: Epoch(self.epoch),
            sequence: Sequence(self.sequence),
        }
    }

    /// The frame is of an unknown kind that may be skipped: read past `body_bytes` bytes and go on.
    pub fn is_skippable(&self) -> bool {
        !self.kind.is_known() && self.kind.is_optional()
    }
}

impl From<DataHeader> for Header {
    /// The header of a chunk's frame, as the first one on its stream: see [`Header::numbered`].
    fn from(data: DataHeader) -> Header {
        Header {
            version: VERSION_MAX,
            encoding: data.encoding as u8,
            kind: Kind::DATA,
            body_bytes: data.body_bytes,
            raw_bytes: data.raw_bytes,
            device: data.place.device.0,
            epoch: data.place.epoch.0,
            sequence: data.place.sequence.0,
            offset: data.offset,
            body_hash: data.body_hash,
            raw_hash: data.raw_hash,
            number: 0,
        }
    }
}
