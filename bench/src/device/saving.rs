//! The source's side of a session: content into a data fd.
//!
//! The state is a stream of bytes in order. `released` is how far the device lets it be read:
//!
//! ```text
//! PRE_COPY:  initial data, then what got dirty, released by each `precopy_info`
//! STOP_COPY: what got dirty since, then the rest of the state, then end of stream
//! ```
//!
//! A pipe is filled by a thread, so that the device works while the engine does; a file is filled on
//! the spot, since a read of it would not wait.
//!
//! After a reset the thread closes its end, so that a waiting read comes back; what it gets is
//! turned into ENODEV by `observe`. A thread that waits in a full pipe ends with EPIPE when the
//! reader closes the fd, as it must.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::plan::{Conduit, Drained, Plan, ResetAt, Round};
use super::stream::{Feed, memory_file, pipe};
use super::{Passed, cpu};
use crate::data::{Origin, PAGE_BYTES};
use crate::engine::PrecopyInfo;
use crate::spec::Rate;

/// One saving session.
#[derive(Debug)]
pub(super) struct Saving {
    plan: Plan,
    /// It began in PRE_COPY.
    precopy: bool,
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug)]
struct Flow {
    /// Bytes that may be read so far.
    released: u64,
    /// Bytes that were read, by the reader's report.
    observed: u64,
    /// Where initial data ends.
    initial_end: u64,
    rounds: VecDeque<Round>,
    /// The first of them was announced, and is released by the next question.
    announced: bool,
    /// No more will be released: the stream ends there.
    last: bool,
    /// Bytes that had been read when the device was stopped.
    stopped_at: u64,
    /// Up to when dirty bytes have been released.
    dirty_since: Instant,
    dead: bool,
    digest: Option<u128>,
    /// What fills a file; a pipe's is its thread's.
    file: Option<Feed>,
}

