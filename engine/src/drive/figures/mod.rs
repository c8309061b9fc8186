//! What a session measures, and what is told of it.

mod live;
mod measured;
mod report;

pub(super) use live::Live;
pub(super) use measured::Measured;
pub use measured::Timeline;
pub(crate) use report::Ended;
pub use report::{Report, SourceReport, TargetReport};
