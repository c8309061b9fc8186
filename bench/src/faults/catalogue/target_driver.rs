//! Drivers of the target that misbehave.

use super::super::fault::{Fault, HEARD, Kind, NEAR};
use super::super::plan::{IN_PRECOPY, IN_STOP_COPY};
use super::super::promise::{Also, Cause, Ending};
use crate::device::{Call, Deed, DriverFault};
use crate::engine::DeviceState;
use crate::spec::Side::{Source, Target};
use crate::spec::Time;

const EIO: Deed = Deed::Errno(libc::EIO);

pub(super) fn faults() -> Vec<Fault> {
    let mut all = Vec::new();
    for (name, state) in [("resuming", DeviceState::Resuming), ("stop", DeviceState::Stop)] {
        all.extend(set_state(name, state));
    }
    all.extend(running());
    all.extend(writes());
    all.extend(way_back());
    all
}

fn fault(name: &str, about: impl Into<String>) -> Fault {
    Fault::new(Kind::Driver, format!("target-{name}"), about)
}

/// It holds something for longer than the stall limit and the cancel bound, and answers after that.
fn held(fault: Fault) -> Fault {
    fault
        .stalls(Target)
        .hurries(Target)
        .ends(Target, Ending::NotBlank, &[Cause::TimeLimit])
        .ends(Source, Ending::Returned, HEARD)
        .also(Also::CameBack(Target))
}

/// Before the handover.
fn set_state(name: &str, state: DeviceState) -> Vec<Fault> {
    let call = Call::SetState(state);
    let fault = |how: &str, about: &str| {
        fault(&format!("set-{name}-{how}"), format!("SET_STATE({state}) at the target {about}"))
    };
    vec![
        fault("late", "takes 300 ms").once(Target, call, Deed::Late(300)).completes(),
        held(fault("held", "answers after the session has ended").once(Target, call, Deed::Held)),
        fault("refused", "fails with EIO, once")
            .once(Target, call, EIO)
            .returns(Target, &[Cause::DeviceFailure]),
        fault("refused-always", "fails with EIO, always")
            .always(Target, call, EIO)
            .returns(Target, &[Cause::DeviceFailure]),
        fault("error", "fails, and the device is in ERROR")
            .once(Target, call, Deed::Error)
            .returns(Target, &[Cause::DeviceError]),
        fault("panics", "panics in the embedder's device")
            .once(Target, call, Deed::Panic)
            .returns(Target, &[Cause::Local]),
    ]
}

/// After the handover.
fn running() -> Vec<Fault> {
    let call = Call::SetState(DeviceState::Running);
    let fault = |how: &str, about: &str| {
        fault(
            &format!("set-running-{how}"),
            format!("SET_STATE(RUNNING) at the target, after the handover, {about}"),
        )
    };
    vec![
        fault("late", "takes 300 ms").once(Target, call, Deed::Late(300)).completes(),
        fault("held", "answers after both sessions have ended")
            .once(Target, call, Deed::Held)
            .stalls(Target)
            .hurries(Target)
            .limit(Source, |limits| limits.confirm_limit = Some(Time(NEAR)))
            .ends(Target, Ending::NotBlank, &[Cause::TimeLimit])
            .ends(Source, Ending::Unconfirmed, &[Cause::TimeLimit, Cause::Network])
            .also(Also::CameBack(Target)),
        fault("refused", "fails with EIO, always")
            .always(Target, call, EIO)
            .returns(Target, &[Cause::DeviceFailure]),
        fault("error", "fails, and the device is in ERROR")
            .once(Target, call, Deed::Error)
            .returns(Target, &[Cause::DeviceError]),
        fault("panics", "panics in the embedder's device")
            .once(Target, call, Deed::Panic)
            .returns(Target, &[Cause::Local]),
    ]
}

