//! The limits of time that an embedder gives a session, as its machine knows them.

use std::fmt::Display;
use std::time::Duration;

use crate::ids::DeviceId;
use crate::outcome::{Cause, Fault, Observation};

/// No limit: a wait of this length has no deadline.
pub const NO_LIMIT_NS: u64 = u64::MAX;

/// A duration in nanoseconds; one that does not fit is no limit.
pub fn limit_ns(limit: Duration) -> u64 {
    u64::try_from(limit.as_nanos()).unwrap_or(NO_LIMIT_NS)
}

/// How long a machine waits for what, in nanoseconds: see the options of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// Until every stream is agreed on.
    pub handshake_ns: u64,
    /// For any progress of what a driver or the peer owes.
    pub stall_ns: u64,
    /// For any state, before the switchover (target).
    pub idle_ns: u64,
    /// From the switchover to the handover (source).
    pub budget_ns: u64,
    /// For the target's word after the handover (source).
    pub confirm_ns: u64,
    /// For the way back, and the last frame to go out.
    pub cancel_ns: u64,
}

impl TimeLimits {
    /// No limit but that of the way back.
    pub const fn only_cancel(cancel_ns: u64) -> TimeLimits {
        TimeLimits {
            handshake_ns: NO_LIMIT_NS,
            stall_ns: NO_LIMIT_NS,
            idle_ns: NO_LIMIT_NS,
            budget_ns: NO_LIMIT_NS,
            confirm_ns: NO_LIMIT_NS,
            cancel_ns,
        }
    }
}

/// The fault of a session whose limit is over: `limit` is the option's name, `owed` says what was
/// waited for.
pub(crate) fn over(limit: &str, ns: u64, device: Option<DeviceId>, owed: impl Display) -> Fault {
    let message = format!("{limit} ({:?}) is over: {owed}", Duration::from_nanos(ns));
    let fault = Fault::session(Cause::TimeLimit, Observation::Clock, message);
    Fault { device, ..fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_what_fits_is_none() {
        assert_eq!(limit_ns(Duration::from_millis(5)), 5_000_000);
        assert_eq!(limit_ns(Duration::MAX), NO_LIMIT_NS);
    }
}
