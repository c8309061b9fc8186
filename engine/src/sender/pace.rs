//! How long a device's transitions take: what was known before, and what is measured now.

use std::time::Duration;

use crate::machine::Turn;
use crate::outcome::Latencies;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Pace {
    known: Latencies,
    measured: Latencies,
    /// When the part that is measured next has begun, in nanoseconds.
    since_ns: Option<u64>,
}

impl Pace {
    /// Of a device of which this is known.
    pub(super) fn new(known: Latencies) -> Pace {
        Pace { known, ..Pace::default() }
    }

    /// What is known of the device: what was measured last counts.
    pub(super) fn latencies(&self) -> Latencies {
        self.measured.or(self.known)
    }

    /// What was measured.
    pub(super) fn measured(&self) -> Latencies {
        self.measured
    }

    /// The switchover has begun.
    pub(super) fn stops(&mut self, turn: &Turn) {
        self.since_ns = Some(turn.now_ns);
    }

    /// A read in STOP_COPY is back.
    pub(super) fn read(&mut self, turn: &Turn) {
        if let Some(since_ns) = self.since_ns.take() {
            self.measured.stop = Some(since(turn, since_ns));
        }
    }

    /// The state's end was read, or the target is done with some more of it.
    pub(super) fn moved(&mut self, turn: &Turn) {
        self.since_ns = Some(turn.now_ns);
    }

    /// The target has loaded the state, of which it had so much left for the path when it said last
    /// that it was done with something.
    pub(super) fn loaded(&mut self, turn: &Turn, path_ns: u64) {
        if let Some(since_ns) = self.since_ns.take() {
            self.measured.load = Some(since(turn, since_ns.saturating_add(path_ns)));
        }
    }

    /// The epoch is discarded: how long what has begun would have taken, nobody will know.
    pub(super) fn discarded(&mut self) {
        self.since_ns = None;
    }

    /// The handover is given.
    pub(super) fn handed_over(&mut self, turn: &Turn) {
        self.since_ns = Some(turn.now_ns);
    }

    /// The target says that it runs.
    pub(super) fn runs(&mut self, turn: &Turn) {
        if let Some(since_ns) = self.since_ns.take() {
            self.measured.run = Some(since(turn, since_ns));
        }
    }
}

fn since(turn: &Turn, since_ns: u64) -> Duration {
    Duration::from_nanos(turn.now_ns.saturating_sub(since_ns))
}
