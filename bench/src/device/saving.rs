//! The source's side of a session: a thread that fills the pipe from the device's content.
//!
//! The state is a stream of bytes in order. `released` is how far the device lets it be read:
//!
//! ```text
//! PRE_COPY:  initial (3/4 of the state)  then what got dirty, released by each `precopy_info`
//! STOP_COPY: what got dirty since, then the rest of the state, then end of stream
//! ```
//!
//! After a reset the thread closes its end, so that a waiting read comes back; what it gets is
//! turned into ENODEV by `observe`. A thread that waits in a full pipe ends with EPIPE when the
//! reader closes the fd, as it must.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use xxhash_rust::xxh3::Xxh3;

use super::cpu;
use super::reset::Moment;
use super::throttle::Throttle;
use super::{DeviceConfig, PIECE_BYTES, PIPE_BYTES, Passed};
use crate::data::{Origin, PAGE_BYTES};
use crate::engine::PrecopyInfo;

/// One saving session.
#[derive(Debug)]
pub(super) struct Saving {
    state_bytes: u64,
    /// Bytes of the initial part of PRE_COPY; 0 in a session that began with STOP_COPY.
    initial_bytes: u64,
    dirty_bytes_per_s: u64,
    /// Bytes that the reader has reported.
    observed: AtomicU64,
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug)]
struct Flow {
    /// Bytes that may be read so far.
    released: u64,
    /// No more will be released: the stream ends there.
    last: bool,
    /// Bytes that had been read when the device was stopped.
    stopped_at: u64,
    /// Up to when dirty bytes have been released.
    dirty_since: Instant,
    dead: bool,
    written: u64,
    digest: Option<u128>,
}

