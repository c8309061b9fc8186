//! How many bytes went when, in bounded memory.

use serde::{Deserialize, Serialize};

/// Bytes in slices of time; slices without any are not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slices {
    /// How long a slice is.
    pub(crate) slice_ns: u64,
    /// The number of a slice, from CLOCK_MONOTONIC's 0 on, and its bytes; in order.
    pub(crate) bytes: Vec<(u64, u64)>,
}

/// Fine enough to show two chunks apart.
const SLICE_NS: u64 = 200_000;
/// With more slices than these, each becomes twice as long.
const SLICES_MAX: usize = 4096;

impl Default for Slices {
    fn default() -> Slices {
        Slices { slice_ns: SLICE_NS, bytes: Vec::new() }
    }
}

impl Slices {
    /// So many bytes went now. Times do not go back.
    pub(crate) fn add(&mut self, at_ns: u64, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let number = at_ns / self.slice_ns;
        match self.bytes.last_mut() {
            Some((last, sum)) if *last >= number => *sum += bytes,
            _ => self.bytes.push((number, bytes)),
        }
        if self.bytes.len() > SLICES_MAX {
            self.slice_ns *= 2;
            let mut wider: Vec<(u64, u64)> = Vec::with_capacity(SLICES_MAX);
            for (number, bytes) in self.bytes.drain(..) {
                match wider.last_mut() {
                    Some((last, sum)) if *last == number / 2 => *sum += bytes,
                    _ => wider.push((number / 2, bytes)),
                }
            }
            self.bytes = wider;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_bounded_and_lose_no_byte() {
        let mut slices = Slices::default();
        let count = 100_000u64;
        for i in 0..count {
            slices.add(5_000_000_000 + i * 1_000_000, 3);
        }
        assert!(slices.bytes.len() <= SLICES_MAX);
        assert_eq!(slices.bytes.iter().map(|(_, bytes)| bytes).sum::<u64>(), count * 3);
        let first = slices.bytes.first().map(|(number, _)| number * slices.slice_ns);
        assert!(
            first.is_some_and(|ns| ns <= 5_000_000_000 && ns + slices.slice_ns > 5_000_000_000)
        );
        assert!(slices.bytes.is_sorted());
    }
}
