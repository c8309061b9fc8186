//! The 64-byte header: layout, checks, and what each kind of frame may put into it.
//!
//! A header is checked in this order, and nothing of it is believed before: magic, header hash,
//! version, reserved bytes, kind, then each field against its kind and the limits.

#![forbid(unsafe_code)]

use std::fmt;

use super::handshake::{Accept, Features, HANDSHAKE_VERSION, Offer, VERSION_MAX, VERSION_MIN};
use super::kind::{Shape, shape};
use super::{DataHeader, DevicePlace, Kind, WireFault, chunk_hash};
use crate::ids::{DeviceId, Epoch, Sequence};
use crate::limits::{CHUNK_BYTES_MAX, CONTROL_BODY_BYTES_MAX, DEVICES_MAX, HEADER_BYTES};

/// The first four bytes of every frame: "VFRY".
const MAGIC: u32 = u32::from_le_bytes(*b"VFRY");

/// The header's device field in an abort that concerns the whole session.
pub(super) const NO_DEVICE: u32 = u32::MAX;

/// The layout: where each field begins, in bytes.
mod at {
    pub(super) const MAGIC: usize = 0;
    pub(super) const VERSION: usize = MAGIC + 4;
    pub(super) const ENCODING: usize = VERSION + 1;
    pub(super) const KIND: usize = ENCODING + 1;
    pub(super) const BODY_BYTES: usize = KIND + 2;
    pub(super) const RAW_BYTES: usize = BODY_BYTES + 4;
    pub(super) const DEVICE: usize = RAW_BYTES + 4;
    pub(super) const EPOCH: usize = DEVICE + 4;
    pub(super) const SEQUENCE: usize = EPOCH + 4;
    pub(super) const OFFSET: usize = SEQUENCE + 8;
    pub(super) const BODY_HASH: usize = OFFSET + 8;
    pub(super) const RAW_HASH: usize = BODY_HASH + 8;
    pub(super) const RESERVED: usize = RAW_HASH + 8;
    pub(super) const HEADER_HASH: usize = RESERVED + 4;
    pub(super) const END: usize = HEADER_HASH + 4;
}

const _: () = assert!(at::END == HEADER_BYTES);

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

/// What bounds the frames of a session on this side. Before the handshake that is this side's
/// own offer, after it what was agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireLimits {
    /// Longest chunk, in bytes.
    pub chunk_bytes: u32,
    /// Device numbers are below this.
    pub devices: u32,
    /// The agreed features: an encoding that is not among them is refused.
    pub features: Features,
}

impl WireLimits {
    /// What the engine could ever accept.
    pub const MAX: WireLimits = WireLimits {
        chunk_bytes: CHUNK_BYTES_MAX as u32,
        devices: DEVICES_MAX as u32,
        features: Features::ALL,
    };

    /// The limits of a session that agreed on `accept`, on a side that offered `offer`.
    pub fn agreed(offer: &Offer, accept: &Accept) -> WireLimits {
        WireLimits {
            chunk_bytes: accept.chunk_bytes.min(offer.chunk_bytes),
            devices: offer.devices,
            features: accept.features,
        }
    }
}

impl From<&Offer> for WireLimits {
    /// The limits while nothing has been agreed.
    fn from(offer: &Offer) -> WireLimits {
        WireLimits {
            chunk_bytes: offer.chunk_bytes,
            devices: offer.devices,
            features: offer.features,
        }
    }
}

/// A header that passed every check of [`decode_header`], as integers: magic, reserved bytes and
/// header hash carry nothing more. What a field means depends on the kind.
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
        }
    }

    /// The same at a device's place.
    pub(super) fn at(self, place: DevicePlace) -> Header {
        let DevicePlace { device, epoch, sequence } = place;
        Header { device: device.0, epoch: epoch.0, sequence: sequence.0, ..self }
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
        }
    }
}

