//! Drivers that answer after the session's end: nobody waits for them, and their devices are brought
//! back when they do.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_ferry::machine::{DeviceReport, Notice};
use vfio_ferry::outcome::{SourceEnding, TargetEnding};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{Session, SessionEvent, Side};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry_tests::device::{Holding, Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, Pair, Setup, end};
use vfio_ferry_tests::watched::Watched;

const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Syscalls];

fn setup(backend: BackendChoice) -> Setup {
    let mut setup = Setup::default();
    for options in [&mut setup.source, &mut setup.target] {
        options.backend = backend;
        options.cancel_bound = Duration::from_millis(300);
    }
    setup
}

fn plan(holds: DeviceState) -> Plan {
    Plan { initial_bytes: 1 << 20, rest_bytes: 1 << 20, holds: Some(holds), ..Plan::default() }
}

fn pair(from: &Arc<TestDevice>, to: &Arc<TestDevice>, backend: BackendChoice) -> Pair {
    let [leaving, coming] = [from, to].map(Watched::of);
    let pair = Pair::start(from_ref(&leaving), from_ref(&coming), &setup(backend));
    pair.source.switchover();
    leaving.wait_until_it_stands();
    coming.wait_until_it_stands();
    pair
}

/// Fetches events to the end and no further.
fn to_the_end<S: Side>(session: &Session<S>) {
    loop {
        match session.wait_event(Some(PATIENCE)).expect("it ends") {
            SessionEvent::Finished => return,
            event => assert!(!format!("{event:?}").contains("CameBack"), "{event:?}"),
        }
    }
}

/// What is told of the device that is late, once its driver answers, and that nothing follows.
fn came_back<S: Side>(session: &Session<S>, device: &TestDevice) -> DeviceReport {
    assert_eq!(session.poll_event(), None, "its driver has not answered");
    let past = Some(Duration::ZERO);
    assert_eq!(session.wait_event(past), None, "its driver has not answered");
    device.release();
    let Some(SessionEvent::Notice(Notice::CameBack(report))) = session.wait_event(None) else {
        panic!("it came back")
    };
    assert_eq!(session.wait_event(None), None, "it is told once");
    report
}

#[test]
fn a_late_device_of_the_source_comes_back() {
    for backend in BACKENDS {
        let from = Arc::new(TestDevice::new(plan(DeviceState::StopCopy)));
        let to = Arc::new(TestDevice::new(Plan::default()));
        let pair = pair(&from, &to, backend);
        pair.source.cancel();
        to_the_end(&pair.source);
        let report = pair.source.report().expect("it has ended");
        assert!(matches!(report.ending, SourceEnding::NotReturned(_)), "{}", report.ending);
        assert_eq!((report.devices[0].home, report.devices[0].state), (false, None));
        // The streams are not the driver's.
        assert!(pair.source.wait_closed(PATIENCE));
        let late = came_back(&pair.source, &from);
        assert_eq!((late.home, late.state), (true, Some(DeviceState::Running)));
        assert_eq!((from.state_now(), from.holding()), (DeviceState::Running, Holding::Own));
        assert_eq!(Arc::strong_count(&from), 1, "the session holds it no more");
        assert!(matches!(end(pair.target).report.ending, TargetEnding::Blank(_)));
    }
}

#[test]
fn a_late_device_of_the_target_is_made_blank() {
    for backend in BACKENDS {
        for holds in [DeviceState::Resuming, DeviceState::Stop] {
            let plan = Plan { holds: None, ..plan(holds) };
            let to = Arc::new(TestDevice::new(Plan { holds: Some(holds), ..plan.target() }));
            let from = Arc::new(TestDevice::new(plan));
            let pair = pair(&from, &to, backend);
            pair.target.cancel();
            to_the_end(&pair.target);
            let report = pair.target.report().expect("it has ended");
            assert!(matches!(report.ending, TargetEnding::NotBlank(_)), "{}", report.ending);
            let late = came_back(&pair.target, &to);
            assert_eq!((late.home, late.state), (true, Some(DeviceState::Running)), "{holds}");
            assert_eq!((to.state_now(), to.holding()), (DeviceState::Running, Holding::Blank));
            assert!(matches!(end(pair.source).report.ending, SourceEnding::Returned(_)));
        }
    }
}

