//! A migration can be given up at any time and ends within a bound, whatever a driver, a peer or a
//! data fd is waiting for.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_ferry::ids::DeviceId;
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{Cause, DeviceOptions, OnReset, Phase, SourceEnding, TargetEnding};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{Options, Session, SessionEvent, Side, SourceSession};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry_tests::device::{Conduit, Holding, Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, Pair, Setup, end, sources, streams};
use vfio_ferry_tests::runs::assert_handed_over;
use vfio_ferry_tests::watched::Watched;

/// What the embedder allows: enough for the threads of a busy machine to be heard at all. A driver
/// that blocks is let go only after the end, so an end shows that there is a bound; how exact it is
/// shows where time is simulated.
const BOUND: Duration = Duration::from_secs(1);
const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Syscalls];

fn setup(backend: BackendChoice) -> Setup {
    let mut setup = Setup::default();
    for options in [&mut setup.source, &mut setup.target] {
        options.backend = backend;
        options.cancel_bound = BOUND;
    }
    setup
}

fn plan() -> Plan {
    Plan { initial_bytes: 1 << 20, rest_bytes: 4 << 20, ..Plan::default() }
}

/// Waits until a device enters the phase.
fn wait_for<S: Side>(session: &Session<S>, wanted: Phase) {
    loop {
        match session.wait_event(Some(PATIENCE)) {
            Some(SessionEvent::Notice(Notice::Phase { phase, .. })) if phase == wanted => return,
            Some(SessionEvent::Notice(_)) => {}
            other => panic!("{wanted} does not come: {other:?}"),
        }
    }
}

/// Where a migration stands still, and so where it is cancelled.
struct Halt {
    what: &'static str,
    source: fn(&mut Plan),
    target: fn(&mut Plan),
    /// Entered by the source before the cancel.
    phase: Phase,
    /// The source's driver does not come back before the end.
    source_blocks: bool,
    target_blocks: bool,
}

fn halts() -> Vec<Halt> {
    let halt = |what, source, target, phase| Halt {
        what,
        source,
        target,
        phase,
        source_blocks: false,
        target_blocks: false,
    };
    let nothing = |_: &mut Plan| {};
    vec![
        Halt {
            source_blocks: true,
            ..halt(
                "SET_STATE(PRE_COPY)",
                |plan| plan.holds = Some(DeviceState::PreCopy),
                nothing,
                Phase::Start,
            )
        },
        halt("PRE_COPY data", |plan| plan.stalls_at = Some(500_000), nothing, Phase::PreCopy),
        Halt {
            source_blocks: true,
            ..halt(
                "SET_STATE(STOP_COPY)",
                |plan| plan.holds = Some(DeviceState::StopCopy),
                nothing,
                Phase::Stop,
            )
        },
        halt("STOP_COPY data", |plan| plan.stalls_at = Some(3 << 20), nothing, Phase::StopCopy),
        Halt {
            source_blocks: true,
            ..halt("a read", |plan| plan.sticks_at = Some(3 << 20), nothing, Phase::StopCopy)
        },
        halt("a full resume fd", nothing, |plan| plan.stalls_at = Some(2 << 20), Phase::StopCopy),
        Halt {
            target_blocks: true,
            ..halt("a write", nothing, |plan| plan.sticks_at = Some(2 << 20), Phase::StopCopy)
        },
        Halt {
            target_blocks: true,
            ..halt(
                "SET_STATE(RESUMING)",
                nothing,
                |plan| plan.holds = Some(DeviceState::Resuming),
                Phase::StopCopy,
            )
        },
        Halt {
            target_blocks: true,
            ..halt(
                "SET_STATE(STOP) out of RESUMING",
                nothing,
                |plan| plan.holds = Some(DeviceState::Stop),
                Phase::Load,
            )
        },
    ]
}

/// Cancels on one host while the migration stands still, on both backends.
fn cancel_everywhere(on_source: bool) {
    for backend in BACKENDS {
        for halt in halts() {
            let what = format!("{} with {backend:?}", halt.what);
            println!("{what}");
            let mut plan = plan();
            let mut target_plan = plan.target();
            (halt.source)(&mut plan);
            (halt.target)(&mut target_plan);
            let (from, to) =
                (Arc::new(TestDevice::new(plan)), Arc::new(TestDevice::new(target_plan)));
            let [leaving, coming] = [&from, &to].map(Watched::of);
            let mut setup = setup(backend);
            if !halt.source_blocks && !halt.target_blocks {
                // Nothing has to be given up, however busy the machine is.
                setup.source.cancel_bound = PATIENCE;
                setup.target.cancel_bound = PATIENCE;
            }
            let pair = Pair::start(from_ref(&leaving), from_ref(&coming), &setup);
            if halt.phase > Phase::PreCopy {
                pair.source.switchover();
            }
            wait_for(&pair.source, halt.phase);
            // Into the middle of what stands still, wherever that is.
            leaving.wait_until_it_stands();
            coming.wait_until_it_stands();
            if on_source {
                pair.source.cancel();
            } else {
                pair.target.cancel();
            }
            let source = end(pair.source);
            let target = end(pair.target);
            for (fault, is_first) in [(source.fault(), on_source), (target.fault(), !on_source)] {
                let fault = fault.expect("an abort has a cause");
                let cause = if is_first { Cause::Cancelled } else { Cause::PeerAbort };
                assert_eq!(fault.cause, cause, "{what}: {fault}");
            }
            // A call that has not returned leaves nobody knowing; an operation on a data fd does
            // not keep a device from its way back.
            let back = matches!(source.report.ending, SourceEnding::Returned(_));
            let calls = ["SET_STATE(PRE_COPY)", "SET_STATE(STOP_COPY)"];
            assert_eq!(back, !calls.contains(&halt.what), "{what}: {}", source.report.ending);
            let blank = matches!(target.report.ending, TargetEnding::Blank(_));
            let calls = ["SET_STATE(RESUMING)", "SET_STATE(STOP) out of RESUMING"];
            assert_eq!(blank, !calls.contains(&halt.what), "{what}: {}", target.report.ending);
            if !halt.source_blocks {
                assert_eq!(from.state_now(), DeviceState::Running, "{what}");
                assert_eq!(from.holding(), Holding::Own, "{what}");
            }
            if !halt.target_blocks {
                assert_eq!(to.state_now(), DeviceState::Running, "{what}");
                assert!(matches!(to.holding(), Holding::Blank | Holding::Own), "{what}");
            }
            let (ours, theirs) = (&source.report.devices[0], &target.report.devices[0]);
            assert_eq!(ours.state == Some(DeviceState::Running), back, "{what}: {ours:?}");
            assert_eq!(ours.stuck, halt.what == "a read", "{what}");
            assert_eq!(theirs.stuck, halt.what == "a write", "{what}");
            from.release();
            to.release();
        }
    }
}

