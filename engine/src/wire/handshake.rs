//! The handshake: what a source offers on each stream, and what a target makes of it.
//!
//! ```text
//! source --hello (version 1 header; versions min..=max, features, sizes, session, stream)--> target
//! source <--accept (version, features, chunk size, session)--------------------------------- target
//! ```
//! The target's answer is the highest version, the features and the chunk size that both sides
//! can do. A hello is understood whatever versions it offers, so that two versions that do not
//! meet end in [`WireFault::NoCommonVersion`] and not in a parse error.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::{BitAnd, BitOr};

use super::cursor::Reader;
use super::kind::{ACCEPT_BODY, HELLO_BODY};
use super::{Kind, WireFault};
use crate::ids::StreamId;
use crate::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, DEVICES_MAX, STREAMS_MAX};

/// Oldest wire version that this engine speaks.
pub const VERSION_MIN: u8 = 1;
/// Newest wire version that this engine speaks.
pub const VERSION_MAX: u8 = 1;
/// Version of the headers of hello, accept and abort, for ever.
pub(super) const HANDSHAKE_VERSION: u8 = 1;

/// What a side can do beyond the version's minimum, as a set of bits. Unknown bits survive
/// parsing and disappear in the agreement.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Features(pub u64);

impl Features {
    /// Nothing.
    pub const NONE: Features = Features(0);
    /// Data frames may be zstd.
    pub const ZSTD: Features = Features(1 << 0);
    /// Everything that this engine knows.
    pub const ALL: Features = Features::ZSTD;

    /// All of `other` is in this set.
    pub fn contains(self, other: Features) -> bool {
        self & other == other
    }
}

impl BitAnd for Features {
    type Output = Features;
    fn bitand(self, other: Features) -> Features {
        Features(self.0 & other.0)
    }
}

impl BitOr for Features {
    type Output = Features;
    fn bitor(self, other: Features) -> Features {
        Features(self.0 | other.0)
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features({:#x})", self.0)
    }
}

/// What this side can do: both hosts have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Oldest wire version.
    pub version_min: u8,
    /// Newest wire version.
    pub version_max: u8,
    /// Features.
    pub features: Features,
    /// Streams of the session; at the target the most that it takes.
    pub streams: u16,
    /// Device numbers are below this; at the target the most that it takes.
    pub devices: u32,
    /// Longest chunk, in bytes.
    pub chunk_bytes: u32,
}

impl Offer {
    /// All versions and features of this engine, and these sizes, brought into the engine's limits.
    pub fn new(streams: usize, devices: usize, chunk_bytes: usize) -> Offer {
        Offer {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: Features::ALL,
            streams: streams.clamp(1, STREAMS_MAX) as u16,
            devices: devices.clamp(1, DEVICES_MAX) as u32,
            chunk_bytes: chunk_bytes.clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX) as u32,
        }
    }

    /// The hello of one stream of the session with the random id `session`.
    pub fn hello(&self, session: u128, stream: StreamId) -> Hello {
        Hello {
            version_min: self.version_min,
            version_max: self.version_max,
            features: self.features,
            session,
            stream,
            streams: self.streams,
            devices: self.devices,
            chunk_bytes: self.chunk_bytes,
        }
    }
}

/// What a source says first on every stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Oldest wire version that the source speaks.
    pub version_min: u8,
    /// Newest wire version that the source speaks.
    pub version_max: u8,
    /// What the source can do.
    pub features: Features,
    /// Random id that all streams of a session share.
    pub session: u128,
    /// This stream.
    pub stream: StreamId,
    /// How many streams the session has.
    pub streams: u16,
    /// Device numbers are below this.
    pub devices: u32,
    /// Longest chunk that the source would send, in bytes.
    pub chunk_bytes: u32,
}

/// What was agreed, as the target says it on every stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// The version of the frames that follow.
    pub version: u8,
    /// The features that may be used.
    pub features: Features,
    /// Longest chunk, in bytes.
    pub chunk_bytes: u32,
    /// The hello's session.
    pub session: u128,
}

/// The target's side of the agreement: the highest common version, the common features, the
/// smaller chunk size.
///
/// # Errors
/// [`WireFault::NoCommonVersion`], and [`WireFault::Handshake`] with the field that is outside
/// what `offer` and the engine's limits can agree to.
pub fn negotiate(offer: &Offer, hello: &Hello) -> Result<Accept, WireFault> {
    let (min, max) = (hello.version_min, hello.version_max);
    range("newest version", max, min.max(1), u8::MAX)?;
    let version = max.min(offer.version_max);
    if version < min.max(offer.version_min) {
        return Err(WireFault::NoCommonVersion {
            peer_min: min,
            peer_max: max,
            own_min: offer.version_min,
            own_max: offer.version_max,
        });
    }
    range("number of streams", hello.streams, 1, offer.streams.min(STREAMS_MAX as u16))?;
    range("stream", hello.stream.0, 0, hello.streams.saturating_sub(1))?;
    range("number of devices", hello.devices, 1, offer.devices.min(DEVICES_MAX as u32))?;
    range("chunk size", hello.chunk_bytes, CHUNK_BYTES_MIN as u32, u32::MAX)?;
    let chunk_bytes = hello.chunk_bytes.min(offer.chunk_bytes).min(CHUNK_BYTES_MAX as u32);
    let features = hello.features & offer.features;
    Ok(Accept { version, features, chunk_bytes, session: hello.session })
}

