//! What the embedder may choose for a reset instead of giving up: of two devices one is reset in
//! PRE_COPY, and only that one begins anew, in the way and as often as was chosen.

use std::sync::Arc;

use vfio_ferry::limits::CHUNK_BYTES_DEFAULT;
use vfio_ferry::outcome::{
    Cause, DeviceOptions, EpochEnding, Fallback, Fault, Observation, OnReset,
};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::vfio::state::DeviceState;

use super::trail::{Step, Trail};
use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev};
use crate::leaks::Held;
use crate::pair::{Pair, Route, SourceEnd, TargetEnd, patient};

use DeviceState::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};
use Step::{Reset, Set};

const STREAMS: usize = 2;
const STATE_BYTES: &str = "4M";
/// What has to be loaded before the VM is stopped: more than has been read when the last reset strikes.
const INITIAL_BYTES: &str = "2M";
/// Both devices are slow enough for a reset to strike while both are being saved.
const READ_RATE: &str = "32M";

/// A choice, and what must come of it.
struct Policy {
    name: &'static str,
    on_reset: OnReset,
    /// Each strikes once.
    faults: &'static str,
    /// Bytes that were read of each discarded epoch, or up to one chunk more: a reset that comes
    /// while a read is under way may leave it its data. Or one less, where PRECOPY_INFO found the
    /// reset before that read had come back.
    discarded: &'static [u64],
    /// What is done to the source's device, and to the target's.
    source: &'static [Step],
    target: &'static [Step],
}

const POLICIES: &[Policy] = &[
    Policy {
        name: "restart",
        on_reset: OnReset::Restart { attempts: 1, then: Fallback::Abort },
        faults: "reset@read=1M",
        discarded: &[1 << 20],
        source: &[
            Set(PreCopy),
            Set(Running),
            Set(PreCopy),
            Set(PreCopyP2p),
            Set(StopCopy),
            Set(Stop),
        ],
        target: &[Set(Resuming), Reset, Set(Resuming), Set(Stop), Set(RunningP2p), Set(Running)],
    },
    Policy {
        name: "stop-copy",
        on_reset: OnReset::StopCopy,
        faults: "reset@read=1M",
        discarded: &[1 << 20],
        source: &[Set(PreCopy), Set(Running), Set(RunningP2p), Set(StopCopy), Set(Stop)],
        target: &[Set(Resuming), Reset, Set(Resuming), Set(Stop), Set(RunningP2p), Set(Running)],
    },
    Policy {
        name: "stop-copy once restarts are used up",
        on_reset: OnReset::Restart { attempts: 1, then: Fallback::StopCopy },
        // The second one is reached by the second epoch.
        faults: "reset@read=512K\nreset@read=1M",
        discarded: &[512 << 10, 1 << 20],
        source: &[
            Set(PreCopy),
            Set(Running),
            Set(PreCopy),
            Set(Running),
            Set(RunningP2p),
            Set(StopCopy),
            Set(Stop),
        ],
        target: &[
            Set(Resuming),
            Reset,
            Set(Resuming),
            Reset,
            Set(Resuming),
            Set(Stop),
            Set(RunningP2p),
            Set(Running),
        ],
    },
];

/// Checks each policy.
pub(super) fn run(checks: &mut Checks, kind: &str, pollable: bool, backend: BackendChoice) {
    for policy in POLICIES {
        checks.check(format!("one of two devices is reset, {}: {kind}", policy.name), || {
            one_of_two(policy, pollable, backend)
        });
    }
}

fn one_of_two(policy: &Policy, pollable: bool, backend: BackendChoice) -> Outcome {
    let knobs = [
        ("state_bytes", STATE_BYTES),
        ("initial_bytes", INITIAL_BYTES),
        ("pollable", if pollable { "1" } else { "0" }),
        ("read_rate", READ_RATE),
    ];
    let create = || FerryDev::create(FULL, &knobs);
    let (sources, targets) = ([create()?, create()?], [create()?, create()?]);
    sources[0].control("fault", policy.faults)?;
    let held = Held::now()?;
    let trails = [&sources[0], &targets[0]].map(|device| Trail::of(device.mdev.device()));
    let options = || DeviceOptions { on_reset: policy.on_reset, ..DeviceOptions::default() };
    let routes = vec![
        Route { source: trails[0].clone(), target: trails[1].clone(), options: options() },
        Route {
            source: sources[1].mdev.device(),
            target: targets[1].mdev.device(),
            options: options(),
        },
    ];
    let mut pair = Pair::start(routes, STREAMS, &patient(backend))?;
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
    let [source, target] = trails.each_ref().map(|trail| trail.steps());
    ensure!(source == policy.source, "the source's: {source:?}, not {:?}", policy.source);
    // A discard that finds the device still on its way back from the one before adds no reset.
    let once = [&policy.target[..1], &policy.target[policy.target.len() - 5..]].concat();
    ensure!(
        target == policy.target || target == once,
        "the target's: {target:?}, not {:?}",
        policy.target
    );
    began_anew(policy, &sent, &loaded, &sources[0])?;
    went_on(&sent, &loaded, &sources[1])?;
    drop(trails.map(Arc::into_inner));
    held.returns()
}

/// The first device: so many epochs were discarded on both hosts, and both say what that cost.
fn began_anew(policy: &Policy, sent: &SourceEnd, loaded: &TargetEnd, device: &FerryDev) -> Outcome {
    let count = policy.discarded.len();
    for completions in [&sent.completions, &loaded.completions] {
        let of = |ending| completions.iter().filter(move |c| c.ending == ending);
        let epochs: Vec<_> = of(EpochEnding::Restarted).map(|c| (c.device.0, c.epoch.0)).collect();
        let expected: Vec<_> = (0..count as u32).map(|epoch| (0, epoch)).collect();
        ensure!(epochs == expected, "restarted: {epochs:?}, not {expected:?}");
        let last: Vec<_> = of(EpochEnding::Complete).map(|c| (c.device.0, c.epoch.0)).collect();
        ensure!(last.contains(&(0, count as u32)), "complete: {last:?}");
    }
    let restarts: Vec<_> =
        sent.completions.iter().filter(|c| c.ending == EpochEnding::Restarted).collect();
    let reset = |fault: &Fault| {
        fault.cause == Cause::DeviceReset
            && [Observation::Read, Observation::PrecopyInfo].contains(&fault.observed)
    };
    for (restart, &bytes) in restarts.iter().zip(policy.discarded) {
        let fault = restart.fault.as_ref();
        ensure!(fault.is_some_and(reset), "restarted because {fault:?}");
        let chunk = CHUNK_BYTES_DEFAULT as u64;
        let found_out = fault.is_some_and(|fault| fault.observed == Observation::PrecopyInfo);
        let range = bytes - if found_out { chunk } else { 0 }..=bytes + chunk;
        ensure!(range.contains(&restart.bytes), "{} bytes were read before it", restart.bytes);
    }
    let discarded: u64 = restarts.iter().map(|restart| restart.bytes).sum();

    let (source, target) = (&sent.report.devices[0], &loaded.report.devices[0]);
    let epochs = (source.epoch.0, target.epoch.0);
    ensure!(epochs == (count as u32, count as u32), "{source:?}; {target:?}");
    ensure!(source.discarded_bytes == discarded, "{source:?}");
    ensure!(target.discarded_bytes <= discarded, "{target:?}");
    ensure!(source.total == target.total, "{source:?}; {target:?}");
    // A data fd for each epoch, and none besides.
    let sessions: usize = device.stat("sessions")?;
    ensure!(sessions == count + 1, "it gave out {sessions} data fds");
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
