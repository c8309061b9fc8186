//! What a device's state consists of: bytes that follow from a seed and their place, so that no
//! test stores a state, and no byte looks right in another's place.

/// Bytes of a guest's page.
const PAGE_BYTES: u64 = 4096;

/// What the bytes look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing to compress.
    Noise,
    /// Zero pages, counters, repeating tables and noise, one page each in turn.
    Structured,
    /// All zero.
    Zero,
}

/// A state's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// What they look like.
    pub kind: Kind,
    /// Two states with two seeds differ nearly everywhere (except [`Kind::Zero`]).
    pub seed: u64,
}

impl Content {
    /// Writes the bytes at `offset` into `out`.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let head = (offset.next_multiple_of(8) - offset).min(out.len() as u64) as usize;
        let (head, rest) = out.split_at_mut(head);
        if !head.is_empty() {
            let word = self.word(offset / 8).to_le_bytes();
            let start = (offset % 8) as usize;
            head.copy_from_slice(&word[start..start + head.len()]);
        }
        let first = offset.div_ceil(8);
        let (words, tail) = rest.as_chunks_mut::<8>();
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.word(first + index as u64).to_le_bytes();
        }
        let last = self.word(first + words.len() as u64).to_le_bytes();
        tail.copy_from_slice(&last[..tail.len()]);
    }

    /// The first `bytes` bytes.
    pub fn bytes(&self, bytes: u64) -> Vec<u8> {
        let mut out = vec![0; bytes as usize];
        self.fill(0, &mut out);
        out
    }

    /// The eight bytes at `index * 8`.
    fn word(&self, index: u64) -> u64 {
        match self.kind {
            Kind::Zero => 0,
            Kind::Noise => noise(self.seed ^ index),
            Kind::Structured => {
                let page = index / (PAGE_BYTES / 8);
                match page % 4 {
                    0 => 0,
                    1 => self.seed.wrapping_add(index),
                    2 => noise(self.seed ^ page ^ (index % 8) << 48),
                    _ => noise(self.seed ^ index),
                }
            }
        }
    }
}

/// splitmix64's output function.
pub(crate) fn noise(state: u64) -> u64 {
    let mut z = state.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_parts_of_the_whole() {
        for kind in [Kind::Noise, Kind::Structured, Kind::Zero] {
            let content = Content { kind, seed: 7 };
            let whole = content.bytes(20_000);
            for (offset, length) in [(0, 1), (3, 2), (3, 5), (5, 11), (4090, 8200), (19_999, 1)] {
                let mut piece = vec![0xee; length];
                content.fill(offset as u64, &mut piece);
                assert_eq!(piece, whole[offset..offset + length], "{kind:?} {offset}+{length}");
            }
        }
    }
}
