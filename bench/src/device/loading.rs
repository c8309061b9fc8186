//! The target's side of a session: a thread that empties the pipe and hashes what comes out.
//!
//! Leaving RESUMING must know that everything written has arrived, while the writer may still hold
//! the fd: an eventfd asks the thread to empty the pipe to the last byte and to say what it has.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use xxhash_rust::xxh3::Xxh3;

use super::cpu;
use super::throttle::Throttle;
use super::{DeviceConfig, PIECE_BYTES, PIPE_BYTES, Passed};

/// One resuming session.
#[derive(Debug)]
pub(super) struct Loading {
    state_bytes: u64,
    /// Bytes that the writer has reported.
    observed: AtomicU64,
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
    bytes: u64,
    digest: Option<u128>,
}

impl Loading {
    /// Opens the pipe and starts the thread. Returns the resume fd, too.
    pub(super) fn start(config: &DeviceConfig) -> io::Result<(Loading, OwnedFd)> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
        // Best effort, as on the source.
        let _ = fcntl_setpipe_size(&write_end, PIPE_BYTES);
        rustix::io::ioctl_fionbio(&read_end, true)?;
        let shared = Arc::new(Shared {
            wake: eventfd(0, EventfdFlags::CLOEXEC)?,
            flow: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread_shared = Arc::clone(&shared);
        let throttle = Throttle::new(config.device_rate);
        thread::Builder::new().name("device-load".into()).spawn(move || {
            // An error of a pipe's read end is a bug of this file; the digest will be missing.
            let _ = thread_shared.drain(read_end, throttle);
            cpu::count_thread();
            thread_shared.lock().ended = true;
            thread_shared.changed.notify_all();
        })?;
        let state_bytes = config.state_bytes;
        Ok((Loading { state_bytes, observed: AtomicU64::new(0), shared }, write_end))
    }

    /// The writer wrote so many bytes. True once it has written a whole state.
    pub(super) fn observed(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.observed.fetch_add(bytes, Ordering::Relaxed) + bytes >= self.state_bytes
    }

    /// RESUMING -> STOP: takes the last byte; EINVAL if the state is not complete, and then more
    /// may be written.
    pub(super) fn finish(&self, least_bytes: u64) -> io::Result<()> {
        let mut flow = self.shared.lock();
        flow.asked += 1;
        let asked = flow.asked;
        self.shared.wake_thread()?;
        while flow.answered < asked && !flow.ended {
            flow = self.shared.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
        if flow.bytes < least_bytes {
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

    /// What came out of the pipe.
    pub(super) fn passed(&self) -> Passed {
        let flow = self.shared.lock();
        Passed { bytes: flow.bytes, digest: flow.digest }
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
    fn drain(&self, pipe: OwnedFd, mut throttle: Throttle) -> io::Result<()> {
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; PIECE_BYTES];
        let mut bytes = 0;
        let mut open = true;
        loop {
            let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
            if open {
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
                match rustix::io::read(&pipe, &mut buffer) {
                    Ok(0) => open = false,
                    Ok(count) => {
                        hash.update(&buffer[..count]);
                        bytes += count as u64;
                        throttle.spend(count);
                        if self.lock().stop {
                            return Ok(());
                        }
                    }
                    Err(Errno::AGAIN) => break,
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let mut flow = self.lock();
            flow.bytes = bytes;
            if let Some(asked) = asked {
                cpu::count_thread();
                flow.digest = Some(hash.digest128());
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
