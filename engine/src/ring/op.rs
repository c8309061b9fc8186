//! An operation, and what every kind of them has in common.

use std::ops::Range;

use super::{FileId, FileKind};
use crate::buffers::Buffer;
use crate::errno;

/// Most bytes that one read or write moves (the kernel's MAX_RW_COUNT).
const RANGE_BYTES_MAX: usize = 0x7fff_f000;

/// An operation on a file. It owns its buffer until the completion gives it back.
#[derive(Debug)]
pub struct Op {
    /// What is done.
    pub kind: OpKind,
    /// To which file.
    pub file: FileId,
    /// From or into which buffer.
    pub buffer: Buffer,
    /// Which bytes of the buffer. A range that is empty, outside the buffer or longer than one
    /// system call may move is refused with EINVAL.
    pub range: Range<usize>,
    /// How many bytes of the range end a [`OpKind::Recv`]: what has arrived beyond them is taken along,
    /// and nothing more is waited for. All others move what they move.
    pub enough: usize,
}

/// What an operation does, and what its completion means. At most one operation of each direction
/// is in flight on a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Read once; completes with 0 at the end. On a [`FileKind::Pollable`] file, EAGAIN is not a
    /// completion: the operation waits.
    Read,
    /// As `Read`, but EAGAIN completes the operation.
    TryRead,
    /// Write once; may be short. On a [`FileKind::Pollable`] file, EAGAIN is not a completion.
    Write,
    /// Send the whole range on a socket; a short send is resumed. Completes with the whole length
    /// or an error, after which what was sent is not known.
    Send,
    /// Receive from a socket until there is enough. Completes short when the stream ends or fails
    /// inside the range (the kernel swallows an error that follows bytes), with 0 at the end of the
    /// stream, and with an error when nothing had arrived. A receive that is cancelled inside the
    /// range completes with ECANCELED, and the stream has lost those bytes.
    Recv,
    /// Wait until the file's other end is gone; completes with what poll(2) says (POLLRDHUP, and
    /// POLLERR and POLLHUP, which nobody can leave out). It moves nothing: it needs no buffer, and
    /// its range is empty. Reads and writes go on meanwhile.
    HangUp,
}

/// Which way an operation moves bytes. A file has at most one operation in flight for each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the file into the buffer.
    In,
    /// From the buffer into the file.
    Out,
    /// None: it waits.
    Nowhere,
}

impl OpKind {
    pub(super) fn direction(self) -> Direction {
        match self {
            OpKind::Read | OpKind::TryRead | OpKind::Recv => Direction::In,
            OpKind::Write | OpKind::Send => Direction::Out,
            OpKind::HangUp => Direction::Nowhere,
        }
    }

    /// Whether the operation makes sense on a file of this kind; else the errno that says why not.
    fn check(self, file: FileKind) -> Result<(), i32> {
        let for_socket = matches!(self, OpKind::Send | OpKind::Recv);
        match (for_socket, file == FileKind::Socket) {
            (true, false) => Err(errno::ENOTSOCK),
            (false, true) => Err(errno::EINVAL),
            (true, true) | (false, false) => Ok(()),
        }
    }
}

impl Op {
    /// An operation on a whole range.
    pub fn of(kind: OpKind, file: FileId, buffer: Buffer, range: Range<usize>) -> Op {
        let enough = range.len();
        Op { kind, file, buffer, range, enough }
    }

    /// A [`OpKind::Read`].
    pub fn read(file: FileId, buffer: Buffer, range: Range<usize>) -> Op {
        Op::of(OpKind::Read, file, buffer, range)
    }

    /// A [`OpKind::TryRead`].
    pub fn try_read(file: FileId, buffer: Buffer, range: Range<usize>) -> Op {
        Op::of(OpKind::TryRead, file, buffer, range)
    }

    /// A [`OpKind::Write`].
    pub fn write(file: FileId, buffer: Buffer, range: Range<usize>) -> Op {
        Op::of(OpKind::Write, file, buffer, range)
    }

    /// A [`OpKind::Send`].
    pub fn send(file: FileId, buffer: Buffer, range: Range<usize>) -> Op {
        Op::of(OpKind::Send, file, buffer, range)
    }

    /// A [`OpKind::Recv`].
    pub fn recv(file: FileId, buffer: Buffer, range: Range<usize>) -> Op {
        Op::of(OpKind::Recv, file, buffer, range)
    }

    /// Length of the operation's range, in bytes.
    pub(super) fn len(&self) -> usize {
        self.range.len()
    }

    /// A [`OpKind::Recv`] that so many bytes of the range end.
    pub fn recv_enough(file: FileId, buffer: Buffer, range: Range<usize>, enough: usize) -> Op {
        Op { enough, ..Op::recv(file, buffer, range) }
    }

    /// A [`OpKind::HangUp`].
    pub fn hang_up(file: FileId) -> Op {
        Op::of(OpKind::HangUp, file, Buffer::Small(Vec::new()), 0..0)
    }

    /// The bytes of the range that are still to go out when `moved` have gone.
    pub(super) fn rest(&self, moved: usize) -> &[u8] {
        &self.buffer.bytes()[self.range.start + moved..self.range.end]
    }

    /// The bytes of the range that are still to come in when `moved` have come.
    pub(super) fn rest_mut(&mut self, moved: usize) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[self.range.start + moved..self.range.end]
    }

    /// Whether the operation may be submitted on a file of this kind; else the errno that says why
    /// not.
    pub(super) fn check(&self, file: FileKind) -> Result<(), i32> {
        self.kind.check(file)?;
        if self.kind == OpKind::HangUp {
            return if self.range == (0..0) { Ok(()) } else { Err(errno::EINVAL) };
        }
        if matches!(self.buffer, Buffer::Zeros(_)) && self.kind.direction() == Direction::In {
            return Err(errno::EINVAL);
        }
        // The kernel answers an empty read with 0 without asking the driver, which would pass for
        // the end of the stream.
        if self.range.is_empty()
            || !(1..=self.range.len()).contains(&self.enough)
            || !self.buffer.holds(&self.range)
            || self.range.len() > RANGE_BYTES_MAX
        {
            return Err(errno::EINVAL);
        }
        Ok(())
    }
}
