//! How fast a stream takes what is sent, where the kernel does not say: a VMM's channel, or the
//! engine's end of a protected stream, whose way to the peer is somebody else's.

use super::kernel::Speed;

/// Of so many bytes a measurement is made. The socket between takes a few hundred kilobytes at once,
/// whatever is behind it.
const WINDOW_BYTES: u64 = 2 << 20;

/// See the module's text.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Drain {
    /// Sent since the last measurement, and how long sends were in flight for it.
    bytes: u64,
    busy_ns: u64,
    since_ns: u64,
    last: Option<Speed>,
}

impl Drain {
    /// A send of so many bytes has ended, and was in flight for so long.
    pub(super) fn took(&mut self, now_ns: u64, bytes: u64, ns: u64) {
        if self.bytes == 0 {
            self.since_ns = now_ns.saturating_sub(ns);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.busy_ns = self.busy_ns.saturating_add(ns);
        if self.bytes < WINDOW_BYTES {
            return;
        }
        let all_ns = now_ns.saturating_sub(self.since_ns);
        let bytes_per_s = u128::from(self.bytes) * 1_000_000_000 / u128::from(self.busy_ns.max(1));
        self.last = Some(Speed {
            bytes_per_s: u64::try_from(bytes_per_s).unwrap_or(u64::MAX),
            // For half of the time there was nothing to send.
            at_least: self.busy_ns < all_ns / 2,
            round_trip_ns: 0,
        });
        (self.bytes, self.busy_ns) = (0, 0);
    }

    /// What came out last; none before so much was sent.
    pub(super) fn speed(&self) -> Option<Speed> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Sends of 1 MiB, each in flight for `busy_ns` of `every_ns`.
    fn drained(sends: u64, busy_ns: u64, every_ns: u64) -> Option<(u64, bool)> {
        let mut drain = Drain::default();
        (1..=sends).for_each(|number| drain.took(number * every_ns, MIB, busy_ns));
        drain.speed().map(|speed| (speed.bytes_per_s, speed.at_least))
    }

    #[test]
    fn sends_that_follow_each_other_show_what_the_path_takes() {
        assert_eq!(drained(1, 10_000_000, 10_000_000), None, "it may be in the socket yet");
        assert_eq!(drained(2, 10_000_000, 10_000_000), Some((100 * MIB, false)));
        assert_eq!(drained(9, 10_000_000, 10_000_000), Some((100 * MIB, false)));
    }

    #[test]
    fn with_too_little_to_send_it_can_only_be_faster() {
        assert_eq!(drained(2, 1_000_000, 10_000_000), Some((1000 * MIB, true)));
        // Exactly half of the time.
        let mut drain = Drain::default();
        drain.took(10_000_000, MIB, 10_000_000);
        drain.took(40_000_000, MIB, 10_000_000);
        assert!(drain.speed().is_some_and(|speed| !speed.at_least));
    }

    #[test]
    fn no_time_at_all_is_no_division() {
        assert!(drained(2, 0, 0).is_some_and(|(bytes_per_s, _)| bytes_per_s > 0));
    }

    #[test]
    fn a_path_that_slows_down_is_found_slow() {
        let mut drain = Drain::default();
        drain.took(1_000_000, 2 * MIB, 1_000_000);
        drain.took(101_000_000, 2 * MIB, 100_000_000);
        assert_eq!(drain.speed().map(|speed| speed.bytes_per_s), Some(20 * MIB));
    }
}
