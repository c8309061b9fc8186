//! Raw or zstd, and which level: bound late, and by a plan from what everything costs.
//!
//! Throughput is the least of: reading, workers x compression speed, link x ratio, and the same on
//! the other host. No fixed choice is right: on a 10 Gb/s link and few cores compression loses, on
//! 2.5 Gb/s it wins, and in between the fastest is a mixture, part of the chunks compressed and
//! part raw, so that neither the link nor the workers ever wait.
//!
//! - **Late binding** makes the mixture. A chunk that was read may go raw at once. A worker that is
//!   free takes the raw chunk that is farthest from the link, and puts it back compressed; the link
//!   takes the lowest sequence that is ready. Where the link is fast nothing is left to take; where
//!   it is slow all is compressed; between, the mixture makes itself.
//! - **The plan** (`plan`) says at which level, and how much of it is worth while: compression takes
//!   cores from the reader and the network, and where both hosts are one, from the target too.
//!   Where all of it is worth while a raw chunk *waits* for a worker, nearest to the link first.
//! - What it goes by is measured before it matters: the link by the kernel (`link`), the levels by
//!   samples of the first chunk that shrinks, and of one in 64 later, at every level, for 0.2 ms of
//!   one worker.
//!
//! Incompressible data is a matter of the chunk, not of the link: a device whose chunks did not
//! shrink is probed first, and then more and more seldom.
//!
//! - What else the cores have to do shows in workers that wait for one (`load`).
//!
//! `simulator` (tests) has what this is worth against every fixed choice: links of 0.1 to 12 GB/s,
//! 2 to 8 cores, shared by both ends or not, 240 cells, with noise from a seed (small states: from
//! several), and with the window and its credits:
//!
//! | state | worst cell | mean | cells at 0.95 or more of the best fixed choice |
//! |---|---|---|---|
//! | 1 GiB | 0.89 | 1.01 | 228 |
//! | 256 MiB | 0.89 | 1.01 | 225 |
//! | 64 MiB | 0.88 | 1.01 | 230 |
//! | 16 MiB | 0.84 | 1.00 | 218 |
//! | 64 MiB, the link not known before | 0.78 | 1.00 | 203 |
//!
//! Pure: what is measured comes in. Chunks of zeros never come here; they have no body to compress.

mod levels;
mod link;
mod load;
mod meter;
mod plan;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;

use levels::Levels;
pub use levels::Sample;
use link::Link;
use load::Load;
use meter::Meter;
pub use plan::Hosts;
use plan::{Costs, Plan, decode, stages};

/// The zstd levels that the adaptive policy chooses among. Above 6 zstd gains little on device
/// state and costs a multiple.
pub const LEVELS: [i32; 4] = [-5, 1, 3, 6];

/// How many chunks in a row must fail to shrink before trying them becomes seldom.
const STREAK_FREE: u32 = 4;
/// The seldomest is one chunk in 2^this.
const STREAK_SHIFT_MAX: u32 = 3;
/// Where this share is compressed the others are the exception, and chunks wait for a worker.
const MOST: f64 = 0.6;
/// Of so many chunks sent the share of compressed ones is reckoned.
const SHARE_CHUNKS: f64 = 32.0;
/// By so many chunks what was compressed may be ahead of its share.
const SHARE_SLACK: f64 = 2.0;

/// After so many chunks another is sampled at every level: the data may have changed.
const SAMPLE_EVERY: u32 = 64;
/// After so many bytes of state the load is measured.
const LOAD_BYTES: u64 = 4 << 20;

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

/// What a worker that is free does with a raw chunk that waits for the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Nothing for now.
    Wait,
    /// Nothing, for good: the chunk goes as it was read.
    Raw,
    /// It compresses it.
    Zstd {
        /// The zstd level.
        level: i32,
        /// Probe samples of it first and leave it raw if they do not shrink
        /// ([`Codec::probe`](super::codec::Codec::probe)).
        probe: bool,
        /// If it shrinks, find out from samples what all of [`LEVELS`] make of it
        /// ([`Codec::sample`](super::codec::Codec::sample)).
        sample: bool,
    },
}

/// What a session has found out, for those that come after it.
#[derive(Debug, Clone, Default)]
pub struct Learned {
    /// What the path takes, in wire bytes per second; none where it was not found out.
    pub bytes_per_s: Option<u64>,
    levels: Levels,
}

impl Learned {
    /// What may be so on any path: what compression costs here, and what it gives.
    pub fn elsewhere(&self) -> Learned {
        Learned { bytes_per_s: None, levels: self.levels.clone() }
    }
}

/// What was done in how much time.
#[derive(Debug, Default)]
struct Since {
    ns: u64,
    raw_bytes: u64,
    wire_bytes: u64,
}

