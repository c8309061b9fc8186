//! What is written, and hashed, of chunks of zeros: they travel without a body.

use std::sync::Arc;

use crate::buffers::Buffer;
use crate::wire::chunk_hash;

/// The zeros of a session: one chunk of them for all its devices.
#[derive(Debug)]
pub(in crate::drive) struct Zeros {
    bytes: Arc<[u8]>,
    /// Length and hash of the chunk of zeros that was hashed last: mostly all are of one length.
    hashed: (usize, u64),
}

impl Zeros {
    /// As many as a chunk may have.
    pub(in crate::drive) fn new(chunk_bytes: usize) -> Zeros {
        let bytes: Arc<[u8]> = vec![0; chunk_bytes].into();
        let hashed = (bytes.len(), chunk_hash(&bytes));
        Zeros { bytes, hashed }
    }

    /// A buffer to write from.
    pub(super) fn buffer(&self) -> Buffer {
        Buffer::Zeros(Arc::clone(&self.bytes))
    }

    /// Whether a chunk has so many bytes at most.
    pub(super) fn reach(&self, bytes: usize) -> bool {
        bytes <= self.bytes.len()
    }

    /// The hash of so many zeros.
    pub(super) fn hash(&mut self, bytes: usize) -> u64 {
        if self.hashed.0 != bytes {
            self.hashed = (bytes, chunk_hash(&self.bytes[..bytes]));
        }
        self.hashed.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_length() {
        let mut zeros = Zeros::new(5000);
        for bytes in [5000, 5000, 1, 0, 4096, 4096, 5000] {
            assert_eq!(zeros.hash(bytes), chunk_hash(&vec![0; bytes]), "{bytes}");
        }
        assert!(zeros.reach(5000) && !zeros.reach(5001));
    }
}
