//! What a host's kernel or its VMM does: refusals, cancels, drops, paused VMs, mixed devices.

use std::time::Duration;

use super::super::fault::{BOUND, Fault, HEARD, Kind, NEAR};
use super::super::message::Command;
use super::super::plan::{Does, Plan, Trigger};
use super::super::promise::{Also, Cause, Ending};
use super::super::proxy::{Deed as NetDeed, Kind as FrameKind, Point};
use super::{HANDOVER, RUNNING, STAGES};
use crate::device::{Call, Deed, DriverFault};
use crate::engine::{DeviceState, limits};
use crate::spec::Side::{self, Source, Target};
use crate::spec::{Limits, Time};

pub(super) fn faults() -> Vec<Fault> {
    let mut all = refusals();
    all.extend(cancels());
    all.extend(cancels_after_handover());
    all.extend(drops());
    all.extend(paused());
    all.extend(mixed());
    all.extend(p2p());
    all.extend(extremes());
    all
}

fn fault(name: impl Into<String>, about: impl Into<String>) -> Fault {
    Fault::new(Kind::Host, name, about)
}

/// Few fds; no io_uring.
fn refusals() -> Vec<Fault> {
    let mut all = Vec::new();
    for spare in [1, 4, 8, 16] {
        for side in [Source, Target] {
            // Refused at once, given up while the guest runs, or done.
            all.push(
                fault(
                    format!("few-fds-{}-{spare}", side.name()),
                    format!("the {} may open only {spare} fds more", side.name()),
                )
                .with(|plan| plan.host_mut(side).choices.spare_fds = Some(spare))
                .completes()
                .ends(Source, Ending::Refused, &[])
                .ends(Source, Ending::Returned, &[])
                .ends(Target, Ending::Refused, &[])
                .ends(Target, Ending::Blank, &[])
                .also(Also::NotStoppedInVain),
            );
        }
    }
    all.push(
        fault("no-io-uring", "a seccomp filter refuses io_uring on both hosts")
            .with(|plan| {
                plan.source.choices.no_io_uring = true;
                plan.target.choices.no_io_uring = true;
            })
            .completes()
            .also(Also::PlainCalls(Source))
            .also(Also::PlainCalls(Target)),
    );
    all
}

/// A cancel at each stage, while a frame waits that would let it go on.
fn cancels() -> Vec<Fault> {
    let mut all = Vec::new();
    for (stage, place) in STAGES {
        for side in [Source, Target] {
            let about = format!("the {} is cancelled while {stage} is on its way", side.name());
            all.push(
                fault(format!("cancel-{}-at-{stage}", side.name()), about)
                    .told_at(side, place, Command::Cancel)
                    .returns(side, &[Cause::Cancelled]),
            );
        }
    }
    all
}

/// A cancel that comes after the source has let go.
fn cancels_after_handover() -> Vec<Fault> {
    let running = Call::SetState(DeviceState::Running);
    let bounded = |fault: Fault, side: Side| {
        fault.limit(side, |limits| limits.cancel_bound = Some(Time(BOUND)))
    };
    let unconfirmed = |fault: Fault| fault.ends(Source, Ending::Unconfirmed, &[Cause::Cancelled]);
    vec![
        unconfirmed(bounded(
            fault(
                "cancel-source-at-handover",
                "the source is cancelled while handover is on its way",
            )
            .told_at(Source, HANDOVER, Command::Cancel),
            Source,
        ))
        .ends(Target, Ending::Running, &[]),
        unconfirmed(bounded(
            fault(
                "cancel-source-at-running",
                "the source is cancelled while running is on its way",
            )
            .told_at(Source, RUNNING, Command::Cancel),
            Source,
        ))
        .ends(Target, Ending::Running, &[]),
        fault("cancel-target-at-handover", "the target is cancelled while handover is on its way")
            .told_at(Target, HANDOVER, Command::Cancel)
            .returns(Target, &[Cause::Cancelled]),
        fault("cancel-target-after-handover", "the target is cancelled in SET_STATE(RUNNING)")
            .once(Target, running, Deed::Late(500))
            .on(Trigger::Struck(Target), Does::Tell(Target, Command::Cancel))
            .completes(),
        bounded(
            fault(
                "cancel-target-held-after-handover",
                "the target is cancelled in a SET_STATE(RUNNING) that does not answer",
            )
            .once(Target, running, Deed::Held)
            .on(Trigger::Struck(Target), Does::Tell(Target, Command::Cancel)),
            Target,
        )
        .limit(Source, |limits| limits.confirm_limit = Some(Time(2 * NEAR)))
        .ends(Target, Ending::NotBlank, &[Cause::Cancelled])
        .ends(Source, Ending::Unconfirmed, &[Cause::Network, Cause::TimeLimit])
        .also(Also::CameBack(Target)),
    ]
}

