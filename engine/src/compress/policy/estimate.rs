//! Running estimates that forget: sums that are decayed as new terms come in.

/// A quotient of two sums, with a first guess that counts as one term.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    above: f64,
    below: f64,
    first_guess: Option<f64>,
}

impl Rate {
    /// Of the old sums, what is left after a new term: the last eight or so decide.
    const KEEP: f64 = 7.0 / 8.0;

    pub(super) fn prior(guess: f64) -> Rate {
        Rate { above: 0.0, below: 0.0, first_guess: Some(guess) }
    }

    pub(super) fn add(&mut self, above: f64, below: f64) {
        self.first_guess = None;
        self.above = self.above * Rate::KEEP + above;
        self.below = self.below * Rate::KEEP + below;
    }

    pub(super) fn get(&self) -> f64 {
        self.first_guess.unwrap_or(self.above / self.below)
    }
}

/// Bytes per nanosecond of a link, over the time in which it had something to do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Busy {
    bytes: f64,
    ns: f64,
    in_flight: u32,
    since_ns: u64,
}

impl Busy {
    /// Of the old sums, what is left after a new term: the last sixteen or so decide.
    const KEEP: f64 = 15.0 / 16.0;

    /// A transfer starts.
    pub(super) fn start(&mut self, now_ns: u64) {
        if self.in_flight == 0 {
            self.since_ns = now_ns;
        }
        self.in_flight += 1;
    }

    /// A transfer ends.
    pub(super) fn end(&mut self, now_ns: u64, bytes: f64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.bytes = self.bytes * Busy::KEEP + bytes;
        self.ns = self.ns * Busy::KEEP + now_ns.saturating_sub(self.since_ns) as f64;
        self.since_ns = now_ns;
    }

    pub(super) fn bytes_per_ns(&self) -> Option<f64> {
        (self.ns > 0.0 && self.bytes > 0.0).then(|| self.bytes / self.ns)
    }
}
