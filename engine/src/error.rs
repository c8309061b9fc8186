//! Why a session could not be made. What goes wrong in a running session comes as a
//! [`Fault`](crate::outcome::Fault) instead.

use std::io;

use thiserror::Error;

/// Why a session could not be made; what goes wrong in a running session comes as a
/// [`Fault`](crate::outcome::Fault) instead. The variants are families by who is at fault.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The caller's arguments.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// A device would not answer.
    #[error("device {name:?} does not answer: {source}")]
    Device {
        /// The name that the caller gave it.
        name: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A device cannot be migrated (ENOTTY from VFIO_DEVICE_FEATURE_MIGRATION).
    #[error(
        "device {name:?} cannot be migrated: its driver does not offer \
         VFIO_DEVICE_FEATURE_MIGRATION; a variant driver such as mlx5_vfio_pci is needed"
    )]
    NotMigratable {
        /// The name that the caller gave it.
        name: String,
    },
    /// A device that is neither in RUNNING nor in STOP: another migration has it, or its last one
    /// did not bring it back.
    #[error(
        "device {name:?} is in {state}; a migration begins with a device in RUNNING, or in STOP \
         under a paused VM"
    )]
    DeviceState {
        /// The name that the caller gave it.
        name: String,
        /// Where it is, as the kernel's documentation has it.
        state: &'static str,
    },
    /// The peer did not connect as a peer of this engine does.
    #[error("the peer did not connect as expected: {0}")]
    Peer(String),
    /// A stream could not be opened.
    #[error("{what}: {source}")]
    Network {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A stream could not be protected.
    #[error("TLS: {0}")]
    Tls(#[from] TlsFault),
    /// The embedder ended the wait, by its [`Canceller`](crate::Canceller).
    #[error("cancelled")]
    Cancelled,
    /// This host would not give what a session needs: memory, threads, a ring.
    #[error("this host would not start a session: {0}")]
    System(#[source] io::Error),
}

/// Why a stream is not, or no longer, protected: who failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// This host's own certificates, keys or names cannot be used.
    #[error("this host's credentials: {0}")]
    Credentials(String),
    /// The peer is not who it has to be: another authority, another name, another key, or none.
    #[error("the peer is not trusted: {0}")]
    Untrusted(String),
    /// The peer's certificate is not valid today.
    #[error("the peer's certificate is not valid at this time: {0}")]
    Expired(String),
    /// The peer does not trust this host, or found something wrong.
    #[error("the peer refused this host: {0}")]
    Refused(String),
    /// What came is not what the peer sent: bytes were changed, dropped, repeated or put elsewhere on
    /// the way, or were never TLS.
    #[error("the stream was changed on its way: {0}")]
    Changed(&'static str),
    /// The connection ended without the word that ends TLS: it was cut on the way, or the peer died.
    #[error("the stream was cut")]
    Cut,
    /// The session's streams do not lead to one peer: they show different keys.
    #[error("the streams show different keys")]
    OtherKey,
    /// A key would protect more than it is good for.
    #[error("a key is used up")]
    KeyUsedUp,
    /// Something in this host.
    #[error("this host: {0}")]
    Local(String),
}

/// Calls that cannot be carried out as they were made, and change nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UsageError {
    /// A number outside its range.
    #[error("{what} is {found}; it must be {min} to {max}")]
    Range {
        /// What.
        what: &'static str,
        /// The number.
        found: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// Two devices with one name, or one with none, or with one that cannot be seen as it is
    /// (controls, ends of lines, marks of direction, zero-width characters).
    #[error("device name {name:?} is empty, given twice, or has characters that cannot be seen")]
    Name {
        /// The name.
        name: String,
    },
    /// An embedded device that has, or had, another session.
    #[error("device {name:?} is embedded and has had its session: make another one of it")]
    SecondSession {
        /// The name.
        name: String,
    },
    /// A name or opaque bytes that are too long.
    #[error("{what} has {found} bytes; at most {max} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// Its length in bytes.
        found: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// The arena would be larger than allowed.
    #[error(
        "{devices} devices with chunks of {chunk_bytes} bytes need {needed} bytes of buffers, \
         more than the {allowed} allowed; allow more memory, or take smaller chunks"
    )]
    Memory {
        /// Devices of the session.
        devices: usize,
        /// Chunk size in bytes.
        chunk_bytes: usize,
        /// Bytes needed.
        needed: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// What was given as a stream cannot be one.
    #[error("stream {index} {why}; a stream is a connected stream socket")]
    Stream {
        /// Its place among the streams, counted from 0.
        index: usize,
        /// What it is instead.
        why: &'static str,
    },
    /// One connection was given as two streams.
    #[error("streams {first} and {second} are the same socket")]
    SameStream {
        /// The place of the one, counted from 0.
        first: usize,
        /// The place of the other.
        second: usize,
    },
    /// One device was given twice, under two names.
    #[error("{first:?} and {second:?} are the same device")]
    SameDevice {
        /// The name of the one.
        first: String,
        /// The name of the other.
        second: String,
    },
    /// A stream without protection between hosts. Where the path is guarded otherwise, that can be
    /// said: [`Protection::Plaintext`](crate::Protection::Plaintext) where a stream is opened,
    /// [`Options::plaintext`](crate::Options::plaintext) for sockets that the embedder connected.
    #[error(
        "{address} is not on this host, and the stream would be in plaintext: whoever is on its path \
         could read and change the guest; ask for plaintext by name if the path is guarded otherwise"
    )]
    Plaintext {
        /// Where the stream would lead to, or listen.
        address: String,
    },
    /// A source's TLS given to an acceptor, or a target's to a source.
    #[error("TLS that was made ready for the other host")]
    TlsSide,
    /// A rate cap on streams that the kernel does not pace.
    #[error("a rate can be set for TCP streams only; limit other streams where they are carried")]
    Pacing,
    /// A device number that the session does not have.
    #[error("the session has no device {device}")]
    UnknownDevice {
        /// The number.
        device: u32,
    },
    /// Nothing is wrong, but not now: the peer does not read as fast as messages are given.
    #[error("{max} messages wait for the peer; send again later")]
    Full {
        /// How many may wait.
        max: usize,
    },
}
/// Whether a number that the embedder gave is in its range.
pub(crate) fn range(
    what: &'static str,
    found: usize,
    (min, max): (usize, usize),
) -> Result<(), UsageError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(UsageError::Range { what, found: found as u64, min: min as u64, max: max as u64 })
}
