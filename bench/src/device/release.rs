//! How far a device lets its state be read: arithmetic, and the clock that dirties it.
//!
//! ```text
//! PRE_COPY:  initial data, then what got dirty, released by each `precopy_info`
//! STOP_COPY: what got dirty since, then the rest of the state, then end of stream
//! ```

use std::collections::VecDeque;
use std::time::Instant;

use super::plan::{Plan, ResetAt, Round};
use crate::data::PAGE_BYTES;
use crate::engine::PrecopyInfo;

/// The books of one saving session.
#[derive(Debug)]
pub(super) struct Release {
    /// Bytes that may be read so far.
    pub(super) until: u64,
    /// Bytes that were read, by the reader's report.
    pub(super) read: u64,
    /// No more will be released: the stream ends there.
    pub(super) last: bool,
    /// Where initial data ends.
    initial_end: u64,
    rounds: VecDeque<Round>,
    /// The first of them was announced, and is released by the next question.
    announced: bool,
    /// Bytes that had been read when the device was stopped.
    stopped_at: u64,
    /// Up to when dirty bytes have been released; none in a session that began in STOP_COPY.
    dirty_since: Option<Instant>,
}

impl Release {
    /// A session that begins in PRE_COPY; else its device is to be [stopped](Self::stop) next.
    pub(super) fn new(plan: &Plan, precopy: bool) -> Release {
        Release {
            until: plan.initial_bytes,
            read: 0,
            last: false,
            initial_end: if precopy { plan.initial_bytes } else { 0 },
            rounds: plan.rounds.iter().copied().collect(),
            announced: false,
            stopped_at: 0,
            dirty_since: precopy.then(Instant::now),
        }
    }

    /// Whether the reader has everything that was released, and more may come.
    pub(super) fn is_drained(&self) -> bool {
        !self.last && self.read >= self.until
    }

    /// Whether the reader has the whole state.
    pub(super) fn is_read(&self) -> bool {
        self.last && self.read == self.until
    }

    /// Whether what was read so far is what a reset was planned for.
    pub(super) fn is_due(&self, plan: &Plan, at: ResetAt) -> bool {
        match at {
            ResetAt::Read(bytes) => self.read >= bytes,
            ResetAt::HalfOfInitial => !self.last && self.read >= plan.initial_bytes / 2,
            ResetAt::HalfOfRest => self.last && self.read >= (self.stopped_at + self.until) / 2,
            ResetAt::Stopping | ResetAt::Written(_) => false,
        }
    }

    /// VFIO_MIG_GET_PRECOPY_INFO: on a drained session this is what starts the next save.
    pub(super) fn ask(&mut self, plan: &Plan) -> PrecopyInfo {
        let (mut reinit, mut coming) = (false, 0);
        if plan.dirty_rate.is_some() {
            coming = self.dirty_bytes(plan);
            if self.is_drained() && coming > 0 {
                self.until += coming;
                self.dirty_since = Some(Instant::now());
                coming = 0;
            }
        } else if self.is_drained()
            && let Some(round) = self.rounds.front().copied()
        {
            self.announced = plan.lags && !self.announced;
            if self.announced {
                coming = round.bytes;
            } else {
                self.rounds.pop_front();
                self.until += round.bytes;
                reinit = round.reinit;
                if reinit {
                    self.initial_end = self.until;
                }
            }
        }
        let initial_bytes = self.initial_end.saturating_sub(self.read);
        let dirty_bytes = self.until - self.read - initial_bytes + coming;
        PrecopyInfo { initial_bytes, dirty_bytes, reinit }
    }

    /// The device is stopped: everything may be read.
    pub(super) fn stop(&mut self, plan: &Plan) {
        self.until += self.left_to_release(plan);
        self.last = true;
        self.stopped_at = self.read;
    }

    /// What is left to read if the device stopped now.
    pub(super) fn left(&self, plan: &Plan) -> u64 {
        self.until + self.left_to_release(plan) - self.read
    }

    fn left_to_release(&self, plan: &Plan) -> u64 {
        let rounds: u64 = self.rounds.iter().map(|round| round.bytes).sum();
        if self.last { 0 } else { self.dirty_bytes(plan) + rounds + plan.rest_bytes }
    }

    /// Whole pages that got dirty since the last release; at most the device's whole state.
    fn dirty_bytes(&self, plan: &Plan) -> u64 {
        let (Some(rate), Some(since)) = (plan.dirty_rate, self.dirty_since) else { return 0 };
        let page = PAGE_BYTES as u64;
        let bytes = since.elapsed().as_nanos() * u128::from(rate.0) / 1_000_000_000;
        bytes.min(u128::from(plan.total_bytes())) as u64 / page * page
    }
}
