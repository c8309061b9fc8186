//! What each zstd level costs and gives on what shrinks: sums that forget as new terms come in.

use super::LEVELS;

/// What compression is expected to do before anything was measured, per entry of [`LEVELS`]:
/// nanoseconds per raw byte on one core, and raw bytes per wire byte. From a mixed bag of device
/// state and code on a 2024 server core.
const PRIORS: [(f64, f64); LEVELS.len()] = [(1.1, 2.2), (1.6, 2.8), (2.6, 3.0), (6.0, 3.2)];

/// What was measured at one level: of a chunk, or of samples of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// Bytes before.
    pub raw_bytes: u32,
    /// Bytes after.
    pub wire_bytes: u32,
    /// The worker's time on a core, in nanoseconds.
    pub cpu_ns: u64,
}

/// What each level costs and gives on chunks that shrink.
#[derive(Debug, Clone, Default)]
pub(super) struct Levels {
    sums: [Sums; LEVELS.len()],
    /// Measurements, at any level.
    count: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    raw_bytes: f64,
    wire_bytes: f64,
    ns: f64,
    /// `count` at the last measurement.
    at: u64,
}

impl Levels {
    /// Of the old sums, what is left after a new term: the last eight or so decide.
    const KEEP: f64 = 7.0 / 8.0;
    /// A level that was not used for so many chunks is judged by the others again: the data may
    /// have changed.
    const FRESH: u64 = 256;

    /// Whether anything was measured.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn measured(&mut self, level: usize, sample: Sample) {
        self.count += 1;
        let sums = &mut self.sums[level];
        sums.raw_bytes = sums.raw_bytes * Levels::KEEP + f64::from(sample.raw_bytes.max(1));
        sums.wire_bytes = sums.wire_bytes * Levels::KEEP + f64::from(sample.wire_bytes.max(1));
        sums.ns = sums.ns * Levels::KEEP + sample.cpu_ns.max(1) as f64;
        sums.at = self.count;
    }

    /// Nanoseconds of a core per raw byte, and raw bytes per wire byte: as measured, or as the level
    /// used last suggests, in proportion to the priors.
    pub(super) fn expect(&self, level: usize) -> (f64, f64) {
        let get = |index: usize| {
            let sums = &self.sums[index];
            (sums.ns / sums.raw_bytes, sums.raw_bytes / sums.wire_bytes)
        };
        let at = self.sums[level].at;
        if at > 0 && self.count - at < Levels::FRESH {
            return get(level);
        }
        let (prior_ns, prior_ratio) = PRIORS[level];
        let last = (0..LEVELS.len()).max_by_key(|&index| self.sums[index].at);
        match last.filter(|&index| self.sums[index].at > 0) {
            None => (prior_ns, prior_ratio),
            Some(last) => {
                let (ns, ratio) = get(last);
                (ns * prior_ns / PRIORS[last].0, (ratio * prior_ratio / PRIORS[last].1).max(1.0))
            }
        }
    }
}
