//! What can be wrong with a peer's bytes: one variant for each fault, with the offending values.

#![forbid(unsafe_code)]

use thiserror::Error;

use super::Kind;
use crate::cause::Cause;

/// Why bytes were refused (or, from [`encode`](super::encode), why a frame cannot be written).
///
/// Once a stream has given one of these it has no known frame boundary any more: it must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireFault {
    /// The first four bytes are not "VFRY".
    #[error(
        "bad magic {found:#010x} in a frame header: the peer does not speak vfio-ferry, or bytes were lost"
    )]
    BadMagic {
        /// The four bytes as a little-endian number.
        found: u32,
    },
    /// The header's own checksum is wrong.
    #[error(
        "header hash {found:#010x} where the header's bytes give {expected:#010x}: damaged on the way"
    )]
    HeaderHash {
        /// What the header says.
        found: u32,
        /// What its bytes give.
        expected: u32,
    },
    /// The header is of a version that this side does not speak.
    #[error("{kind} frame of version {found}; version {min} to {max} was expected")]
    Version {
        /// The frame's kind.
        kind: Kind,
        /// What the header says.
        found: u8,
        /// The oldest version that is accepted here.
        min: u8,
        /// The newest version that is accepted here.
        max: u8,
    },
    /// Reserved bytes are not zero.
    #[error("reserved bytes of a {kind} frame hold {found:#x}; they must be zero")]
    Reserved {
        /// The frame's kind.
        kind: Kind,
        /// What they hold.
        found: u64,
    },
    /// The frame is not the next one on its stream: one before it was lost on the way, or came
    /// twice.
    #[error(
        "a frame is missing on this stream: number {expected} was next, and number {found} came"
    )]
    Missing {
        /// The frame's number.
        found: u32,
        /// The number that was next.
        expected: u32,
    },
    /// A kind that this side does not know and must not skip, or one with no place here.
    #[error("{kind} is no frame that can be understood here, and it must not be skipped")]
    UnknownKind {
        /// The frame's kind.
        kind: Kind,
    },
    /// A data frame's encoding is none of zero, raw and zstd.
    #[error("unknown encoding {found} of a data frame")]
    UnknownEncoding {
        /// What the header says.
        found: u8,
    },
    /// A data frame's encoding was not agreed on in the handshake.
    #[error("a zstd data frame, but the handshake did not agree on zstd")]
    EncodingNotAgreed,
    /// A header field that this kind does not use is not zero.
    #[error(
        "field {field} of a {kind} frame is {found:#x}; this kind does not use it, it must be zero"
    )]
    UnusedField {
        /// The frame's kind.
        kind: Kind,
        /// The field's name.
        field: &'static str,
        /// What it holds.
        found: u64,
    },
    /// The header announces a longer body than this kind may have.
    #[error("{kind} frame announces a body of {found} bytes; at most {max} are allowed")]
    BodyTooLong {
        /// The frame's kind.
        kind: Kind,
        /// What the header announces, in bytes.
        found: u32,
        /// The most that is allowed, in bytes.
        max: u32,
    },
    /// The header announces a body that does not fit its kind or encoding.
    #[error("{kind} frame announces a body of {found} bytes; {min} to {max} were expected")]
    BodyLength {
        /// The frame's kind.
        kind: Kind,
        /// What the header announces, in bytes.
        found: u32,
        /// The shortest body of this kind, in bytes.
        min: u32,
        /// The longest body of this kind, in bytes.
        max: u32,
    },
    /// A data frame's chunk is empty or longer than agreed.
    #[error("data frame with a chunk of {found} bytes; 1 to {max} were agreed")]
    RawLength {
        /// What the header says, in bytes.
        found: u32,
        /// The agreed chunk size, in bytes.
        max: u32,
    },
    /// A data frame's chunk would end beyond 2^64 bytes.
    #[error("data frame of {raw_bytes} bytes at offset {offset} ends beyond 2^64 bytes")]
    Offset {
        /// Where the chunk begins.
        offset: u64,
        /// How long it is, in bytes.
        raw_bytes: u32,
    },
    /// The body's checksum is wrong.
    #[error(
        "body hash {found:#018x} of a {kind} frame where the body gives {expected:#018x}: damaged on the way"
    )]
    BodyHash {
        /// The frame's kind.
        kind: Kind,
        /// What the header says.
        found: u64,
        /// What the body gives.
        expected: u64,
    },
    /// A raw data frame whose body and chunk, which are the same bytes, have two hashes.
    #[error("raw data frame with body hash {body_hash:#018x} but chunk hash {raw_hash:#018x}")]
    RawHash {
        /// The body's hash as the header gives it.
        body_hash: u64,
        /// The chunk's hash as the header gives it.
        raw_hash: u64,
    },
    /// The body ends inside a field.
    #[error("{kind} frame's body ends {missing} bytes too early")]
    Truncated {
        /// The frame's kind.
        kind: Kind,
        /// How many bytes the field lacks.
        missing: usize,
    },
    /// The body goes on after its last field.
    #[error("{kind} frame's body goes on for {extra} bytes after its end")]
    Trailing {
        /// The frame's kind.
        kind: Kind,
        /// How many bytes are left over.
        extra: usize,
    },
    /// A text is not UTF-8.
    #[error("{field} is not UTF-8")]
    Text {
        /// Which text.
        field: &'static str,
    },
    /// A name has a character without a shape of its own: a control, an end of a line, a mark of
    /// direction, a zero-width space.
    #[error("{field} holds U+{found:04X}, which cannot be seen where it is printed")]
    Unseen {
        /// Which text.
        field: &'static str,
        /// The character's number.
        found: u32,
    },
    /// A variable part is longer than its own limit.
    #[error("{field} of {found} bytes; at most {max} are allowed")]
    TooLong {
        /// Which part.
        field: &'static str,
        /// Its length, in bytes.
        found: usize,
        /// The most that is allowed, in bytes.
        max: usize,
    },
    /// A field holds a value that has no meaning.
    #[error("{field} of a {kind} frame has no meaning for the value {found}")]
    Value {
        /// The frame's kind.
        kind: Kind,
        /// Which field.
        field: &'static str,
        /// What it holds.
        found: u64,
    },
    /// A device number beyond what the session has.
    #[error("device {found} in a {kind} frame; the session's devices are below {devices}")]
    DeviceNumber {
        /// The frame's kind.
        kind: Kind,
        /// The number.
        found: u32,
        /// The session's bound.
        devices: u32,
    },
    /// The peer's range of versions and ours do not meet.
    #[error(
        "the peer speaks wire versions {peer_min} to {peer_max}, this side {own_min} to {own_max}: \
         upgrade the older side"
    )]
    NoCommonVersion {
        /// The peer's oldest.
        peer_min: u8,
        /// The peer's newest.
        peer_max: u8,
        /// Our oldest.
        own_min: u8,
        /// Our newest.
        own_max: u8,
    },
    /// A field of the handshake is outside what this side can agree to.
    #[error("{field} is {found} in the handshake; {min} to {max} can be agreed to")]
    Handshake {
        /// Which field.
        field: &'static str,
        /// What the peer says.
        found: u64,
        /// The least that is possible here.
        min: u64,
        /// The most that is possible here.
        max: u64,
    },
    /// A field of a hello or accept differs from what the same session said before.
    #[error(
        "{field} differs from what this session said before: the streams belong to two sessions"
    )]
    OtherSession {
        /// Which field.
        field: &'static str,
    },
}

impl WireFault {
    /// Who is at fault when this came out of bytes that a stream gave: the network where a hash
    /// shows damage or a number a loss, the peer otherwise.
    pub fn cause(&self) -> Cause {
        match self {
            WireFault::HeaderHash { .. }
            | WireFault::BodyHash { .. }
            | WireFault::Missing { .. } => Cause::Network,
            _ => Cause::PeerMisbehaviour,
        }
    }
}