/// The session is dropped at each stage.
fn drops() -> Vec<Fault> {
    let mut all = Vec::new();
    for (stage, place) in STAGES {
        for side in [Source, Target] {
            let about = format!("the {}'s session is dropped while {stage} waits", side.name());
            let fault = fault(format!("drop-{}-at-{stage}", side.name()), about)
                .told_at(side, place, Command::Drop)
                .ends(side, Ending::Dropped, &[])
                .also(Also::BackHome(side));
            all.push(match side {
                Source => fault.ends(Target, Ending::Blank, HEARD),
                Target => fault.ends(Source, Ending::Returned, HEARD),
            });
        }
    }
    let bounded = |fault: Fault| fault.hurries(Source).hurries(Target);
    all.extend([
        bounded(fault(
            "drop-source-at-running",
            "the source's session is dropped after the handover",
        ))
        .told_at(Source, RUNNING, Command::Drop)
        .ends(Source, Ending::Dropped, &[])
        .ends(Target, Ending::Running, &[])
        .also(Also::BackHome(Source)),
        bounded(fault(
            "drop-source-held",
            "the source's session is dropped while its driver holds",
        ))
        .once(Source, Call::SetState(DeviceState::StopCopy), Deed::Held)
        .on(Trigger::Struck(Source), Does::Tell(Source, Command::Drop))
        .ends(Source, Ending::Dropped, &[])
        .ends(Target, Ending::Blank, HEARD)
        .also(Also::BackHome(Source)),
        bounded(fault(
            "drop-target-held",
            "the target's session is dropped while its driver holds",
        ))
        .once(Target, Call::SetState(DeviceState::Resuming), Deed::Held)
        .on(Trigger::Struck(Target), Does::Tell(Target, Command::Drop))
        .ends(Target, Ending::Dropped, &[])
        .ends(Source, Ending::Returned, HEARD)
        .also(Also::BackHome(Target)),
        bounded(fault(
            "drop-target-held-after-handover",
            "the target's session is dropped in a SET_STATE(RUNNING) that does not answer",
        ))
        .once(Target, Call::SetState(DeviceState::Running), Deed::Held)
        .on(Trigger::Struck(Target), Does::Tell(Target, Command::Drop))
        .limit(Source, |limits| limits.confirm_limit = Some(Time(2 * NEAR)))
        .ends(Target, Ending::Dropped, &[])
        .ends(Source, Ending::Unconfirmed, &[Cause::Network, Cause::TimeLimit])
        .also(Also::BackHome(Target)),
    ]);
    all
}

/// The device is not in RUNNING when the migration finds it.
fn paused() -> Vec<Fault> {
    let found = |name: &str, about: &str, state: DeviceState| {
        fault(name, about).with(|plan| plan.source.devices[0].found = state)
    };
    vec![
        found("paused", "a paused VM, its device in STOP, migrates", DeviceState::Stop)
            .completes()
            .also(Also::Never(Source, DeviceState::Running))
            .also(Also::Never(Source, DeviceState::PreCopy)),
        found("paused-cut", "a paused VM's migration is cut in STOP_COPY", DeviceState::Stop)
            .at(Target, Point::StopCopy, NetDeed::Cut)
            .returns(Source, &[Cause::Network, Cause::PeerAbort])
            .also(Also::Never(Source, DeviceState::Running))
            .also(Also::Never(Source, DeviceState::PreCopy)),
        found(
            "found-in-pre-copy",
            "the source's device is in PRE_COPY already",
            DeviceState::PreCopy,
        )
        .ends(Source, Ending::Refused, &[])
        .ends(Target, Ending::Blank, HEARD)
        .also(Also::Untouched(Source)),
    ]
}

/// No limit at all, and as many devices as there may be.
fn extremes() -> Vec<Fault> {
    let endless = |plan: &mut Plan| {
        let none = Some(Time(Duration::MAX));
        for side in [Source, Target] {
            plan.host_mut(side).choices.limits = Limits {
                switchover_budget: none,
                handshake_limit: none,
                stall_limit: none,
                confirm_limit: none,
                cancel_bound: none,
                idle_limit: none,
                peer_silence: none,
            };
        }
    };
    let data = (Target, Point::Frame(FrameKind::Data));
    vec![
        fault("no-limits", "every limit is none").with(endless).completes(),
        fault("no-limits-cancel", "every limit is none, and the source is cancelled")
            .with(endless)
            .told_at(Source, data, Command::Cancel)
            .returns(Source, &[Cause::Cancelled]),
        fault("cancel-source-frozen-target", "the source is cancelled while the target is frozen")
            .while_waits(data, Does::Freeze(Target), None)
            .on(Trigger::Net(0), Does::Tell(Source, Command::Cancel))
            .on(Trigger::Ended(Source), Does::Thaw(Target))
            .returns(Source, &[Cause::Cancelled]),
        fault("devices-64", "64 devices migrate in one session, with the default memory")
            .with(|plan| {
                for side in [Source, Target] {
                    let devices = &mut plan.host_mut(side).devices;
                    (devices[0].initial_bytes, devices[0].rest_bytes) = (64 << 10, 64 << 10);
                    *devices = vec![devices[0].clone(); limits::DEVICES_MAX];
                }
            })
            .completes(),
    ]
}

