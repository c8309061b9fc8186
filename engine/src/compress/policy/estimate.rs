//! Running estimates that forget: sums that are decayed as new terms come in.

use super::LEVELS;

/// What compression is expected to do before anything was measured, per entry of [`LEVELS`]:
/// nanoseconds per raw byte on one core, and raw bytes per wire byte. From a mixed bag of device
/// state and code on a 2024 server core.
pub(super) const PRIORS: [(f64, f64); LEVELS.len()] =
    [(1.1, 2.2), (1.6, 2.8), (2.6, 3.0), (6.0, 3.2)];

/// What each level costs and gives on chunks that shrink.
#[derive(Debug, Default)]
pub(super) struct Levels {
    sums: [Sums; LEVELS.len()],
    /// Chunks measured, at any level.
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

    pub(super) fn measured(&mut self, level: usize, raw_bytes: f64, wire_bytes: f64, ns: f64) {
        self.count += 1;
        let sums = &mut self.sums[level];
        sums.raw_bytes = sums.raw_bytes * Levels::KEEP + raw_bytes;
        sums.wire_bytes = sums.wire_bytes * Levels::KEEP + wire_bytes;
        sums.ns = sums.ns * Levels::KEEP + ns;
        sums.at = self.count;
    }

    /// Nanoseconds of a worker per raw byte, and raw bytes per wire byte: as measured, or as the
    /// level used last suggests, in proportion to the priors.
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

/// Bytes per nanosecond of a link, over the time in which it had something to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Busy {
    bytes: f64,
    ns: f64,
    in_flight: u32,
    since_ns: u64,
    measured: bool,
}

impl Busy {
    /// Of the old sums, what is left after a new term: the last sixteen or so decide.
    const KEEP: f64 = 15.0 / 16.0;

    /// As if this had been measured already. It keeps the first sends, which only fill the
    /// socket's buffer, from making any link look as fast as memory.
    pub(super) fn prior(bytes: f64, ns: f64) -> Busy {
        Busy { bytes, ns, in_flight: 0, since_ns: 0, measured: false }
    }

    /// A transfer starts.
    pub(super) fn start(&mut self, now_ns: u64) {
        if self.in_flight == 0 {
            self.since_ns = now_ns;
        }
        self.in_flight += 1;
    }

    /// A transfer ends.
    pub(super) fn end(&mut self, now_ns: u64, bytes: f64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.bytes = self.bytes * Busy::KEEP + bytes;
        self.ns = self.ns * Busy::KEEP + now_ns.saturating_sub(self.since_ns) as f64;
        self.since_ns = now_ns;
        self.measured = true;
    }

    /// A transfer of which nobody will know when it ended.
    pub(super) fn forget(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whether a transfer has ended yet.
    pub(super) fn is_measured(&self) -> bool {
        self.measured
    }

    /// The estimate. A transfer that already takes longer than usual counts before it ends: a send
    /// that blocks is the first to know how slow the link is.
    pub(super) fn bytes_per_ns(&self, now_ns: u64) -> f64 {
        let under_way = if self.in_flight == 0 { 0 } else { now_ns.saturating_sub(self.since_ns) };
        self.bytes / self.ns.max(self.ns * Busy::KEEP + under_way as f64).max(1.0)
    }
}
