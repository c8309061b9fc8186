//! One migration with a fault, and the judgement over it.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use vfio_ferry::outcome::{Cause, Completion, DeviceOptions, Fault, Host};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::vfio::ioctl;
use vfio_ferry::vfio::state::DeviceState;

use super::table::{Case, Expect, STATE_BYTES, Then};
use crate::checks::{Failure, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev};
use crate::leaks::Held;
use crate::pair::{Pair, Route, SourceEnd, TargetEnd, patient};

/// How long an abort may take at most: the session's bound, and what a slow machine
/// needs besides.
const CANCEL_BOUND: Duration = Duration::from_secs(1);
const CANCEL_MAX: Duration = Duration::from_secs(10);

/// Plays a case.
pub(super) fn run(case: &Case, pollable: bool, backend: BackendChoice) -> Outcome {
    let knobs = [("state_bytes", STATE_BYTES), ("pollable", if pollable { "1" } else { "0" })];
    let (source, target) = (FerryDev::create(FULL, &knobs)?, FerryDev::create(FULL, &knobs)?);
    let faulty = match case.host {
        Host::Source => &source,
        Host::Target => &target,
    };
    for (knob, value) in case.knobs {
        faulty.knob(knob, value)?;
    }
    if !case.fault.is_empty() {
        faulty.control("fault", case.fault)?;
    }
    let held = Held::now()?;
    let route = Route {
        source: source.mdev.device(),
        target: target.mdev.device(),
        options: DeviceOptions { precopy: case.precopy, ..DeviceOptions::default() },
    };
    let mut options = patient(backend);
    if matches!(case.then, Then::CancelWhenBlocked(_)) {
        options.cancel_bound = CANCEL_BOUND;
    }
    let mut pair = Pair::start(vec![route], 2, &options)?;
    let gave_up = disturb(case, &source, faulty, &mut pair)?;
    let (sent, loaded) = pair.finish();
    let waited = gave_up.map_or(Duration::ZERO, |at| at.elapsed());
    // The driver may still hold a call that was given up.
    faulty.control("unblock", 1)?;

    judge(case, &sent, &loaded)?;
    ensure!(waited < CANCEL_MAX, "the end came {waited:?} after the cancel");
    if !case.fault.is_empty() {
        let fired: u32 = faulty.stat("faults_fired")?;
        ensure!(fired == 1, "the fault fired {fired} times");
    }
    left_as_expected(case, &source, &target)?;
    held.returns()?;
    source.left_alone()?;
    target.left_alone()
}

/// Does what the case wants besides its fault. When it gave up, if it did.
fn disturb(
    case: &Case,
    source: &FerryDev,
    faulty: &FerryDev,
    pair: &mut Pair,
) -> Outcome<Option<Instant>> {
    match case.then {
        Then::Switchover => pair.switchover_when_ready()?,
        Then::CancelWhenBlocked(host) => {
            if !case.precopy {
                pair.source.switchover();
            }
            while faulty.stat::<u32>("blocked")? == 0 {
                pair.listen(Duration::from_millis(1));
            }
            match host {
                Host::Source => pair.source.cancel(),
                Host::Target => pair.target.cancel(),
            }
            return Ok(Some(Instant::now()));
        }
        Then::ResetWhenDrained => {
            ensure!(pair.wait_until_ready()?, "it ended before the reset");
            ioctl::reset(source.mdev.fd()?.as_fd())?;
        }
        Then::ResetDeferred => {
            ensure!(pair.wait_until_ready()?, "it ended before the reset");
            source.control("hold_state", 1)?;
            ioctl::reset(source.mdev.fd()?.as_fd())?;
            source.control("hold_state", 0)?;
            let deferred: u32 = source.stat("resets_deferred")?;
            ensure!(deferred == 1, "the reset was not deferred");
        }
    }
    Ok(None)
}

fn judge(case: &Case, sent: &SourceEnd, loaded: &TargetEnd) -> Outcome {
    let Expect::Abort(cause, observed, errnos) = case.expect else {
        sent.complete()?;
        return loaded.complete();
    };
    // Who gave up sees it itself, the other one is told.
    let first = match case.then {
        Then::CancelWhenBlocked(host) => host,
        _ => case.host,
    };
    let source = (sent.fault(), &sent.completions[..]);
    let target = (loaded.fault(), &loaded.completions[..]);
    let (own, told) = match first {
        Host::Source => (source, target),
        Host::Target => (target, source),
    };
    let fault = aborted(own)?;
    ensure!(fault.cause == cause, "{fault}; {cause} was expected");
    ensure!(observed.contains(&fault.observed), "{fault}; expected was one of {observed:?}");
    ensure!(errnos.contains(&fault.errno), "{fault}; expected was one of {errnos:?}");
    let completion = own.1.last();
    let completed = completion.and_then(|completion| completion.fault.as_ref());
    ensure!(completed == Some(fault), "the completion says {completed:?}");
    let heard = aborted(told)?;
    ensure!(heard.cause == Cause::PeerAbort, "the other host says {heard}");
    Ok(())
}

fn aborted<'a>((fault, _): (Option<&'a Fault>, &[Completion])) -> Outcome<&'a Fault> {
    fault.ok_or_else(|| Failure("it completed".to_owned()))
}

/// A source device runs again, or it was handed over; a target's runs in any case.
fn left_as_expected(case: &Case, source: &FerryDev, target: &FerryDev) -> Outcome {
    let complete = case.expect == Expect::Complete;
    let expected = if complete { DeviceState::Stop } else { DeviceState::Running };
    let (before, after) = (source.mdev.state()?, target.mdev.state()?);
    ensure!(before == expected, "the source is in {before}");
    ensure!(after == DeviceState::Running, "the target is in {after}");
    if complete {
        let (before, after) = (source.state_crc()?, target.state_crc()?);
        ensure!(before == after, "the source's state is {before}, the target's {after}");
    }
    Ok(())
}
