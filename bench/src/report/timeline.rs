//! One migration as lanes of a picture: the stages of the whole, and what each device and stream did.
//!
//! Everything is taken at the devices and the sockets, not from what the engine says of itself.

use crate::device::{CallSpan, Slices};
use crate::process::message::{DeviceReport, SideReport};
use crate::spec::Size;

/// A migration. Times are nanoseconds from the call that stopped the first device on.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Timeline {
    /// Where it begins.
    pub(crate) from_ns: i64,
    /// Where it ends.
    pub(crate) to_ns: i64,
    /// From top to bottom.
    pub(crate) lanes: Vec<Lane>,
}

/// A lane.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lane {
    /// What it is of.
    pub(crate) name: String,
    /// What took from when to when.
    pub(crate) spans: Vec<Span>,
    /// The name of one that is too narrow for it stands beside it.
    pub(crate) names_all: bool,
    /// How much went when.
    pub(crate) bytes: Vec<Part>,
    /// The colour of that, by its number.
    pub(crate) colour: usize,
    /// What is said at its end.
    pub(crate) words: Option<String>,
}

/// Something that took its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Span {
    /// What.
    pub(crate) name: String,
    /// From when.
    pub(crate) from_ns: i64,
    /// Until when.
    pub(crate) to_ns: i64,
    /// Its colour, by its number.
    pub(crate) colour: usize,
}

/// Bytes of a slice of time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// From when.
    pub(crate) from_ns: i64,
    /// Until when.
    pub(crate) to_ns: i64,
    /// Of what the lane's fullest slice has.
    pub(crate) share: f64,
}

const CALL: usize = 1;
const READ: usize = 3;
const SENT: usize = 5;
const WRITTEN: usize = 2;

impl Timeline {
    /// From what both sides recorded; none if they did not, or nothing was stopped.
    pub(crate) fn new(source: &SideReport, target: &SideReport) -> Option<Timeline> {
        let stopped = |device: &DeviceReport| Some(device.stop_called_ns).filter(|&ns| ns > 0);
        let zero = source.devices.iter().filter_map(stopped).min()?;
        let mut timeline = Timeline::default();
        timeline.lanes.push(stages(source, target, zero));
        for (side, colour, report) in [("source", READ, source), ("target", WRITTEN, target)] {
            for (index, device) in report.devices.iter().enumerate() {
                let record = device.record.as_ref()?;
                timeline.lanes.push(calls(
                    format!("{side} {index}, SET_STATE"),
                    &record.calls,
                    zero,
                ));
                let what = if colour == READ { "read" } else { "written" };
                timeline.lanes.push(bytes(
                    format!("{side} {index}, {what}"),
                    &record.bytes,
                    colour,
                    zero,
                ));
            }
            for (index, stream) in report.streams.iter().enumerate() {
                timeline.lanes.push(bytes(format!("stream {index}, sent"), stream, SENT, zero));
            }
        }
        let spans = timeline.lanes.iter().flat_map(|lane| &lane.spans);
        let times = spans.flat_map(|span| [span.from_ns, span.to_ns]);
        let parts = timeline.lanes.iter().flat_map(|lane| &lane.bytes);
        let all: Vec<i64> =
            times.chain(parts.flat_map(|part| [part.from_ns, part.to_ns])).collect();
        (timeline.from_ns, timeline.to_ns) = (*all.iter().min()?, *all.iter().max()?);
        Some(timeline)
    }
}

fn since(ns: u64, zero: u64) -> i64 {
    i64::try_from(i128::from(ns) - i128::from(zero)).unwrap_or(i64::MAX)
}

/// One after another: each begins when the last device has left the one before it.
fn stages(source: &SideReport, target: &SideReport, zero: u64) -> Lane {
    let last = |report: &SideReport, time: fn(&DeviceReport) -> u64| {
        report.devices.iter().map(time).max().unwrap_or(0)
    };
    let call = |report: &SideReport, state: &str, time: fn(&CallSpan) -> u64| {
        let calls = report.devices.iter().filter_map(|device| device.record.as_ref());
        let calls = calls.flat_map(|record| &record.calls).filter(|call| call.state == state);
        calls.map(time).max().unwrap_or(0)
    };
    let ends = [
        ("pre_copy", zero),
        ("stop", last(source, |device| device.stop_copy_ns)),
        ("stop_copy", last(target, |device| device.last_transfer_ns)),
        ("load", call(target, "STOP", |call| call.to_ns)),
        ("handover", call(target, "RUNNING", |call| call.from_ns)),
        ("resume", last(target, |device| device.running_ns)),
    ];
    let started = source.devices.iter().map(|device| device.started_ns).filter(|&ns| ns > 0).min();
    let mut from = started.unwrap_or(zero);
    let mut lane = Lane { name: "stages".to_owned(), ..Lane::default() };
    for (index, (name, to)) in ends.into_iter().enumerate() {
        // A stage that never came to its end, or that there was none of.
        if to <= from {
            continue;
        }
        let (from_ns, to_ns) = (since(from, zero), since(to, zero));
        lane.spans.push(Span { name: name.to_owned(), from_ns, to_ns, colour: index + 1 });
        from = to;
    }
    lane
}

