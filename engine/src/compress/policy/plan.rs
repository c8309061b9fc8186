//! What part of the chunks to compress, and at which level: from what everything costs, in closed
//! form.
//!
//! With a share `x` compressed at a level that costs `c` and gives `r`, a byte of state takes at
//! least: `w = (1 - x) + x/r` wire bytes' time of the link; on each host's cores the sum of its
//! stages; of each stage that is one thread that stage; of the workers `x * c` shared by all. The
//! slowest of these is what it takes. Each of them is a line over `x`.

use super::LEVELS;
use super::levels::Levels;

/// CPU of the stages besides compression, in nanoseconds per byte: of state for reading and
/// writing (the driver's copy and the hash), of the wire for TCP. Measured on a 2024 server core;
/// what counts are the proportions to compression, which is measured.
const READ: f64 = 0.22;
const SEND: f64 = 0.15;
const RECEIVE: f64 = 0.08;
const WRITE: f64 = 0.15;
/// CPU to decompress, of that to compress at level -5, which is what all levels take about.
const DECODE: f64 = 0.4;

/// Compression must promise so much more than raw: what it promises is measured less well.
const WORTH: f64 = 1.02;
/// What the level in force has over others.
const STAYS: f64 = 1.03;
/// The shares that are looked at, from 1/this to 1.
const STEPS: u32 = 20;

/// What the two hosts have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hosts {
    /// Cores of the source, for all that it does.
    pub cores: u32,
    /// The target is on the same host, and has the same cores.
    pub shared: bool,
}

/// What to do with the chunks that shrink.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Plan {
    /// The level, as an index into [`LEVELS`]; none for raw only.
    pub(super) level: Option<usize>,
    /// The part of the chunks that is compressed.
    pub(super) share: f64,
}

/// What the plan goes by.
#[derive(Debug)]
pub(super) struct Costs<'a> {
    pub(super) hosts: Hosts,
    pub(super) workers: f64,
    /// Wire bytes per nanosecond.
    pub(super) link: f64,
    /// The stages' costs are so many times what a free host has.
    pub(super) load: f64,
    pub(super) levels: &'a Levels,
}

impl Plan {
    pub(super) const RAW: Plan = Plan { level: None, share: 0.0 };

    /// The best by these costs.
    pub(super) fn best(self, costs: &Costs<'_>) -> Plan {
        let raw = costs.rate(0, 0.0);
        let (mut best, mut promise) = (Plan::RAW, raw * WORTH);
        for level in 0..LEVELS.len() {
            let stays = if self.level == Some(level) { STAYS } else { 1.0 };
            for step in 1..=STEPS {
                let share = f64::from(step) / f64::from(STEPS);
                let rate = costs.rate(level, share);
                if rate > raw * WORTH && rate * stays > promise * 1.0001 {
                    (best, promise) = (Plan { level: Some(level), share }, rate * stays);
                }
            }
        }
        best
    }
}

impl Costs<'_> {
    /// Bytes of state per nanosecond with a share of them compressed.
    fn rate(&self, level: usize, share: f64) -> f64 {
        let (cost, ratio) = self.levels.expect(level);
        let wire = (1.0 - share) + share / ratio;
        let (source, target) = stages(wire);
        let source = source * self.load + share * cost;
        let target = target * self.load + share * decode(self.levels);
        let cores = f64::from(self.hosts.cores.max(1));
        let cpu = if self.hosts.shared { source + target } else { source.max(target) } / cores;
        let stage = READ.max(SEND * wire).max(RECEIVE * wire).max(WRITE);
        let pool = share * cost / self.workers;
        1.0 / (wire / self.link).max(cpu).max(stage).max(pool)
    }
}

/// CPU of both hosts for a byte of state that takes so much of the wire, without compression.
pub(super) fn stages(wire: f64) -> (f64, f64) {
    (READ + SEND * wire, WRITE + RECEIVE * wire)
}

/// CPU to decompress a byte of state.
pub(super) fn decode(levels: &Levels) -> f64 {
    DECODE * levels.expect(0).0
}
