//! A whole migration of one device, and what every one must come to.

use std::sync::Arc;

use vfio_ferry::session::{Readiness, Source, SourceEnding, Target, TargetEnding};
use vfio_ferry::vfio::state::DeviceState;

use crate::device::{Holding, Plan, Round, TestDevice};
use crate::pair::{Ended, Pair, Setup};

/// A device that has everything to say in PRE_COPY.
pub fn talkative() -> Plan {
    Plan {
        initial_bytes: 3_000_000,
        rounds: vec![
            Round { bytes: 700_001, reinit: false },
            Round { bytes: 400_000, reinit: true },
            Round { bytes: 4, reinit: false },
        ],
        rest_bytes: 2_000_000,
        ..Plan::default()
    }
}

/// The device was handed over: the target has the source's state to the byte, and runs.
pub fn assert_moved(from: &TestDevice, to: &TestDevice) {
    let (gave, took) = (from.passed(), to.passed());
    assert_eq!(gave.bytes, from.plan().total_bytes(), "the source was read to its end");
    assert_eq!(gave, took, "other bytes arrived");
    assert_eq!(to.holding(), Holding::Loaded(took));
    assert_eq!((from.state_now(), to.state_now()), (DeviceState::Stop, DeviceState::Running));
    assert_eq!((from.violations(), to.violations()), (vec![], vec![]));
}

/// Both hosts say that the target runs the devices.
pub fn assert_handed_over(source: &Ended<Source>, target: &Ended<Target>) {
    assert_eq!(source.report.ending, SourceEnding::HandedOver);
    assert_eq!(target.report.ending, TargetEnding::Running);
}

/// Migrates one device, PRE_COPY until it is ready.
pub fn migrate(plan: Plan, setup: &Setup) -> (Ended<Source>, Ended<Target>) {
    let to = Arc::new(TestDevice::new(plan.target()));
    let from = Arc::new(TestDevice::new(plan));
    let mut pair = Pair::start(std::slice::from_ref(&from), std::slice::from_ref(&to), setup);
    let ready = pair.switch_over_when_ready();
    assert!(matches!(ready, Readiness::Ready(_)), "{ready:?}");
    let (source, target) = pair.end();
    assert_handed_over(&source, &target);
    assert_moved(&from, &to);
    let (ours, theirs) = (&source.report.devices, &target.report.devices);
    assert_eq!(ours[0].total, theirs[0].total);
    assert_eq!(ours[0].total.bytes, from.plan().total_bytes());
    (source, target)
}
