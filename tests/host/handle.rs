//! What a session's handle answers, before its end and after it.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::error::UsageError;
use vfio_ferry::ids::DeviceId;
use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::outcome::{Cause, DeviceOptions, Observation};
use vfio_ferry::session::{
    Error, Options, Readiness, Session, SessionEvent, Side, SourceSession, TargetSession,
    ThreadHook,
};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry_tests::device::{Content, Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, Pair, Setup, end, sources, streams, targets};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, migrate, talkative};
use vfio_ferry_tests::skip::skip;

fn device(plan: Plan) -> Arc<TestDevice> {
    Arc::new(TestDevice::new(plan))
}

/// A source whose peer says nothing, and the peer's streams.
fn alone() -> (SourceSession, Arc<TestDevice>, Vec<OwnedFd>) {
    let from = device(Plan::default());
    let (ours, theirs) = streams(1);
    let devices = sources(from_ref(&from), &DeviceOptions::default());
    let session = SourceSession::start(devices, ours, Options::default());
    (session.expect("a session"), from, theirs)
}

/// Polls until the session says that it has ended.
fn poll_to_the_end<S: Side>(session: &Session<S>) {
    let start = Instant::now();
    while session.poll_event() != Some(SessionEvent::Finished) {
        assert!(start.elapsed() < PATIENCE, "{:?}", session.report());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(session.has_ended() && session.report().is_some());
}

#[test]
fn a_handle_knows_its_streams_and_when_they_are_closed() {
    let plan = talkative();
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let setup = Setup { streams: 3, ..Setup::default() };
    let pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
    let Pair { source, target, .. } = pair;
    assert_eq!((source.streams(), target.streams()), (3, 3));
    assert_eq!((source.protection().len(), target.protection().len()), (3, 3));
    assert!(!source.wait_closed(Duration::ZERO), "it runs");
    source.switchover();
    poll_to_the_end(&source);
    poll_to_the_end(&target);
    assert!(source.wait_closed(PATIENCE) && target.wait_closed(PATIENCE));
    assert_moved(&from, &to);
}

#[test]
fn who_waits_until_a_source_is_ready_waits_no_longer_than_it_can_be() {
    let (source, _from, _theirs) = alone();
    let ready = source.wait_until_ready(Duration::MAX, Duration::from_millis(20), |_| {});
    assert_eq!(ready, Readiness::Patience(None), "its peer says nothing");
    source.cancel();
    let ready = source.wait_until_ready(Duration::MAX, PATIENCE, |_| {});
    assert_eq!(ready, Readiness::Ended);
    while source.wait_event(Some(PATIENCE)).is_some() {}
    let ready = source.wait_until_ready(Duration::MAX, PATIENCE, |_| {});
    assert_eq!(ready, Readiness::Ended, "its last event was fetched before");
}

#[test]
fn a_session_that_is_dropped_is_cancelled_and_waited_for() {
    let plan = talkative();
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let mut pair = Pair::start(from_ref(&from), from_ref(&to), &Setup::default());
    let ready = pair.source.wait_until_ready(PATIENCE, PATIENCE, |_| {});
    assert!(matches!(ready, Readiness::Ready(_)), "{ready:?}");
    pair.source_notices.clear();
    drop(pair.source);
    assert_eq!(from.state_now(), DeviceState::Running);
    assert_eq!(Arc::strong_count(&from), 1, "nobody has it any more");
    assert_eq!(end(pair.target).fault().map(|fault| fault.cause), Some(Cause::PeerAbort));
}

#[test]
fn a_reset_that_the_embedder_reports_is_followed() {
    let plan = talkative();
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let pair = Pair::start(from_ref(&from), from_ref(&to), &Setup::default());
    let ready = pair.source.wait_until_ready(PATIENCE, PATIENCE, |_| {});
    assert!(matches!(ready, Readiness::Ready(_)), "{ready:?}");
    let unknown = pair.source.device_was_reset(DeviceId(1));
    assert_eq!(unknown, Err(UsageError::UnknownDevice { device: 1 }));
    assert!(!pair.source.has_ended());
    assert_eq!(pair.source.device_was_reset(DeviceId(0)), Ok(()));
    let (source, _target) = pair.end();
    let fault = source.fault().expect("an abort has a cause");
    assert_eq!((fault.cause, fault.observed), (Cause::DeviceReset, Observation::Embedder));
    assert_eq!(from.state_now(), DeviceState::Running);
}

/// The sums of the report are those of what went over the wire: a header a chunk, and its body.
#[test]
fn what_was_measured_is_what_was_moved() {
    let cases = [
        (Policy::Raw, Content::random()),
        (Policy::Raw, Content::zero()),
        (Policy::Zstd(1), Content::structured()),
    ];
    for (policy, content) in cases {
        let mut setup = Setup::default();
        setup.source.policy = policy;
        let (source, target) = migrate(Plan { content, ..talkative() }, &setup);
        let bytes = source.report.devices[0].total.bytes;
        let [zero, raw, zstd] = source.report.devices[0].chunks;
        let (at, came_at) = (&source.report.timeline, &target.report.timeline);
        assert!(at.stop_called_ns.is_some() && at.running_ns.is_none(), "{at:?}");
        assert!(came_at.running_ns.is_some() && came_at.stop_called_ns.is_none(), "{came_at:?}");
        let headers = (zero + raw + zstd) * HEADER_BYTES as u64;
        let (ours, theirs) = (&source.report.metrics.devices[0], &target.report.metrics.devices[0]);
        assert_eq!((ours.state_bytes, theirs.state_bytes), (bytes, bytes));
        assert_eq!(ours.wire_bytes, theirs.wire_bytes, "zeros have a header, too");
        assert!(ours.device_ns > 0 && theirs.device_ns > 0);
        assert_eq!((ours.worker_ns > 0, theirs.worker_ns > 0), (zstd > 0, zstd > 0));
        assert_eq!(theirs.link_ns > 0, raw + zstd > 0, "bodies were received");
        match zstd {
            0 if raw == 0 => assert_eq!(ours.wire_bytes, headers),
            0 => assert_eq!(ours.wire_bytes, bytes + headers),
            _ => assert!((headers..bytes).contains(&ours.wire_bytes), "it shrinks"),
        }
        let sent: u64 = source.report.metrics.streams.iter().map(|stream| stream.sent_bytes).sum();
        let came = target.report.metrics.streams.iter().map(|stream| stream.received_bytes);
        assert!(sent > ours.wire_bytes && came.sum::<u64>() > theirs.wire_bytes);
    }
}

/// What every thread of a session has goes with the last of them.
#[test]
fn a_session_that_is_over_leaves_no_thread() {
    let held = Arc::new(());
    let plan = talkative();
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let mut setup = Setup::default();
    let with = held.clone();
    setup.source.thread_start = Some(ThreadHook::new(move |_| {
        let _ = &with;
        Ok(())
    }));
    let pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
    drop(setup);
    pair.source.switchover();
    let (source, target) = pair.end();
    assert_handed_over(&source, &target);
    let start = Instant::now();
    while Arc::strong_count(&held) > 1 {
        assert!(start.elapsed() < PATIENCE, "a thread is left");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// An address of this host's that is not loopback: a stream to it might as well lead to another host.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn a_stream_that_may_leave_this_host_is_not_used_in_plaintext_unasked() {
    let Some(ip) = own_address() else { return skip("this host has loopback alone") };
    let stream = || {
        let listener = TcpListener::bind((ip, 0)).expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("its address"));
        let (theirs, _) = listener.accept().expect("it connects");
        (vec![OwnedFd::from(ours.expect("its own address"))], vec![OwnedFd::from(theirs)])
    };
    let (from, to) = (device(Plan::default()), device(Plan::default()));
    let source = |streams, options| {
        SourceSession::start(sources(from_ref(&from), &DeviceOptions::default()), streams, options)
    };
    let (ours, theirs) = stream();
    let error = source(ours, Options::default()).expect_err("plaintext");
    assert!(matches!(error, Error::Usage(UsageError::Plaintext { .. })), "{error}");
    let target = TargetSession::start(targets(from_ref(&to)), theirs, Options::default());
    let error = target.expect_err("plaintext");
    assert!(matches!(error, Error::Usage(UsageError::Plaintext { .. })), "{error}");
    let (ours, _theirs) = stream();
    let options = Options { plaintext: true, ..Options::default() };
    drop(source(ours, options).expect("it was asked for"));
}
