//! What every operation has in common.

use std::ops::Range;

use super::{FileId, FileKind, Op};
use crate::buffers::Buffer;

/// Most bytes that one read or write moves (the kernel's MAX_RW_COUNT).
const RANGE_BYTES_MAX: usize = 0x7fff_f000;

/// Which way an operation moves bytes. A file has at most one operation in flight for each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the file into the buffer.
    In,
    /// From the buffer into the file.
    Out,
}

impl Op {
    /// The operation's file.
    pub fn file(&self) -> FileId {
        match self {
            Op::Read { file, .. }
            | Op::TryRead { file, .. }
            | Op::Write { file, .. }
            | Op::Send { file, .. }
            | Op::Recv { file, .. } => *file,
        }
    }

    /// The operation's buffer, taken out of it.
    pub fn into_buffer(self) -> Buffer {
        match self {
            Op::Read { buffer, .. }
            | Op::TryRead { buffer, .. }
            | Op::Write { buffer, .. }
            | Op::Send { buffer, .. }
            | Op::Recv { buffer, .. } => buffer,
        }
    }

    /// Length of the operation's range, in bytes.
    pub(super) fn len(&self) -> usize {
        self.parts().1.len()
    }

    pub(super) fn direction(&self) -> Direction {
        match self {
            Op::Read { .. } | Op::TryRead { .. } | Op::Recv { .. } => Direction::In,
            Op::Write { .. } | Op::Send { .. } => Direction::Out,
        }
    }

    /// The bytes of the range that are still to go out when `moved` have gone.
    pub(super) fn rest(&self, moved: usize) -> &[u8] {
        let (buffer, range) = self.parts();
        &buffer.bytes()[range.start + moved..range.end]
    }

    /// The bytes of the range that are still to come in when `moved` have come.
    pub(super) fn rest_mut(&mut self, moved: usize) -> &mut [u8] {
        match self {
            Op::Read { buffer, range, .. }
            | Op::TryRead { buffer, range, .. }
            | Op::Write { buffer, range, .. }
            | Op::Send { buffer, range, .. }
            | Op::Recv { buffer, range, .. } => {
                &mut buffer.bytes_mut()[range.start + moved..range.end]
            }
        }
    }

    /// Whether the operation makes sense on a file of this kind; else the errno that says why not.
    pub(super) fn check(&self, kind: FileKind) -> Result<(), i32> {
        let (buffer, range) = self.parts();
        let for_socket = matches!(self, Op::Send { .. } | Op::Recv { .. });
        match (for_socket, kind == FileKind::Socket) {
            (true, false) => return Err(libc::ENOTSOCK),
            (false, true) => return Err(libc::EINVAL),
            (true, true) | (false, false) => {}
        }
        // The kernel answers an empty read with 0 without asking the driver, which would pass for
        // the end of the stream.
        if range.is_empty() || !buffer.holds(range) || range.len() > RANGE_BYTES_MAX {
            return Err(libc::EINVAL);
        }
        Ok(())
    }

    fn parts(&self) -> (&Buffer, &Range<usize>) {
        match self {
            Op::Read { buffer, range, .. }
            | Op::TryRead { buffer, range, .. }
            | Op::Write { buffer, range, .. }
            | Op::Send { buffer, range, .. }
            | Op::Recv { buffer, range, .. } => (buffer, range),
        }
    }
}
