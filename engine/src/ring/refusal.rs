//! Why a ring could not be opened, in words that a person can act on.

use std::fs;
use std::io;

use crate::errno;

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

/// Sorts an answer of `io_uring_setup` or of the first calls on the ring: refusals are told apart
/// from failures, and given a reason.
pub(super) fn refusal(source: io::Error) -> OpenError {
    let why = match source.raw_os_error() {
        Some(errno::ENOSYS) => "the kernel has none, or a seccomp filter hides it (ENOSYS)".into(),
        Some(errno::EPERM) => why_not_permitted(),
        Some(errno::EACCES) => "a security module denies it (EACCES)".into(),
        Some(errno::ENOMEM) => "no memory for it, or RLIMIT_MEMLOCK is too low (ENOMEM)".into(),
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
