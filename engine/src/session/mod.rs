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
//! ```
//! # #[path = "../../examples/demo/mod.rs"] mod demo;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::net::TcpListener;
//! use std::time::Duration;
//! use vfio_ferry::outcome::DeviceOptions;
//! use vfio_ferry::session::{Options, Session, SourceDevice, TargetDevice, accept, connect};
//!
//! // A real one is VfioDevice::open("/sys/bus/pci/devices/0000:3b:00.2").
//! # use std::{fs::File, os::unix::fs::FileExt};
//! # let memory = || rustix::fs::memfd_create("state", rustix::fs::MemfdFlags::CLOEXEC);
//! # let (state, arrived) = (File::from(memory()?), File::from(memory()?));
//! # state.write_all_at(b"what the device knows", 0)?;
//! let (leaving, coming) = (demo::Demo::over(state), demo::Demo::over(arrived.try_clone()?));
//!
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let streams = connect(listener.local_addr()?, 2)?;
//! let options = DeviceOptions::default();
//! let device = SourceDevice { name: "net0".into(), device: leaving, options };
//! let source = Session::source(vec![device], streams, Options::default())?;
//!
//! let streams = accept(&listener, Duration::from_secs(10))?;
//! let device = TargetDevice { name: "net0".into(), device: coming };
//! let target = Session::target(vec![device], streams, Options::default())?;
//!
//! source.switchover()?; // The vCPUs are stopped.
//! assert!(source.finish().is_complete());
//! assert!(target.finish().is_complete());
//! # let mut knows = [0; 21];
//! # arrived.read_exact_at(&mut knows, 0)?;
//! assert_eq!(&knows, b"what the device knows");
//! # Ok(()) }
//! ```
//!
//! Whatever happens, a source device ends in RUNNING, or it was handed over: see
//! [`Ending`].

#[cfg(feature = "tokio-uring")]
mod aio;
mod channel;
mod embedded;
mod handle;
mod options;
mod pacing;
mod ready;
mod tcp;

// Everything that an embedder names, in one place: it needs no other module of this crate.
pub use crate::compress::policy::Policy;
pub use crate::error::{Error, UsageError};
pub use crate::ids::{DeviceId, Epoch, StreamId};
pub use crate::limits;
pub use crate::machine::{Estimate, Finish, Notice};
pub use crate::metrics::{DeviceMetrics, Metrics, Step, StreamMetrics};
pub use crate::outcome::{
    Breach, Cause, Completion, DeviceOptions, Ending, Fallback, Fault, Host, Observation, OnReset,
    Phase,
};
pub use crate::receiver::DeviceReport as TargetReport;
pub use crate::ring::{Backend, BackendChoice};
pub use crate::sender::DeviceReport as SourceReport;
pub use crate::vfio::device::{MigrationDevice, PrecopyInfo};
pub use crate::vfio::state::{Capabilities, DeviceState};
pub use crate::vfio::{Container, OpenError, VfioDevice};
pub use crate::wire::{Begin, VERSION_MAX as WIRE_VERSION_MAX, VERSION_MIN as WIRE_VERSION_MIN};

pub use crate::drive::{Report, SessionEvent, Sides, Timeline};
#[cfg(feature = "tokio-uring")]
pub use aio::AsyncSession;
pub use channel::{Channel, Moved};
pub use embedded::{Answer, EmbeddedConfig, EmbeddedDevice, Wanted};
pub use handle::Session;
pub use options::{Options, SourceDevice, TargetDevice};
pub use ready::{Readiness, is_ready};
pub use tcp::{accept, connect, connect_within};
