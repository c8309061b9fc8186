//! The C ABI of vfio-ferry: `include/vfio_ferry.h` is generated from these files, doc comments
//! included, so what stands here is written for a C programmer. It is made of the engine's public
//! API (`vfio_ferry`) and adds nothing to it.
//!
//! | module | |
//! |---|---|
//! | `raw` | pointers, structs and fds of C: all that is `unsafe` |
//! | `failure`, `status` | why a call failed; no panic gets out |
//! | `values`, `outcome` | limits and enumerations |
//! | `version`, `options`, `device`, `embedded`, `door`, `streams`, `channel` | what a session is made of |
//! | `session`, `event`, `wait`, `report`, `stats`, `log` | a session, its events, results and figures |
//!
//! Types and enumerators have the names that they have in C, so that one search finds both. A
//! function that takes handles and places for results is an ordinary safe one: references are
//! pointers to C, `Option` is what may be NULL, and `MaybeUninit` is what is only written. One that
//! takes strings, buffers, structs of any version, or fds to own is `unsafe`, and the header's text
//! is its contract.
#![allow(non_camel_case_types)]
// The attribute no_mangle counts as unsafe code. That no other file than raw.rs has an unsafe block
// beyond handing C's pointers to it, a test says (tests/boundary.rs).
#![allow(unsafe_code)]
// Their contract is the header's text, which is their documentation.
#![allow(clippy::missing_safety_doc)]

mod channel;
mod device;
mod door;
mod embedded;
mod engine;
mod event;
mod failure;
mod hosts;
mod log;
mod options;
mod outcome;
mod raw;
mod report;
mod session;
mod stats;
mod status;
mod streams;
#[cfg(test)]
mod tests;
mod threads;
mod values;
mod version;
mod wait;

pub use channel::*;
pub use device::*;
pub use door::*;
pub use embedded::*;
pub use engine::*;
pub use event::*;
pub use log::*;
pub use options::*;
pub use outcome::*;
pub use report::*;
pub use session::*;
pub use stats::*;
pub use status::*;
pub use streams::*;
pub use threads::*;
pub use values::*;
pub use version::*;
pub use wait::*;
