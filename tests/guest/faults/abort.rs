//! Two devices, one of them reset while the other one's driver answers nothing: the first one's
//! completion waits for neither the other device nor the session's end.

use std::os::fd::AsFd;

use vfio_ferry::ids::DeviceId;
use vfio_ferry::outcome::{Cause, DeviceOptions, EpochEnding};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::vfio::ioctl;
use vfio_ferry::vfio::state::DeviceState;

use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev};
use crate::leaks::Held;
use crate::pair::{Pair, Route, patient};

/// Checks it.
pub(super) fn run(checks: &mut Checks, kind: &str, pollable: bool, backend: BackendChoice) {
    checks.check(format!("one of two devices is reset, abort: {kind}"), || {
        one_of_two(pollable, backend)
    });
}

fn one_of_two(pollable: bool, backend: BackendChoice) -> Outcome {
    let knobs = [("pollable", if pollable { "1" } else { "0" })];
    let create = || FerryDev::create(FULL, &knobs);
    let (sources, targets) = ([create()?, create()?], [create()?, create()?]);
    let held = Held::now()?;
    let routes = sources.iter().zip(&targets).map(|(source, target)| Route {
        source: source.mdev.device(),
        target: target.mdev.device(),
        options: DeviceOptions::default(),
    });
    let mut pair = Pair::start(routes.collect(), 2, &patient(backend))?;
    ensure!(pair.wait_until_ready()?, "it ended before the reset");
    sources[1].control("hold_state", 1)?;
    ioctl::reset(sources[0].mdev.fd()?.as_fd())?;
    let told = pair.next_completion();
    let ended = pair.source.has_ended();
    sources[1].control("hold_state", 0)?;
    let told = told?;
    ensure!(!ended, "the session had ended when it was told of: {told:?}");

    let cause = told.fault.as_ref().map(|fault| fault.cause);
    let found = (told.device, told.ending, cause, told.state);
    let expected =
        (DeviceId(0), EpochEnding::Aborted, Some(Cause::DeviceReset), Some(DeviceState::Running));
    ensure!(found == expected, "the first completion is {told:?}");
    let (sent, loaded) = pair.finish();
    let devices: Vec<_> = sent.completions.iter().map(|completion| completion.device.0).collect();
    ensure!(devices == [0, 1], "the completions are {:?}", sent.completions);
    sent.returned()?;
    loaded.blank()?;
    for device in sources.iter().chain(&targets) {
        let state = device.mdev.state()?;
        ensure!(state == DeviceState::Running, "a device is in {state}");
        device.left_alone()?;
    }
    held.returns()
}
