//! The drive's clock, and the one way from a duration to a point of time: where that does not fit,
//! there is no limit.

use std::time::{Duration, Instant};

use crate::machine::{NO_LIMIT_NS, limit_ns};

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// When a wait that begins now is over; [`NO_LIMIT_NS`] if never.
pub(super) fn until_ns(now_ns: u64, limit: Duration) -> u64 {
    now_ns.saturating_add(limit_ns(limit))
}

/// How long it is until then; none: for ever.
pub(super) fn left(now_ns: u64, until_ns: u64) -> Option<Duration> {
    (until_ns != NO_LIMIT_NS).then(|| Duration::from_nanos(until_ns.saturating_sub(now_ns)))
}

/// When a wait that begins now is over; none: never.
pub(crate) fn deadline(limit: Duration) -> Option<Instant> {
    Instant::now().checked_add(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_no_limit() {
        assert_eq!(until_ns(7, Duration::from_nanos(3)), 10);
        assert_eq!(left(4, 10), Some(Duration::from_nanos(6)));
        assert_eq!(left(11, 10), Some(Duration::ZERO));
        for limit in [Duration::MAX, Duration::from_nanos(u64::MAX), Duration::from_secs(1 << 40)] {
            assert_eq!(left(7, until_ns(7, limit)), None, "{limit:?}");
        }
        assert!(deadline(Duration::MAX).is_none());
        assert!(deadline(Duration::from_secs(3600)).is_some());
    }
}
