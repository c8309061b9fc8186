//! An io_uring engine that carries a VFIO device's migration state from one host to another: it
//! reads the migration data fd, compresses, sends; on the other side it receives, verifies,
//! decompresses, writes. Where the device is reset under it, it says so, and either aborts or
//! discards and restarts just that device.
//!
//! A migration moves one or more devices over one or more streams. The source makes a
//! [`SourceSession`] and the target a [`TargetSession`], from devices and connected streams. Both
//! run on threads of their own and never call back: the embedder fetches [`SessionEvent`]s, blocking
//! ([`Session::wait_event`]) or when an eventfd is readable ([`Session::event_fd`]), tells the
//! source when its vCPUs are stopped ([`SourceSession::switchover`]), and reads in the report what
//! to do with the VM: [`SourceEnding`], [`TargetEnding`].
//!
//! ```text
//! source                                              target
//! SourceSession::start(devices, streams, options)     TargetSession::start(devices, streams, options)
//!   Notice::Connected, Phase ...                        Notice::Connected, Begin, Phase ...
//!   Notice::Estimate: stop now?
//! stop the vCPUs, switchover()
//!   SessionEvent::Finished                              SessionEvent::Finished
//! finish().ending == HandedOver                       finish().ending == Running
//! destroy the VM                                      start the vCPUs
//! ```
//!
//! ```
//! # #[path = "../examples/demo/mod.rs"] mod demo;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::net::TcpListener;
//! use std::time::Duration;
//! use vfio_ferry::{DeviceOptions, Options, SourceDevice, TargetDevice, accept, connect};
//! use vfio_ferry::{SourceEnding, SourceSession, TargetEnding, TargetSession};
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
//! let source = SourceSession::start(vec![device], streams, Options::default())?;
//!
//! let streams = accept(&listener, Duration::from_secs(10))?;
//! let device = TargetDevice { name: "net0".into(), device: coming };
//! let target = TargetSession::start(vec![device], streams, Options::default())?;
//!
//! source.switchover(); // The vCPUs are stopped.
//! assert_eq!(source.finish().ending, SourceEnding::HandedOver);
//! assert_eq!(target.finish().ending, TargetEnding::Running);
//! # let mut knows = [0; 21];
//! # arrived.read_exact_at(&mut knows, 0)?;
//! assert_eq!(&knows, b"what the device knows");
//! # Ok(()) }
//! ```
//!
//! `engine/examples` has a source and a target as programs.

// What an embedder names is at the root. The floors below are public for the project's own tests;
// imports go down only, and ARCHITECTURE.md says what each floor may do.
//
// 5  session: the public API
// 4  drive: runs the machines' actions against the mechanism; door: connects, lets in
// 3  sender, receiver, machine: events in, actions out
// 2  vfio (ioctls), buffers, ring, tcp, kernel_tls, compress (codec, workers), threads
// 1  wire, vfio::state, outcome, compress::policy, metrics
// 0  limits, error, errno, ids, cause
#[doc(inline)]
pub use session::*;

#[doc(hidden)]
pub mod buffers;
#[doc(hidden)]
pub mod cause;
#[doc(hidden)]
pub mod compress;
#[doc(hidden)]
pub mod door;
#[doc(hidden)]
pub mod drive;
#[doc(hidden)]
pub mod errno;
#[doc(hidden)]
pub mod error;
#[doc(hidden)]
pub mod ids;
mod kernel_tls;
pub mod limits;
#[doc(hidden)]
pub mod machine;
#[doc(hidden)]
pub mod metrics;
#[doc(hidden)]
pub mod outcome;
#[doc(hidden)]
pub mod receiver;
#[doc(hidden)]
pub mod ring;
#[doc(hidden)]
pub mod sender;
#[doc(hidden)]
pub mod session;
mod tcp;
#[doc(hidden)]
pub mod threads;
#[doc(hidden)]
pub mod vfio;
#[doc(hidden)]
pub mod wire;

/// Compiles the code that README.md shows.
#[cfg(all(doctest, feature = "open"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
