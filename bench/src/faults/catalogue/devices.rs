//! Devices of a paused VM, and several devices that stop and start together.

use super::super::fault::{Fault, HEARD, Kind, NEAR};
use super::super::plan::Plan;
use super::super::promise::{Also, Cause, Ending};
use super::super::proxy::{Deed as NetDeed, Kind as FrameKind, Point};
use crate::device::{Call, Deed, DriverFault};
use crate::engine::DeviceState;
use crate::spec::Side::{self, Source, Target};
use crate::spec::Time;

pub(super) fn faults() -> Vec<Fault> {
    let mut all = paused();
    all.extend(mixed());
    all.extend(p2p());
    all
}

fn fault(name: impl Into<String>, about: impl Into<String>) -> Fault {
    Fault::new(Kind::Host, name, about)
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