fn calls(name: String, calls: &[CallSpan], zero: u64) -> Lane {
    let span = |call: &CallSpan| Span {
        name: call.state.clone(),
        from_ns: since(call.from_ns, zero),
        to_ns: since(call.to_ns, zero),
        colour: CALL,
    };
    Lane { name, spans: calls.iter().map(span).collect(), names_all: true, ..Lane::default() }
}

fn bytes(name: String, slices: &Slices, colour: usize, zero: u64) -> Lane {
    let most = slices.bytes.iter().map(|&(_, bytes)| bytes).max().unwrap_or(1).max(1);
    let part = |&(number, bytes): &(u64, u64)| Part {
        from_ns: since(number * slices.slice_ns, zero),
        to_ns: since((number + 1) * slices.slice_ns, zero),
        share: bytes as f64 / most as f64,
    };
    let sum: u64 = slices.bytes.iter().map(|&(_, bytes)| bytes).sum();
    let words = Some(Size(sum).to_string());
    let bytes = slices.bytes.iter().map(part).collect();
    Lane { name, bytes, colour, words, ..Lane::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Record;

    fn side(base: u64) -> SideReport {
        let mut slices = Slices::default();
        slices.add(base + 2_000_000, 100);
        slices.add(base + 3_000_000, 50);
        let call =
            |state: &str, from_ns, to_ns| CallSpan { state: state.to_owned(), from_ns, to_ns };
        let calls = vec![
            call("STOP_COPY", base + 1_000_000, base + 1_500_000),
            call("STOP", base + 4_000_000, base + 4_100_000),
            call("RUNNING", base + 5_000_000, base + 5_200_000),
        ];
        let device = DeviceReport {
            started_ns: base + 500_000,
            stop_called_ns: base + 1_000_000,
            stop_copy_ns: base + 1_500_000,
            last_transfer_ns: base + 3_000_000,
            running_ns: base + 5_200_000,
            record: Some(Record { calls, bytes: slices.clone() }),
            ..DeviceReport::default()
        };
        SideReport { devices: vec![device], streams: vec![slices], ..SideReport::default() }
    }

    #[test]
    fn stages_follow_one_another_and_every_lane_is_there() {
        let target = SideReport { streams: Vec::new(), ..side(1_000_000_000) };
        let timeline = Timeline::new(&side(1_000_000_000), &target).unwrap_or_default();
        let names: Vec<&str> = timeline.lanes.iter().map(|lane| lane.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "stages",
                "source 0, SET_STATE",
                "source 0, read",
                "stream 0, sent",
                "target 0, SET_STATE",
                "target 0, written"
            ]
        );
        let stages = &timeline.lanes[0].spans;
        let of: Vec<(&str, i64)> =
            stages.iter().map(|span| (span.name.as_str(), span.to_ns - span.from_ns)).collect();
        assert_eq!(
            of,
            [
                ("pre_copy", 500_000),
                ("stop", 500_000),
                ("stop_copy", 1_500_000),
                ("load", 1_100_000),
                ("handover", 900_000),
                ("resume", 200_000)
            ]
        );
        assert!(stages.windows(2).all(|pair| pair[0].to_ns == pair[1].from_ns));
        assert_eq!((timeline.from_ns, timeline.to_ns), (-500_000, 4_200_000));
        let shares: Vec<f64> = timeline.lanes[2].bytes.iter().map(|part| part.share).collect();
        assert_eq!(shares, [1.0, 0.5]);
        assert_eq!(timeline.lanes[2].words.as_deref(), Some("150 B"));
        let picture = crate::report::plot::timeline("a migration", &timeline).unwrap_or_default();
        assert!(picture.starts_with("<svg") && picture.contains("stop_copy"), "{picture}");
    }

    #[test]
    fn what_was_not_recorded_is_no_picture() {
        assert_eq!(Timeline::new(&SideReport::default(), &SideReport::default()), None);
        let mut source = side(0);
        source.devices[0].record = None;
        assert_eq!(Timeline::new(&source, &side(0)), None);
    }
}
