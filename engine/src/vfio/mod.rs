//! VFIO migration: the states and their arcs as a table ([`state`]), the UAPI ([`uapi`]), the
//! ioctls ([`ioctl`]), and what the engine asks of a device ([`device`]).

pub mod device;
pub mod ioctl;
pub mod open;
pub mod real;
pub mod state;
pub mod uapi;
