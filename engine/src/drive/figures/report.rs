//! What a session comes to.

use crate::machine::Finish;
use crate::metrics::Metrics;
use crate::outcome::Ending;
use crate::ring::Backend;
use crate::{receiver, sender};

use super::Timeline;

/// Everything about a session that has ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// How it ended, and why.
    pub finish: Finish,
    /// What became of the devices.
    pub sides: Sides,
    /// What was measured.
    pub metrics: Metrics,
    /// When what happened.
    pub timeline: Timeline,
    /// What the streams ran on.
    pub backend: Backend,
    /// Why io_uring was not used, where it was asked for first and refused.
    pub fallback: Option<String>,
}

/// What became of the devices, on either host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sides {
    /// This was the source.
    Source(Vec<sender::DeviceReport>),
    /// This was the target.
    Target(Vec<receiver::DeviceReport>),
}

impl Report {
    /// Whether the devices were handed over: they run on the target, and only there.
    pub fn is_complete(&self) -> bool {
        self.finish.ending == Ending::Complete
    }
}
