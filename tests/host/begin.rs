//! What is found out at a session's start, before anything is moved.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{DeviceOptions, Phase, SourceEnding, TargetEnding};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{
    Error, Options, Readiness, SessionEvent, SourceSession, TargetSession, UsageError, accept,
    connect_within,
};
use vfio_ferry::vfio::device::MigrationDevice;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry_tests::device::{Holding, Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, Pair, Setup, sources, streams, targets};
use vfio_ferry_tests::refuse::where_refused;
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, talkative};

const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Syscalls];

fn device(plan: Plan) -> Arc<TestDevice> {
    Arc::new(TestDevice::new(plan))
}

fn refused(devices: &[Arc<TestDevice>], streams: Vec<OwnedFd>) -> Error {
    let again = |fd: &OwnedFd| fd.try_clone().expect("a duplicate");
    let streams_again: Vec<OwnedFd> = streams.iter().map(again).collect();
    let ours = sources(devices, &DeviceOptions::default());
    let source = SourceSession::start(ours, streams_again, Options::default());
    let target = TargetSession::start(targets(devices), streams, Options::default());
    let (source, target) = (source.expect_err("refused"), target.expect_err("refused"));
    assert_eq!(source.to_string(), target.to_string(), "both hosts say the same");
    source
}

#[test]
fn a_device_that_is_given_twice_is_refused() {
    let one = device(Plan::default());
    let (ours, _theirs) = streams(1);
    let error = refused(&[one.clone(), device(Plan::default()), one], ours);
    let expected = r#""device-0" and "device-2" are the same device"#;
    assert_eq!(error.to_string(), expected);
}

/// Who has no more patience is told how far it was.
#[test]
fn who_waits_no_longer_has_the_last_estimate() {
    let plan = talkative();
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let pair = Pair::start(from_ref(&from), from_ref(&to), &Setup::default());
    // No downtime is short enough; at some time an estimate has come within the patience.
    let patience = Duration::from_millis(20);
    let mut waits = (0..1000).map(|_| {
        let mut notices = Vec::new();
        let ended = pair.source.wait_until_ready(Duration::ZERO, patience, |it| notices.push(it));
        (ended, notices)
    });
    let last = waits.find_map(|(ended, notices)| {
        let estimate = |it: &Notice| matches!(it, Notice::Estimate(_));
        assert!(!notices.iter().any(estimate), "those are the wait's own");
        match ended {
            Readiness::Patience(last) => last,
            other => panic!("{other:?}"),
        }
    });
    assert!(last.is_some(), "the source asks its device again and again");
    pair.source.cancel();
}

#[test]
fn what_is_no_stream_is_refused() {
    let one = [device(Plan::default())];
    let (mut ours, _theirs) = streams(2);
    let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    ours.push(udp.into());
    let error = refused(&one, ours);
    assert!(matches!(error, Error::Usage(UsageError::Stream { index: 2, .. })), "{error}");

    let (mut ours, _theirs) = streams(2);
    ours.push(ours[0].try_clone().expect("a duplicate"));
    let error = refused(&one, ours);
    let same = UsageError::SameStream { first: 0, second: 2 };
    assert!(matches!(&error, Error::Usage(found) if *found == same), "{error}");
    assert_eq!(one[0].trail(), [], "nobody touched the device");
}

#[test]
fn a_device_in_the_middle_of_something_is_refused() {
    let one = device(Plan::default());
    let _data_fd = one.set_state(DeviceState::PreCopy).expect("a legal arc");
    let (ours, _theirs) = streams(1);
    let error = refused(from_ref(&one), ours);
    assert!(matches!(error, Error::DeviceState { state: "PRE_COPY", .. }), "{error}");
    assert_eq!(one.state_now(), DeviceState::PreCopy, "it is where it was");
}

fn paused(plan: Plan) -> Arc<TestDevice> {
    let device = device(plan);
    device.set_state(DeviceState::Stop).expect("a legal arc");
    device
}

#[test]
fn the_device_of_a_paused_vm_is_moved_at_the_switchover_only() {
    for backend in BACKENDS {
        let from = paused(talkative());
        let to = device(from.plan().target());
        let mut setup = Setup::default();
        (setup.source.backend, setup.target.backend) = (backend, backend);
        let pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
        pair.source.switchover();
        let (source, target) = pair.end();
        assert_handed_over(&source, &target);
        assert_moved(&from, &to);
        let in_precopy = |n: &Notice| matches!(n, Notice::Phase { phase: Phase::PreCopy, .. });
        assert!(!source.notices.iter().any(in_precopy));
        let trail = [DeviceState::Stop, DeviceState::StopCopy, DeviceState::Stop];
        assert_eq!(from.trail(), trail, "it never ran");
    }
}