/// Chooses for one session. See the top of this file.
#[derive(Debug)]
pub struct Controller {
    policy: Policy,
    workers: f64,
    hosts: Hosts,
    link: Link,
    load: Load,
    /// What was done since the load was measured last.
    since: Since,
    levels: Levels,
    /// Chunks to be compressed until one is sampled at every level.
    until_sample: u32,
    plan: Plan,
    /// Of the chunks sent lately, all and the compressed.
    sent: f64,
    sent_compressed: f64,
    offered: u64,
    meter: Meter,
    /// Of everything that the target is done with.
    sent_raw_bytes: u64,
    sent_wire_bytes: u64,
}

impl Controller {
    /// For a session with this many compression workers (0: never compress) and chunks of this
    /// many bytes. Until it is told, the source has a core for each worker, and the target is
    /// elsewhere.
    pub fn new(policy: Policy, workers: u32, chunk_bytes: u32) -> Controller {
        let policy = if workers == 0 { Policy::Raw } else { policy };
        let mut controller = Controller {
            policy,
            workers: f64::from(workers.max(1)),
            hosts: Hosts { cores: workers.max(1), shared: false },
            link: Link::new(),
            load: Load::new(),
            since: Since::default(),
            levels: Levels::default(),
            until_sample: 0,
            plan: Plan::RAW,
            sent: 0.0,
            sent_compressed: 0.0,
            offered: 0,
            meter: Meter::new(chunk_bytes),
            sent_raw_bytes: 0,
            sent_wire_bytes: 0,
        };
        controller.replan();
        controller
    }

    /// Whether nothing is compressed, whatever it is.
    pub fn is_raw(&self) -> bool {
        match self.policy {
            Policy::Raw => true,
            Policy::Zstd(_) => false,
            Policy::Adaptive => self.plan.level.is_none(),
        }
    }

    /// Whether raw chunks wait for a worker rather than go when the link is free. Then the one that
    /// is nearest to the link is offered first, else the one that is farthest from it.
    pub fn holds(&self) -> bool {
        match self.policy {
            Policy::Raw => false,
            Policy::Zstd(_) => true,
            Policy::Adaptive => self.plan.share >= MOST && !self.is_ahead_of_share(),
        }
    }

    /// A worker is free, and this raw chunk could be compressed: `ahead` frames of state go out
    /// before it, and `streak` chunks of its device in a row did not shrink, by probe or in full.
    pub fn offer(&mut self, ahead: usize, streak: u32) -> Choice {
        let level = match self.policy {
            Policy::Raw => None,
            Policy::Zstd(level) => Some(level),
            Policy::Adaptive => self.plan.level.map(|index| LEVELS[index]),
        };
        let Some(level) = level else { return Choice::Wait };
        if !self.holds() && (self.is_too_near(ahead) || self.is_ahead_of_share()) {
            return Choice::Wait;
        }
        self.offered += 1;
        if !self.worth_a_try(streak) {
            return Choice::Raw;
        }
        let sample = self.policy == Policy::Adaptive && self.until_sample == 0;
        Choice::Zstd { level, probe: streak > 0, sample }
    }

    /// A worker is done with a chunk: at this level it became smaller, or (the same size) was left
    /// raw, probe included. `wall_ns` is how long it took, waiting for a core included.
    pub fn encoded(&mut self, level: i32, sample: Sample, wall_ns: u64) {
        self.load.worked(sample.cpu_ns, wall_ns);
        self.until_sample = self.until_sample.saturating_sub(1);
        let shrank = sample.wire_bytes < sample.raw_bytes;
        // What a probe rejected says nothing about compressing what shrinks.
        if let Some(index) = LEVELS.iter().position(|&known| known == level).filter(|_| shrank) {
            self.levels.measured(index, sample);
        }
        self.replan();
    }

    /// What samples of a chunk came to, at each of [`LEVELS`].
    pub fn sampled(&mut self, samples: &[Sample; LEVELS.len()]) {
        self.until_sample = SAMPLE_EVERY;
        for (index, sample) in samples.iter().enumerate() {
            self.levels.measured(index, *sample);
        }
        self.replan();
    }

    /// A chunk is submitted to a stream.
    pub fn sending(&mut self, compressed: bool) {
        let keep = 1.0 - 1.0 / SHARE_CHUNKS;
        self.sent = self.sent * keep + 1.0;
        self.sent_compressed = self.sent_compressed * keep + f64::from(u8::from(compressed));
    }

    /// What the hosts are.
    pub fn hosts_known(&mut self, hosts: Hosts) {
        self.hosts = hosts;
        self.replan();
    }