#[test]
fn a_source_is_cancelled_wherever_it_stands() {
    cancel_everywhere(true);
}

#[test]
fn a_target_is_cancelled_wherever_it_stands() {
    cancel_everywhere(false);
}

#[test]
fn a_session_without_a_peer_is_cancelled() {
    for backend in BACKENDS {
        let device = Arc::new(TestDevice::new(plan()));
        let (ours, _theirs) = streams(2);
        let options = Options { backend, cancel_bound: BOUND, ..Options::default() };
        let devices = sources(from_ref(&device), &DeviceOptions::default());
        let session = SourceSession::start(devices, ours, options).expect("a session");
        session.cancel();
        session.cancel();
        let ended = end(session);
        let SourceEnding::Returned(fault) = ended.report.ending else {
            panic!("nobody touched it")
        };
        assert_eq!(fault.cause, Cause::Cancelled);
        assert_eq!(device.trail(), [], "nobody touched the device");
    }
}

#[test]
fn a_cancel_after_the_end_changes_nothing() {
    let plan = plan();
    let (from, to) =
        (Arc::new(TestDevice::new(plan.clone())), Arc::new(TestDevice::new(plan.target())));
    let pair = Pair::start(from_ref(&from), from_ref(&to), &Setup::default());
    pair.source.switchover();
    wait_for(&pair.target, Phase::Resume);
    pair.source.cancel();
    pair.target.cancel();
    let (source, target) = pair.end();
    assert_handed_over(&source, &target);
}

#[test]
fn a_driver_that_does_not_stop_a_device_that_was_handed_over_holds_nobody_up() {
    let plan = Plan { holds: Some(DeviceState::Stop), ..plan() };
    let to = Arc::new(TestDevice::new(plan.target()));
    let from = Arc::new(TestDevice::new(plan));
    let pair = Pair::start(from_ref(&from), from_ref(&to), &setup(BackendChoice::Auto));
    pair.source.switchover();
    wait_for(&pair.source, Phase::Handover);
    let source = end(pair.source);
    assert_eq!(source.report.devices[0].state, None, "SET_STATE(STOP) has not returned");
    assert_handed_over(&source, &end(pair.target));
    from.release();
}

#[test]
fn what_was_heard_before_a_call_that_does_not_return_is_not_told() {
    let plan = Plan { holds: Some(DeviceState::StopCopy), ..plan() };
    let to = Arc::new(TestDevice::new(plan.target()));
    let from = Arc::new(TestDevice::new(plan));
    let mut setup = setup(BackendChoice::Auto);
    setup.device.on_reset = OnReset::restart();
    let pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
    wait_for(&pair.source, Phase::PreCopy);
    // Its new epoch begins with GET_STATE, which says RUNNING.
    pair.source.device_was_reset(DeviceId(0)).expect("it has that device");
    wait_for(&pair.source, Phase::PreCopy);
    pair.source.switchover();
    let deadline = Instant::now() + PATIENCE;
    while from.trail().last() != Some(&DeviceState::StopCopy) {
        assert!(Instant::now() < deadline, "it is not stopped");
        std::thread::sleep(Duration::from_millis(1));
    }
    pair.source.cancel();
    let source = end(pair.source);
    let ending = &source.report.ending;
    assert!(matches!(ending, SourceEnding::NotReturned(_)), "{ending}");
    assert_eq!(source.report.devices[0].state, None);
    from.release();
    let ending = end(pair.target).report.ending;
    assert!(matches!(ending, TargetEnding::Blank(_)), "{ending}");
}

#[test]
fn dropping_a_session_cancels_it() {
    for conduit in [Conduit::Pipe, Conduit::File] {
        for drop_source in [true, false] {
            let plan = Plan { conduit, rest_bytes: 64 << 20, ..plan() };
            let (from, to) =
                (Arc::new(TestDevice::new(plan.clone())), Arc::new(TestDevice::new(plan.target())));
            let Pair { source, target, .. } =
                Pair::start(from_ref(&from), from_ref(&to), &setup(BackendChoice::Auto));
            // It stands in PRE_COPY for as long as nobody switches over.
            wait_for(&source, Phase::PreCopy);
            let fault = if drop_source {
                drop(source);
                end(target).fault().cloned()
            } else {
                drop(target);
                end(source).fault().cloned()
            };
            let fault = fault.expect("it was given up");
            assert_eq!(fault.cause, Cause::PeerAbort, "{fault}");
            assert_eq!(from.state_now(), DeviceState::Running);
            assert_eq!(to.state_now(), DeviceState::Running);
            // Its own if the cancel came before the begin.
            assert!(matches!(to.holding(), Holding::Blank | Holding::Own));
        }
    }
}
