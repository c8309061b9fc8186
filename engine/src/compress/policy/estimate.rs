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

/// Bytes per nanosecond that the path to the target takes, from what was delivered between a
/// chunk's departure and its acknowledgement.
///
/// The time to an acknowledgement is not only the path's. It is a latency, too: with little on the
/// way the quotient says how little there was to send. And the target acknowledges what it has
/// written: with compressed chunks the quotient can be the speed of its workers. So only chunks
/// that had to wait before they left, which means that the path was full, and that went raw, as
/// those around them, move the estimate either way. The others can only raise it.
#[derive(Debug)]
pub(super) struct Path {
    bytes_per_ns: f64,
    measured: bool,
    delivered_bytes: u64,
    /// Of these, what went raw.
    delivered_raw_bytes: u64,
    /// When the last acknowledgement came.
    delivered_ns: u64,
    /// When the chunk that was acknowledged last had departed.
    departed_ns: u64,
    in_flight: u32,
    in_flight_bytes: u64,
    arrived: u64,
    /// What was delivered in the first burst, and when that ended.
    from: Option<(u64, u64)>,
}

/// What is known of a chunk when it departs, to be given back when it is acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Departure {
    now_ns: u64,
    wire_bytes: u64,
    raw: bool,
    /// It had to wait: the path was full.
    waited: bool,
    delivered_bytes: u64,
    delivered_raw_bytes: u64,
    delivered_ns: u64,
    departed_ns: u64,
}

impl Departure {
    /// What the chunk takes on the wire.
    pub(super) fn wire_bytes(&self) -> u64 {
        self.wire_bytes
    }
}

impl Path {
    /// How far a sample moves the estimate, up or down: what disturbs a measurement makes the
    /// path look slow, hardly ever fast.
    const RISE: f64 = 1.0 / 4.0;
    const FALL: f64 = 1.0 / 8.0;
    /// The share of raw chunks in what is taken for the path's own speed.
    const RAW: f64 = 0.8;
    /// The first chunks say little: both hosts touch their buffers for the first time, and a link
    /// that is shaped lets a burst pass.
    const BURST: u64 = 3;
    /// Shorter samples are the clock's noise.
    const SAMPLE_NS_MIN: u64 = 50_000;

    /// Before anything is measured the path is taken for this fast.
    pub(super) fn prior(bytes_per_ns: f64) -> Path {
        Path {
            bytes_per_ns,
            measured: false,
            delivered_bytes: 0,
            delivered_raw_bytes: 0,
            delivered_ns: 0,
            departed_ns: 0,
            in_flight: 0,
            in_flight_bytes: 0,
            arrived: 0,
            from: None,
        }
    }

    /// A chunk departs.
    pub(super) fn depart(
        &mut self,
        now_ns: u64,
        wire_bytes: u64,
        raw: bool,
        waited: bool,
    ) -> Departure {
        if self.in_flight == 0 {
            self.delivered_ns = now_ns;
            self.departed_ns = now_ns;
        }
        self.in_flight += 1;
        self.in_flight_bytes += wire_bytes;
        let Path { delivered_bytes, delivered_raw_bytes, delivered_ns, departed_ns, .. } = *self;
        Departure {
            now_ns,
            wire_bytes,
            raw,
            waited,
            delivered_bytes,
            delivered_raw_bytes,
            delivered_ns,
            departed_ns,
        }
    }

    /// A chunk is acknowledged, one of those that are at once.
    pub(super) fn arrive(&mut self, departure: &Departure) {
        self.forget(departure);
        self.arrived += 1;
        self.delivered_bytes += departure.wire_bytes;
        self.delivered_raw_bytes += if departure.raw { departure.wire_bytes } else { 0 };
    }

    /// That was all that is acknowledged at once, `departure` the last of it.
    pub(super) fn arrived(&mut self, now_ns: u64, departure: &Departure) {
        self.delivered_ns = now_ns;
        self.departed_ns = departure.now_ns;
        if self.from.is_none() && self.arrived >= Path::BURST {
            self.from = Some((self.delivered_bytes, now_ns));
            return;
        }
        let Some((from_bytes, from_ns)) = self.from else { return };
        let raw_bytes = (self.delivered_raw_bytes - departure.delivered_raw_bytes) as f64;
        let bytes = (self.delivered_bytes - departure.delivered_bytes.max(from_bytes)) as f64;
        // Departures can come in a heap as well: the longer of both times is true.
        let acknowledging_ns = now_ns.saturating_sub(departure.delivered_ns.max(from_ns));
        let departing_ns = departure.now_ns.saturating_sub(departure.departed_ns.max(from_ns));
        let ns = acknowledging_ns.max(departing_ns).max(Path::SAMPLE_NS_MIN) as f64;
        let sample = bytes / ns;
        if !self.measured {
            self.bytes_per_ns = sample;
        } else if sample > self.bytes_per_ns {
            self.bytes_per_ns += (sample - self.bytes_per_ns) * Path::RISE;
        } else if departure.waited && raw_bytes >= bytes * Path::RAW {
            self.bytes_per_ns += (sample - self.bytes_per_ns) * Path::FALL;
        }
        self.measured = true;
    }

    /// A chunk will never be acknowledged.
    pub(super) fn forget(&mut self, departure: &Departure) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(departure.wire_bytes);
    }

    /// Whether anything has been acknowledged yet.
    pub(super) fn is_measured(&self) -> bool {
        self.measured
    }

    /// The estimate. Before the first acknowledgement, that it is not there yet says something.
    pub(super) fn bytes_per_ns(&self, now_ns: u64) -> f64 {
        if self.measured || self.in_flight == 0 {
            return self.bytes_per_ns;
        }
        let ns = now_ns.saturating_sub(self.delivered_ns).max(1) as f64;
        self.bytes_per_ns.min(self.in_flight_bytes as f64 / ns)
    }
}
