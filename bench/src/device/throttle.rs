//! A token bucket that sleeps: how fast a device gives or takes its state.

use std::thread;
use std::time::{Duration, Instant};

use crate::spec::Rate;

/// How far behind its rate the device may fall and still catch up.
const BURST: Duration = Duration::from_millis(5);
/// Shorter waits are left to the next call: a sleep costs some 60 us more than it was asked for.
const LEAST_SLEEP: Duration = Duration::from_micros(200);

/// The bucket.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: Option<Rate>,
    due: Instant,
}

impl Throttle {
    /// Starts full; without a rate it never waits.
    pub(super) fn new(rate: Option<Rate>) -> Throttle {
        Throttle { rate, due: Instant::now() }
    }

    /// Waits as long as so many bytes take.
    pub(super) fn spend(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let floor = now.checked_sub(BURST).unwrap_or(now);
        self.due = self.due.max(floor) + Duration::from_secs_f64(bytes as f64 / rate.0 as f64);
        let ahead = self.due.saturating_duration_since(now);
        if ahead >= LEAST_SLEEP {
            thread::sleep(ahead);
        }
    }
}
