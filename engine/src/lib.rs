//! An io_uring engine that carries a VFIO device's migration state from one host to another: it
//! reads the migration data fd, compresses, sends; on the other side it receives, verifies,
//! decompresses, writes. Where the device is reset under it, it says so, and either aborts or
//! discards and restarts just that device.
//!
//! [`session`] is the public API; begin there. `engine/examples` has a source and a target. The
//! folders are floors, and imports go down only:
//!
//! | floor | modules | may |
//! |---|---|---|
//! | 5 | [`session`]: the public API | |
//! | 4 | [`drive`]: runs the machines' actions against the mechanism | threads, clock |
//! | 3 | [`sender`], [`receiver`], [`abort`], [`machine`]: events in, actions out | no fd, clock, thread, memory |
//! | 2 | [`vfio`] (ioctls), [`buffers`], [`ring`], [`compress`] (codec, workers) | the only `unsafe` |
//! | 1 | [`wire`], [`vfio::state`], [`outcome`], [`compress::policy`], [`metrics`] | no fd, clock, thread |
//! | 0 | [`limits`], [`error`], [`errno`], [`ids`] | nothing |

pub mod abort;
pub mod buffers;
pub mod compress;
pub mod drive;
pub mod errno;
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
