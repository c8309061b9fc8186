//! Devices that are reset under the migration.

use super::super::fault::{Fault, HEARD, Kind};
use super::super::message::{Command, OnResetSpec};
use super::super::plan::{IN_PRECOPY, IN_STOP_COPY, INITIAL_BYTES, REST_BYTES};
use super::super::promise::{Also, Cause, Ending};
use super::super::proxy::{Deed as NetDeed, Kind as FrameKind, Point};
use crate::device::{Call, Deed};
use crate::engine::{DeviceState, limits};
use crate::spec::Side::{Source, Target};

pub(super) fn faults() -> Vec<Fault> {
    let mut all = Vec::new();
    for (name, on_reset) in [
        ("abort", OnResetSpec::Abort),
        ("restart", OnResetSpec::Restart(3)),
        ("stop-copy", OnResetSpec::StopCopy),
    ] {
        all.extend(at_source(name, on_reset));
    }
    all.extend(others());
    all.extend(discards());
    all
}

fn fault(name: &str, about: impl Into<String>) -> Fault {
    Fault::new(Kind::Driver, format!("reset-{name}"), about)
}

/// The source's device is reset once, and what was chosen follows.
fn at_source(name: &str, on_reset: OnResetSpec) -> Vec<Fault> {
    let stop = Call::SetState(DeviceState::StopCopy);
    [
        ("pre-copy", Call::Transfer(IN_PRECOPY), "in PRE_COPY"),
        ("precopy-info", Call::PrecopyInfo, "before VFIO_MIG_GET_PRECOPY_INFO"),
        ("switchover", stop, "between PRE_COPY and SET_STATE(STOP_COPY)"),
        ("in-stop-copy", Call::Transfer(IN_STOP_COPY), "in STOP_COPY"),
    ]
    .map(|(at, call, when)| {
        let about = format!("the source's device is reset {when}; chosen: {name}");
        let fault = fault(&format!("{at}-{name}"), about)
            .once(Source, call, Deed::ResetFirst)
            .with(|plan| plan.source.choices.on_reset = on_reset);
        match on_reset {
            OnResetSpec::Abort => fault.returns(Source, &[Cause::DeviceReset]),
            _ => fault.completes(),
        }
    })
    .into()
}

/// Resets elsewhere, and those that come again.
fn others() -> Vec<Fault> {
    let total = INITIAL_BYTES + REST_BYTES;
    vec![
        fault(
            "again-and-again",
            "the source's device is reset more often than it may be restarted",
        )
        .always(Source, Call::Transfer(IN_PRECOPY), Deed::ResetFirst)
        .with(|plan| plan.source.choices.on_reset = OnResetSpec::Restart(2))
        .returns(Source, &[Cause::DeviceReset]),
        fault("dead-on-arrival", "the data fd that SET_STATE(STOP_COPY) gives is dead already")
            .with(|plan| plan.source.choices.precopy = false)
            .once(Source, Call::SetState(DeviceState::StopCopy), Deed::ResetAfter)
            .returns(Source, &[Cause::DeviceReset]),
        fault("while-aborting", "cancelled in STOP_COPY, and the device is reset on its way back")
            .once(Source, Call::SetState(DeviceState::Running), Deed::ResetFirst)
            .told_at(Source, (Target, Point::StopCopy), Command::Cancel)
            .returns(Source, &[Cause::Cancelled]),
        fault("silent", "the target's device is reset in RESUMING after its last byte, unseen")
            .once(Target, Call::Transfer(total - 1), Deed::ResetAfter)
            .returns(Target, &[Cause::DeviceReset]),
        fault("after-load", "the target's device is reset when it has just left RESUMING")
            .once(Target, Call::SetState(DeviceState::Stop), Deed::ResetAfter)
            .returns(Target, &[Cause::DeviceReset]),
        fault("target-in-writing", "the target's device is reset while it is written")
            .once(Target, Call::Transfer(IN_STOP_COPY), Deed::ResetFirst)
            .returns(Target, &[Cause::DeviceReset]),
        fault("target-dead-on-arrival", "the target's resume fd is dead when SET_STATE gives it")
            .once(Target, Call::SetState(DeviceState::Resuming), Deed::ResetAfter)
            .returns(Target, &[Cause::DeviceReset]),
    ]
}

/// More discards than a target takes.
fn discards() -> Vec<Fault> {
    vec![
        fault("too-many-allowed", "the VMM allows more restarts than a target takes")
            .with(|plan| {
                plan.source.choices.on_reset = OnResetSpec::Restart(limits::DISCARDS_MAX + 1);
            })
            .ends(Source, Ending::Refused, &[])
            .ends(Target, Ending::Blank, HEARD)
            .also(Also::Untouched(Source)),
        Fault::new(Kind::Peer, "discards-without-end", "a source discards 100 times in a row")
            .with(|plan| plan.net.streams = 1)
            .at(Target, Point::Frame(FrameKind::Data), NetDeed::Discards(100))
            // The network has put the discards in: the target's credit for an epoch that the source
            // has never opened may come before its abort.
            .ends(
                Source,
                Ending::Returned,
                &[Cause::PeerAbort, Cause::Network, Cause::PeerMisbehaviour],
            )
            .ends(Target, Ending::Blank, &[Cause::PeerMisbehaviour]),
    ]
}