/// The header's bytes, hash included. Nothing is checked: that is the reader's part.
pub fn encode_header(header: &Header) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(at::MAGIC, &MAGIC.to_le_bytes());
    put(at::VERSION, &[header.version]);
    put(at::ENCODING, &[header.encoding]);
    put(at::KIND, &header.kind.0.to_le_bytes());
    put(at::BODY_BYTES, &header.body_bytes.to_le_bytes());
    put(at::RAW_BYTES, &header.raw_bytes.to_le_bytes());
    put(at::DEVICE, &header.device.to_le_bytes());
    put(at::EPOCH, &header.epoch.to_le_bytes());
    put(at::SEQUENCE, &header.sequence.to_le_bytes());
    put(at::OFFSET, &header.offset.to_le_bytes());
    put(at::BODY_HASH, &header.body_hash.to_le_bytes());
    put(at::RAW_HASH, &header.raw_hash.to_le_bytes());
    let hash = header_hash(&out);
    out[at::HEADER_HASH..].copy_from_slice(&hash.to_le_bytes());
    out
}

/// Checks a header and gives it as a value, in which every length is within `limits`.
///
/// An unknown kind with the optional bit passes with only its length checked: see
/// [`Header::is_skippable`]. An abort about a device beyond `limits.devices` passes as one about
/// the whole session, because an abort must stay an abort.
///
/// # Errors
/// The first of the checks that fails, in the order that the top of this file gives.
pub fn decode_header(bytes: &[u8; HEADER_BYTES], limits: &WireLimits) -> Result<Header, WireFault> {
    let magic = u32_at(bytes, at::MAGIC);
    if magic != MAGIC {
        return Err(WireFault::BadMagic { found: magic });
    }
    let (found, expected) = (u32_at(bytes, at::HEADER_HASH), header_hash(bytes));
    if found != expected {
        return Err(WireFault::HeaderHash { found, expected });
    }
    let mut header = Header {
        version: bytes[at::VERSION],
        encoding: bytes[at::ENCODING],
        kind: Kind(u16::from_le_bytes([bytes[at::KIND], bytes[at::KIND + 1]])),
        body_bytes: u32_at(bytes, at::BODY_BYTES),
        raw_bytes: u32_at(bytes, at::RAW_BYTES),
        device: u32_at(bytes, at::DEVICE),
        epoch: u32_at(bytes, at::EPOCH),
        sequence: u64_at(bytes, at::SEQUENCE),
        offset: u64_at(bytes, at::OFFSET),
        body_hash: u64_at(bytes, at::BODY_HASH),
        raw_hash: u64_at(bytes, at::RAW_HASH),
    };
    let (kind, version) = (header.kind, header.version);
    let (min, max) = match kind.is_handshake() {
        true => (HANDSHAKE_VERSION, HANDSHAKE_VERSION),
        false => (VERSION_MIN, VERSION_MAX),
    };
    if !(min..=max).contains(&version) {
        return Err(WireFault::Version { kind, found: version, min, max });
    }
    let reserved = u32_at(bytes, at::RESERVED);
    if reserved != 0 {
        return Err(WireFault::Reserved { kind, found: u64::from(reserved) });
    }
    match shape(kind) {
        None if kind.is_optional() => body_max(&header, CONTROL_BODY_BYTES_MAX as u32)?,
        None => return Err(WireFault::UnknownKind { kind }),
        Some(Shape::Data) => check_data(&header, limits)?,
        Some(Shape::Control { device, sequence, body_min, body_max: max }) => {
            if kind == Kind::ABORT && header.device >= limits.devices {
                header.device = NO_DEVICE;
            }
            check_control(&header, limits, *device, *sequence)?;
            body_max(&header, *max)?;
            if header.body_bytes < *body_min {
                let found = header.body_bytes;
                return Err(WireFault::BodyLength { kind, found, min: *body_min, max: *max });
            }
        }
    }
    if !header.is_skippable() {
        empty_hash(&header)?;
    }
    Ok(header)
}

