//! A header's fields against its kind and the session's limits.

#![forbid(unsafe_code)]

use super::handshake::{Accept, Features, Offer};
use super::header::{Encoding, Header, NO_DEVICE};
use super::kind::{Shape, shape};
use super::{Kind, WireFault, chunk_hash};
use crate::limits::{CHUNK_BYTES_MAX, CONTROL_BODY_BYTES_MAX, DEVICES_MAX};

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

/// The checks behind the version: the kind, then what the kind allows. An abort's
/// unknown device becomes none.
pub(super) fn fields(header: &mut Header, limits: &WireLimits) -> Result<(), WireFault> {
    let kind = header.kind;
    match shape(kind) {
        // Nobody will look at more than the length of what is skipped.
        None if kind.is_optional() => return body_max(header, CONTROL_BODY_BYTES_MAX as u32),
        None => return Err(WireFault::UnknownKind { kind }),
        Some(Shape::Data) => data(header, limits)?,
        Some(Shape::Control { device, sequence, body_min, body_max: max }) => {
            if kind == Kind::ABORT && header.device >= limits.devices {
                header.device = NO_DEVICE;
            }
            control(header, limits, *device, *sequence)?;
            body_max(header, *max)?;
            let (found, min, max) = (header.body_bytes, *body_min, *max);
            if found < min {
                return Err(WireFault::BodyLength { kind, found, min, max });
            }
        }
    }
    empty_hash(header)
}

/// A data frame's fields.
pub(super) fn data(header: &Header, limits: &WireLimits) -> Result<(), WireFault> {
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

fn control(
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
