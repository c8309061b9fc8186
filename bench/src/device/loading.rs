//! The target's side of a session: what is written to a data fd is taken out of it and hashed.
//!
//! A pipe is emptied by a thread, a file on the spot after each write. Leaving RESUMING must know
//! that everything written has arrived, while the writer may still hold the fd: the
//! caller then takes out what the thread has not.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::plan::{Conduit, Plan};
use super::stream::{Drain, memory_file, pipe};
use super::{Passed, cpu, memory};

/// One resuming session.
#[derive(Debug)]
pub(super) struct Loading {
    expects_bytes: u64,
    /// The resume fd's file, where it is [memory](Conduit::Memory) that nobody empties.
    memory: Option<OwnedFd>,
    is_file: bool,
    /// Bytes that were written, by the writer's report.
    observed: AtomicU64,
    /// The state was complete when RESUMING was left.
    whole: AtomicBool,
    shared: Arc<Shared>,
}

/// What the session has in common with its thread.
#[derive(Debug)]
struct Shared {
    drain: Mutex<Drain>,
    dead: AtomicBool,
    /// Gets the thread out of its poll.
    wake: OwnedFd,
}

impl Loading {
    /// Opens the resume fd, and has it emptied. A memory file may be ready.
    pub(super) fn start(plan: &Plan, ready: Option<OwnedFd>) -> io::Result<(Loading, OwnedFd)> {
        let is_file = plan.conduit == Conduit::File;
        let mut memory = None;
        let (taken_from, resume_fd) = if is_file {
            let file = memory_file()?;
            (file.try_clone()?, file)
        } else if plan.conduit == Conduit::Memory {
            let file = ready.map_or_else(|| memory::empty(plan), Ok)?;
            memory = Some(file.try_clone()?);
            (file.try_clone()?, file)
        } else {
            let (read_end, write_end) = pipe()?;
            rustix::io::ioctl_fionbio(&read_end, true)?;
            (read_end, write_end)
        };
        let readable = taken_from.try_clone()?;
        let shared = Arc::new(Shared {
            drain: Mutex::new(Drain::new(plan, taken_from)),
            dead: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
        });
        let loading = Loading {
            expects_bytes: plan.expects_bytes,
            memory,
            is_file,
            observed: AtomicU64::new(0),
            whole: AtomicBool::new(false),
            shared: Arc::clone(&shared),
        };
        if plan.conduit == Conduit::Pipe {
            thread::Builder::new().name("device-load".into()).spawn(move || {
                // An error of a pipe's read end is a bug of this file; bytes will be missing.
                let _ = shared.serve(&readable);
                cpu::count_thread();
            })?;
        }
        Ok((loading, resume_fd))
    }

    /// The writer wrote so many bytes. How many it has written by now.
    pub(super) fn observed(&self, bytes: usize) -> io::Result<u64> {
        if self.is_file {
            self.shared.empty()?;
        }
        Ok(self.observed.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64)
    }

    /// Bytes that were written.
    pub(super) fn observed_bytes(&self) -> u64 {
        self.observed.load(Ordering::Relaxed)
    }

    /// RESUMING -> STOP: takes the last byte; EINVAL if the state is not complete, and then more
    /// may be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        if self.memory.is_none() {
            self.shared.empty()?;
        }
        if self.bytes() < self.expects_bytes {
            return Err(Errno::INVAL.into());
        }
        self.whole.store(true, Ordering::Relaxed);
        self.shared.end();
        Ok(())
    }

    /// The fd is dead from now on, and what was written is lost.
    pub(super) fn kill(&self) {
        self.whole.store(false, Ordering::Relaxed);
        self.shared.end();
    }

    /// What came out of the fd.
    pub(super) fn passed(&self) -> Passed {
        let bytes = self.bytes();
        let whole = self.whole.load(Ordering::Relaxed);
        let digest = match &self.memory {
            _ if !whole => None,
            Some(file) => memory::digest(file, bytes),
            None => Some(self.shared.lock().digest()),
        };
        Passed { bytes, digest }
    }

    /// How many the device has.
    fn bytes(&self) -> u64 {
        match &self.memory {
            // A position that cannot be told is none.
            Some(file) => memory::position(file).unwrap_or(0),
            None => self.shared.lock().bytes(),
        }
    }

    /// The bytes themselves, where the plan says that they are kept.
    pub(super) fn kept(&self) -> Vec<u8> {
        match &self.memory {
            Some(file) => memory::bytes(file, self.bytes()),
            None => self.shared.lock().kept().to_vec(),
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Shared {
    /// The thread: takes out what comes, until the session or the pipe ends, or the device stalls.
    fn serve(&self, pipe: &OwnedFd) -> io::Result<()> {
        while self.empty()? {
            let mut fds =
                [PollFd::new(&self.wake, PollFlags::IN), PollFd::new(pipe, PollFlags::IN)];
            cpu::count_thread();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes out everything that is there. Whether more can come.
    fn empty(&self) -> io::Result<bool> {
        while !self.dead.load(Ordering::Acquire) {
            match self.lock().take()? {
                Some(0) => return Ok(true),
                Some(_) => {}
                None => break,
            }
        }
        Ok(false)
    }

    /// A writer that waits comes back.
    fn end(&self) {
        self.dead.store(true, Ordering::Release);
        self.lock().close();
        // Fails only if the counter is full: then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Drain> {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
