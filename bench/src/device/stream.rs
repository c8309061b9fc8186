//! What moves the bytes and hashes each of them in order: content into a data fd, and out of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use xxhash_rust::xxh3::Xxh3;

use super::plan::{Conduit, Plan};
use super::throttle::Throttle;
use crate::data::{Content, Origin};

/// Bytes that a pipe holds, where the host allows it.
const PIPE_BYTES: usize = 1 << 20;
/// Bytes that are moved at once; small enough to stay in a core's cache.
const PIECE_BYTES: usize = 128 << 10;

/// A pipe, as large as the host allows: the end to read from, and the end to write to.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
    // Best effort: an unprivileged user may have used up his share of pipe memory.
    let _ = fcntl_setpipe_size(&write_end, PIPE_BYTES);
    Ok((read_end, write_end))
}

/// An empty file in memory.
pub(super) fn memory_file() -> io::Result<OwnedFd> {
    Ok(rustix::fs::memfd_create("device-state", rustix::fs::MemfdFlags::CLOEXEC)?)
}

/// A stream of bytes between a device and its data fd.
#[derive(Debug)]
struct Stream {
    fd: OwnedFd,
    is_file: bool,
    /// Bytes that were moved.
    at: u64,
    hash: Hash,
    buffer: Vec<u8>,
    throttle: Throttle,
}

/// XXH3-128.
struct Hash(Box<Xxh3>);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0.digest128())
    }
}

impl Stream {
    fn new(plan: &Plan, fd: OwnedFd) -> Stream {
        Stream {
            fd,
            is_file: plan.conduit == Conduit::File,
            at: 0,
            hash: Hash(Box::new(Xxh3::new())),
            buffer: vec![0; PIECE_BYTES],
            throttle: Throttle::new(plan.device_rate),
        }
    }

    fn moved(&mut self, bytes: usize) {
        self.hash.0.update(&self.buffer[..bytes]);
        self.at += bytes as u64;
        self.throttle.spend(bytes);
    }
}

/// From content into a data fd.
#[derive(Debug)]
pub(super) struct Feed {
    stream: Stream,
    content: Content,
    origin: Origin,
}

impl Feed {
    pub(super) fn new(plan: &Plan, origin: Origin, fd: OwnedFd) -> Feed {
        Feed { stream: Stream::new(plan, fd), content: plan.content.clone(), origin }
    }

    /// Bytes that were put in.
    pub(super) fn at(&self) -> u64 {
        self.stream.at
    }

    /// XXH3-128 over them.
    pub(super) fn digest(&self) -> u128 {
        self.stream.hash.0.digest128()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.fd.as_fd()
    }

    /// Puts a piece in, of at most so many bytes. Waits while a pipe is full.
    pub(super) fn put(&mut self, most: u64) -> io::Result<()> {
        let Stream { fd, is_file, at, buffer, .. } = &mut self.stream;
        let length = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let piece = &mut buffer[..length];
        self.content.fill(self.origin, *at, piece)?;
        let mut done = 0;
        while done < length {
            let rest = &piece[done..];
            let written = match is_file {
                true => rustix::io::pwrite(&*fd, rest, *at + done as u64),
                false => rustix::io::write(&*fd, rest),
            };
            match written {
                Ok(written) => done += written,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.moved(length);
        Ok(())
    }
}

/// Out of a data fd.
#[derive(Debug)]
pub(super) struct Drain {
    stream: Stream,
    stalls_at: u64,
}

impl Drain {
    pub(super) fn new(plan: &Plan, fd: OwnedFd) -> Drain {
        let stalls_at = plan.stalls_at.unwrap_or(u64::MAX);
        Drain { stream: Stream::new(plan, fd), stalls_at }
    }

    /// XXH3-128 over what was taken.
    pub(super) fn digest(&self) -> u128 {
        self.stream.hash.0.digest128()
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.fd.as_fd()
    }

    /// Takes nothing more, whatever there is.
    pub(super) fn has_stalled(&self) -> bool {
        self.stream.at >= self.stalls_at
    }

    /// Takes a piece; an empty one if nothing is there. None once a pipe has ended.
    pub(super) fn take(&mut self) -> io::Result<Option<&[u8]>> {
        if self.has_stalled() {
            return Ok(Some(&[]));
        }
        let Stream { fd, is_file, at, buffer, .. } = &mut self.stream;
        let most = usize::try_from(self.stalls_at - *at).unwrap_or(usize::MAX);
        let length = buffer.len().min(most);
        let piece = &mut buffer[..length];
        let taken = loop {
            let taken = match is_file {
                true => rustix::io::pread(&*fd, &mut *piece, *at),
                false => rustix::io::read(&*fd, &mut *piece),
            };
            match taken {
                Ok(0) if !*is_file => return Ok(None),
                Ok(taken) => break taken,
                Err(Errno::AGAIN) => break 0,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        self.stream.moved(taken);
        Ok(Some(&self.stream.buffer[..taken]))
    }
}