impl Saving {
    /// Opens the pipe and starts the thread. Returns the data fd, too.
    pub(super) fn start(
        config: &DeviceConfig,
        origin: Origin,
        precopy: bool,
    ) -> io::Result<(Arc<Saving>, OwnedFd)> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC)?;
        // Best effort: an unprivileged user may have used up his share of pipe memory.
        let _ = fcntl_setpipe_size(&write_end, PIPE_BYTES);
        if precopy {
            // A drained PRE_COPY fd must answer, not block.
            rustix::io::ioctl_fionbio(&read_end, true)?;
        }
        let initial_bytes = if precopy { config.state_bytes / 4 * 3 } else { 0 };
        let saving = Arc::new(Saving {
            state_bytes: config.state_bytes,
            initial_bytes,
            dirty_bytes_per_s: config.dirty_rate.map_or(0, |rate| rate.0),
            observed: AtomicU64::new(0),
            flow: Mutex::new(Flow {
                released: if precopy { initial_bytes } else { config.state_bytes },
                last: !precopy,
                stopped_at: 0,
                dirty_since: Instant::now(),
                dead: false,
                written: 0,
                digest: None,
            }),
            changed: Condvar::new(),
        });
        let (session, config) = (Arc::clone(&saving), config.clone());
        thread::Builder::new().name("device-save".into()).spawn(move || {
            // EPIPE: the reader is gone, and with it whoever would want to know.
            let _ = session.feed(&config, origin, &write_end);
            cpu::count_thread();
        })?;
        Ok((saving, read_end))
    }

    /// The thread: content into the pipe, as far as released.
    fn feed(&self, config: &DeviceConfig, origin: Origin, pipe: &OwnedFd) -> io::Result<()> {
        let mut hash = Xxh3::new();
        let mut throttle = Throttle::new(config.device_rate);
        let mut buffer = vec![0; PIECE_BYTES];
        let mut at = 0;
        while let Some(until) = self.wait_for_release(at, &hash) {
            let piece = &mut buffer[..PIECE_BYTES.min((until - at) as usize)];
            config.content.fill(origin, at, piece)?;
            hash.update(piece);
            let mut rest: &[u8] = piece;
            while !rest.is_empty() {
                match rustix::io::write(pipe, rest) {
                    Ok(written) => rest = &rest[written..],
                    Err(Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            at += piece.len() as u64;
            throttle.spend(piece.len());
        }
        Ok(())
    }

    /// Waits until more than `written` bytes are released. None: the session is over; if it is
    /// over because all was written, the digest is published before the pipe is closed.
    fn wait_for_release(&self, written: u64, hash: &Xxh3) -> Option<u64> {
        let mut flow = self.lock();
        flow.written = written;
        loop {
            if flow.dead {
                return None;
            }
            if written < flow.released {
                return Some(flow.released);
            }
            if flow.last {
                cpu::count_thread();
                flow.digest = Some(hash.digest128());
                self.changed.notify_all();
                return None;
            }
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The reader got so many bytes.
    pub(super) fn observed(&self, bytes: usize) -> Moment {
        let bytes = self.observed.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let flow = self.lock();
        Moment::Read {
            bytes,
            half_of_initial: !flow.last && bytes >= self.initial_bytes / 2,
            half_of_rest: flow.last && bytes >= (flow.stopped_at + flow.released) / 2,
        }
    }

    /// Whether the reader has everything that was released.
    pub(super) fn is_drained(&self) -> bool {
        let flow = self.lock();
        !flow.last && self.observed.load(Ordering::Relaxed) >= flow.released
    }

    /// VFIO_MIG_GET_PRECOPY_INFO: on a drained session this is what starts the next save.
    pub(super) fn precopy_info(&self) -> PrecopyInfo {
        let observed = self.observed.load(Ordering::Relaxed);
        let mut flow = self.lock();
        let mut waiting = self.dirty_bytes(&flow);
        if observed >= flow.released && waiting > 0 {
            self.release_dirty(&mut flow);
            waiting = 0;
        }
        PrecopyInfo {
            initial_bytes: self.initial_bytes.saturating_sub(observed),
            dirty_bytes: flow.released - observed.clamp(self.initial_bytes, flow.released)
                + waiting,
            reinit: false,
        }
    }

    /// PRE_COPY -> STOP_COPY.
    pub(super) fn stop_copy(&self) {
        let mut flow = self.lock();
        self.release_dirty(&mut flow);
        flow.released += self.state_bytes - self.initial_bytes;
        flow.last = true;
        flow.stopped_at = self.observed.load(Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: what is left to read if the device stopped now.
    pub(super) fn stop_copy_length(&self) -> u64 {
        let flow = self.lock();
        let to_come = if flow.last {
            0
        } else {
            self.state_bytes - self.initial_bytes + self.dirty_bytes(&flow)
        };
        (flow.released + to_come).saturating_sub(self.observed.load(Ordering::Relaxed))
    }

    /// The fd is dead from now on.
    pub(super) fn kill(&self) {
        self.lock().dead = true;
        self.changed.notify_all();
    }

    /// What went into the pipe.
    pub(super) fn passed(&self, patience: Duration) -> Passed {
        let unfinished = |flow: &mut Flow| flow.digest.is_none() && !flow.dead;
        let (flow, _) = self
            .changed
            .wait_timeout_while(self.lock(), patience, unfinished)
            .unwrap_or_else(PoisonError::into_inner);
        Passed { bytes: flow.written, digest: flow.digest }
    }

    /// Whole pages that got dirty since the last release; at most the device's whole state.
    fn dirty_bytes(&self, flow: &Flow) -> u64 {
        let page = PAGE_BYTES as u64;
        let nanos = flow.dirty_since.elapsed().as_nanos();
        let bytes = nanos * u128::from(self.dirty_bytes_per_s) / 1_000_000_000;
        bytes.min(u128::from(self.state_bytes)) as u64 / page * page
    }

    fn release_dirty(&self, flow: &mut Flow) {
        let bytes = self.dirty_bytes(flow);
        if bytes > 0 {
            flow.released += bytes;
            flow.dirty_since = Instant::now();
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
