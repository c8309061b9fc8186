//! An io_uring engine that carries a VFIO device's migration state.

pub mod compress;
pub mod ids;
pub mod limits;
pub mod outcome;
pub mod vfio;