    /// A chunk of so many bytes was read.
    pub fn read(&mut self, now_ns: u64, raw_bytes: u64) {
        self.meter.enters(now_ns, raw_bytes);
    }

    /// The target says at once that it is done with frames of so many bytes of state, and so many
    /// on the wire.
    pub fn sent(&mut self, now_ns: u64, raw_bytes: u64, wire_bytes: u64) {
        if let Some((ns, bytes)) = self.meter.leaves(now_ns, raw_bytes) {
            self.since.ns += ns;
            self.since.raw_bytes += bytes;
        }
        self.since.wire_bytes += wire_bytes;
        if self.since.raw_bytes >= LOAD_BYTES {
            self.measure_load();
        }
        self.sent_raw_bytes += raw_bytes;
        self.sent_wire_bytes += wire_bytes;
    }

    /// Of so many bytes that were read nobody will hear again: their epoch was discarded.
    pub fn dropped(&mut self, raw_bytes: u64) {
        self.meter.forgets(raw_bytes);
    }

    /// Raw bytes per wire byte over everything sent; 1 before the first.
    pub fn ratio(&self) -> f64 {
        if self.sent_wire_bytes == 0 {
            return 1.0;
        }
        self.sent_raw_bytes as f64 / self.sent_wire_bytes as f64
    }

    /// State bytes per second end to end while there was something to do, lately; none before
    /// anything was sent.
    pub fn raw_bytes_per_s(&self) -> Option<f64> {
        self.meter.bytes_per_s()
    }

    /// How long so many bytes of state take from end to end, in nanoseconds; 0 before there is a rate.
    pub fn path_ns(&self, bytes: u64) -> u64 {
        self.raw_bytes_per_s().map_or(0, |rate| (bytes as f64 * 1e9 / rate.max(1.0)) as u64)
    }

    /// What the path takes, in wire bytes per second: known before anything is measured.
    pub fn link_known(&mut self, bytes_per_s: u64) {
        self.link.known(bytes_per_s);
        self.replan();
    }

    /// What the path takes, in wire bytes per second, as just measured; at least this where there was
    /// too little to send.
    pub fn link_measured(&mut self, bytes_per_s: u64, at_least: bool) {
        self.link.measured(bytes_per_s, at_least);
        self.replan();
    }

    /// What has been found out so far.
    pub fn learned(&self) -> Learned {
        Learned { bytes_per_s: self.link.learned(), levels: self.levels.clone() }
    }

    /// What a session before this one has found out: this one begins with it, in place of a guess, and
    /// measures all the same.
    pub fn recall(&mut self, learned: Learned) {
        if let Some(bytes_per_s) = learned.bytes_per_s {
            self.link.known(bytes_per_s);
        }
        if !learned.levels.is_empty() {
            self.levels = learned.levels;
        }
        self.replan();
    }

    fn measure_load(&mut self) {
        let Since { ns, raw_bytes, wire_bytes } = std::mem::take(&mut self.since);
        let (source, target) = stages((wire_bytes as f64 / raw_bytes as f64).min(1.0));
        let (cost, _) = self.levels.expect(self.plan.level.unwrap_or(0));
        let (stages, decode) = match self.hosts.shared {
            true => (source + target, decode(&self.levels) / cost),
            false => (source, 0.0),
        };
        let cores_ns = ns as f64 * f64::from(self.hosts.cores.max(1));
        self.load.measured(cores_ns, stages * raw_bytes as f64, decode);
        self.replan();
    }

    fn replan(&mut self) {
        let costs = Costs {
            hosts: self.hosts,
            workers: self.workers,
            link: self.link.bytes_per_ns(),
            load: self.load.factor(),
            levels: &self.levels,
        };
        self.plan = self.plan.best(&costs);
    }

    /// Whether the chunk's turn would come before it is compressed, with a core for it alone.
    fn is_too_near(&self, ahead: usize) -> bool {
        let (ns_per_byte, _) = self.levels.expect(self.plan.level.unwrap_or(0));
        ahead == 0 || (ahead + 1) as f64 <= ns_per_byte * self.link.bytes_per_ns()
    }

    fn is_ahead_of_share(&self) -> bool {
        let slack = if self.plan.share >= MOST { 0.0 } else { SHARE_SLACK };
        self.sent_compressed > self.plan.share * self.sent + slack
    }

    /// Whether a chunk of a device with this streak is given to a worker at all. The choice among
    /// chunks is by a hash of their count, so that devices taking turns do not fall into step.
    fn worth_a_try(&self, streak: u32) -> bool {
        let shift = streak.saturating_sub(STREAK_FREE - 1).min(STREAK_SHIFT_MAX);
        let hash = self.offered.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash & ((1 << shift) - 1) == 0
    }
}
