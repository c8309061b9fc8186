//! The source's side: a data fd out of which a state can be read.
//!
//! There is no thread: what the kernel's driver would have ready is put into the pipe or file
//! whenever the engine has read something, asks for the precopy info, or changes the state.
//!
//! A pipe cannot answer a drained PRE_COPY read, so one *marker* byte stands in it for that answer
//! as long as nothing else does; [`Saving::read`] swaps it for ENOMSG or 0.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::io::{Errno, ReadWriteFlags};
use vfio_ferry::vfio::device::PrecopyInfo;

use super::content::{Content, noise};
use super::plan::{Drained, Plan, Round};
use super::{Conduit, Passed, Sum};

/// Bytes that a pipe should hold, where the host allows it.
pub(super) const PIPE_BYTES: usize = 1 << 20;
/// Bytes that are made at once.
const PIECE_BYTES: u64 = 64 << 10;

#[derive(Debug)]
enum Way {
    /// The reading end (to take the marker back) and the writing end, closed at the end.
    Pipe(OwnedFd, Option<OwnedFd>),
    File(File),
}

/// Where the byte is that stands for "drained".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    InPipe,
    /// The engine has read it, and [`Saving::read`] has not seen it yet.
    Read,
}

/// One saving session.
#[derive(Debug)]
pub(super) struct Saving {
    way: Way,
    content: Content,
    drained: Drained,
    lags: bool,
    piece_bytes: Option<u64>,
    stalls_at: Option<u64>,
    rounds: VecDeque<Round>,
    announced: bool,
    rest_bytes: u64,
    /// Bytes that may come out, have been put in, and were read.
    released: u64,
    put: u64,
    read: u64,
    /// Where initial data ends.
    initial_end: u64,
    /// In STOP_COPY: nothing more will be released.
    last: bool,
    marker: Marker,
    hash: Sum,
}

impl Saving {
    /// A new session and its data fd.
    pub(super) fn start(
        plan: &Plan,
        content: Content,
        precopy: bool,
    ) -> io::Result<(Saving, OwnedFd)> {
        let (way, fd) = match plan.conduit {
            Conduit::Pipe => {
                let (reading, writing) = pipe()?;
                rustix::io::ioctl_fionbio(&writing, true)?;
                (Way::Pipe(reading.try_clone()?, Some(writing)), reading)
            }
            Conduit::File => {
                let file = memory_file()?;
                (Way::File(file.try_clone()?), OwnedFd::from(file))
            }
        };
        let mut saving = Saving {
            way,
            content,
            drained: plan.drained,
            lags: plan.lags,
            piece_bytes: plan.piece_bytes,
            stalls_at: plan.stalls_at,
            rounds: plan.rounds.iter().copied().collect(),
            announced: false,
            rest_bytes: plan.rest_bytes,
            released: plan.initial_bytes,
            put: 0,
            read: 0,
            initial_end: plan.initial_bytes,
            last: false,
            marker: Marker::None,
            hash: Sum::default(),
        };
        if !precopy {
            saving.initial_end = 0;
            saving.stop()?;
        }
        saving.top_up()?;
        Ok((saving, fd))
    }

