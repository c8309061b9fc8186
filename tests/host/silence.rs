//! A peer that is there and says nothing: frozen, or cut off, or not reading.

use std::net::TcpListener;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence};
use vfio_ferry::limits::PEER_SILENCE_DEFAULT;
use vfio_ferry::outcome::{Cause, DeviceOptions};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{
    Options, Session, Side as Host, SourceSession, TargetSession, accept, connect,
};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{Accept, Features, Frame, Kind};
use vfio_ferry_tests::device::{Content, Holding, Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, Pair, Setup, end, sources, streams, targets};
use vfio_ferry_tests::peer::{Peer, bytes};
use vfio_ferry_tests::process::{Side, Spec};
use vfio_ferry_tests::runs::assert_handed_over;

const PROGRAM: &str = env!("CARGO_BIN_EXE_ferry-side");
/// How long the peer may be silent. That nobody waits much longer is seen where time is simulated;
/// here that this is what they wait for, and that they end.
const SILENCE: Duration = Duration::from_millis(1500);
const REST_BYTES: u64 = 64 << 20;

fn options() -> Options {
    Options { peer_silence: SILENCE, ..Options::default() }
}

fn assert_lost<H: Host>(session: Session<H>) {
    let ended = end(session);
    let fault = ended.fault().expect("an abort has a cause");
    assert_eq!(fault.cause, Cause::Network, "{fault}");
    // Looked at when it is due, which on a busy machine is later; what was chosen, not the default.
    let said = fault.message.strip_prefix("the peer was silent for ").expect("why");
    let (ms, _) = said.split_once(" ms").expect("for how long");
    let silent = Duration::from_millis(ms.parse().expect("a number"));
    assert!((SILENCE..PEER_SILENCE_DEFAULT).contains(&silent), "{fault}");
}

/// Waits until some of the state has moved.
fn wait_for_bytes(device: &TestDevice) {
    let deadline = Instant::now() + PATIENCE;
    while device.passed().bytes < 1 << 20 {
        assert!(Instant::now() < deadline, "nothing moves");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_source_gives_a_frozen_target_up() {
    let spec = Spec { is_source: false, rest_bytes: REST_BYTES, ..Spec::default() };
    let peer = Side::spawn(PROGRAM, &spec);
    let streams = connect(("127.0.0.1", peer.port()), spec.streams).expect("it listens");
    // What the target cannot get: so the migration is under way when it freezes.
    let plan = Plan { rest_bytes: REST_BYTES, stalls_at: Some(REST_BYTES / 2), ..Plan::default() };
    let device = Arc::new(TestDevice::new(plan));
    let devices = sources(from_ref(&device), &DeviceOptions::default());
    let session = SourceSession::start(devices, streams, options()).expect("a session");
    session.switchover();
    wait_for_bytes(&device);
    peer.signal(Signal::STOP);
    assert_lost(session);
    assert_eq!((device.state_now(), device.holding()), (DeviceState::Running, Holding::Own));
}

#[test]
fn a_target_gives_a_frozen_source_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let spec = Spec { port, rest_bytes: REST_BYTES, ..Spec::default() };
    let peer = Side::spawn(PROGRAM, &spec);
    let streams = accept(&listener, PATIENCE).expect("it connects");
    // A device that takes no more: so the migration is under way when the source freezes.
    let device = Arc::new(TestDevice::new(Plan {
        stalls_at: Some(REST_BYTES / 2),
        expects_bytes: REST_BYTES,
        ..Plan::default()
    }));
    let session = TargetSession::start(targets(from_ref(&device)), streams, options());
    let session = session.expect("a session");
    wait_for_bytes(&device);
    peer.signal(Signal::STOP);
    assert_lost(session);
    assert_eq!((device.state_now(), device.holding()), (DeviceState::Running, Holding::Blank));
}

#[test]
fn a_source_gives_up_a_target_that_does_not_read() {
    let (ours, mut theirs) = streams(1);
    let device = Arc::new(TestDevice::new(Plan { rest_bytes: REST_BYTES, ..Plan::default() }));
    let devices = sources(from_ref(&device), &DeviceOptions::default());
    let session = SourceSession::start(devices, ours, options()).expect("a session");
    session.switchover();
    let mut peer = Peer::from(theirs.remove(0));
    let hello = peer.expect_hello();
    let accept = Accept {
        version: 1,
        features: Features::ALL,
        chunk_bytes: hello.chunk_bytes,
        session: hello.session,
    };
    peer.send(&bytes(&Frame::Accept(accept)));
    assert!(peer.expect(Kind::BEGIN).is_some());
    let credit = Frame::Credit { device: DeviceId(0), epoch: Epoch(0), up_to: Sequence(1 << 40) };
    peer.send(&bytes(&credit));
    assert_lost(session);
    assert_eq!((device.state_now(), device.holding()), (DeviceState::Running, Holding::Own));
    drop(peer);
}

#[test]
fn a_session_gives_up_a_peer_that_never_says_a_word() {
    let (ours, theirs) = streams(2);
    let device = Arc::new(TestDevice::new(Plan::default()));
    let source = sources(from_ref(&device), &DeviceOptions::default());
    let source = SourceSession::start(source, ours, options()).expect("a session");
    let (others, _silent) = streams(2);
    let target = TargetSession::start(targets(from_ref(&device)), others, options());
    assert_lost(source);
    assert_lost(target.expect("a session"));
    assert_eq!(device.trail(), [], "nobody touched the device");
    drop(theirs);
}

/// One frame takes longer than a peer may be silent, and its bytes move all the time.
#[test]
fn a_slow_path_is_not_taken_for_a_silent_peer() {
    for backend in [BackendChoice::Auto, BackendChoice::Syscalls] {
        let plan = Plan { rest_bytes: 5 << 20, content: Content::random(), ..Plan::default() };
        let (from, to) =
            (Arc::new(TestDevice::new(plan.clone())), Arc::new(TestDevice::new(plan.target())));
        let mut setup = Setup { streams: 1, ..Setup::default() };
        for options in [&mut setup.source, &mut setup.target] {
            let (chunk_bytes, memory_bytes) = (4 << 20, 128 << 20);
            let peer_silence = SILENCE;
            *options =
                Options { backend, chunk_bytes, memory_bytes, peer_silence, ..options.clone() };
        }
        setup.source.policy = Policy::Raw;
        setup.source.rate_bytes_per_s = Some(1 << 20);
        let pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
        pair.source.switchover();
        let (source, target) = pair.end();
        assert_handed_over(&source, &target);
    }
}
