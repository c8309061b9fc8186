//! What a session measured: every phase and stage in histograms, and sums for each device and
//! stream. Durations are nanoseconds, sizes are bytes.

use hdrhistogram::Histogram;

use crate::outcome::Phase;

/// A step that a chunk or a request goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A chunk was read from the data fd, waiting for the device included.
    Read,
    /// A chunk waited for a worker and was compressed.
    Encode,
    /// A frame was sent: from its submission until the kernel had all of it.
    Send,
    /// A body was received: from its header until its last byte.
    Receive,
    /// A body waited for a worker and was decompressed.
    Decode,
    /// A chunk was written to the resume fd, waiting for the device included.
    Write,
    /// A request to the device: SET_STATE, GET_STATE, GET_PRECOPY_INFO, RESET.
    Control,
}

impl Step {
    /// All steps.
    pub const ALL: [Step; 7] = [
        Step::Read,
        Step::Encode,
        Step::Send,
        Step::Receive,
        Step::Decode,
        Step::Write,
        Step::Control,
    ];

    /// The name used in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Step::Read => "read",
            Step::Encode => "encode",
            Step::Send => "send",
            Step::Receive => "receive",
            Step::Decode => "decode",
            Step::Write => "write",
            Step::Control => "control",
        }
    }
}

/// What was summed up for one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceMetrics {
    /// Bytes of state read (source) or written (target), all epochs.
    pub state_bytes: u64,
    /// Bytes that its data frames took on the wire, headers included, all epochs.
    pub wire_bytes: u64,
    /// Time in which its fd was being read or written.
    pub device_ns: u64,
    /// Time in which its chunks waited for a worker or were with one, added up.
    pub worker_ns: u64,
    /// Time in which its frames were being sent or received, added up.
    pub link_ns: u64,
}

impl DeviceMetrics {
    /// State bytes over wire bytes; 1 before there are any.
    pub fn ratio(&self) -> f64 {
        if self.wire_bytes == 0 { 1.0 } else { self.state_bytes as f64 / self.wire_bytes as f64 }
    }
}

/// What was summed up for one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamMetrics {
    /// Bytes sent, headers included.
    pub sent_bytes: u64,
    /// Bytes received, headers included.
    pub received_bytes: u64,
    /// Frames sent.
    pub sent_frames: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Time in which a send was under way.
    pub send_ns: u64,
}

/// What a session measured: every phase and step in histograms, and sums for each device and stream.
/// Durations are nanoseconds, sizes are bytes.
#[derive(Debug, Clone)]
pub struct Metrics {
    steps: Vec<Histogram<u64>>,
    phases: Vec<Histogram<u64>>,
    /// One for each device, in the order of their numbers.
    pub devices: Vec<DeviceMetrics>,
    /// One for each stream, in the order of their numbers.
    pub streams: Vec<StreamMetrics>,
}

/// Two decimal digits: a hundredth of the value, and 1 KiB for each power of two that values reach.
/// A session has many histograms, and its report copies them.
const SIGNIFICANT_DIGITS: u8 = 2;
/// Longest duration that is told apart from longer ones, in nanoseconds: an hour.
const LONGEST_NS: u64 = 3_600_000_000_000;

/// Grows with what is recorded.
fn histogram() -> Histogram<u64> {
    Histogram::new(SIGNIFICANT_DIGITS)
        .unwrap_or_else(|_| unreachable!("a number of digits that hdrhistogram takes"))
}

fn record(histogram: &mut Histogram<u64>, ns: u64) {
    // It resizes itself, so nothing between these bounds is refused.
    let _ = histogram.record(ns.clamp(1, LONGEST_NS));
}

impl Metrics {
    /// Nothing measured yet.
    pub fn new(devices: usize, streams: usize) -> Metrics {
        Metrics {
            steps: Step::ALL.iter().map(|_| histogram()).collect(),
            phases: Phase::ALL.iter().map(|_| histogram()).collect(),
            devices: vec![DeviceMetrics::default(); devices],
            streams: vec![StreamMetrics::default(); streams],
        }
    }

    /// The durations of a step, in nanoseconds.
    pub fn step(&self, step: Step) -> &Histogram<u64> {
        &self.steps[step as usize]
    }

    /// The durations of a phase, in nanoseconds: one value for each time a device went through it.
    pub fn phase(&self, phase: Phase) -> &Histogram<u64> {
        &self.phases[phase as usize]
    }

    /// Adds one step's duration.
    pub fn record_step(&mut self, step: Step, ns: u64) {
        record(&mut self.steps[step as usize], ns);
    }

    /// Adds one phase's duration.
    pub fn record_phase(&mut self, phase: Phase, ns: u64) {
        record(&mut self.phases[phase as usize], ns);
    }

    /// Bytes of state, all devices.
    pub fn state_bytes(&self) -> u64 {
        self.devices.iter().map(|device| device.state_bytes).sum()
    }

    /// Bytes sent or received on all streams: the larger of the two directions.
    pub fn wire_bytes(&self) -> u64 {
        let sent: u64 = self.streams.iter().map(|stream| stream.sent_bytes).sum();
        let received: u64 = self.streams.iter().map(|stream| stream.received_bytes).sum();
        sent.max(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_duration_is_kept_to_a_hundredth() {
        for ns in [1, 999, 123_456, 2_000_000_000, LONGEST_NS] {
            let mut metrics = Metrics::new(1, 1);
            metrics.record_step(Step::Read, ns);
            let kept = metrics.step(Step::Read).max();
            assert!(kept.abs_diff(ns) <= ns / 100, "{ns} became {kept}");
        }
        let mut metrics = Metrics::new(1, 1);
        metrics.record_phase(Phase::Start, 0);
        metrics.record_phase(Phase::Start, u64::MAX);
        let phase = metrics.phase(Phase::Start);
        assert_eq!((phase.len(), phase.min()), (2, 1));
        assert!(phase.max() >= LONGEST_NS);
    }

    #[test]
    fn what_nobody_recorded_takes_no_memory() {
        let metrics = Metrics::new(1, 1);
        let values = Step::ALL.map(|step| metrics.step(step).distinct_values());
        let phases = Phase::ALL.map(|phase| metrics.phase(phase).distinct_values());
        let bytes =
            (values.iter().sum::<usize>() + phases.iter().sum::<usize>()) * size_of::<u64>();
        assert!(bytes <= 64 << 10, "{bytes} bytes of histograms");
    }
}
