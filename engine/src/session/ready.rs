//! When to stop the VM.

use std::time::{Duration, Instant};

use super::{Session, SessionEvent};
use crate::machine::{Estimate, Finish, Notice};

/// Why [`Session::wait_until_ready`] came back.
#[derive(Debug, Clone, PartialEq)]
pub enum Readiness {
    /// The downtime would be short enough now.
    Ready(Estimate),
    /// It was not short enough within the patience that the embedder has.
    Patience(Option<Estimate>),
    /// The session ended.
    Ended(Finish),
}

impl Session {
    /// Waits until all initial data is loaded at the target and the downtime would be at most
    /// `downtime_max`, for `patience` at most. Devices that have nothing to say in PRE_COPY are
    /// ready at once: no downtime can be reckoned for them, and waiting would not change that. Other notices that come meanwhile are given to
    /// `notice`. For a source; a target is never ready.
    pub fn wait_until_ready(
        &self,
        downtime_max: Duration,
        patience: Duration,
        mut notice: impl FnMut(Notice),
    ) -> Readiness {
        let deadline = Instant::now() + patience;
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wait_event(Some(left)) {
                Some(SessionEvent::Finished(finish)) => return Readiness::Ended(finish),
                Some(SessionEvent::Notice(Notice::Estimate(estimate))) => {
                    last = Some(estimate);
                    let short = estimate
                        .downtime_ns
                        .is_some_and(|ns| u128::from(ns) <= downtime_max.as_nanos());
                    // Nothing is pending and nothing was ever measured: waiting will not tell.
                    let nothing = estimate.pending_bytes == 0
                        && (estimate.stop_copy_bytes.is_none() || estimate.downtime_ns.is_none());
                    if estimate.initial_data_loaded && (short || nothing) {
                        return Readiness::Ready(estimate);
                    }
                }
                Some(SessionEvent::Notice(other)) => notice(other),
                None if left.is_zero() => return Readiness::Patience(last),
                None => {
                    if let Some(report) = self.report() {
                        return Readiness::Ended(report.finish);
                    }
                }
            }
        }
    }
}