impl Saving {
    /// Opens the data fd and has it filled.
    pub(super) fn start(
        plan: &Plan,
        origin: Origin,
        precopy: bool,
    ) -> io::Result<(Arc<Saving>, OwnedFd)> {
        let saving = Arc::new(Saving {
            plan: plan.clone(),
            precopy,
            flow: Mutex::new(Flow {
                released: plan.initial_bytes,
                observed: 0,
                initial_end: if precopy { plan.initial_bytes } else { 0 },
                rounds: plan.rounds.iter().copied().collect(),
                announced: false,
                last: false,
                stopped_at: 0,
                dirty_since: Instant::now(),
                dead: false,
                digest: None,
                file: None,
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
        };
        match precopy {
            true => saving.release(&mut saving.lock(), 0)?,
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
            match self.plan.piece_bytes {
                // Whatever the pipe holds is what one read gets.
                Some(most) if waiting > 0 && flow.observed == feed.at() => {
                    return Some(waiting.min(piece(feed.at(), most)));
                }
                None if waiting > 0 => return Some(waiting),
                _ => {}
            }
            if flow.last && feed.at() == flow.released {
                cpu::count_thread();
                flow.digest = Some(feed.digest());
                self.changed.notify_all();
                return None;
            }
            flow = self.changed.wait(flow).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What the driver would have answered where this is what the read of the fd came to.
    pub(super) fn observed(&self, result: io::Result<usize>) -> io::Result<usize> {
        let mut flow = self.lock();
        let drained = !flow.last && flow.observed >= flow.released;
        match result {
            Ok(0) if !flow.last => self.answer_of_a_drained_fd(),
            Err(error) if drained && error.kind() == io::ErrorKind::WouldBlock => {
                self.answer_of_a_drained_fd()
            }
            Ok(bytes) => {
                let bytes = self.cut_short(&flow, bytes as u64)?;
                flow.observed += bytes;
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

    /// A file gives whole reads; some of what was read is put back.
    fn cut_short(&self, flow: &Flow, bytes: u64) -> io::Result<u64> {
        let (Some(feed), Some(most)) = (&flow.file, self.plan.piece_bytes) else {
            return Ok(bytes);
        };
        let cut = bytes.min(piece(flow.observed, most));
        rustix::fs::seek(feed.fd(), SeekFrom::Current(cut as i64 - bytes as i64))?;
        Ok(cut)
    }

    /// Bytes that were read.
    pub(super) fn observed_bytes(&self) -> u64 {
        self.lock().observed
    }

    /// Whether what was read so far is what a reset was planned for.
    pub(super) fn is_due(&self, at: ResetAt) -> bool {
        let flow = self.lock();
        match at {
            ResetAt::Read(bytes) => flow.observed >= bytes,
            ResetAt::HalfOfInitial => !flow.last && flow.observed >= self.plan.initial_bytes / 2,
            ResetAt::HalfOfRest => {
                flow.last && flow.observed >= (flow.stopped_at + flow.released) / 2
            }
            ResetAt::Stopping | ResetAt::Written(_) => false,
        }
    }

    /// VFIO_MIG_GET_PRECOPY_INFO: on a drained session this is what starts the next save.
    pub(super) fn precopy_info(&self) -> io::Result<PrecopyInfo> {
        let mut flow = self.lock();
        let drained = flow.observed >= flow.released;
        let (mut reinit, mut coming) = (false, 0);
        if let Some(rate) = self.plan.dirty_rate {
            coming = self.dirty_bytes(&flow, rate);
            if drained && coming > 0 {
                self.release(&mut flow, coming)?;
                flow.dirty_since = Instant::now();
                coming = 0;
            }
        } else if drained && let Some(round) = flow.rounds.front().copied() {
            flow.announced = self.plan.lags && !flow.announced;
            if flow.announced {
                coming = round.bytes;
            } else {
                flow.rounds.pop_front();
                self.release(&mut flow, round.bytes)?;
                reinit = round.reinit;
                if reinit {
                    flow.initial_end = flow.released;
                }
            }
        }
        let initial_bytes = flow.initial_end.saturating_sub(flow.observed);
        let dirty_bytes = flow.released - flow.observed - initial_bytes + coming;
        Ok(PrecopyInfo { initial_bytes, dirty_bytes, reinit })
    }

    /// PRE_COPY -> STOP_COPY, or a session that begins there.
    pub(super) fn stop_copy(&self) -> io::Result<()> {
        let mut flow = self.lock();
        let left = self.left_to_release(&flow);
        flow.last = true;
        flow.stopped_at = flow.observed;
        self.release(&mut flow, left)
    }

    /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE: what is left to read if the device stopped now.
    pub(super) fn stop_copy_length(&self) -> u64 {
        let flow = self.lock();
        flow.released + self.left_to_release(&flow) - flow.observed
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
            let all_read = flow.last && flow.observed == flow.released;
            all_read && flow.digest.is_none() && !flow.dead
        };
        let (flow, _) = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, unfinished)
            .unwrap_or_else(PoisonError::into_inner);
        let whole = flow.last && flow.observed == flow.released;
        Passed { bytes: flow.observed, digest: flow.digest.filter(|_| whole) }
    }

    /// What a stop would release.
    fn left_to_release(&self, flow: &Flow) -> u64 {
        let dirty = match self.plan.dirty_rate {
            Some(rate) => self.dirty_bytes(flow, rate),
            None => flow.rounds.iter().map(|round| round.bytes).sum(),
        };
        if flow.last { 0 } else { dirty + self.plan.rest_bytes }
    }

    /// Whole pages that got dirty since the last release; at most the device's whole state.
    fn dirty_bytes(&self, flow: &Flow, rate: Rate) -> u64 {
        if !self.precopy {
            return 0;
        }
        let page = PAGE_BYTES as u64;
        let nanos = flow.dirty_since.elapsed().as_nanos();
        let bytes = nanos * u128::from(rate.0) / 1_000_000_000;
        bytes.min(u128::from(self.plan.total_bytes())) as u64 / page * page
    }

    /// How far the stream may be put in.
    fn end(&self, flow: &Flow) -> u64 {
        flow.released.min(self.plan.stalls_at.unwrap_or(u64::MAX))
    }

    fn release(&self, flow: &mut Flow, bytes: u64) -> io::Result<()> {
        flow.released += bytes;
        let end = self.end(flow);
        if let Some(feed) = &mut flow.file {
            while feed.at() < end {
                feed.put(end - feed.at())?;
            }
            flow.digest = (flow.last && feed.at() == flow.released).then(|| feed.digest());
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
