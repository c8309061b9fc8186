//! An io_uring engine that carries a VFIO device's migration state from one host to another.

pub mod abort;
pub mod buffers;
pub mod compress;
pub mod drive;
pub mod error;
pub mod ids;
pub mod limits;
pub mod machine;
pub mod metrics;
pub mod outcome;
pub mod receiver;
pub mod ring;
pub mod sender;
pub mod session;
pub mod vfio;
pub mod wire;