#[test]
fn a_device_that_was_handed_over_is_stopped_when_its_driver_answers() {
    let plan = plan(DeviceState::Stop);
    let to = Arc::new(TestDevice::new(Plan { holds: None, ..plan.target() }));
    let from = Arc::new(TestDevice::new(plan));
    let pair = pair(&from, &to, BackendChoice::Auto);
    to_the_end(&pair.source);
    let report = pair.source.report().expect("it has ended");
    assert_eq!(report.ending, SourceEnding::HandedOver);
    assert_eq!(report.devices[0].state, None);
    let late = came_back(&pair.source, &from);
    assert_eq!((late.home, late.state), (false, Some(DeviceState::Stop)));
    assert_eq!(from.state_now(), DeviceState::Stop);
    assert_eq!(end(pair.target).report.ending, TargetEnding::Running);
}

/// Who has let go of its session hears nothing, but the device comes back.
#[test]
fn a_late_device_comes_back_when_nobody_listens_any_more() {
    for drops in [true, false] {
        let from = Arc::new(TestDevice::new(plan(DeviceState::StopCopy)));
        let to = Arc::new(TestDevice::new(Plan::default()));
        let Pair { source, target, .. } = pair(&from, &to, BackendChoice::Auto);
        if drops {
            drop(source);
        } else {
            source.cancel();
            let ending = source.finish().ending;
            assert!(matches!(ending, SourceEnding::NotReturned(_)), "{ending}");
        }
        assert_ne!(from.state_now(), DeviceState::StopCopy, "its driver has not answered");
        from.release();
        let deadline = Instant::now() + PATIENCE;
        while Arc::strong_count(&from) > 1 {
            assert!(Instant::now() < deadline, "it does not come back");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!((from.state_now(), from.holding()), (DeviceState::Running, Holding::Own));
        drop(target);
    }
}

/// Its embedder may take a device away once the session has ended, though another is late.
#[test]
fn a_device_that_is_home_is_let_go_of_while_another_is_late() {
    for backend in BACKENDS {
        let both = [plan(DeviceState::StopCopy), Plan { holds: None, ..plan(DeviceState::Stop) }];
        let from = both.clone().map(|plan| Arc::new(TestDevice::new(plan)));
        let to = both.map(|plan| Arc::new(TestDevice::new(plan.target())));
        let leaving = from.each_ref().map(Watched::of);
        let coming = to.each_ref().map(Watched::of);
        let mut setup = setup(backend);
        setup.source.cancel_bound = Duration::from_secs(3);
        let pair = Pair::start(&leaving, &coming, &setup);
        pair.source.switchover();
        leaving[0].wait_until_it_stands();
        pair.source.cancel();
        to_the_end(&pair.source);
        let report = pair.source.report().expect("it has ended");
        let home = report.devices.iter().map(|device| device.home);
        assert_eq!(home.collect::<Vec<_>>(), [false, true]);
        assert_eq!(Arc::strong_count(&leaving[1]), 1, "nobody else has it any more");
        from[0].release();
        drop(pair);
    }
}

/// A read that does not return keeps its thread, its slot and its fd; the device is home without it.
#[test]
fn a_stuck_read_is_waited_for_by_nobody_and_its_end_ends_the_session() {
    let plan = Plan { rest_bytes: 4 << 20, sticks_at: Some(1 << 20), ..Plan::default() };
    let to = Arc::new(TestDevice::new(plan.target()));
    let from = Arc::new(TestDevice::new(plan));
    let pair = pair(&from, &to, BackendChoice::Auto);
    pair.source.cancel();
    to_the_end(&pair.source);
    let report = pair.source.report().expect("it has ended");
    assert!(matches!(report.ending, SourceEnding::Returned(_)), "{}", report.ending);
    assert!(report.devices[0].stuck && report.devices[0].home);
    assert_eq!(pair.source.wait_event(Some(Duration::ZERO)), None);
    from.release();
    assert_eq!(pair.source.wait_event(None), None, "it was home already");
    drop(pair.target);
}

#[test]
fn the_end_waits_for_no_stream() {
    let from = Arc::new(TestDevice::new(Plan::default()));
    let (ours, theirs) = vfio_ferry_tests::pair::streams(2);
    let devices = vfio_ferry_tests::pair::sources(from_ref(&from), &Default::default());
    let session = vfio_ferry::session::SourceSession::start(devices, ours, Default::default());
    let session = session.expect("a session");
    session.cancel();
    to_the_end(&session);
    // The peer closes nothing; before this end does, its word is there to be read.
    assert!(!session.wait_closed(Duration::ZERO), "nobody has waited for the peer");
    assert!(session.wait_closed(PATIENCE));
    drop((session, theirs));
}
