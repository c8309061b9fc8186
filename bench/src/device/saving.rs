//! The source's side of a session: content into a data fd.
//!
//! A pipe is filled by a thread, so that the device works while the engine does; a file is filled on
//! the spot, since a read of it would not wait.
//!
//! After a reset the thread closes its end, so that a waiting read comes back; what it gets is
//! turned into ENODEV by `observe`. A thread that waits in a full pipe ends with EPIPE when the
//! reader closes the fd, as it must.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::plan::{Conduit, Drained, Plan, ResetAt};
use super::release::Release;
use super::stream::{Feed, memory_file, pipe};
use super::{Passed, cpu, memory};
use crate::data::Origin;
use crate::engine::PrecopyInfo;

/// One saving session.
#[derive(Debug)]
pub(super) struct Saving {
    plan: Plan,
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug)]
struct Flow {
    release: Release,
    dead: bool,
    /// Over all that was put in, once that is the whole state.
    digest: Option<u128>,
    /// What fills a file; a pipe's is its thread's.
    file: Option<Feed>,
    /// When the firmware is through with its save, which goes up to here.
    ready_at: Instant,
    saved: u64,
}

impl Saving {
    /// Opens the data fd and has it filled. A memory file may be ready.
    pub(super) fn start(
        plan: &Plan,
        origin: Origin,
        precopy: bool,
        ready: Option<OwnedFd>,
    ) -> io::Result<(Arc<Saving>, OwnedFd)> {
        let saving = Arc::new(Saving {
            plan: plan.clone(),
            flow: Mutex::new(Flow {
                release: Release::new(plan, precopy),
                dead: false,
                digest: None,
                file: None,
                // Before the thread can look.
                ready_at: Instant::now() + plan.save_latency,
                saved: 0,
            }),
            changed: Condvar::new(),
        });
        let data_fd = match plan.conduit {
            Conduit::Pipe => {
                let (read_end, write_end) = pipe()?;
                if precopy {
                    // A drained PRE_COPY fd must answer, not block.
                    rustix::io::ioctl_fionbio(&read_end, true)?;
                }
                let feed = Feed::new(plan, origin, write_end);
                let session = Arc::clone(&saving);
                thread::Builder::new().name("device-save".into()).spawn(move || {
                    // EPIPE: the reader is gone, and with it whoever would want to know.
                    let _ = session.feed(feed);
                    cpu::count_thread();
                })?;
                read_end
            }
            Conduit::File => {
                let file = memory_file()?;
                saving.lock().file = Some(Feed::new(plan, origin, file.try_clone()?));
                file
            }
            Conduit::Memory => {
                let file = ready.map_or_else(|| memory::filled(plan, origin), Ok)?;
                let feed = Feed::of_memory(plan, origin, file.try_clone()?);
                saving.lock().file = Some(feed);
                file
            }
        };
        match precopy {
            true => saving.put(&mut saving.lock())?,
            false => saving.stop_copy()?,
        }
        Ok((saving, data_fd))
    }

    /// The thread: content into the pipe, as far as released.
    fn feed(&self, mut feed: Feed) -> io::Result<()> {
        while let Some(bytes) = self.wait_for_release(&feed) {
            feed.put(bytes)?;
        }
        Ok(())
    }