#[test]
fn the_device_of_a_paused_vm_goes_back_to_where_it_was_found() {
    let from = paused(Plan { stalls_at: Some(1 << 20), rest_bytes: 4 << 20, ..Plan::default() });
    let to = device(from.plan().target());
    let pair = Pair::start(from_ref(&from), from_ref(&to), &Setup::default());
    pair.source.switchover();
    while from.passed().bytes < 1 << 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    pair.source.cancel();
    let (source, target) = pair.end();
    let ending = source.report.ending;
    assert!(matches!(ending, SourceEnding::Returned(_)), "{ending}");
    assert_eq!((from.state_now(), from.holding()), (DeviceState::Stop, Holding::Own));
    assert_eq!(source.report.devices[0].state, Some(DeviceState::Stop));
    assert!(matches!(target.report.ending, TargetEnding::Blank(_)));
}

/// A device that is not stopped yet has nothing to send, whatever it can do: padding has the streams.
#[test]
fn how_fast_the_path_is_is_found_out_before_the_guest_is_stopped() {
    for (backend, known) in
        [BACKENDS, BACKENDS].concat().into_iter().zip([false, false, true, true])
    {
        let from = talkative();
        let to = device(from.target());
        let from = device(from);
        let mut setup = Setup::default();
        (setup.source.backend, setup.target.backend) = (backend, backend);
        setup.source.path_bytes_per_s = known.then_some(1_000_000_000);
        setup.device.precopy = false;
        let mut pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
        let is_path = |notice: &Notice| matches!(notice, Notice::Path { .. });
        while !known && !pair.source_notices.iter().any(is_path) {
            match pair.source.wait_event(Some(PATIENCE)) {
                Some(SessionEvent::Notice(notice)) => pair.source_notices.push(notice),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(from.trail(), [], "nobody touched the device");
        pair.source.switchover();
        let (source, target) = pair.end();
        assert_handed_over(&source, &target);
        assert_moved(&from, &to);
        assert_eq!(source.notices.iter().any(is_path), !known);
        let padding = source.report.metrics.wire_bytes() > from.plan().total_bytes() + (1 << 20);
        assert!(!(known && padding), "{} bytes", source.report.metrics.wire_bytes());
    }
}

/// No limit of any kind: nothing panics, and nothing is over at once.
#[test]
fn no_limit_is_no_limit() {
    for backend in BACKENDS {
        let plan = talkative();
        let (from, to) = (device(plan.clone()), device(plan.target()));
        let mut setup = Setup::default();
        for options in [&mut setup.source, &mut setup.target] {
            *options = Options {
                backend,
                peer_silence: Duration::MAX,
                handshake_limit: Duration::MAX,
                stall_limit: Duration::MAX,
                idle_limit: Duration::MAX,
                switchover_budget: Some(Duration::MAX),
                confirm_limit: Duration::MAX,
                cancel_bound: Duration::MAX,
                rate_bytes_per_s: Some(u64::MAX),
                ..Options::default()
            };
        }
        let pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
        let ready = pair.source.wait_until_ready(Duration::MAX, Duration::MAX, |_| {});
        assert!(format!("{ready:?}").starts_with("Ready"), "{ready:?}");
        pair.source.switchover();
        while pair.source.wait_event(Some(Duration::MAX)).is_some() {}
        let endings = (pair.source.finish().ending, pair.target.finish().ending);
        assert_eq!(endings, (SourceEnding::HandedOver, TargetEnding::Running));
        assert_moved(&from, &to);

        // A way back without a limit.
        let (from, to) = (device(plan.clone()), device(plan.target()));
        setup.source.precopy_poll = Duration::MAX;
        let pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
        pair.source.cancel();
        let (source, target) = pair.end();
        assert!(matches!(source.report.ending, SourceEnding::Returned(_)));
        assert!(matches!(target.report.ending, TargetEnding::Blank(_)));
    }
}

#[test]
fn streams_are_accepted_without_a_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let connecting = std::thread::spawn(move || {
        let streams = connect_within(address, 2, Some(Duration::MAX)).expect("it listens");
        let from = device(Plan::default());
        let devices = sources(from_ref(&from), &DeviceOptions::default());
        let session = SourceSession::start(devices, streams, Options::default());
        session.expect("a session")
    });
    let accepted = accept(&listener, Duration::MAX).expect("two streams");
    assert_eq!(accepted.len(), 2);
    drop(connecting.join().expect("no panic"));
}

/// A signal of the embedder's interrupts what waits for a stream, and does not end it.
#[test]
fn an_interrupted_accept_is_made_again_until_its_time_is_over() {
    for call in [libc::SYS_ppoll, libc::SYS_poll] {
        where_refused(call, libc::EINTR, || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let error = accept(&listener, Duration::from_millis(50)).expect_err("nobody connects");
            let Error::Network { source, .. } = error else { panic!("{error}") };
            assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
        });
    }
}

#[test]
fn a_session_that_gets_no_thread_does_not_begin() {
    where_refused(libc::SYS_clone3, libc::EAGAIN, || {
        let devices = [device(Plan::default())];
        let (ours, theirs) = streams(2);
        let error = refused(&devices, ours);
        assert!(matches!(error, Error::System(_)), "{error}");
        assert!(error.to_string().contains("temporarily unavailable"), "{error}");
        assert_eq!(Arc::strong_count(&devices[0]), 1, "nobody has it any more");
        assert_eq!(devices[0].state_now(), DeviceState::Running);
        assert_eq!(devices[0].holding(), Holding::Own);
        drop(theirs);
    });
}
