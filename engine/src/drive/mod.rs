//! The one meeting place of the pure machines and the mechanism: a thread that waits for what
//! happens, hands it to the machine, and carries out what the machine wants.
//!
//! ```text
//! ferry-net       the machine and all streams, on one ring
//! ferry-ctl-N     ioctls of device N
//! ferry-fd-N      reads or writes of device N's data fd, on a ring of its own
//! ferry-zstd-N    compression
//! ```
//!
//! Everything reaches `ferry-net` through its inbox; nothing waits for it, and it waits for nothing
//! but its ring. Teardown is: stop, wait for every operation in flight, release.

mod control;
mod data;
mod inbox;
mod jobs;
mod live;
mod outbox;
mod report;
mod room;
mod run;
mod streams;
mod watch;

pub(crate) use inbox::{Inbox, Input};
pub use outbox::{Outbox, SessionEvent};
pub(crate) use report::Ended;
pub use report::{Report, SourceReport, TargetReport};
pub(crate) use run::{Drive, DriveConfig, Machines, Running};
pub use watch::Timeline;