/// The P2P states, which only several devices go through.
fn p2p() -> Vec<Fault> {
    let two = |name: &str, about: &str, side: Side, state, deed| {
        fault(format!("p2p-{name}"), format!("of two devices one's SET_STATE({state}) {about}"))
            .with(|plan| {
                for side in [Source, Target] {
                    let devices = &mut plan.host_mut(side).devices;
                    devices.push(devices[0].clone());
                }
            })
            .driver(side, DriverFault::once(Call::SetState(state), deed))
    };
    let (stop, run) = (DeviceState::PreCopyP2p, DeviceState::RunningP2p);
    let eio = Deed::Errno(libc::EIO);
    vec![
        two("stop-refused", "at the source fails with EIO", Source, stop, eio)
            .returns(Source, &[Cause::DeviceFailure]),
        two("stop-held", "at the source answers after the end", Source, stop, Deed::Held)
            .stalls(Source)
            .limit(Source, |limits| limits.cancel_bound = Some(Time(2 * NEAR)))
            .ends(Source, Ending::NotReturned, &[Cause::TimeLimit])
            .ends(Target, Ending::Blank, HEARD)
            .also(Also::CameBack(Source)),
        two("stop-panics", "at the source panics", Source, stop, Deed::Panic)
            .returns(Source, &[Cause::Local]),
        two("run-refused", "at the target fails with EIO", Target, run, eio)
            .returns(Target, &[Cause::DeviceFailure]),
        two("run-held", "at the target answers after the end", Target, run, Deed::Held)
            .stalls(Target)
            .hurries(Target)
            .limit(Source, |limits| limits.confirm_limit = Some(Time(NEAR)))
            .ends(Target, Ending::NotBlank, &[Cause::TimeLimit])
            .ends(Source, Ending::Unconfirmed, &[Cause::TimeLimit, Cause::Network])
            .also(Also::CameBack(Target)),
    ]
}

/// Two devices, of which the second has no P2P states: none stops before the other is quiet, and
/// none runs before the other is as far.
fn mixed() -> Vec<Fault> {
    let two = |plan: &mut Plan| {
        for side in [Source, Target] {
            let devices = &mut plan.host_mut(side).devices;
            devices.push(devices[0].clone());
            devices[1].p2p = false;
        }
    };
    let slow = |state| DriverFault::once(Call::SetState(state), Deed::Late(300));
    let barrier =
        |side, arrived, before| Also::Barrier { side, arrived: (0, arrived), before: (1, before) };
    vec![
        fault("mixed-p2p-stop", "one of two devices has no P2P; the other is slow to be quiet")
            .with(two)
            .driver(Source, slow(DeviceState::PreCopyP2p))
            .completes()
            .also(barrier(Source, DeviceState::PreCopyP2p, DeviceState::StopCopy)),
        fault(
            "mixed-p2p-run",
            "one of two devices has no P2P; the other is slow to run at the target",
        )
        .with(two)
        .driver(Target, slow(DeviceState::RunningP2p))
        .completes()
        .also(barrier(Target, DeviceState::RunningP2p, DeviceState::Running)),
        fault("mixed-p2p-back", "one of two devices has no P2P; the other is slow on the way back")
            .with(two)
            .driver(Source, slow(DeviceState::RunningP2p))
            .at(Source, Point::Frame(FrameKind::Loaded), NetDeed::Cut)
            .returns(Source, &[Cause::Network, Cause::PeerAbort])
            .also(barrier(Source, DeviceState::RunningP2p, DeviceState::Running)),
        fault(
            "mixed-p2p-back-held",
            "one of two devices does not come back in time; the other does",
        )
        .with(two)
        .with(|plan| {
            plan.source.devices[0]
                .faults
                .push(DriverFault::once(Call::SetState(DeviceState::RunningP2p), Deed::Held));
        })
        .limit(Source, |limits| limits.cancel_bound = Some(Time(2 * NEAR)))
        .at(Source, Point::Frame(FrameKind::Loaded), NetDeed::Cut)
        .ends(Source, Ending::NotReturned, &[Cause::Network, Cause::PeerAbort])
        .ends(Target, Ending::Blank, &[Cause::Network, Cause::PeerAbort])
        .also(Also::CameBack(Source)),
    ]
}
