//! The 64-byte header's layout, and the checks that every frame goes through.
//!
//! A header is checked in this order, and nothing of it is believed before: magic, header hash,
//! version, kind, then each field against its kind and the limits (`check.rs`). Its number is for its
//! stream to check, after all that ([`FrameNumbers`](super::FrameNumbers)).

#![forbid(unsafe_code)]

use super::check::{self, WireLimits};
use super::handshake::{HANDSHAKE_VERSION, VERSION_MAX, VERSION_MIN};
use super::header::{Encoding, Header};
use super::{DataHeader, Kind, WireFault, chunk_hash};
use crate::limits::HEADER_BYTES;

/// The first four bytes of every frame: "VFRY".
const MAGIC: u32 = u32::from_le_bytes(*b"VFRY");

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
    pub(super) const NUMBER: usize = RAW_HASH + 8;
    pub(super) const HEADER_HASH: usize = NUMBER + 4;
    pub(super) const END: usize = HEADER_HASH + 4;
}

const _: () = assert!(at::END == HEADER_BYTES);

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
    put(at::NUMBER, &header.number.to_le_bytes());
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
        number: u32_at(bytes, at::NUMBER),
    };
    let (kind, version) = (header.kind, header.version);
    let (min, max) = match kind.is_handshake() {
        true => (HANDSHAKE_VERSION, HANDSHAKE_VERSION),
        false => (VERSION_MIN, VERSION_MAX),
    };
    if !(min..=max).contains(&version) {
        return Err(WireFault::Version { kind, found: version, min, max });
    }
    check::fields(&mut header, limits)?;
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
    check::data(header, &WireLimits::MAX)?;
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
