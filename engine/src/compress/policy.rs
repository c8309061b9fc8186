//! Raw or zstd, and which level: decided per chunk, from what the queues show.
//!
//! Throughput is the least of: reading, workers x compression speed, link x ratio, and the same on
//! the other host. No fixed choice is right: on a 10 Gb/s link and few cores compression loses, on
//! 2.5 Gb/s it wins, and in between the fastest is a mixture, part of the chunks compressed and
//! part raw, so that neither the link nor the workers ever wait. Two rules, one in the other:
//!
//! 1. **The queue rule** makes the mixture. Frames of a device leave in order, so a chunk that is
//!    chosen now is needed when everything ahead of it is sent. It is compressed if a worker can
//!    have it ready by then, at the highest level that can, and goes raw otherwise. A slow link
//!    leaves much time and gets high levels; a fast one gets raw chunks and never waits.
//! 2. **The outer loop** ([`arms`]) sets the rule's cap: raw only, or at most level -5, 1, 3, 6.
//!    The queue rule believes that a worker is free when it is idle. On few cores it is not:
//!    compression takes them from the reader and the network, the link then looks slower than it
//!    is, and the rule would compress still more. So what counts is measured: raw bytes per
//!    second, end to end, over a slice of chunks with each cap; the best is kept, and its
//!    neighbours are tried again now and then, for a few per cent of the time at most.
//!
//! Incompressible data is a matter of the chunk, not of the link: a device whose chunks did not
//! shrink is probed first, and then more and more seldom.
//!
//! Pure: time comes in as nanoseconds of any clock that does not go back. Chunks of zeros never
//! come here; they have no body to compress.

mod arms;
mod estimate;

use arms::Arms;
use estimate::{Busy, Rate};

/// The zstd levels that the adaptive policy chooses among. Above 6 zstd gains little on device
/// state and costs a multiple.
pub const LEVELS: [i32; 4] = [-5, 1, 3, 6];

/// What compression is expected to do before anything was measured, per entry of [`LEVELS`]:
/// nanoseconds per raw byte on one core, and raw bytes per wire byte. From a mixed bag of device
/// state and code on a 2024 server core; the first chunks correct it.
const PRIORS: [(f64, f64); 4] = [(1.1, 2.2), (1.6, 2.8), (2.6, 3.0), (6.0, 3.2)];

/// How many chunks in a row must fail to shrink before probing them becomes seldom.
const STREAK_FREE: u32 = 4;
/// The seldomest probing is one chunk in 2^this.
const STREAK_SHIFT_MAX: u32 = 5;

/// The embedder's choice for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Raw or a level, per chunk, whatever is fastest now.
    #[default]
    Adaptive,
    /// Never compress.
    Raw,
    /// Compress at this zstd level whatever shrinks.
    Zstd(i32),
}

/// What to do with one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Send it as it was read.
    Raw,
    /// Give it to a worker.
    Zstd {
        /// The zstd level.
        level: i32,
        /// Probe samples of it first and leave it raw if they do not shrink
        /// ([`Codec::probe`](super::codec::Codec::probe)).
        probe: bool,
    },
}

/// What the sender's queues show at the moment of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueView {
    /// Bytes that will go out before this chunk and need no worker any more: being sent, ready,
    /// and ready but waiting behind a chunk that is still being encoded.
    pub queued_wire_bytes: u64,
    /// At least one stream has nothing to send.
    pub streams_idle: bool,
    /// Chunks with a worker or waiting for one.
    pub encoding_now: u32,
    /// How many chunks of this device in a row did not shrink, by probe or in full. A chunk that
    /// shrank sets it to 0; chunks chosen raw leave it.
    pub incompressible_streak: u32,
}

/// Chooses for one session. See the top of this file.
#[derive(Debug)]
pub struct Controller {
    policy: Policy,
    workers: f64,
    chunk_bytes: f64,
    /// Wire bytes per nanosecond in which something was being sent.
    link: Busy,
    /// Nanoseconds of a worker per raw byte, by level.
    cost: [Rate; LEVELS.len()],
    /// Raw bytes per wire byte of what shrank or not, by level.
    shrink: [Rate; LEVELS.len()],
    /// Raw bytes per wire byte of everything sent.
    sent_raw_bytes: u64,
    sent_wire_bytes: u64,
    choices: u64,
    arms: Arms,
}