impl Hello {
    /// The source's check of the answer to this hello.
    ///
    /// # Errors
    /// [`WireFault::Handshake`] with the field that goes beyond the hello,
    /// [`WireFault::OtherSession`] if the answer is to another one.
    pub fn check(&self, accept: &Accept) -> Result<(), WireFault> {
        same("session", accept.session, self.session)?;
        range("version", accept.version, self.version_min, self.version_max)?;
        range("features", accept.features.0, 0, self.features.0)?;
        if !self.features.contains(accept.features) {
            let (found, max) = (accept.features.0, self.features.0);
            return Err(WireFault::Handshake { field: "features", found, min: 0, max });
        }
        range("chunk size", accept.chunk_bytes, CHUNK_BYTES_MIN as u32, self.chunk_bytes)
    }

    /// The target's check of a later stream's hello against the first one of the session: all but
    /// the stream's number is the same.
    ///
    /// # Errors
    /// [`WireFault::OtherSession`] with the field that differs.
    pub fn same_session(&self, first: &Hello) -> Result<(), WireFault> {
        same("session", self.session, first.session)?;
        same("oldest version", self.version_min, first.version_min)?;
        same("newest version", self.version_max, first.version_max)?;
        same("features", self.features, first.features)?;
        same("number of streams", self.streams, first.streams)?;
        same("number of devices", self.devices, first.devices)?;
        same("chunk size", self.chunk_bytes, first.chunk_bytes)
    }

    pub(super) fn write(&self, body: &mut Vec<u8>) {
        body.extend([self.version_min, self.version_max]);
        body.extend(self.streams.to_le_bytes());
        body.extend(self.stream.0.to_le_bytes());
        body.extend([0; 2]);
        body.extend(self.devices.to_le_bytes());
        body.extend(self.chunk_bytes.to_le_bytes());
        body.extend(self.features.0.to_le_bytes());
        body.extend(self.session.to_le_bytes());
    }

    /// The first [`HELLO_BODY`] bytes have this layout for ever. Only a source that speaks a later
    /// version may use the reserved bytes or say more; it is then ignored here.
    pub(super) fn read(body: &[u8]) -> Result<Hello, WireFault> {
        let mut reader = Reader::new(Kind::HELLO, body);
        let (version_min, version_max) = (reader.u8()?, reader.u8()?);
        let streams = reader.u16()?;
        let stream = StreamId(reader.u16()?);
        let reserved = reader.u16()?;
        let devices = reader.u32()?;
        let chunk_bytes = reader.u32()?;
        let features = Features(reader.u64()?);
        let session = reader.u128()?;
        if version_max <= VERSION_MAX {
            reader.reserved(reserved)?;
            reader.finish()?;
        }
        Ok(Hello {
            version_min,
            version_max,
            features,
            session,
            stream,
            streams,
            devices,
            chunk_bytes,
        })
    }
}

impl Accept {
    pub(super) fn write(&self, body: &mut Vec<u8>) {
        body.extend([self.version, 0, 0, 0]);
        body.extend(self.chunk_bytes.to_le_bytes());
        body.extend(self.features.0.to_le_bytes());
        body.extend(self.session.to_le_bytes());
    }

    pub(super) fn read(body: &[u8]) -> Result<Accept, WireFault> {
        let mut reader = Reader::new(Kind::ACCEPT, body);
        let version = reader.u8()?;
        let reserved = u64::from(reader.u8()?) | u64::from(reader.u16()?) << 8;
        reader.reserved(reserved)?;
        let chunk_bytes = reader.u32()?;
        let features = Features(reader.u64()?);
        let session = reader.u128()?;
        reader.finish()?;
        Ok(Accept { version, features, chunk_bytes, session })
    }
}

fn range<T: Copy + Into<u64>>(
    field: &'static str,
    found: T,
    min: T,
    max: T,
) -> Result<(), WireFault> {
    let (found, min, max) = (found.into(), min.into(), max.into());
    if found < min || found > max {
        return Err(WireFault::Handshake { field, found, min, max });
    }
    Ok(())
}

fn same<T: PartialEq>(field: &'static str, found: T, expected: T) -> Result<(), WireFault> {
    if found == expected { Ok(()) } else { Err(WireFault::OtherSession { field }) }
}

// A hello's and an accept's fields, summed: what `write` writes.
const _: () = assert!(HELLO_BODY == 1 + 1 + 2 + 2 + 2 + 4 + 4 + 8 + 16);
const _: () = assert!(ACCEPT_BODY == 1 + 3 + 4 + 8 + 16);
