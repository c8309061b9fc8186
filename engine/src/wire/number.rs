//! The number of each frame on its stream: what shows at once that a channel has lost a frame,
//! given one twice, or put two in another order. Nothing in a device's `sequence` does: on several
//! streams a gap there may still be filled.

#![forbid(unsafe_code)]

use super::{Header, WireFault};

/// The numbers of one stream's frames in one direction: from 0, one after the other, wrapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameNumbers {
    next: u32,
}

impl FrameNumbers {
    /// The number of the frame that is written next.
    pub fn take(&mut self) -> u32 {
        let number = self.next;
        self.next = number.wrapping_add(1);
        number
    }

    /// Checks that this header, which passed [`decode_header`](super::decode_header), is the next
    /// one on its stream. Frames that are skipped have their number, too.
    ///
    /// # Errors
    /// [`WireFault::Missing`]; what is expected next stays the same.
    pub fn check(&mut self, header: &Header) -> Result<(), WireFault> {
        let (found, expected) = (header.number, self.next);
        if found != expected {
            return Err(WireFault::Missing { found, expected });
        }
        self.take();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Kind;

    #[test]
    fn the_number_after_the_last_one_is_0() {
        let mut writer = FrameNumbers { next: u32::MAX };
        let mut reader = writer;
        for expected in [u32::MAX, 0, 1] {
            let number = writer.take();
            assert_eq!(number, expected);
            assert_eq!(reader.check(&Header::of(Kind::PING, &[]).numbered(number)), Ok(()));
        }
    }
}
