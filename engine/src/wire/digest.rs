//! Hashes: of a chunk or body (XXH3-64), and of a whole state (XXH3-128 over its chunks' hashes).
//!
//! The state's digest takes a chunk's hash and length, not its bytes, so that chunks are hashed
//! wherever they happen to be, on several cores, and the digest itself costs 12 bytes a chunk.

#![forbid(unsafe_code)]

use std::fmt;

use twox_hash::{XxHash3_64, XxHash3_128};

/// XXH3-64 (seed 0, default secret) of a chunk, or of a body as it travels.
pub fn chunk_hash(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// The digest of a device's whole state: see [`StateDigest`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest(pub u128);

impl fmt::Display for Digest {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Builds the digest of a state from its chunks in order: XXH3-128 over each chunk's hash (u64,
/// little-endian) and length (u32, little-endian). The same bytes cut into other chunks have
/// another digest; both hosts see the same chunks, because a chunk is a frame.
#[derive(Clone)]
pub struct StateDigest {
    hasher: XxHash3_128,
    bytes: u64,
}

impl StateDigest {
    /// The digest of no chunks yet.
    pub fn new() -> StateDigest {
        StateDigest { hasher: XxHash3_128::new(), bytes: 0 }
    }

    /// Adds the next chunk: its [`chunk_hash`] and its length in bytes.
    pub fn chunk(&mut self, hash: u64, len: u32) {
        let mut pair = [0; 12];
        pair[..8].copy_from_slice(&hash.to_le_bytes());
        pair[8..].copy_from_slice(&len.to_le_bytes());
        self.hasher.write(&pair);
        self.bytes = self.bytes.saturating_add(u64::from(len));
    }

    /// Bytes of state in the chunks so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of the chunks so far. More may be added after it.
    pub fn finish(&self) -> Digest {
        Digest(self.hasher.finish_128())
    }
}

impl Default for StateDigest {
    fn default() -> Self {
        StateDigest::new()
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateDigest")
            .field("bytes", &self.bytes)
            .field("digest", &self.finish())
            .finish()
    }
}
