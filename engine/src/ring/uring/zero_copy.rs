//! SEND_ZC, only where it is proven to be zero-copy.
//!
//! It pays off where the network card reads the slot itself. Over loopback, through a veth pair or
//! a card without scatter-gather the kernel copies after all, and is slower at it than a plain
//! send. So each send asks for a report (REPORT_USAGE, Linux 6.2), and the first one that says
//! "copied" turns zero-copy off for its socket for good.
//!
//! The kernel reads the slot until the notification (F_NOTIF) that follows the send's own
//! completion, on errors too where they carry F_MORE: only then does the operation complete.

use std::io;
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use crate::buffers::{Arena, Buffer};
use crate::errno;
use crate::ring::ZeroCopyStats;

/// Ask for a report in the notification: IORING_SEND_ZC_REPORT_USAGE, private in the crate.
const REPORT_USAGE: u16 = 8;
/// The notification's result when the kernel copied: IORING_NOTIF_USAGE_ZC_COPIED.
const USAGE_COPIED: u32 = 0x8000_0000;
/// Below this, pinning and the second completion cost more than the copy.
const BYTES_MIN: usize = 8 << 10;
/// The arena is the ring's only registered buffer.
const ARENA_INDEX: u16 = 0;

/// A ring's zero-copy sends.
#[derive(Debug, Default)]
pub(super) struct ZeroCopy {
    /// The registered arena; none: plain sends only.
    arena: Option<Arc<Arena>>,
    sends: u64,
    copied: u64,
}

impl ZeroCopy {
    /// Registers the arena where there is one and the kernel allows it (RLIMIT_MEMLOCK).
    pub(super) fn new(ring: &IoUring, send_zc: bool, arena: Option<&Arc<Arena>>) -> ZeroCopy {
        let Some(arena) = arena.filter(|_| send_zc) else {
            return ZeroCopy::default();
        };
        match register(ring, arena) {
            Ok(()) => ZeroCopy { arena: Some(Arc::clone(arena)), ..ZeroCopy::default() },
            Err(error) => {
                tracing::info!(%error, "the arena cannot be registered; using plain sends");
                ZeroCopy::default()
            }
        }
    }

    /// Whether a socket may start out with zero-copy.
    pub(super) fn registered(&self) -> bool {
        self.arena.is_some()
    }

    /// Whether these many bytes of this buffer can be sent so.
    pub(super) fn suits(&self, buffer: &Buffer, bytes: usize) -> bool {
        match (&self.arena, buffer) {
            (Some(arena), Buffer::Slot(slot)) => bytes >= BYTES_MIN && arena.owns(slot),
            _ => false,
        }
    }

    /// The submission for bytes that suit, and counts it.
    pub(super) fn send(&mut self, fd: types::Fd, bytes: &[u8], flags: i32) -> squeue::Entry {
        self.sends += 1;
        // An operation's range is checked to fit.
        opcode::SendZc::new(fd, bytes.as_ptr(), bytes.len() as u32)
            .buf_index(Some(ARENA_INDEX))
            .zc_flags(REPORT_USAGE)
            .flags(flags)
            .build()
    }

    /// Takes a notification's result; true: the kernel copied, so that this socket is to stop.
    pub(super) fn notified(&mut self, result: i32) -> bool {
        let copied = result.cast_unsigned() & USAGE_COPIED != 0;
        self.copied += u64::from(copied);
        copied
    }

    pub(super) fn stats(&self, sockets_on: usize) -> ZeroCopyStats {
        ZeroCopyStats {
            registered: self.registered(),
            sockets_on,
            zero_copy_sends: self.sends,
            copied_sends: self.copied,
        }
    }
}

/// Whether a SEND_ZC answered that it cannot be done here, so that a plain send should be: the
/// kernel has no report of usage (6.0, 6.1), the protocol no zero-copy, or too much is pinned.
pub(super) fn refused(errno: i32) -> bool {
    matches!(errno, errno::EINVAL | errno::EOPNOTSUPP | errno::ENOMEM | errno::ENOBUFS)
}

fn register(ring: &IoUring, arena: &Arena) -> io::Result<()> {
    let whole = libc::iovec { iov_base: arena.base().cast(), iov_len: arena.mapped_bytes() };
    // SAFETY: needed because the kernel is given an address range for good. It is the arena's own
    // mapping; the ring keeps the arena, and unregisters the buffer before it lets go of it.
    unsafe { ring.submitter().register_buffers(&[whole]) }
}