    /// PRE_COPY -> STOP_COPY, or a session that begins there.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.last = true;
        let rounds: u64 = self.rounds.drain(..).map(|round| round.bytes).sum();
        self.release(rounds + self.rest_bytes)
    }

    /// VFIO_MIG_GET_PRECOPY_INFO.
    pub(super) fn precopy_info(&mut self) -> io::Result<PrecopyInfo> {
        let mut reinit = false;
        let mut coming = 0;
        if self.read == self.released
            && let Some(round) = self.rounds.front().copied()
        {
            if self.lags && !self.announced {
                self.announced = true;
                coming = round.bytes;
            } else {
                self.announced = false;
                self.rounds.pop_front();
                self.release(round.bytes)?;
                if round.reinit {
                    self.initial_end = self.released;
                    reinit = true;
                }
            }
        }
        let initial_bytes = self.initial_end.saturating_sub(self.read);
        let dirty_bytes = self.released - self.read - initial_bytes + coming;
        Ok(PrecopyInfo { initial_bytes, dirty_bytes, reinit })
    }

    /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: what is left if the device stops now.
    pub(super) fn left_bytes(&self) -> u64 {
        let rounds: u64 = self.rounds.iter().map(|round| round.bytes).sum();
        let rest = if self.last { 0 } else { rounds + self.rest_bytes };
        self.released - self.read + rest
    }

    /// Bytes that were read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read
    }

    /// The engine read so many bytes: what the driver would have said.
    pub(super) fn read(&mut self, bytes: usize) -> io::Result<usize> {
        if std::mem::replace(&mut self.marker, Marker::None) != Marker::None {
            debug_assert_eq!(bytes, 1, "the marker was alone in the pipe");
            self.top_up()?;
            return self.answer_of_a_drained_fd();
        }
        if bytes == 0 && !self.last {
            return self.answer_of_a_drained_fd();
        }
        let bytes = self.cut_short(bytes as u64)?;
        self.read += bytes;
        self.top_up()?;
        Ok(bytes as usize)
    }

    /// A reset: a reader that waits comes back, to be told ENODEV.
    pub(super) fn kill(&mut self) {
        if let Way::Pipe(_, writing) = &mut self.way {
            *writing = None;
        }
    }

    /// What came out so far; the digest is of everything that was put in.
    pub(super) fn passed(&self) -> Passed {
        let whole = self.last && self.read == self.released;
        Passed { bytes: self.read, digest: whole.then(|| self.hash.0.digest128()) }
    }

    fn answer_of_a_drained_fd(&self) -> io::Result<usize> {
        match self.drained {
            Drained::NoMsg => Err(Errno::NOMSG.into()),
            Drained::Zero => Ok(0),
        }
    }

    /// A file gives whole reads; some of what was read is put back.
    fn cut_short(&mut self, bytes: u64) -> io::Result<u64> {
        let (Way::File(file), Some(most)) = (&mut self.way, self.piece_bytes) else {
            return Ok(bytes);
        };
        let most = 1 + noise(self.read) % most;
        if bytes > most {
            file.seek(SeekFrom::Current(-((bytes - most) as i64)))?;
        }
        Ok(bytes.min(most))
    }

    fn release(&mut self, bytes: u64) -> io::Result<()> {
        self.take_marker_back()?;
        self.released += bytes;
        self.top_up()
    }

    /// Puts in what is released and fits.
    fn top_up(&mut self) -> io::Result<()> {
        let until = self.released.min(self.stalls_at.unwrap_or(u64::MAX));
        let mut buffer = [0; PIECE_BYTES as usize];
        while self.put < until && self.marker == Marker::None {
            let mut bytes = PIECE_BYTES.min(until - self.put);
            if let (Way::Pipe(..), Some(most)) = (&self.way, self.piece_bytes) {
                if self.put > self.read {
                    break;
                }
                bytes = bytes.min(1 + noise(self.put) % most);
            }
            let piece = &mut buffer[..bytes as usize];
            self.content.fill(self.put, piece);
            let written = match &self.way {
                Way::File(file) => file.write_at(piece, self.put)?,
                Way::Pipe(_, Some(writing)) => match rustix::io::write(writing, piece) {
                    Ok(written) => written,
                    Err(Errno::AGAIN | Errno::PIPE) => break,
                    Err(error) => return Err(error.into()),
                },
                Way::Pipe(_, None) => break,
            };
            self.hash.0.update(&piece[..written]);
            self.put += written as u64;
        }
        if let Way::Pipe(_, writing) = &mut self.way
            && self.marker == Marker::None
        {
            if self.last && self.put == self.released {
                *writing = None;
            } else if let Some(writing) = writing
                && !self.last
                && self.read == self.released
            {
                // EPIPE: the engine has closed its end.
                let _ = rustix::io::write(writing, &[0]);
                self.marker = Marker::InPipe;
            }
        }
        Ok(())
    }

    fn take_marker_back(&mut self) -> io::Result<()> {
        let Way::Pipe(reading, _) = &self.way else { return Ok(()) };
        if self.marker != Marker::InPipe {
            return Ok(());
        }
        let mut byte = [0];
        let mut into = [IoSliceMut::new(&mut byte)];
        let now = ReadWriteFlags::NOWAIT;
        self.marker = match rustix::io::preadv2(reading.as_fd(), &mut into, u64::MAX, now) {
            Ok(_) => Marker::None,
            Err(Errno::AGAIN) => Marker::Read,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

/// A pipe, as large as the host allows.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    // Best effort: an unprivileged user may have used up his share of pipe memory.
    let _ = rustix::pipe::fcntl_setpipe_size(&writing, PIPE_BYTES);
    Ok((reading, writing))
}

pub(super) fn memory_file() -> io::Result<File> {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    Ok(File::from(rustix::fs::memfd_create("device-state", flags)?))
}
