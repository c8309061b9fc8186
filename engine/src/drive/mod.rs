//! The one meeting place of the pure machines and the mechanism: a thread that waits for what
//! happens, hands it to the machine, and carries out what the machine wants.
//!
//! ```text
//! ferry-net       the machine, all streams and all data fds, on one ring
//! ferry-ctl-N     ioctls of device N
//! ferry-zstd-N    compression
//! ferry-fd-N      reads and writes of data fds, where no kernel worker makes them: of those that
//!                 have a poll, and of all with plain system calls
//! ```
//!
//! Everything reaches `ferry-net` through its ring or its inbox; nothing waits for it, and it waits
//! for nothing but its ring. Teardown is: stop, wait for every operation in flight, release.

mod clock;
mod devices;
mod embedder;
mod figures;
mod guarded;
mod inbox;
mod owner;
mod run;
mod signals;
mod slots;
mod streams;
mod waits;

pub(crate) use clock::deadline;
#[cfg(test)]
pub(crate) use devices::tests::until_asleep;
pub use embedder::{Outbox, SessionEvent};
pub(crate) use figures::Ended;
pub use figures::{Report, SourceReport, TargetReport, Timeline};
pub(crate) use guarded::guarded;
pub(crate) use inbox::Input;
/// The threads of one session or of several.
pub(crate) type Workers = crate::compress::workers::Workers<inbox::WorkTag>;
pub(crate) use run::{Crew, Drive, DriveConfig, Found, Machines, Running};
pub(crate) use signals::Blocked;
pub(crate) use streams::Socket;
pub(crate) use waits::SAID_AFTER;