/// Writes to the data fd.
fn writes() -> Vec<Fault> {
    let mut all = Vec::new();
    for (name, at) in [("pre-copy", IN_PRECOPY), ("stop-copy", IN_STOP_COPY)] {
        let call = Call::Transfer(at);
        let fault = |how: &str, about: &str| {
            fault(&format!("write-{name}-{how}"), format!("a write in {name} {about}"))
        };
        all.extend([
            fault("late", "takes 300 ms").once(Target, call, Deed::Late(300)).completes(),
            // A reset may make the device blank all the same.
            fault("held", "does not come back, not even when it is cancelled")
                .once(Target, call, Deed::Held)
                .stalls(Target)
                .hurries(Target)
                .returns(Target, &[Cause::TimeLimit])
                .ends(Target, Ending::NotBlank, &[Cause::TimeLimit])
                .also(Also::BackHome(Target)),
            fault("stalls", "does not come back before it is cancelled")
                .with(|plan| plan.target.devices[0].stalls_at = Some(at))
                .stalls(Target)
                .returns(Target, &[Cause::TimeLimit]),
            fault("eio", "fails with EIO")
                .once(Target, call, EIO)
                .returns(Target, &[Cause::DeviceFailure]),
            fault("enodev", "fails with ENODEV, though there was no reset")
                .always(Target, call, Deed::Errno(libc::ENODEV))
                .returns(Target, &[Cause::DeviceFailure]),
            fault("eagain", "answers EAGAIN for ever")
                .with(|plan| plan.target.devices[0].is_file = true)
                .always(Target, call, Deed::Errno(libc::EAGAIN))
                .stalls(Target)
                .returns(Target, &[Cause::DeviceFailure, Cause::TimeLimit]),
            fault("error", "fails, and the device is in ERROR")
                .once(Target, call, Deed::Error)
                .returns(Target, &[Cause::DeviceError]),
            fault("panics", "panics in the embedder's device")
                .once(Target, call, Deed::Panic)
                .returns(Target, &[Cause::Local]),
        ]);
    }
    all.push(
        fault("write-short", "every write takes 7000 bytes at most")
            .with(|plan| plan.target.devices[0].is_file = true)
            .always(Target, Call::Transfer(0), Deed::Short(7_000))
            .completes(),
    );
    all
}

/// On the way back, after a write that has failed; and what it is asked beside.
fn way_back() -> Vec<Fault> {
    let failed = |how: &str, about: &str| {
        fault(how, format!("a write fails with EIO, and then {about}")).once(
            Target,
            Call::Transfer(IN_STOP_COPY),
            EIO,
        )
    };
    let state = |deed| DriverFault { call: Call::State, deed, skip: 2, times: u32::MAX };
    let not_blank = |fault: Fault| {
        fault.ends(Target, Ending::NotBlank, &[Cause::DeviceFailure]).ends(
            Source,
            Ending::Returned,
            HEARD,
        )
    };
    vec![
        not_blank(failed("reset-refused", "its reset fails, always").always(
            Target,
            Call::Reset,
            EIO,
        )),
        failed("reset-busy", "its reset meets another one (EAGAIN), once")
            .once(Target, Call::Reset, Deed::Errno(libc::EAGAIN))
            .returns(Target, &[Cause::DeviceFailure]),
        not_blank(
            failed("reset-held", "its reset answers after the session has ended")
                .once(Target, Call::Reset, Deed::Held)
                .hurries(Target),
        )
        .also(Also::CameBack(Target)),
        failed("reset-panics", "its reset panics, once")
            .once(Target, Call::Reset, Deed::Panic)
            .returns(Target, &[Cause::DeviceFailure, Cause::Local]),
        held(
            fault("get-state-held", "GET_STATE answers after the session has ended")
                .driver(Target, DriverFault { times: 1, ..state(Deed::Held) }),
        ),
        fault("get-state-fails", "GET_STATE fails with EIO from the start on, always")
            .driver(Target, state(EIO))
            .ends(Target, Ending::NotBlank, &[Cause::DeviceFailure])
            .ends(Source, Ending::Returned, HEARD),
    ]
}
