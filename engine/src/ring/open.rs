//! Opening a ring: which backend, and in words a person can act on, why not the other one.

use std::fs;
use std::io;

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

/// Why no ring was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The kernel, or a policy of this host, refuses io_uring to this process.
    #[error("io_uring is refused: {why}")]
    Refused {
        /// What refuses it, as far as can be told.
        why: String,
        /// What the system call answered.
        #[source]
        source: io::Error,
    },
    /// The kernel has an io_uring that is too old or cut down.
    #[error("this kernel's io_uring lacks {missing}")]
    Lacking {
        /// Operations and features, by the kernel's names.
        missing: String,
    },
    /// The configuration is out of bounds.
    #[error("ring configuration: {0}")]
    Config(&'static str),
    /// Something else failed: descriptors, memory.
    #[error("opening a ring: {0}")]
    Io(#[from] io::Error),
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

/// Sorts an answer of `io_uring_setup` or of the first calls on the ring: refusals are told apart
/// from failures, and given a reason.
pub(super) fn refusal(source: io::Error) -> OpenError {
    let why = match source.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has none, or a seccomp filter hides it (ENOSYS)".into(),
        Some(libc::EPERM) => why_not_permitted(),
        Some(libc::EACCES) => "a security module denies it (EACCES)".into(),
        Some(libc::ENOMEM) => "no memory for it, or RLIMIT_MEMLOCK is too low (ENOMEM)".into(),
        _ => return OpenError::Io(source),
    };
    OpenError::Refused { why, source }
}

fn why_not_permitted() -> String {
    let sysctl = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    match sysctl.as_deref().map(str::trim) {
        Ok("2") => "kernel.io_uring_disabled=2 turns it off on this host".into(),
        Ok("1") => "kernel.io_uring_disabled=1 leaves it to kernel.io_uring_group \
                    and CAP_SYS_ADMIN"
            .into(),
        _ => "a seccomp filter or a security module denies it (EPERM)".into(),
    }
}
