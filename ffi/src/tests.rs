//! What C is told, number by number: every field of every struct has a value of its own here.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use bytes::Bytes;
use vfio_ferry::{
    Answer, Begin, Cause, Completion, DeviceId, DeviceMetrics, DeviceState, Digest, EmbeddedConfig,
    EmbeddedDevice, Epoch, EpochEnding, Estimate, Fault, Host, Latencies, Metrics, Notice,
    Observation, Options, Phase, SessionEvent, SourceDevice, SourceEnding, SourceReport,
    SourceSession, Step, StreamMetrics, TargetDevice, TargetEnding, TargetReport, TargetSession,
    Timeline, Total, Wanted,
};

use crate::event::{self, vferry_event, vferry_event_type::*};
use crate::hosts::AnyReport;
use crate::outcome::{
    vferry_cause::*, vferry_ending::*, vferry_epoch_ending::*, vferry_observed::*, vferry_phase::*,
};
use crate::values::{VFERRY_DEVICE_NONE, VFERRY_VALUE_UNKNOWN, vferry_state::*};
use crate::{report, stats, vferry_backend};

fn text(bytes: &[std::ffi::c_char]) -> String {
    bytes.iter().take_while(|&&byte| byte != 0).map(|&byte| byte as u8 as char).collect()
}

fn fault() -> Fault {
    let (cause, observed) = (Cause::DeviceFailure, Observation::PrecopyInfo);
    Fault::device(DeviceId(7), cause, observed, Some(28), "no room")
}

fn embedded(host: Host) -> Arc<EmbeddedDevice> {
    EmbeddedDevice::new(host, EmbeddedConfig::default()).expect("an eventfd")
}

/// The results of two sessions whose source's SET_STATE failed: only the engine makes such values,
/// and the tests then change them.
fn ended() -> (SourceReport, TargetReport, Completion) {
    let (leaving, coming) = (embedded(Host::Source), embedded(Host::Target));
    let (here, there) = UnixStream::pair().expect("sockets");
    let device =
        SourceDevice { name: "a".into(), device: leaving.clone(), options: Default::default() };
    let source = SourceSession::start(vec![device], vec![here.into()], Options::default());
    let device = TargetDevice { name: "a".into(), device: coming };
    let target = TargetSession::start(vec![device], vec![there.into()], Options::default());
    let (source, target) = (source.expect("starts"), target.expect("starts"));
    source.switchover();
    while leaving.wanted() != Some(Wanted::State(DeviceState::StopCopy)) {
        std::thread::yield_now();
    }
    leaving.answer(Answer::State(DeviceState::StopCopy, Err(5)));
    let mut completion = None;
    while let Some(event) = source.wait_event(None) {
        if let SessionEvent::Notice(Notice::Completion(found)) = event {
            completion = Some(found);
        }
    }
    (source.finish(), target.finish(), completion.expect("a completion"))
}

fn crossed(notice: Notice) -> (vferry_event, Bytes) {
    event::cross(notice).expect("this ABI has it")
}

/// The fields that an event of this type does not use.
fn unused(event: &vferry_event) {
    assert_eq!((event.size, event.reserved), (0, 0));
    if event.r#type != VFERRY_EVENT_ESTIMATE as u32 {
        let sizes = [event.stop_copy_bytes, event.downtime_ns, event.switchover_budget_ns];
        assert_eq!(sizes, [VFERRY_VALUE_UNKNOWN; 3]);
        assert_eq!((event.pending_bytes, event.state_bytes_per_s), (0, 0));
    }
    let of_devices = [VFERRY_EVENT_COMPLETION as u32, VFERRY_EVENT_DEVICE_CAME_BACK as u32];
    if !of_devices.contains(&event.r#type) {
        assert_eq!(event.state, VFERRY_STATE_UNKNOWN as i32);
        assert_eq!((event.epoch, event.epoch_ending), (0, 0));
    }
}

