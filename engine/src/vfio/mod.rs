//! VFIO migration: the states and their arcs as a table ([`state`]), the UAPI ([`uapi`]), the
//! ioctls ([`ioctl`]), what the engine asks of a device ([`device`]), and the real one behind an fd
//! ([`real`]) or, with the feature `open`,
//! a path in sysfs (`open`).

pub mod device;
pub mod ioctl;
#[cfg(feature = "open")]
pub mod open;
#[cfg(feature = "open")]
mod opened;
pub mod real;
pub mod state;
pub mod uapi;
mod waits;

#[cfg(feature = "open")]
pub use open::{Container, OpenError};
pub use real::VfioDevice;