    /// Waits until more is released than was put in, and says how much. None: the session is over;
    /// if it is over because all was put in, the digest is published before the pipe is closed.
    fn wait_for_release(&self, feed: &Feed) -> Option<u64> {
        let mut flow = self.lock();
        loop {
            if flow.dead {
                return None;
            }
            let waiting = self.end(&flow) - feed.at();
            let save = flow.ready_at.saturating_duration_since(Instant::now());
            if waiting > 0 && !save.is_zero() {
                let waited = self.changed.wait_timeout(flow, save);
                (flow, _) = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            match self.plan.piece_bytes {
                // Whatever the pipe holds is what one read gets.
                Some(most) if waiting > 0 && flow.release.read == feed.at() => {
                    return Some(waiting.min(piece(feed.at(), most)));
                }
                None if waiting > 0 => return Some(waiting),
                _ => {}
            }
            if flow.release.last && feed.at() == flow.release.until {
                cpu::count_thread();
                flow.digest = Some(feed.digest());
                self.changed.notify_all();
                return None;
            }
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A driver's answer, from the result of the read of the pipe or file that stands for its fd.
    pub(super) fn observed(&self, result: io::Result<usize>) -> io::Result<usize> {
        let mut flow = self.lock();
        let drained = flow.release.is_drained();
        match result {
            // A file's end.
            Ok(0) if !flow.release.last => self.answer_of_a_drained_fd(),
            Err(error) if drained && error.kind() == io::ErrorKind::WouldBlock => {
                self.answer_of_a_drained_fd()
            }
            Ok(bytes) => {
                let bytes = self.cut_short(&flow, bytes as u64)?;
                if bytes == 0 && drained {
                    // Memory has more than the device has released.
                    return self.answer_of_a_drained_fd();
                }
                flow.release.read += bytes;
                if self.plan.piece_bytes.is_some() {
                    self.changed.notify_all();
                }
                Ok(bytes as usize)
            }
            error => error,
        }
    }

    fn answer_of_a_drained_fd(&self) -> io::Result<usize> {
        match self.plan.drained {
            Drained::NoMsg => Err(Errno::NOMSG.into()),
            Drained::Zero => Ok(0),
        }
    }

    /// A file gives whole reads, and memory what is not released yet; some of what was read is put
    /// back.
    fn cut_short(&self, flow: &Flow, bytes: u64) -> io::Result<u64> {
        let Some(feed) = &flow.file else { return Ok(bytes) };
        let piece = self.plan.piece_bytes.map_or(u64::MAX, |most| piece(flow.release.read, most));
        let released = self.end(flow) - flow.release.read;
        let cut = bytes.min(piece).min(released);
        if cut == bytes {
            return Ok(bytes);
        }
        rustix::fs::seek(feed.fd(), SeekFrom::Current(cut as i64 - bytes as i64))?;
        Ok(cut)
    }

    /// Bytes that were read.
    pub(super) fn observed_bytes(&self) -> u64 {
        self.lock().release.read
    }

    /// Whether what was read so far is what a reset was planned for.
    pub(super) fn is_due(&self, at: ResetAt) -> bool {
        self.lock().release.is_due(&self.plan, at)
    }

    /// VFIO_MIG_GET_PRECOPY_INFO.
    pub(super) fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        let mut flow = self.lock();
        let info = flow.release.ask(&self.plan);
        self.put(&mut flow)?;
        Ok(info)
    }

    /// PRE_COPY -> STOP_COPY, or a session that begins there.
    pub(super) fn stop_copy(&self) -> io::Result<()> {
        let mut flow = self.lock();
        flow.release.stop(&self.plan);
        self.put(&mut flow)
    }

    /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE.
    pub(super) fn stop_copy_length(&self) -> u64 {
        self.lock().release.left(&self.plan)
    }

    /// The fd is dead from now on.
    pub(super) fn kill(&self) {
        self.lock().dead = true;
        self.changed.notify_all();
    }

    /// What was read, and the digest of what was put in, if that is a whole state. The thread may
    /// still be between its last byte and its digest: it is waited for.
    pub(super) fn passed(&self) -> Passed {
        const PATIENCE: Duration = Duration::from_secs(1);
        let unfinished = |flow: &mut Flow| {
            let is_pipe = flow.file.is_none();
            is_pipe && flow.release.is_read() && flow.digest.is_none() && !flow.dead
        };
        let (flow, _) = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, unfinished)
            .unwrap_or_else(PoisonError::into_inner);
        let bytes = flow.release.read;
        let digest = match &flow.file {
            _ if !flow.release.is_read() => None,
            Some(feed) if self.plan.conduit == Conduit::Memory => memory::digest(feed.fd(), bytes),
            _ => flow.digest,
        };
        Passed { bytes, digest }
    }

    /// How far the stream may be put in.
    fn end(&self, flow: &Flow) -> u64 {
        flow.release.until.min(self.plan.stalls_at.unwrap_or(u64::MAX))
    }

    /// Has what is released put in.
    fn put(&self, flow: &mut Flow) -> io::Result<()> {
        let end = self.end(flow);
        // Who only asks again does not start another save.
        if end > flow.saved && end > flow.release.read && !self.plan.save_latency.is_zero() {
            flow.ready_at = Instant::now() + self.plan.save_latency;
        }
        flow.saved = end;
        if let Some(feed) = &mut flow.file {
            while feed.at() < end {
                feed.put(end - feed.at())?;
            }
            let whole = flow.release.last && feed.at() == flow.release.until;
            flow.digest = whole.then(|| feed.digest());
        }
        self.changed.notify_all();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length of a short read: seeded by its place, so that a run can be repeated.
fn piece(at: u64, most: u64) -> u64 {
    fastrand::Rng::with_seed(at).u64(1..=most)
}
