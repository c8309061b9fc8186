//! What the embedder may choose for a reset instead of giving up: of two devices one is reset in
//! PRE_COPY, and only that one begins anew.

use std::ops::RangeInclusive;

use vfio_ferry::limits::CHUNK_BYTES_DEFAULT;
use vfio_ferry::outcome::{
    Cause, DeviceOptions, EpochEnding, Fallback, Fault, Observation, OnReset,
};
use vfio_ferry::ring::BackendChoice;

use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev};
use crate::leaks::Held;
use crate::pair::{Pair, Route, SourceEnd, TargetEnd, patient};

const STREAMS: usize = 2;
const STATE_BYTES: &str = "4M";
/// Both devices are slow enough for the reset to strike while both are being saved.
const READ_RATE: &str = "32M";
const FAULT: &str = "reset@read=1M";
/// That many bytes were read by then, or one chunk more: a reset that comes while a read is under
/// way may leave it its data.
const FAULT_BYTES: RangeInclusive<u64> = 1 << 20..=(1 << 20) + CHUNK_BYTES_DEFAULT as u64;

/// Checks each policy.
pub(super) fn run(checks: &mut Checks, kind: &str, pollable: bool, backend: BackendChoice) {
    let policies = [
        ("restart", OnReset::restart()),
        ("stop-copy", OnReset::StopCopy),
        ("stop-copy once restarts are used up", {
            OnReset::Restart { attempts: 0, then: Fallback::StopCopy }
        }),
    ];
    for (policy, on_reset) in policies {
        checks.check(format!("one of two devices is reset, {policy}: {kind}"), || {
            one_of_two(on_reset, pollable, backend)
        });
    }
}

fn one_of_two(on_reset: OnReset, pollable: bool, backend: BackendChoice) -> Outcome {
    let knobs = [
        ("state_bytes", STATE_BYTES),
        ("pollable", if pollable { "1" } else { "0" }),
        ("read_rate", READ_RATE),
    ];
    let create = || FerryDev::create(FULL, &knobs);
    let (sources, targets) = ([create()?, create()?], [create()?, create()?]);
    sources[0].control("fault", FAULT)?;
    let held = Held::now()?;
    let routes = sources.iter().zip(&targets).map(|(source, target)| Route {
        source: source.mdev.device(),
        target: target.mdev.device(),
        options: DeviceOptions { on_reset, ..DeviceOptions::default() },
    });
    let options = patient(backend);
    let mut pair = Pair::start(routes.collect(), STREAMS, &options)?;
    pair.switchover_when_ready()?;
    let (sent, loaded) = pair.finish();

    sent.complete()?;
    loaded.complete()?;
    for (source, target) in sources.iter().zip(&targets) {
        let (before, after) = (source.state_crc()?, target.state_crc()?);
        ensure!(before == after, "the source's state is {before}, the target's {after}");
        source.left_alone()?;
        target.left_alone()?;
    }
    began_anew(&sent, &loaded)?;
    went_on(&sent, &loaded, &sources[1])?;
    held.returns()
}

/// The first device: one epoch was discarded on both hosts, and both say what that cost.
fn began_anew(sent: &SourceEnd, loaded: &TargetEnd) -> Outcome {
    let restarts: Vec<_> =
        sent.completions.iter().filter(|c| c.ending == EpochEnding::Restarted).collect();
    let [restart] = restarts[..] else { crate::checks::fail!("restarts: {restarts:?}") };
    let fault = restart.fault.as_ref();
    let reset = |fault: &Fault| {
        fault.cause == Cause::DeviceReset
            && [Observation::Read, Observation::PrecopyInfo].contains(&fault.observed)
    };
    ensure!(fault.is_some_and(reset), "restarted because {fault:?}");
    ensure!(restart.device.0 == 0 && restart.epoch.0 == 0, "restarted: {restart:?}");
    ensure!(FAULT_BYTES.contains(&restart.bytes), "{} bytes were read before it", restart.bytes);

    let (source, target) = (&sent.report.devices[0], &loaded.report.devices[0]);
    ensure!(source.epoch.0 == 1 && target.epoch.0 == 1, "{source:?}; {target:?}");
    ensure!(source.discarded_bytes == restart.bytes, "{source:?}");
    ensure!(target.discarded_bytes <= restart.bytes, "{target:?}");
    ensure!(source.total == target.total, "{source:?}; {target:?}");
    Ok(())
}

/// The second device: one epoch, one data fd, and every byte went over the wire once.
fn went_on(sent: &SourceEnd, loaded: &TargetEnd, device: &FerryDev) -> Outcome {
    let (source, target) = (&sent.report.devices[1], &loaded.report.devices[1]);
    ensure!(source.epoch.0 == 0 && source.discarded_bytes == 0, "{source:?}");
    ensure!(target.epoch.0 == 0 && target.discarded_bytes == 0, "{target:?}");
    ensure!(target.late_frames == 0, "{target:?}");
    let read = sent.report.metrics.devices[1].state_bytes;
    let written = loaded.report.metrics.devices[1].state_bytes;
    ensure!(read == source.total.bytes, "{read} bytes were read of {:?}", source.total);
    ensure!(written == target.total.bytes, "{written} bytes were written of {:?}", target.total);
    let sessions: u32 = device.stat("sessions")?;
    ensure!(sessions == 1, "it gave out {sessions} data fds");
    Ok(())
}
