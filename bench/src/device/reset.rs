//! When a test device resets itself.

use crate::spec::ResetAt;

/// A reset that is to come, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResetPlan(pub(crate) ResetAt);

/// What has just happened in a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// Data was read.
    Read {
        /// Bytes so far in this session.
        bytes: u64,
        /// At least half of PRE_COPY's initial data was read, and the device is not stopped.
        half_of_initial: bool,
        /// At least half of what was left at the stop was read.
        half_of_rest: bool,
    },
    /// PRE_COPY -> STOP_COPY was asked for.
    Stopping,
    /// As many bytes as the state has were written on the target.
    Loaded,
}

impl ResetPlan {
    /// Whether the plan is for this host's device: only `load` is the target's.
    pub(crate) fn is_for_target(self) -> bool {
        self.0 == ResetAt::Load
    }

    pub(super) fn is_due(self, moment: Moment) -> bool {
        match (self.0, moment) {
            (ResetAt::PreCopy, Moment::Read { half_of_initial, .. }) => half_of_initial,
            (ResetAt::StopCopy, Moment::Read { half_of_rest, .. }) => half_of_rest,
            (ResetAt::Bytes(size), Moment::Read { bytes, .. }) => bytes >= size.0,
            (ResetAt::Stop, Moment::Stopping) | (ResetAt::Load, Moment::Loaded) => true,
            _ => false,
        }
    }
}
