//! What a session's end says, made from what its machine says and what the drive has seen.

use crate::machine::DeviceReport;
use crate::metrics::Metrics;
use crate::outcome::{SourceEnding, TargetEnding};
use crate::ring::Backend;

use super::Timeline;

/// Everything about a session that has ended; on the source a [`SourceReport`], on the target a
/// [`TargetReport`].
#[must_use = "it says what became of the devices"]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report<E> {
    /// How it ended, and why.
    pub ending: E,
    /// What became of each device, by number.
    pub devices: Vec<DeviceReport>,
    /// What was measured.
    pub metrics: Metrics,
    /// When what happened.
    pub timeline: Timeline,
    /// What the streams ran on.
    pub backend: Backend,
    /// Why io_uring was not used, where it was asked for first and refused.
    pub fallback: Option<String>,
}

/// A [`Report`] of the source: its `ending` is a [`SourceEnding`].
pub type SourceReport = Report<SourceEnding>;

/// A [`Report`] of the target: its `ending` is a [`TargetEnding`].
pub type TargetReport = Report<TargetEnding>;

/// The report of either host's session.
#[derive(Debug)]
pub enum Ended {
    Source(SourceReport),
    Target(TargetReport),
}

impl Ended {
    /// What was measured.
    pub fn metrics(&self) -> &Metrics {
        match self {
            Ended::Source(report) => &report.metrics,
            Ended::Target(report) => &report.metrics,
        }
    }
}
