//! The target's side: a data fd into which a state can be written.
//!
//! As in `saving`, there is no thread: what was written is taken out of the pipe or file after
//! each write.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

use super::plan::{Conduit, Plan};
use super::{Passed, Sum, saving};

/// Bytes that are taken at once.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug)]
enum Way {
    /// The reading end, until a reset.
    Pipe(Option<OwnedFd>),
    File(File),
}

/// One resuming session.
#[derive(Debug)]
pub(super) struct Loading {
    way: Way,
    stalls_at: u64,
    expects_bytes: u64,
    written: u64,
    taken: u64,
    kept: Option<Vec<u8>>,
    hash: Sum,
}

impl Loading {
    /// A new session and its data fd.
    pub(super) fn start(plan: &Plan) -> io::Result<(Loading, OwnedFd)> {
        let (way, fd) = match plan.conduit {
            Conduit::Pipe => {
                let (reading, writing) = saving::pipe()?;
                rustix::io::ioctl_fionbio(&reading, true)?;
                (Way::Pipe(Some(reading)), writing)
            }
            Conduit::File => {
                let file = saving::memory_file()?;
                (Way::File(file.try_clone()?), OwnedFd::from(file))
            }
        };
        let loading = Loading {
            way,
            stalls_at: plan.stalls_at.unwrap_or(u64::MAX),
            expects_bytes: plan.expects_bytes,
            written: 0,
            taken: 0,
            kept: plan.keeps.then(Vec::new),
            hash: Sum::default(),
        };
        Ok((loading, fd))
    }

    /// The engine wrote so many bytes.
    pub(super) fn written(&mut self, bytes: usize) -> io::Result<u64> {
        self.written += bytes as u64;
        self.take()?;
        Ok(self.written)
    }

    /// RESUMING -> STOP: EINVAL if data is missing, and then more may be written.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.take()?;
        if self.taken < self.expects_bytes { Err(Errno::INVAL.into()) } else { Ok(()) }
    }

    /// A reset: a writer that waits comes back, to be told ENODEV.
    pub(super) fn kill(&mut self) {
        if let Way::Pipe(pipe) = &mut self.way {
            *pipe = None;
        }
    }

    /// What was taken in.
    pub(super) fn passed(&self) -> Passed {
        Passed { bytes: self.taken, digest: Some(self.hash.0.digest128()) }
    }

    /// The bytes themselves, where the plan says that they are kept.
    pub(super) fn kept(&self) -> Option<&[u8]> {
        self.kept.as_deref()
    }

    fn take(&mut self) -> io::Result<()> {
        let mut buffer = [0; PIECE_BYTES];
        while self.taken < self.stalls_at {
            let got = match &self.way {
                Way::File(file) => file.read_at(&mut buffer, self.taken)?,
                Way::Pipe(None) => 0,
                Way::Pipe(Some(pipe)) => match rustix::io::read(pipe, &mut buffer) {
                    Ok(got) => got,
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error.into()),
                },
            };
            if got == 0 {
                break;
            }
            self.hash.0.update(&buffer[..got]);
            if let Some(kept) = &mut self.kept {
                kept.extend_from_slice(&buffer[..got]);
            }
            self.taken += got as u64;
        }
        Ok(())
    }
}
