//! One cell: what each contender took, and whether its median holds.

use serde::{Deserialize, Serialize};

use super::Place;
use crate::report::run::{Outcome, Run, is_forecast_good};
use crate::report::spread::{Spread, median};
use crate::spec::{Entrant, Policy};

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// From stop to RUNNING.
    pub(crate) downtime_ns: u64,
    /// From readable to written.
    pub(crate) transfer_ns: u64,
    /// The engine's last forecast of the downtime, with PRE_COPY.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forecast_ns: Option<u64>,
    /// On the wire.
    pub(crate) wire_bytes: u64,
    /// Both processes.
    pub(crate) cpu_ns: u64,
    /// Of it, the test devices' own threads.
    pub(crate) device_cpu_ns: u64,
    /// The larger of the two.
    pub(crate) peak_rss_bytes: u64,
}

/// A contender in a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Who.
    pub(crate) contender: Entrant,
    /// Median of [`Sample::downtime_ns`]; 0 without one.
    pub(crate) downtime_ns: u64,
    /// The least.
    pub(crate) downtime_ns_min: u64,
    /// The most.
    pub(crate) downtime_ns_max: u64,
    /// Why it was not run to the end; it is out of the cell then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<String>,
    /// Every run, in order.
    pub(crate) runs: Vec<Sample>,
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cell {
    /// Which.
    #[serde(flatten)]
    pub(crate) place: Place,
    /// Every contender's median holds: more rounds would hardly move it.
    pub(crate) settled: bool,
    /// In the order in which they were asked for.
    pub(crate) entries: Vec<Entry>,
}

/// A median holds when its standard error is at most this part of it.
const ERROR_MAX: f64 = 0.02;
/// The standard error of a median of normal values, over that of their mean.
const MEDIAN_FACTOR: f64 = 1.2533;
/// Quartiles of normal values are so many standard deviations apart.
const QUARTILES: f64 = 1.349;

impl Entry {
    /// A contender that has not run.
    pub(crate) fn new(contender: Entrant) -> Entry {
        let (downtime_ns, fault) = (0, None);
        let (downtime_ns_min, downtime_ns_max) = (0, 0);
        Entry { contender, downtime_ns, downtime_ns_min, downtime_ns_max, fault, runs: Vec::new() }
    }

    /// Takes in a run.
    pub(crate) fn add(&mut self, run: &Run) {
        if run.outcome != Outcome::Complete {
            let why = run.message.clone().unwrap_or_else(|| "no reason was given".to_owned());
            self.fault.get_or_insert(why);
            return;
        }
        self.runs.push(Sample {
            downtime_ns: run.downtime_ns,
            transfer_ns: run.transfer_ns,
            forecast_ns: run.forecast_ns,
            wire_bytes: run.wire_bytes,
            cpu_ns: run.cpu_ns,
            device_cpu_ns: run.device_cpu_ns,
            peak_rss_bytes: run.rss_source_bytes.max(run.rss_target_bytes),
        });
        let downtime = Spread::of(self.runs.iter().map(|run| run.downtime_ns));
        self.downtime_ns = downtime.median;
        (self.downtime_ns_min, self.downtime_ns_max) = (downtime.min, downtime.max);
    }

    /// Whether more rounds would hardly move the median.
    pub(crate) fn is_settled(&self) -> bool {
        if self.fault.is_some() {
            return true;
        }
        let mut values: Vec<u64> = self.runs.iter().map(|run| run.downtime_ns).collect();
        values.sort_unstable();
        let count = values.len();
        // Of fewer there are no quartiles.
        if count < 4 {
            return false;
        }
        let (lower, upper) = (&values[..count / 2], &values[count.div_ceil(2)..]);
        let apart = median(upper.to_vec()) - median(lower.to_vec());
        let error = MEDIAN_FACTOR * apart as f64 / QUARTILES / (count as f64).sqrt();
        error <= ERROR_MAX * self.downtime_ns as f64
    }
}

impl Cell {
    /// The median downtime of the contenders that these are.
    fn best(&self, which: impl Fn(Entrant) -> bool) -> Option<u64> {
        let good = |entry: &&Entry| entry.fault.is_none() && !entry.runs.is_empty();
        let these = self.entries.iter().filter(good).filter(|entry| which(entry.contender));
        these.map(|entry| entry.downtime_ns).min()
    }

    fn over_adaptive(&self, which: impl Fn(Entrant) -> bool) -> Option<f64> {
        let adaptive = self.best(|it| it == Entrant::Engine(Policy::Adaptive))?;
        Some(self.best(which)? as f64 / adaptive.max(1) as f64)
    }

    /// The best fixed policy's downtime over adaptive's.
    pub(crate) fn share(&self) -> Option<f64> {
        self.over_adaptive(Entrant::is_fixed)
    }

    /// The best outside peer's downtime over adaptive's: less than 1 is a peer that is faster.
    pub(crate) fn peer(&self) -> Option<f64> {
        self.over_adaptive(|it| matches!(it, Entrant::Peer(_)))
    }

    /// Whether the forecast of a run was good, for each run that had one.
    pub(crate) fn forecasts(&self) -> impl Iterator<Item = bool> {
        let runs = self.entries.iter().flat_map(|entry| &entry.runs);
        runs.filter_map(|run| Some(is_forecast_good(run.forecast_ns?, run.downtime_ns)))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::process::pair::PairReport;
    use crate::spec::{Contender, DataKind, Size};

    pub(crate) fn entry(contender: Entrant, downtimes_ms: &[u64]) -> Entry {
        let mut entry = Entry::new(contender);
        for ms in downtimes_ms {
            let mut run = Run::new(&PairReport::default());
            (run.outcome, run.downtime_ns) = (Outcome::Complete, ms * 1_000_000);
            entry.add(&run);
        }
        entry
    }

    pub(crate) fn cell(entries: Vec<Entry>) -> Cell {
        let place = Place { state: Size(1 << 20), link: None, data: DataKind::Zero };
        Cell { place, settled: true, entries }
    }

    #[test]
    fn a_median_holds_when_its_quartiles_are_close() {
        let settled = |ms: &[u64]| entry(Entrant::ALL[0], ms).is_settled();
        assert!(!settled(&[100, 100, 100]), "too few to know");
        assert!(settled(&[100, 101, 100, 99, 101, 100, 400]), "one that is far off");
        assert!(!settled(&[100, 150, 90, 130, 110]));
        let many: Vec<u64> = (0..400).map(|i| 100 + i % 30).collect();
        assert!(settled(&many), "many make up for noise");
    }

    #[test]
    fn shares_are_of_the_best() {
        let adaptive = entry(Entrant::Engine(Policy::Adaptive), &[10, 10, 12]);
        let raw = entry(Entrant::Engine(Policy::Raw), &[9]);
        let zstd = entry(Entrant::Engine(Policy::Zstd(1)), &[30]);
        let peer = entry(Entrant::Peer(Contender::QemuMain), &[15]);
        let mut broken = entry(Entrant::Peer(Contender::Snapshot), &[1]);
        broken.fault = Some("it differs".to_owned());
        let cell = cell(vec![adaptive, raw, zstd, peer, broken]);
        assert_eq!((cell.share(), cell.peer()), (Some(0.9), Some(1.5)));
        let alone = self::cell(vec![entry(Entrant::Engine(Policy::Raw), &[9])]);
        assert_eq!((alone.share(), alone.peer()), (None, None));
    }
}
