//! The target's side of a session: what is written to a data fd is taken out of it and hashed.
//!
//! A pipe is emptied by a thread, a file on the spot after each write. Leaving RESUMING must know
//! that everything written has arrived, while the writer may still hold the fd: an eventfd asks the
//! thread to empty the pipe to the last byte and to say what it has.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::plan::{Conduit, Plan};
use super::stream::{Drain, memory_file, pipe};
use super::{Passed, cpu};

/// One resuming session.
#[derive(Debug)]
pub(super) struct Loading {
    expects_bytes: u64,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wake: OwnedFd,
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Flow {
    asked: u32,
    answered: u32,
    stop: bool,
    ended: bool,
    /// Bytes that were written, by the writer's report.
    observed: u64,
    /// Bytes that were taken out.
    bytes: u64,
    kept: Option<Vec<u8>>,
    digest: Option<u128>,
    /// What empties a file; a pipe's is its thread's.
    file: Option<Drain>,
}

impl Loading {
    /// Opens the resume fd, and has it emptied.
    pub(super) fn start(plan: &Plan) -> io::Result<(Loading, OwnedFd)> {
        let flow = Flow { kept: plan.keeps.then(Vec::new), ..Flow::default() };
        let shared = Arc::new(Shared {
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
            flow: Mutex::new(flow),
            changed: Condvar::new(),
        });
        let loading = Loading { expects_bytes: plan.expects_bytes, shared: Arc::clone(&shared) };
        let resume_fd = match plan.conduit {
            Conduit::Pipe => {
                let (read_end, write_end) = pipe()?;
                rustix::io::ioctl_fionbio(&read_end, true)?;
                let drain = Drain::new(plan, read_end);
                thread::Builder::new().name("device-load".into()).spawn(move || {
                    // An error of a pipe's read end is a bug of this file; the digest will be
                    // missing.
                    let _ = shared.drain(drain);
                    cpu::count_thread();
                    shared.lock().ended = true;
                    shared.changed.notify_all();
                })?;
                write_end
            }
            Conduit::File => {
                let file = memory_file()?;
                shared.lock().file = Some(Drain::new(plan, file.try_clone()?));
                file
            }
        };
        Ok((loading, resume_fd))
    }

    /// The writer wrote so many bytes. How many it has written by now.
    pub(super) fn observed(&self, bytes: usize) -> io::Result<u64> {
        let mut flow = self.shared.lock();
        flow.observed += bytes as u64;
        flow.empty_file()?;
        Ok(flow.observed)
    }

    /// Bytes that were written.
    pub(super) fn observed_bytes(&self) -> u64 {
        self.shared.lock().observed
    }

    /// RESUMING -> STOP: takes the last byte; EINVAL if the state is not complete, and then more
    /// may be written.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut flow = self.shared.lock();
        if flow.file.is_some() {
            flow.empty_file()?;
        } else {
            flow.asked += 1;
            let asked = flow.asked;
            self.shared.wake_thread()?;
            while flow.answered < asked && !flow.ended {
                flow = self.shared.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
            }
        }
        if flow.bytes < self.expects_bytes {
            return Err(Errno::INVAL.into());
        }
        drop(flow);
        self.stop()
    }

    /// The fd is dead from now on, and what was written is lost.
    pub(super) fn kill(&self) {
        let _ = self.stop();
        self.shared.lock().digest = None;
    }

    /// What came out of the fd.
    pub(super) fn passed(&self) -> Passed {
        let flow = self.shared.lock();
        Passed { bytes: flow.bytes, digest: flow.digest }
    }

    /// The bytes themselves, where the plan says that they are kept.
    pub(super) fn kept(&self) -> Vec<u8> {
        self.shared.lock().kept.clone().unwrap_or_default()
    }

    fn stop(&self) -> io::Result<()> {
        self.shared.lock().stop = true;
        self.shared.wake_thread()
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl Shared {
    /// The thread.
    fn drain(&self, mut drain: Drain) -> io::Result<()> {
        let mut open = true;
        loop {
            let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
            let pipe = drain.fd();
            if open && !drain.has_stalled() {
                fds.push(PollFd::new(&pipe, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let asked = if fds[0].revents().is_empty() {
                None
            } else {
                let mut count = [0; 8];
                rustix::io::read(&self.wake, &mut count)?;
                let flow = self.lock();
                if flow.stop {
                    return Ok(());
                }
                Some(flow.asked)
            };
            // Everything that is there: what was asked for covers all writes before the question.
            while open {
                let Some(piece) = drain.take()? else {
                    open = false;
                    break;
                };
                let mut flow = self.lock();
                if flow.stop {
                    return Ok(());
                }
                if piece.is_empty() {
                    break;
                }
                flow.take(piece);
            }
            if let Some(asked) = asked {
                cpu::count_thread();
                let mut flow = self.lock();
                flow.digest = Some(drain.digest());
                flow.answered = asked;
                self.changed.notify_all();
            }
        }
    }

    fn wake_thread(&self) -> io::Result<()> {
        rustix::io::write(&self.wake, &1u64.to_ne_bytes())?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flow {
    fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(piece);
        }
    }

    fn empty_file(&mut self) -> io::Result<()> {
        let Some(mut drain) = self.file.take() else { return Ok(()) };
        while let Some(piece) = drain.take()?
            && !piece.is_empty()
        {
            self.take(piece);
        }
        self.digest = Some(drain.digest());
        self.file = Some(drain);
        Ok(())
    }
}
