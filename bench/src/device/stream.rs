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
pub(super) const PIECE_BYTES: usize = 128 << 10;

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
    fn new(plan: &Plan) -> Stream {
        Stream {
            is_file: plan.conduit != Conduit::Pipe,
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
    fd: OwnedFd,
    stream: Stream,
    content: Content,
    origin: Origin,
}

impl Feed {
    pub(super) fn new(plan: &Plan, origin: Origin, fd: OwnedFd) -> Feed {
        Feed { fd, stream: Stream::new(plan), content: plan.content.clone(), origin }
    }

    /// A memory file that has its first bytes already; its digest is taken elsewhere.
    pub(super) fn of_memory(plan: &Plan, origin: Origin, fd: OwnedFd) -> Feed {
        let mut feed = Feed::new(plan, origin, fd);
        feed.stream.at = plan.total_bytes();
        feed
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
        self.fd.as_fd()
    }

    /// Puts a piece in, of at most so many bytes. Waits while a pipe is full.
    pub(super) fn put(&mut self, most: u64) -> io::Result<()> {
        let Stream { is_file, at, buffer, .. } = &mut self.stream;
        let length = buffer.len().min(usize::try_from(most).unwrap_or(usize::MAX));
        let piece = &mut buffer[..length];
        self.content.fill(self.origin, *at, piece)?;
        let mut done = 0;
        while done < length {
            let rest = &piece[done..];
            let written = match is_file {
                true => rustix::io::pwrite(&self.fd, rest, *at + done as u64),
                false => rustix::io::write(&self.fd, rest),
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
    /// None once nothing more is to be taken.
    fd: Option<OwnedFd>,
    stream: Stream,
    stalls_at: u64,
    kept: Option<Vec<u8>>,
}

impl Drain {
    pub(super) fn new(plan: &Plan, fd: OwnedFd) -> Drain {
        Drain {
            fd: Some(fd),
            stream: Stream::new(plan),
            stalls_at: plan.stalls_at.unwrap_or(u64::MAX),
            kept: plan.keeps.then(Vec::new),
        }
    }

    /// Bytes that were taken.
    pub(super) fn bytes(&self) -> u64 {
        self.stream.at
    }

    /// XXH3-128 over them.
    pub(super) fn digest(&self) -> u128 {
        self.stream.hash.0.digest128()
    }

    /// Them.
    pub(super) fn kept(&self) -> &[u8] {
        self.kept.as_deref().unwrap_or_default()
    }

    /// Takes a piece, and says how long it is: 0 if nothing is there. None if nothing more can
    /// come: a pipe has ended, or the device has stalled.
    pub(super) fn take(&mut self) -> io::Result<Option<usize>> {
        let Some(fd) = &self.fd else { return Ok(None) };
        let Stream { is_file, at, buffer, .. } = &mut self.stream;
        let most = usize::try_from(self.stalls_at.saturating_sub(*at)).unwrap_or(usize::MAX);
        let length = buffer.len().min(most);
        if length == 0 {
            return Ok(None);
        }
        let piece = &mut buffer[..length];
        let taken = loop {
            let taken = match is_file {
                true => rustix::io::pread(fd, &mut *piece, *at),
                false => rustix::io::read(fd, &mut *piece),
            };
            match taken {
                Ok(0) if !*is_file => return Ok(None),
                Ok(taken) => break taken,
                Err(Errno::AGAIN) => break 0,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(&piece[..taken]);
        }
        self.stream.moved(taken);
        Ok(Some(taken))
    }

    /// Takes nothing more, and lets the fd go.
    pub(super) fn close(&mut self) {
        self.fd = None;
    }
}
