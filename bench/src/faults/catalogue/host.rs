//! What a host's kernel or its VMM does: refusals, cancels, drops, paused VMs, mixed devices.

use std::time::Duration;

use super::super::fault::{BOUND, Fault, HEARD, Kind, NEAR};
use super::super::message::Command;
use super::super::plan::{Does, IN_PRECOPY, IN_STOP_COPY, Plan, Trigger};
use super::super::promise::{Also, Cause, Ending};
use super::super::proxy::{Kind as FrameKind, Point};
use super::{HANDOVER, RUNNING, STAGES};
use crate::device::{Call, Deed};
use crate::engine::{DeviceState, limits};
use crate::spec::Side::{self, Source, Target};
use crate::spec::{Limits, Time};

pub(super) fn faults() -> Vec<Fault> {
    let mut all = refusals();
    all.extend(cancels());
    all.extend(cancels_held());
    all.extend(cancels_after_handover());
    all.extend(drops());
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

/// A cancel while a driver holds something for longer than the cancel bound; it answers later.
fn cancels_held() -> Vec<Fault> {
    let cancelled = |side: Side, what: &str, call: Call| {
        let about = format!("the {} is cancelled while its driver holds {what}", side.name());
        let name = what.to_lowercase().replace([' ', '_'], "-");
        let fault = fault(format!("cancel-{}-held-{name}", side.name()), about)
            .once(side, call, Deed::Held)
            .on(Trigger::Struck(side), Does::Tell(side, Command::Cancel))
            .hurries(side)
            .also(Also::BackHome(side));
        let (ending, other, its) = match side {
            Source => (Ending::NotReturned, Target, Ending::Blank),
            Target => (Ending::NotBlank, Source, Ending::Returned),
        };
        fault.ends(side, ending, &[Cause::Cancelled]).ends(other, its, HEARD)
    };
    // A read or write that is held need not keep the device away.
    let or_home = |fault: Fault, side, ending| fault.ends(side, ending, &[Cause::Cancelled]);
    vec![
        cancelled(Source, "PRE_COPY", Call::SetState(DeviceState::PreCopy)),
        cancelled(Source, "PRECOPY_INFO", Call::PrecopyInfo),
        cancelled(Source, "STOP_COPY", Call::SetState(DeviceState::StopCopy)),
        or_home(
            cancelled(Source, "a read in PRE_COPY", Call::Transfer(IN_PRECOPY)),
            Source,
            Ending::Returned,
        ),
        or_home(
            cancelled(Source, "a read in STOP_COPY", Call::Transfer(IN_STOP_COPY)),
            Source,
            Ending::Returned,
        ),
        cancelled(Target, "RESUMING", Call::SetState(DeviceState::Resuming)),
        cancelled(Target, "STOP", Call::SetState(DeviceState::Stop)),
        or_home(cancelled(Target, "a write", Call::Transfer(IN_STOP_COPY)), Target, Ending::Blank),
    ]
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
