//! Opening a ring: which backend.

use super::refusal::OpenError;
use super::syscalls::SyscallRing;
use super::uring::UringRing;
use super::{BackendChoice, Ring, RingConfig};

/// Most operations in flight that a ring may be opened for.
pub const DEPTH_MAX: u32 = 4096;
/// Most files that a ring may be opened for.
pub const FILES_MAX: u32 = 1024;

/// A ring, and what the one who asked for it should know.
pub struct Opened {
    /// The ring.
    pub ring: Box<dyn Ring>,
    /// Why [`BackendChoice::Auto`] took plain system calls, in one line; none: it did not.
    pub fallback: Option<String>,
}

/// Opens a ring on the calling thread, which must be the one that uses it.
pub fn open(config: &RingConfig) -> Result<Opened, OpenError> {
    if !(1..=DEPTH_MAX).contains(&config.depth) {
        return Err(OpenError::Config("depth outside 1..=4096"));
    }
    if !(1..=FILES_MAX).contains(&config.files) {
        return Err(OpenError::Config("files outside 1..=1024"));
    }
    let refused = match config.backend {
        BackendChoice::Syscalls => None,
        BackendChoice::IoUring => return Ok(with_uring(UringRing::open(config)?)),
        BackendChoice::Auto => match UringRing::open(config) {
            Ok(ring) => return Ok(with_uring(ring)),
            Err(why @ (OpenError::Refused { .. } | OpenError::Lacking { .. })) => Some(why),
            Err(other) => return Err(other),
        },
    };
    let fallback = refused.map(|why| format!("{why}; using plain system calls"));
    if let Some(line) = &fallback {
        tracing::warn!("{line}");
    }
    Ok(Opened { ring: Box::new(SyscallRing::open(config)?), fallback })
}

fn with_uring(ring: UringRing) -> Opened {
    Opened { ring: Box::new(ring), fallback: None }
}
