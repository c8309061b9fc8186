//! A switchover with a budget, and a target that stalls at any point before the handover: the
//! source's device is back within the budget and the driver's own time.

use std::time::Duration;

use super::super::fault::{Fault, HEARD, Kind};
use super::super::plan::{Does, IN_PRECOPY, IN_STOP_COPY, Trigger};
use super::super::promise::{Also, Cause, Ending};
use super::super::proxy::{Deed as NetDeed, Kind as FrameKind, Point};
use super::fills;
use crate::device::{Call, Deed, DriverFault};
use crate::engine::DeviceState;
use crate::spec::Side::{self, Source, Target};
use crate::spec::Time;

/// What the VMM gives the switchover.
const BUDGET: Duration = Duration::from_millis(300);
/// Far more than that and what a device's own driver takes, and half of the cancel bound.
const STILL_MAX: Duration = Duration::from_secs(5);

pub(super) fn faults() -> Vec<Fault> {
    let mut all = held();
    all.extend(stalls());
    all.extend(own());
    all
}

fn fault(name: &str, about: &str) -> Fault {
    Fault::new(Kind::Budget, format!("budget-{name}"), format!("switchover budget 300 ms; {about}"))
        .limit(Source, |limits| limits.switchover_budget = Some(Time(BUDGET)))
}

fn returned(fault: Fault) -> Fault {
    fault
        .ends(Source, Ending::Returned, &[Cause::TimeLimit])
        .also(Also::Says(Source, "switchover_budget"))
}

/// The target's driver does not come back.
fn held() -> Vec<Fault> {
    let state = DriverFault { call: Call::State, deed: Deed::Held, skip: 2, times: 1 };
    let once = |call| DriverFault::once(call, Deed::Held);
    [
        ("resuming", "RESUMING", once(Call::SetState(DeviceState::Resuming))),
        ("write-pre-copy", "a write of PRE_COPY data", once(Call::Transfer(IN_PRECOPY))),
        ("write-stop-copy", "a write of STOP_COPY data", once(Call::Transfer(IN_STOP_COPY))),
        ("get-state", "GET_STATE", state),
        ("stop", "STOP", once(Call::SetState(DeviceState::Stop))),
    ]
    .map(|(name, what, driver)| {
        let about = format!("the target's driver does not come back from {what}");
        returned(fault(&format!("held-{name}"), &about).driver(Target, driver))
            .hurries(Target)
            .ends(Target, Ending::NotBlank, HEARD)
            .ends(Target, Ending::Blank, HEARD)
            .also(Also::BackHome(Target))
    })
    .into()
}

/// The target is there and does not go on.
fn stalls() -> Vec<Fault> {
    let credit = (Source, Point::Frame(FrameKind::Credit));
    let loaded = (Source, Point::Frame(FrameKind::Loaded));
    let end = (Target, Point::Frame(FrameKind::End));
    let stop_copy = (Target, Point::StopCopy);
    let at = |name: &str, about: &str, (toward, at): (Side, Point), deed| {
        returned(fault(name, about)).at(toward, at, deed)
    };
    let blank = |fault: Fault| fault.ends(Target, Ending::Blank, HEARD);
    let frozen = |name: &str, about: &str, place| {
        returned(fault(name, about))
            .while_waits(place, Does::Freeze(Target), None)
            .on(Trigger::Ended(Source), Does::Thaw(Target))
    };
    // The target hears nothing more, not even that the source has given up.
    let deaf =
        |fault: Fault| {
            fault
                .limit(Target, |limits| limits.peer_silence = Some(Time(Duration::from_secs(2))))
                .ends(Target, Ending::Blank, &[Cause::Network])
        };
    vec![
        blank(frozen("frozen-stop-copy", "the target freezes as STOP_COPY begins", stop_copy)),
        blank(
            frozen("frozen-full", "the target freezes, and no socket takes more", stop_copy)
                .with(fills)
                // Nor is there room for the source's last word, which the guest must not wait for.
                .also(Also::StillBelow(STILL_MAX)),
        ),
        blank(frozen("frozen-end", "the target freezes when all has been sent", end)),
        blank(at("no-credit", "the target gives no credit", credit, NetDeed::Withhold(credit.1))),
        blank(at("not-loaded", "the target never says loaded", loaded, NetDeed::OnlyPings)),
        blank(
            returned(fault("writes-stall", "the target's device takes no more in STOP_COPY"))
                .with(|plan| plan.target.devices[0].stalls_at = Some(IN_STOP_COPY)),
        ),
        deaf(at(
            "silent-stop-copy",
            "the network is out in STOP_COPY",
            stop_copy,
            NetDeed::Silence,
        )),
        deaf(at("silent-end", "the network is out when all has been sent", end, NetDeed::Silence)),
        blank(at("trickle", "the target's frames come byte by byte", credit, NetDeed::Trickle)),
    ]
}

/// The source's own device takes its time.
fn own() -> Vec<Fault> {
    let blank = |fault: Fault| fault.ends(Target, Ending::Blank, HEARD);
    vec![
        blank(
            returned(fault("own-stop-late", "the source's SET_STATE(STOP_COPY) takes 600 ms"))
                .once(Source, Call::SetState(DeviceState::StopCopy), Deed::Late(600)),
        ),
        blank(
            returned(fault("own-read-stalls", "a read of the source's STOP_COPY data stalls"))
                .with(|plan| plan.source.devices[0].stalls_at = Some(IN_STOP_COPY)),
        ),
        blank(
            returned(fault("own-way-back-late", "SET_STATE(RUNNING) then takes 300 ms, too"))
                .with(|plan| plan.target.devices[0].stalls_at = Some(IN_STOP_COPY))
                .once(Source, Call::SetState(DeviceState::Running), Deed::Late(300)),
        ),
    ]
}
