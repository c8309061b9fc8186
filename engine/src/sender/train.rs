//! How fast the path is, found out before anything depends on it.
//!
//! Padding goes out while nothing else does, with a ping behind it, and the pong says when it has
//! come. First pings alone, for the round trip; then bursts, each size longer than the one before, for
//! as long as they are through quickly: what follows one on a stream waits for it. The fastest of a
//! size counts, because a host that is busy is late now and then, and a slow path always. Nobody waits
//! for a pong. By the way the kernel learns what the path takes, before the guest stands still.

use crate::limits::CONTROL_BODY_BYTES_MAX;
use crate::machine::{Outgoing, Turn};
use crate::wire::Frame;

/// Bytes of a burst, and how often it is tried at most.
const BURSTS: [(u64, u32); 5] =
    [(0, 3), (16 << 10, 3), (64 << 10, 3), (256 << 10, 3), (1 << 20, 2)];
/// A size that always takes so long is the last: the next one would take four times that.
const LONG_NS: u64 = 500_000;
/// The round trip is taken out of a burst's time, but for this part of it: both are measured.
const LEAST_PART: u64 = 8;
/// So often a burst is tried again that something else has come between.
const SPOILED_MAX: u32 = 16;
/// Its pings have numbers from here on; the watch over the peer counts its own from 1.
const FIRST_PING: u64 = 1 << 63;

/// What was found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) bytes_per_s: u64,
    pub(super) round_trip_ns: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Train {
    /// Whether padding may be sent at all.
    wanted: bool,
    /// Sizes that are through.
    through: usize,
    /// Bursts of this size that are, and the fastest.
    tries: u32,
    least_ns: Option<u64>,
    under_way: Option<Burst>,
    pings: u64,
    spoiled: u32,
    round_trip_ns: u64,
}

#[derive(Debug)]
struct Burst {
    since_ns: u64,
    left_bytes: u64,
    /// The ping behind it is out.
    pinged: bool,
    /// Something else went out with it: its time says nothing.
    spoiled: bool,
}

impl Train {
    /// One that has not left.
    pub(super) fn new() -> Train {
        Train {
            wanted: false,
            through: 0,
            tries: 0,
            least_ns: None,
            under_way: None,
            pings: 0,
            spoiled: 0,
            round_trip_ns: u64::MAX,
        }
    }

    /// The path is to be tried.
    pub(super) fn wanted(&mut self) {
        self.wanted = true;
    }

    /// What goes out next, now that nothing else wants to.
    pub(super) fn next(&mut self, turn: &Turn) -> Option<Outgoing> {
        if !self.wanted {
            return None;
        }
        let burst = self.under_way.get_or_insert(Burst {
            since_ns: turn.now_ns,
            left_bytes: BURSTS[self.through].0,
            pinged: false,
            spoiled: false,
        });
        if burst.left_bytes > 0 {
            let bytes = burst.left_bytes.min(CONTROL_BODY_BYTES_MAX as u64);
            burst.left_bytes -= bytes;
            return Some(Outgoing::Padding { bytes: bytes as u32 });
        }
        if std::mem::replace(&mut burst.pinged, true) {
            return None;
        }
        let number = FIRST_PING + self.pings;
        Some(Outgoing::Frame(Frame::Ping(number)))
    }

    /// Something else goes out.
    pub(super) fn spoil(&mut self) {
        if let Some(burst) = &mut self.under_way {
            burst.spoiled = true;
        }
    }

    /// A pong has come. What was found out, once that is all.
    pub(super) fn pong(&mut self, turn: &Turn, number: u64) -> Option<Path> {
        if number != FIRST_PING + self.pings || !self.under_way.as_ref()?.pinged {
            return None;
        }
        let Burst { since_ns, spoiled, .. } = self.under_way.take()?;
        self.pings += 1;
        if spoiled {
            self.spoiled += 1;
            self.wanted = self.spoiled < SPOILED_MAX;
            return None;
        }
        let took_ns = turn.now_ns.saturating_sub(since_ns);
        let least_ns = self.least_ns.map_or(took_ns, |least| least.min(took_ns));
        self.round_trip_ns = self.round_trip_ns.min(least_ns);
        let (bytes, tries) = BURSTS[self.through];
        self.tries += 1;
        self.least_ns = Some(least_ns);
        let (is_pings, is_last) = (bytes == 0, self.through + 1 == BURSTS.len());
        let is_long = least_ns.saturating_sub(self.round_trip_ns) >= LONG_NS;
        let tried = self.tries >= tries;
        if !tried && (is_pings || is_long || is_last) {
            return None;
        }
        if !is_pings && (is_long || is_last) {
            self.wanted = false;
            let ns = least_ns.saturating_sub(self.round_trip_ns).max(least_ns / LEAST_PART).max(1);
            let bytes_per_s = (bytes as f64 * 1e9 / ns as f64) as u64;
            return Some(Path { bytes_per_s, round_trip_ns: self.round_trip_ns });
        }
        (self.through, self.tries, self.least_ns) = (self.through + 1, 0, None);
        None
    }
}
