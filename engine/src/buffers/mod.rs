//! The memory that state passes through: one arena of fixed slots per session, mapped once, and
//! slots as owned values that can be in one place only.

mod arena;
mod budget;

pub use arena::{Arena, Slot};
pub use budget::{Budget, Share};

use std::ops::Range;
use std::sync::Arc;

/// What an operation reads into or sends from.
#[derive(Debug)]
pub enum Buffer {
    /// A slot of the arena: frame header, then body, then room for the next header.
    Slot(Slot),
    /// A small buffer of its own: headers that arrive, control frames.
    Small(Vec<u8>),
    /// Bytes that many write from and nobody into: zeros.
    Zeros(Arc<[u8]>),
}

impl Buffer {
    /// The whole buffer.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Buffer::Slot(slot) => slot.whole(),
            Buffer::Small(bytes) => bytes,
            Buffer::Zeros(bytes) => bytes,
        }
    }

    /// The whole buffer, to be written; empty where that cannot be.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Buffer::Slot(slot) => slot.whole_mut(),
            Buffer::Small(bytes) => bytes,
            Buffer::Zeros(_) => &mut [],
        }
    }

    /// Whether `range` lies inside.
    pub fn holds(&self, range: &Range<usize>) -> bool {
        range.start <= range.end && range.end <= self.bytes().len()
    }
}