/// A data frame's header as a chunk.
///
/// # Errors
/// [`WireFault::UnknownKind`] unless the kind is [`Kind::DATA`]; what [`decode_header`] gives for
/// a data frame, with the engine's own limits, if the header did not come from there.
pub fn data_header(header: &Header) -> Result<DataHeader, WireFault> {
    if header.kind != Kind::DATA {
        return Err(WireFault::UnknownKind { kind: header.kind });
    }
    check_data(header, &WireLimits::MAX)?;
    let encoding = Encoding::from_wire(header.encoding)
        .ok_or(WireFault::UnknownEncoding { found: header.encoding })?;
    Ok(DataHeader {
        place: header.place(),
        offset: header.offset,
        encoding,
        raw_bytes: header.raw_bytes,
        body_bytes: header.body_bytes,
        body_hash: header.body_hash,
        raw_hash: header.raw_hash,
    })
}

fn check_data(header: &Header, limits: &WireLimits) -> Result<(), WireFault> {
    let Header { kind, raw_bytes, body_bytes, offset, .. } = *header;
    device_number(header, limits)?;
    let encoding = Encoding::from_wire(header.encoding)
        .ok_or(WireFault::UnknownEncoding { found: header.encoding })?;
    if encoding == Encoding::Zstd && !limits.features.contains(Features::ZSTD) {
        return Err(WireFault::EncodingNotAgreed);
    }
    body_max(header, limits.chunk_bytes)?;
    if raw_bytes == 0 || raw_bytes > limits.chunk_bytes {
        return Err(WireFault::RawLength { found: raw_bytes, max: limits.chunk_bytes });
    }
    let (min, max) = match encoding {
        Encoding::Zero => (0, 0),
        Encoding::Raw => (raw_bytes, raw_bytes),
        Encoding::Zstd => (1, raw_bytes - 1),
    };
    if body_bytes < min || body_bytes > max {
        return Err(WireFault::BodyLength { kind, found: body_bytes, min, max });
    }
    if offset.checked_add(u64::from(raw_bytes)).is_none() {
        return Err(WireFault::Offset { offset, raw_bytes });
    }
    if encoding == Encoding::Raw && header.body_hash != header.raw_hash {
        let (body_hash, raw_hash) = (header.body_hash, header.raw_hash);
        return Err(WireFault::RawHash { body_hash, raw_hash });
    }
    Ok(())
}

fn check_control(
    header: &Header,
    limits: &WireLimits,
    device: bool,
    sequence: bool,
) -> Result<(), WireFault> {
    let kind = header.kind;
    let unused = |field, found: u64| match found {
        0 => Ok(()),
        found => Err(WireFault::UnusedField { kind, field, found }),
    };
    unused("encoding", u64::from(header.encoding))?;
    unused("raw_bytes", u64::from(header.raw_bytes))?;
    unused("offset", header.offset)?;
    unused("raw_hash", header.raw_hash)?;
    if device {
        device_number(header, limits)?;
    } else {
        if kind != Kind::ABORT {
            unused("device", u64::from(header.device))?;
        }
        unused("epoch", u64::from(header.epoch))?;
    }
    if !sequence {
        unused("sequence", header.sequence)?;
    }
    Ok(())
}

fn device_number(header: &Header, limits: &WireLimits) -> Result<(), WireFault> {
    let Header { kind, device, .. } = *header;
    if device < limits.devices {
        return Ok(());
    }
    Err(WireFault::DeviceNumber { kind, found: device, devices: limits.devices })
}

fn body_max(header: &Header, max: u32) -> Result<(), WireFault> {
    let Header { kind, body_bytes: found, .. } = *header;
    if found > max { Err(WireFault::BodyTooLong { kind, found, max }) } else { Ok(()) }
}

/// An empty body has no bytes that could be checked later, so its hash is checked here.
fn empty_hash(header: &Header) -> Result<(), WireFault> {
    let (kind, found, expected) = (header.kind, header.body_hash, chunk_hash(&[]));
    if header.body_bytes == 0 && found != expected {
        return Err(WireFault::BodyHash { kind, found, expected });
    }
    Ok(())
}

/// The low 32 bits of XXH3-64 over everything before the hash itself.
fn header_hash(bytes: &[u8; HEADER_BYTES]) -> u32 {
    chunk_hash(&bytes[..at::HEADER_HASH]) as u32
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}
