//! What the path takes: the middle of what was measured lately.
//!
//! The kernel measures what was acknowledged within about a round trip; where a stream is none of
//! TCP's, the drive measures how soon it takes what is sent. Whatever disturbs that (a
//! target that is busy, a queue that runs empty, a burst) is over at the next measurement, so a
//! single one says nothing, and several in a row do.

/// What a link is taken for before anything is known of it, in bytes per nanosecond.
const PRIOR: f64 = 1.0;
/// Measurements that count.
const LATELY: usize = 7;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Link {
    /// Bytes per nanosecond, the oldest at `next`.
    measured: [f64; LATELY],
    next: usize,
    /// How many of them are more than a guess.
    found: usize,
}

impl Link {
    /// Nothing is known.
    pub(super) fn new() -> Link {
        Link { measured: [PRIOR; LATELY], next: 0, found: 0 }
    }

    /// The path was measured before, or somebody says so.
    pub(super) fn known(&mut self, bytes_per_s: u64) {
        self.measured = [per_ns(bytes_per_s); LATELY];
        self.found = LATELY;
    }

    /// A measurement; the path takes at least this where there was too little to send.
    pub(super) fn measured(&mut self, bytes_per_s: u64, at_least: bool) {
        let sample = per_ns(bytes_per_s);
        if at_least && sample < self.bytes_per_ns() {
            return;
        }
        self.measured[self.next] = sample;
        self.next = (self.next + 1) % LATELY;
        self.found = (self.found + 1).min(LATELY);
    }

    /// Bytes per second, once it is more than a guess.
    pub(super) fn learned(&self) -> Option<u64> {
        (self.found > LATELY / 2).then(|| (self.bytes_per_ns() * 1e9) as u64)
    }

    /// Bytes per nanosecond.
    pub(super) fn bytes_per_ns(&self) -> f64 {
        let mut sorted = self.measured;
        sorted.sort_by(f64::total_cmp);
        sorted[LATELY / 2]
    }
}

fn per_ns(bytes_per_s: u64) -> f64 {
    bytes_per_s.max(1) as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_measurements_say_nothing_and_several_do() {
        let mut link = Link::new();
        (0..LATELY).for_each(|_| link.measured(3_000_000_000, false));
        (0..LATELY / 2).for_each(|_| link.measured(100_000_000, false));
        assert_eq!(link.bytes_per_ns(), 3.0);
        link.measured(100_000_000, false);
        assert_eq!(link.bytes_per_ns(), 0.1);
    }

    #[test]
    fn what_was_learned_is_no_guess() {
        let mut link = Link::new();
        (0..LATELY / 2).for_each(|_| link.measured(3_000_000_000, false));
        assert_eq!(link.learned(), None);
        // Less than the guess: it says nothing.
        link.measured(1, true);
        assert_eq!(link.learned(), None);
        link.measured(3_000_000_000, false);
        assert_eq!(link.learned(), Some(3_000_000_000));
        link.known(5);
        assert_eq!(link.learned(), Some(5));
    }

    #[test]
    fn with_too_little_to_send_it_can_only_be_faster() {
        let mut link = Link::new();
        link.known(2_000_000_000);
        (0..100).for_each(|_| link.measured(1_000_000, true));
        assert_eq!(link.bytes_per_ns(), 2.0);
        (0..LATELY).for_each(|_| link.measured(4_000_000_000, true));
        assert_eq!(link.bytes_per_ns(), 4.0);
    }
}