impl Controller {
    /// For a session with this many compression workers (0: never compress) and chunks of this
    /// many bytes.
    pub fn new(policy: Policy, workers: u32, chunk_bytes: u32) -> Controller {
        let policy = if workers == 0 { Policy::Raw } else { policy };
        Controller {
            policy,
            workers: f64::from(workers.max(1)),
            chunk_bytes: f64::from(chunk_bytes.max(1)),
            link: Busy::default(),
            cost: PRIORS.map(|(ns_per_byte, _)| Rate::prior(ns_per_byte)),
            shrink: PRIORS.map(|(_, ratio)| Rate::prior(ratio)),
            sent_raw_bytes: 0,
            sent_wire_bytes: 0,
            choices: 0,
            arms: Arms::new(),
        }
    }

    /// Chooses for the next chunk of a device. Call it once per chunk, when it has been read.
    pub fn choose(&mut self, now_ns: u64, view: &QueueView) -> Choice {
        self.choices += 1;
        self.arms.chosen(now_ns);
        let level = match self.policy {
            Policy::Raw => None,
            Policy::Zstd(level) => Some(level),
            Policy::Adaptive => self.queue_rule(view),
        };
        self.arms.at_cap(level.is_some() && level == self.arms.cap());
        match level {
            Some(level) if self.worth_a_try(view.incompressible_streak) => {
                Choice::Zstd { level, probe: view.incompressible_streak > 0 }
            }
            _ => Choice::Raw,
        }
    }

    /// A worker is done with a chunk: at this level `raw_bytes` became `wire_bytes` (the same
    /// number if it was left raw) in `worker_ns` of its time, probe included.
    pub fn encoded(
        &mut self,
        _now_ns: u64,
        level: i32,
        raw_bytes: u64,
        wire_bytes: u64,
        worker_ns: u64,
    ) {
        let Some(index) = LEVELS.iter().position(|&known| known == level) else { return };
        if raw_bytes == 0 {
            return;
        }
        self.cost[index].add(worker_ns as f64, raw_bytes as f64);
        self.shrink[index].add(raw_bytes as f64, wire_bytes.max(1) as f64);
    }

    /// A send of state is being submitted. Every one ends in [`sent`](Self::sent).
    pub fn sending(&mut self, now_ns: u64) {
        self.link.start(now_ns);
    }

    /// A send has completed: one chunk, `raw_bytes` of state in `wire_bytes`.
    pub fn sent(&mut self, now_ns: u64, wire_bytes: u64, raw_bytes: u64) {
        self.link.end(now_ns, wire_bytes as f64);
        self.sent_raw_bytes += raw_bytes;
        self.sent_wire_bytes += wire_bytes;
        self.arms.sent(now_ns, raw_bytes as f64);
    }

    /// Raw bytes per wire byte over everything sent; 1 before the first.
    pub fn ratio(&self) -> f64 {
        if self.sent_wire_bytes == 0 {
            return 1.0;
        }
        self.sent_raw_bytes as f64 / self.sent_wire_bytes as f64
    }

    /// What the streams take while they have something to send, in wire bytes per second, lately;
    /// none before the first send completed.
    pub fn link_bytes_per_s(&self) -> Option<f64> {
        self.link.bytes_per_ns().map(|rate| rate * 1e9)
    }

    /// State bytes per second end to end while there was something to do, over the last slice;
    /// none before the first slice ended.
    pub fn raw_bytes_per_s(&self) -> Option<f64> {
        self.arms.bytes_per_ns().map(|rate| rate * 1e9)
    }

    /// The highest level, up to the cap, at which a worker is done before the link needs the
    /// chunk; none if it is not at any.
    fn queue_rule(&self, view: &QueueView) -> Option<i32> {
        let cap = self.arms.cap()?;
        let link = self.link.bytes_per_ns()?;
        if view.streams_idle {
            return None;
        }
        let backlog = f64::from(view.encoding_now);
        (0..LEVELS.len()).rev().filter(|&index| LEVELS[index] <= cap).find_map(|index| {
            let job_ns = self.cost[index].get() * self.chunk_bytes;
            let ahead_bytes = backlog * self.chunk_bytes / self.shrink[index].get().max(1.0);
            let needed_ns = (view.queued_wire_bytes as f64 + ahead_bytes) / link;
            let ready_ns = job_ns * (1.0 + backlog / self.workers);
            (ready_ns <= needed_ns).then_some(LEVELS[index])
        })
    }

    /// Whether a chunk of a device with this streak is given to a worker at all. The choice among
    /// chunks is by a hash of their count, so that devices taking turns do not fall into step.
    fn worth_a_try(&self, streak: u32) -> bool {
        let shift = streak.saturating_sub(STREAK_FREE - 1).min(STREAK_SHIFT_MAX);
        let hash = self.choices.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash & ((1 << shift) - 1) == 0
    }
}
