//! The public API: a migration of one or more devices over one or more streams.
//!
//! On each host a [`Session`] is made from the devices and connected streams. It runs on threads of
//! its own and never calls back: the embedder fetches [`SessionEvent`]s, blocking
//! ([`Session::wait_event`]) or when the eventfd is readable ([`Session::event_fd`]), and tells the
//! source when its vCPUs are stopped ([`Session::switchover`]).
//!
//! ```text
//! source                                              target
//! Session::source(devices, streams, options)          Session::target(devices, streams, options)
//!   Notice::Connected, Begin, Phase ...                 Notice::Connected, Begin, Phase ...
//!   Notice::Estimate: stop now?
//! stop the vCPUs, switchover()
//!   SessionEvent::Finished(complete)                    SessionEvent::Finished(complete)
//!                                                     start the vCPUs
//! ```
//!
//! Whatever happens, a source device ends in RUNNING, or it was handed over: see
//! [`Ending`](crate::outcome::Ending).

mod handle;
mod options;
mod ready;
mod report;
mod tcp;

pub use crate::drive::SessionEvent;
pub use handle::Session;
pub use options::{Options, SourceDevice, TargetDevice};
pub use ready::Readiness;
pub use report::{Report, Sides, Timeline};
pub use tcp::{accept, connect};