#[test]
fn what_the_path_takes() {
    let (event, _) = crossed(Notice::Path { bytes_per_s: 7, round_trip_ns: 8 });
    assert_eq!(event.r#type, VFERRY_EVENT_PATH as u32);
    assert_eq!((event.path_bytes_per_s, event.latency_ns), (7, 8));
}

#[test]
fn notices_cross() {
    let (event, _) = crossed(Notice::Connected { version: 9, chunk_bytes: 4097 });
    assert_eq!(event.r#type, VFERRY_EVENT_CONNECTED as u32);
    assert_eq!((event.wire_version, event.bytes, event.device), (9, 4097, VFERRY_DEVICE_NONE));
    unused(&event);

    let (event, _) = crossed(Notice::Phase { device: DeviceId(3), phase: Phase::Load });
    assert_eq!(event.r#type, VFERRY_EVENT_PHASE as u32);
    assert_eq!((event.device, event.phase), (3, VFERRY_PHASE_LOAD as u32));
    unused(&event);

    for (precopy, p2p, flags) in [(false, false, 0), (true, false, 1), (false, true, 2)] {
        let opaque = Bytes::from_static(b"config");
        let begin = Begin { precopy, p2p, name: "net0".into(), opaque: opaque.clone() };
        let (event, payload) = crossed(Notice::Begin { device: DeviceId(4), begin });
        assert_eq!(event.r#type, VFERRY_EVENT_BEGIN as u32);
        assert_eq!((event.device, event.flags, event.payload_bytes), (4, flags, 6));
        assert_eq!((text(&event.text), payload), ("net0".into(), opaque));
        unused(&event);
    }

    let (event, _) = crossed(Notice::InitialDataLoaded { device: DeviceId(5) });
    assert_eq!(event.r#type, VFERRY_EVENT_INITIAL_DATA_LOADED as u32);
    assert_eq!((event.device, event.payload_bytes), (5, 0));
    unused(&event);

    let (event, _) = crossed(Notice::HandedOver);
    assert_eq!(event.r#type, VFERRY_EVENT_HANDED_OVER as u32);
    unused(&event);

    let (event, payload) = crossed(Notice::Message(Bytes::from_static(b"hi")));
    assert_eq!((event.r#type, event.payload_bytes), (VFERRY_EVENT_MESSAGE as u32, 2));
    assert_eq!(&payload[..], b"hi");
    unused(&event);
}

#[test]
fn an_estimate_crosses_with_what_is_unknown() {
    let mut estimate = Estimate::default();
    (estimate.pending_bytes, estimate.state_bytes_per_s, estimate.ratio) = (11, 12, 1.5);
    let (event, _) = crossed(Notice::Estimate(estimate));
    assert_eq!((event.r#type, event.flags), (VFERRY_EVENT_ESTIMATE as u32, 0));
    assert_eq!((event.pending_bytes, event.state_bytes_per_s, event.ratio), (11, 12, 1.5));
    let sizes = (event.stop_copy_bytes, event.downtime_ns);
    assert_eq!(sizes, (VFERRY_VALUE_UNKNOWN, VFERRY_VALUE_UNKNOWN));
    unused(&event);

    assert_eq!(event.switchover_budget_ns, VFERRY_VALUE_UNKNOWN);
    estimate.converged = true;
    assert_eq!(crossed(Notice::Estimate(estimate)).0.flags, 8);

    (estimate.stop_copy_bytes, estimate.downtime_ns) = (Some(0), Some(13));
    (estimate.initial_data_loaded, estimate.converged) = (true, false);
    estimate.switchover_budget_ns = Some(14);
    estimate.latency_ns = 6;
    let (mut event, _) = crossed(Notice::Estimate(estimate));
    assert_eq!((event.stop_copy_bytes, event.downtime_ns, event.flags), (0, 13, 4));
    assert_eq!((event.switchover_budget_ns, event.latency_ns), (14, 6));
    let ready = |event: &vferry_event, most| event::vferry_event_is_ready(Some(event), most);
    assert!(ready(&event, 13) && !ready(&event, 12));
    event.downtime_ns = VFERRY_VALUE_UNKNOWN; // Data is pending, and nobody knows for how long.
    assert!(!ready(&event, u64::MAX));
    event.pending_bytes = 0;
    assert!(ready(&event, 0));
    event.flags = 0;
    assert!(!ready(&event, u64::MAX));
}

#[test]
fn completions_and_endings_cross() {
    let (mut source, mut target, mut completion) = ended();
    (completion.device, completion.epoch) = (DeviceId(2), Epoch(3));
    (completion.phase, completion.bytes) = (Phase::StopCopy, 21);
    (completion.ending, completion.state) = (EpochEnding::Restarted, Some(DeviceState::PreCopy));
    completion.fault = Some(fault());
    let (event, _) = crossed(Notice::Completion(completion.clone()));
    assert_eq!(event.r#type, VFERRY_EVENT_COMPLETION as u32);
    assert_eq!((event.device, event.epoch, event.bytes), (2, 3, 21), "not the fault's device");
    assert_eq!((event.ending, event.epoch_ending), (0, VFERRY_EPOCH_RESTARTED as u32));
    assert_eq!(event.phase, VFERRY_PHASE_STOP_COPY as u32);
    assert_eq!((event.state, event.os_error), (VFERRY_STATE_PRE_COPY as i32, 28));
    assert_eq!(event.cause, VFERRY_CAUSE_DEVICE_FAILURE as u32);
    assert_eq!(event.observed, VFERRY_OBSERVED_PRECOPY_INFO as u32);
    assert_eq!(text(&event.text), "no room");
    unused(&event);

    (completion.state, completion.fault) = (None, None);
    let (event, _) = crossed(Notice::Completion(completion));
    assert_eq!((event.state, event.os_error), (VFERRY_STATE_UNKNOWN as i32, 0));
    assert_eq!((event.cause, event.observed, text(&event.text)), (0, 0, String::new()));

    let mut late = source.devices[0].clone();
    (late.device, late.epoch, late.total.bytes) = (DeviceId(6), Epoch(5), 22);
    (late.ending, late.state) = (Some(EpochEnding::Aborted), Some(DeviceState::Stop));
    for (home, was_reset, flags) in [(false, false, 0), (true, false, 16), (true, true, 48)] {
        (late.home, late.was_reset) = (home, was_reset);
        let (event, payload) = crossed(Notice::CameBack(late.clone()));
        assert_eq!(event.r#type, VFERRY_EVENT_DEVICE_CAME_BACK as u32);
        assert_eq!((event.device, event.epoch, event.bytes), (6, 5, 22));
        assert_eq!(event.epoch_ending, VFERRY_EPOCH_ABORTED as u32);
        assert_eq!((event.state, event.flags), (VFERRY_STATE_STOP as i32, flags));
        assert_eq!((event.cause, payload.len()), (0, 0));
        unused(&event);
    }

    source.ending = SourceEnding::NotReturned(fault());
    let event = event::finished(&AnyReport::Source(source));
    assert_eq!(event.r#type, VFERRY_EVENT_FINISHED as u32);
    assert_eq!((event.ending, event.os_error), (VFERRY_ENDING_NOT_RETURNED as u32, 28));
    assert_eq!((event.device, text(&event.text)), (7, "no room".into()), "the fault's device");
    unused(&event);
    target.ending = TargetEnding::Running;
    let event = event::finished(&AnyReport::Target(target));
    assert_eq!((event.ending, event.os_error), (VFERRY_ENDING_RUNNING as u32, 0));
    assert_eq!((event.device, text(&event.text)), (VFERRY_DEVICE_NONE, String::new()));
}

fn metrics() -> Metrics {
    let mut metrics = Metrics::new(2, 3);
    metrics.devices[1] = DeviceMetrics {
        state_bytes: 31,
        wire_bytes: 32,
        device_ns: 33,
        worker_ns: 34,
        link_ns: 35,
    };
    metrics.streams[2] = StreamMetrics {
        sent_bytes: 41,
        received_bytes: 42,
        sent_frames: 43,
        received_frames: 44,
        send_ns: 45,
    };
    // Exact, below what the histogram rounds; the median is not the mean.
    [10, 20, 90].into_iter().for_each(|ns| metrics.record_step(Step::Encode, ns));
    metrics.record_phase(Phase::Stop, 50);
    metrics
}

#[test]
fn a_report_crosses() {
    let (mut source, mut target, _) = ended();
    source.ending = SourceEnding::Unconfirmed(fault());
    source.metrics = metrics();
    (source.backend, source.fallback) = (vfio_ferry::Backend::Syscalls, Some("not here".into()));
    source.timeline = Timeline {
        started_ns: 1,
        connected_ns: Some(2),
        stop_called_ns: Some(3),
        running_ns: Some(4),
        finished_ns: Some(5),
    };
    let one = &mut source.devices[0];
    (one.epoch, one.ending, one.stuck) = (Epoch(6), Some(EpochEnding::Unconfirmed), true);
    one.total = Total { bytes: 61, digest: Digest(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10) };
    (one.discarded_bytes, one.wire_bytes, one.chunks) = (62, 63, [64, 65, 66]);
    (one.state, one.home, one.was_reset) = (Some(DeviceState::Stop), false, true);
    let ns = std::time::Duration::from_nanos;
    one.latencies = Latencies { stop: Some(ns(67)), load: None, run: Some(ns(68)) };
    let source = AnyReport::Source(source);

    let found = report::whole(&source);
    assert_eq!((found.ending, found.device), (VFERRY_ENDING_UNCONFIRMED as u32, 7));
    assert_eq!((found.cause, found.observed), (2, VFERRY_OBSERVED_PRECOPY_INFO as u32));
    assert_eq!((found.os_error, text(&found.text)), (28, "no room".into()));
    let syscalls = vferry_backend::VFERRY_BACKEND_SYSCALLS as u32;
    assert_eq!((found.backend, text(&found.fallback)), (syscalls, "not here".into()));
    assert_eq!((found.devices, found.streams, found.reserved), (2, 3, 0));
    assert_eq!((found.started_ns, found.connected_ns, found.stop_called_ns), (1, 2, 3));
    assert_eq!((found.running_ns, found.finished_ns), (4, 5));
    assert_eq!((found.state_bytes, found.wire_bytes), (31, 42), "the larger direction");

    let found = report::one(&source, 0).expect("it is there");
    assert_eq!((found.device, found.epoch, found.stuck), (0, 6, 1));
    assert_eq!(found.epoch_ending, VFERRY_EPOCH_UNCONFIRMED as u32);
    assert_eq!((found.state, found.bytes), (VFERRY_STATE_STOP as i32, 61));
    assert_eq!(found.digest, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!((found.discarded_bytes, found.wire_bytes), (62, 63));
    assert_eq!((found.zero_chunks, found.raw_chunks, found.zstd_chunks), (64, 65, 66));
    assert_eq!((found.late_frames, found.home, found.was_reset), (0, 0, 1));
    assert_eq!((found.stop_ns, found.load_ns, found.run_ns), (67, VFERRY_VALUE_UNKNOWN, 68));
    assert!(report::one(&source, 1).is_none());
    // What is new in it is to be looked at above, too.
    #[rustfmt::skip]
    let report::vferry_device_report {
        size: _, device: _, epoch: _, epoch_ending: _, state: _, stuck: _, bytes: _, digest: _,
        discarded_bytes: _, wire_bytes: _, zero_chunks: _, raw_chunks: _, zstd_chunks: _,
        late_frames: _, home: _, was_reset: _, stop_ns: _, load_ns: _, run_ns: _,
    } = found;

    let one = &mut target.devices[0];
    (one.epoch, one.ending, one.stuck) = (Epoch(8), None, false);
    (one.state, one.total.bytes, one.home) = (None, 71, true);
    (one.discarded_bytes, one.late_frames) = (72, 73);
    let target = AnyReport::Target(target);
    let found = report::one(&target, 0).expect("it is there");
    assert_eq!((found.epoch, found.epoch_ending, found.stuck), (8, 0, 0));
    assert_eq!((found.state, found.bytes), (VFERRY_STATE_UNKNOWN as i32, 71));
    assert_eq!((found.discarded_bytes, found.late_frames), (72, 73));
    assert_eq!((found.home, found.was_reset), (1, 0));
    let sources = [found.stop_ns, found.load_ns, found.run_ns];
    assert_eq!(sources, [VFERRY_VALUE_UNKNOWN; 3]);
    let sender = (found.wire_bytes, found.zero_chunks, found.raw_chunks, found.zstd_chunks);
    assert_eq!(sender, (0, 0, 0, 0));
    assert_eq!(report::whole(&target).stop_called_ns, 0, "it did not happen here");
}

#[test]
fn figures_cross() {
    let metrics = metrics();
    let found = stats::device_stats(&metrics, 1).expect("it is there");
    assert_eq!((found.device, found.state_bytes, found.wire_bytes), (1, 31, 32));
    assert_eq!((found.device_ns, found.worker_ns, found.link_ns), (33, 34, 35));
    assert!(stats::device_stats(&metrics, 2).is_none());
    let found = stats::stream_stats(&metrics, 2).expect("it is there");
    assert_eq!((found.stream, found.sent_bytes, found.received_bytes), (2, 41, 42));
    assert_eq!((found.sent_frames, found.received_frames, found.send_ns), (43, 44, 45));
    assert!(stats::stream_stats(&metrics, 3).is_none());

    let found = stats::step_stats(&metrics, Step::Encode);
    assert_eq!((found.count, found.min_ns, found.mean_ns), (3, 10, 40));
    assert_eq!((found.p50_ns, found.p99_ns, found.max_ns), (20, 90, 90));
    let found = stats::phase_stats(&metrics, Phase::Stop);
    assert_eq!((found.count, found.min_ns, found.p50_ns), (1, 50, 50));
    let found = stats::step_stats(&metrics, Step::Read);
    let durations = [found.count, found.min_ns, found.mean_ns, found.p50_ns, found.p99_ns];
    assert_eq!((durations, found.max_ns), ([0; 5], 0), "it did not happen");
}
