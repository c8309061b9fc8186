//! How much of a long send or receive is asked for at once. The kernel carries out what it is asked
//! for as a whole and says nothing on the way (MSG_WAITALL), which spares round trips on a fast path.
//! On a slow one nobody would see for seconds that bytes move; so there the pieces are small.

use std::time::{Duration, Instant};

use crate::limits::HEADER_BYTES;

/// Small enough for a path of a few KiB/s.
const BYTES_MIN: usize = 4 << 10;
/// As long as nothing is known of the path.
const BYTES_FIRST: usize = 64 << 10;
/// A whole frame of a large chunk, its header included: a rest of 64 bytes would be an operation of its
/// own.
const BYTES_MAX: usize = (1 << 20) + HEADER_BYTES;

const FAST: Duration = Duration::from_millis(50);
const SLOW: Duration = Duration::from_millis(500);

/// One direction of a socket.
#[derive(Debug)]
pub(super) struct Pieces {
    bytes: usize,
    asked: usize,
    since: Option<Instant>,
}

impl Pieces {
    pub(super) fn new() -> Pieces {
        Pieces { bytes: BYTES_FIRST, asked: 0, since: None }
    }

    /// Of so many bytes that are left, how many are asked for next.
    pub(super) fn next(&mut self, left: usize, now: Instant) -> usize {
        self.since.get_or_insert(now);
        self.asked = left.min(self.bytes);
        self.asked
    }

    /// They have moved, or some of them.
    pub(super) fn moved(&mut self, now: Instant) {
        let Some(took) = self.since.take().map(|since| now.saturating_duration_since(since)) else {
            return;
        };
        // What is shorter is waited for because the peer has nothing to say.
        if took > SLOW && self.asked >= BYTES_MIN {
            self.bytes = (self.bytes / 4).max(BYTES_MIN);
        } else if took < FAST && self.asked == self.bytes {
            self.bytes = (self.bytes * 4).min(BYTES_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 4 << 20;

    #[test]
    fn pieces_follow_the_path() {
        let start = Instant::now();
        let mut pieces = Pieces::new();
        let mut after = |left, took_ms| {
            let asked = pieces.next(left, start);
            pieces.moved(start + Duration::from_millis(took_ms));
            asked
        };
        assert_eq!(
            [after(CHUNK, 1), after(CHUNK, 1), after(CHUNK, 1)],
            [64 << 10, 256 << 10, 1 << 20]
        );
        assert_eq!([after(CHUNK, 1), after(CHUNK, 900)], [BYTES_MAX, BYTES_MAX]);
        assert_eq!([after(CHUNK, 900), after(CHUNK, 900)], [BYTES_MAX / 4, BYTES_MAX / 16]);
        assert_eq!(
            [after(CHUNK, 900), after(CHUNK, 900), after(CHUNK, 90)],
            [BYTES_MAX / 64, BYTES_MAX / 256, BYTES_MAX / 256]
        );
        let least = BYTES_MAX / 256;
        assert_eq!([after(64, 10_000), after(CHUNK, 90)], [64, least], "a header that comes late");
        assert_eq!([after(100, 1), after(CHUNK, 1), after(CHUNK, 90)], [100, least, 4 * least]);
    }
}
