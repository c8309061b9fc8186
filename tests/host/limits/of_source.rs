//! A source whose target lives and does nothing.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use vfio_ferry::ids::{DeviceId, Epoch, Sequence};
use vfio_ferry::outcome::{DeviceOptions, SourceEnding};
use vfio_ferry::session::{Options, SourceSession};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{Accept, Features, Frame, Kind};
use vfio_ferry_tests::device::{Holding, Plan, TestDevice};
use vfio_ferry_tests::pair::{end, sources, streams};
use vfio_ferry_tests::peer::{Peer, bytes};

use crate::{Deed, LIFE, LIMIT, assert_limit, deed, handshake, stall};

/// More than two sockets hold, so that a target that reads nothing is felt.
const MUCH: u64 = 64 << 20;
const DEVICE: DeviceId = DeviceId(0);

/// What becomes of a source with these options whose target does that: the ending and the device's
/// state.
fn play(
    options: Options,
    device: DeviceOptions,
    rest_bytes: u64,
    count: usize,
    (limit, owed): (&str, &str),
    deed: Deed,
) -> (SourceEnding, Arc<TestDevice>) {
    let plan = Plan { initial_bytes: 1 << 20, rest_bytes, ..Plan::default() };
    let from = Arc::new(TestDevice::new(plan));
    let (ours, theirs) = streams(count);
    let session = SourceSession::start(sources(from_ref(&from), &device), ours, options);
    let session = session.expect("a source");
    session.switchover();
    let target = std::thread::spawn(|| deed(theirs.into_iter().map(Peer::from).collect()));
    let ended = end(session);
    let heard = target.join().expect("the target");
    assert_limit(limit, owed, ended.fault().expect("why"), heard.as_ref());
    (ended.report.ending, from)
}

/// The session gives up, and the device is home.
fn assert_returns(
    options: Options,
    device: DeviceOptions,
    rest_bytes: u64,
    count: usize,
    why: (&str, &str),
    deed: Deed,
) {
    let (ending, from) = play(options, device, rest_bytes, count, why, deed);
    assert!(matches!(ending, SourceEnding::Returned(_)), "{ending}");
    assert_eq!((from.state_now(), from.holding()), (DeviceState::Running, Holding::Own));
    assert_eq!((from.violations(), from.resets()), (vec![], 0));
}

fn accept(peer: &mut Peer) {
    let accept = accepted(peer);
    peer.send(&accept);
}

/// The answer to the hello that comes first.
fn accepted(peer: &mut Peer) -> Vec<u8> {
    let hello = peer.expect_hello();
    let (features, chunk_bytes) = (Features::ALL, hello.chunk_bytes);
    bytes(&Frame::Accept(Accept { version: 1, features, chunk_bytes, session: hello.session }))
}

fn credit(peer: &mut Peer) {
    let up_to = Sequence(1 << 40);
    peer.send(&bytes(&Frame::Credit { device: DEVICE, epoch: Epoch(0), up_to }));
}

/// All of the state at once, with the guest stopped.
fn stopped() -> DeviceOptions {
    DeviceOptions { precopy: false, ..DeviceOptions::default() }
}

#[test]
fn an_accept_that_comes_byte_for_byte() {
    let why = ("handshake_limit", "accepted every stream");
    let trickles = deed(|mut peers| {
        let accept = accepted(&mut peers[0]);
        peers[0].trickle(&accept, LIFE);
        None
    });
    assert_returns(handshake(), DeviceOptions::default(), 0, 1, why, trickles);
}

#[test]
fn one_accept_for_two_streams() {
    let why = ("handshake_limit", "accepted every stream");
    let half = deed(|mut peers| {
        accept(&mut peers[0]);
        peers[0].chatter(LIFE)
    });
    assert_returns(handshake(), DeviceOptions::default(), 0, 2, why, half);
}

#[test]
fn a_target_that_never_gives_credit() {
    for device in [DeviceOptions::default(), stopped()] {
        let why = ("stall_limit", "the target does not take the frames");
        let takes_nothing = deed(|mut peers| {
            accept(&mut peers[0]);
            assert!(peers[0].expect(Kind::BEGIN).is_some());
            peers[0].chatter(LIFE)
        });
        assert_returns(stall(), device, 1 << 20, 1, why, takes_nothing);
    }
}

#[test]
fn a_target_that_gives_credit_and_does_not_read() {
    let why = ("stall_limit", "the streams do not take the frames");
    let reads_nothing = deed(|mut peers| {
        accept(&mut peers[0]);
        credit(&mut peers[0]);
        peers[0].chatter_deaf(LIFE);
        None
    });
    assert_returns(stall(), stopped(), MUCH, 1, why, reads_nothing);
}

#[test]
fn a_target_that_never_says_loaded() {
    for options in [
        ("stall_limit", stall()),
        ("switchover_budget", Options { switchover_budget: Some(LIMIT), ..Options::default() }),
    ] {
        let (limit, options) = options;
        let never_loads = deed(|mut peers| {
            accept(&mut peers[0]);
            credit(&mut peers[0]);
            assert!(peers[0].expect(Kind::END).is_some());
            peers[0].chatter(LIFE)
        });
        let why = (limit, "loaded");
        assert_returns(options, stopped(), 1 << 20, 1, why, never_loads);
    }
}

#[test]
fn a_target_that_is_told_to_run_and_never_says_that_it_does() {
    let options = Options { confirm_limit: LIMIT, ..Options::default() };
    let never_runs = deed(|mut peers| {
        let peer = &mut peers[0];
        accept(peer);
        credit(peer);
        let end = peer.expect_frame(Kind::END);
        let Some(Frame::End(_, total)) = end else { panic!("no end but {end:?}") };
        peer.send(&bytes(&Frame::Loaded { device: DEVICE, epoch: Epoch(0), total }));
        assert!(peer.expect(Kind::HANDOVER).is_some());
        // Nobody says why to a target that may run.
        assert_eq!(peer.chatter(LIFE), None);
        None
    });
    let (ending, from) =
        play(options, stopped(), 1 << 20, 1, ("confirm_limit", "the target"), never_runs);
    assert!(matches!(ending, SourceEnding::Unconfirmed(_)), "{ending}");
    assert_eq!((from.state_now(), from.violations()), (DeviceState::Stop, vec![]));
}

/// Nothing is too long to be waited for: no wait panics, or is over at once.
#[test]
fn no_limit_is_no_limit() {
    let options = Options {
        handshake_limit: Duration::MAX,
        idle_limit: Duration::MAX,
        switchover_budget: Some(Duration::MAX),
        confirm_limit: Duration::MAX,
        precopy_poll: Duration::MAX,
        peer_silence: Duration::MAX,
        cancel_bound: Duration::MAX,
        ..stall()
    };
    let never_loads = deed(|mut peers| {
        accept(&mut peers[0]);
        credit(&mut peers[0]);
        assert!(peers[0].expect(Kind::END).is_some());
        peers[0].chatter(LIFE)
    });
    assert_returns(options, stopped(), 1 << 20, 1, ("stall_limit", "loaded"), never_loads);
}
