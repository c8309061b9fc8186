//! When to stop the VM.

use std::time::{Duration, Instant};

use super::side::Source;
use super::{Session, SessionEvent};
use crate::drive::deadline;
use crate::machine::{Estimate, Notice};

/// Why [`SourceSession::wait_until_ready`](super::SourceSession::wait_until_ready) returned.
#[derive(Debug, Clone, PartialEq)]
pub enum Readiness {
    /// The downtime would be short enough now.
    Ready(Estimate),
    /// It was not short enough before the embedder's patience ended.
    Patience(Option<Estimate>),
    /// The session ended; its report says how.
    Ended,
}

impl Session<Source> {
    /// Waits until all initial data is loaded at the target and the downtime would be at most
    /// `downtime_max`, for `patience` at most. Where too little was sent to estimate a downtime, it
    /// is enough that no PRE_COPY data is pending. Other notices that arrive meanwhile are given to
    /// `notice`.
    pub fn wait_until_ready(
        &self,
        downtime_max: Duration,
        patience: Duration,
        mut notice: impl FnMut(Notice),
    ) -> Readiness {
        let deadline = deadline(patience);
        let mut last = None;
        loop {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match self.wait_event(left) {
                Some(SessionEvent::Finished) => return Readiness::Ended,
                Some(SessionEvent::Notice(Notice::Estimate(estimate))) => {
                    last = Some(estimate);
                    if is_ready(&estimate, downtime_max) {
                        return Readiness::Ready(estimate);
                    }
                }
                Some(SessionEvent::Notice(other)) => notice(other),
                None if left.is_some_and(|left| left.is_zero()) => {
                    return Readiness::Patience(last);
                }
                None if self.has_ended() => return Readiness::Ended,
                None => {}
            }
        }
    }
}

/// Whether stopping the VM now would be short enough, and the target has all initial data.
///
/// A device of few bytes, or one that saves nothing in PRE_COPY, never shows a rate, and
/// waiting longer would not change that.
pub fn is_ready(estimate: &Estimate, downtime_max: Duration) -> bool {
    let short_enough = match estimate.downtime_ns {
        Some(ns) => u128::from(ns) <= downtime_max.as_nanos(),
        None => estimate.pending_bytes == 0,
    };
    estimate.initial_data_loaded && short_enough
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_millis(10);
    const DRAINED: Estimate = Estimate {
        initial_data_loaded: true,
        pending_bytes: 0,
        stop_copy_bytes: Some(96),
        state_bytes_per_s: 0,
        ratio: 1.0,
        downtime_ns: None,
        latency_ns: 0,
        converged: true,
        switchover_budget_ns: None,
    };

    #[test]
    fn a_measured_downtime_decides() {
        let measured = |ms: u64| Estimate { downtime_ns: Some(ms * 1_000_000), ..DRAINED };
        assert!(is_ready(&measured(10), MAX));
        assert!(!is_ready(&measured(11), MAX));
        assert!(!is_ready(&Estimate { initial_data_loaded: false, ..measured(1) }, MAX));
    }

    #[test]
    fn a_device_too_small_to_measure_is_ready_once_it_is_drained() {
        assert!(is_ready(&DRAINED, MAX));
        assert!(!is_ready(&Estimate { pending_bytes: 1, ..DRAINED }, MAX));
        assert!(!is_ready(&Estimate { initial_data_loaded: false, ..DRAINED }, MAX));
    }
}
