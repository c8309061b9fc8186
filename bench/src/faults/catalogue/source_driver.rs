//! Drivers of the source that misbehave.

use super::super::fault::{Fault, HEARD, Kind, NEAR};
use super::super::message::Command;
use super::super::plan::{IN_PRECOPY, IN_STOP_COPY};
use super::super::promise::{Also, Cause, Ending};
use super::super::proxy::Point;
use crate::device::{Call, Deed, DriverFault};
use crate::engine::DeviceState;
use crate::spec::Side::{Source, Target};
use crate::spec::{DataKind, Time};

const EIO: Deed = Deed::Errno(libc::EIO);

pub(super) fn faults() -> Vec<Fault> {
    let mut all = Vec::new();
    for (name, state) in [("pre-copy", DeviceState::PreCopy), ("stop-copy", DeviceState::StopCopy)]
    {
        all.extend(set_state(name, state));
    }
    all.extend(stop());
    all.extend(way_back());
    all.extend(reads());
    all.extend(questions());
    all
}

fn fault(name: &str, about: impl Into<String>) -> Fault {
    Fault::new(Kind::Driver, format!("source-{name}"), about)
}

/// It holds something for longer than the stall limit and the cancel bound, and answers after that.
fn held(fault: Fault) -> Fault {
    fault
        .stalls(Source)
        .hurries(Source)
        .ends(Source, Ending::NotReturned, &[Cause::TimeLimit])
        .ends(Target, Ending::Blank, HEARD)
        .also(Also::CameBack(Source))
}

/// On the way to the saving states.
fn set_state(name: &str, state: DeviceState) -> Vec<Fault> {
    let call = Call::SetState(state);
    let fault = |how: &str, about: &str| {
        fault(&format!("set-{name}-{how}"), format!("SET_STATE({state}) at the source {about}"))
    };
    vec![
        fault("late", "takes 300 ms").once(Source, call, Deed::Late(300)).completes(),
        held(fault("held", "answers after the session has ended").once(Source, call, Deed::Held)),
        fault("refused", "fails with EIO, once")
            .once(Source, call, EIO)
            .returns(Source, &[Cause::DeviceFailure]),
        fault("refused-always", "fails with EIO, always")
            .always(Source, call, EIO)
            .returns(Source, &[Cause::DeviceFailure]),
        fault("error", "fails, and the device is in ERROR")
            .once(Source, call, Deed::Error)
            .returns(Source, &[Cause::DeviceError]),
        fault("panics", "panics in the embedder's device")
            .once(Source, call, Deed::Panic)
            .returns(Source, &[Cause::Local]),
        fault("error-reset-refused", "leads to ERROR, and the reset is refused")
            .once(Source, call, Deed::Error)
            .always(Source, Call::Reset, EIO)
            .ends(Source, Ending::NotReturned, &[Cause::DeviceError])
            .ends(Target, Ending::Blank, HEARD),
    ]
}

/// After the handover.
fn stop() -> Vec<Fault> {
    let call = Call::SetState(DeviceState::Stop);
    let fault = |how: &str, about: &str| {
        fault(&format!("set-stop-{how}"), format!("SET_STATE(STOP) after the handover {about}"))
    };
    vec![
        fault("late", "takes 300 ms").once(Source, call, Deed::Late(300)).completes(),
        fault("held", "answers after the session has ended")
            .once(Source, call, Deed::Held)
            .hurries(Source)
            .completes()
            .also(Also::CameBack(Source)),
        fault("refused", "fails with EIO, always").always(Source, call, EIO).completes(),
        fault("panics", "panics in the embedder's device")
            .once(Source, call, Deed::Panic)
            .completes()
            .ends(Source, Ending::Unconfirmed, &[Cause::Local]),
    ]
}

/// On the way back: the VMM cancels when STOP_COPY has begun.
fn way_back() -> Vec<Fault> {
    let call = Call::SetState(DeviceState::Running);
    let fault = |how: &str, about: &str| {
        fault(
            &format!("set-running-{how}"),
            format!("cancelled in STOP_COPY; SET_STATE(RUNNING) on the way back {about}"),
        )
        .told_at(Source, (Target, Point::StopCopy), Command::Cancel)
    };
    let not_returned = |fault: Fault| {
        fault.ends(Source, Ending::NotReturned, &[Cause::Cancelled]).ends(
            Target,
            Ending::Blank,
            HEARD,
        )
    };
    vec![
        fault("late", "takes 300 ms")
            .once(Source, call, Deed::Late(300))
            .returns(Source, &[Cause::Cancelled]),
        not_returned(
            fault("held", "answers after the session has ended")
                .once(Source, call, Deed::Held)
                .hurries(Source),
        )
        .also(Also::CameBack(Source)),
        fault("refused", "fails with EIO, once")
            .once(Source, call, EIO)
            .returns(Source, &[Cause::Cancelled]),
        not_returned(fault("refused-always", "fails with EIO, always").always(Source, call, EIO)),
        fault("refused-reset", "fails with EIO, always, and the VMM allows a reset")
            .always(Source, call, EIO)
            .with(|plan| plan.source.choices.reset_to_return = true)
            .returns(Source, &[Cause::Cancelled])
            .also(Also::WasReset),
        fault("panics", "panics in the embedder's device, once")
            .once(Source, call, Deed::Panic)
            .returns(Source, &[Cause::Cancelled, Cause::Local]),
    ]
}

/// Reads of the data fd.
fn reads() -> Vec<Fault> {
    let mut all = Vec::new();
    for (name, at) in [("pre-copy", IN_PRECOPY), ("stop-copy", IN_STOP_COPY)] {
        let call = Call::Transfer(at);
        let fault = |how: &str, about: &str| {
            fault(&format!("read-{name}-{how}"), format!("a read in {name} {about}"))
        };
        all.extend([
            fault("late", "takes 300 ms").once(Source, call, Deed::Late(300)).completes(),
            // SET_STATE may bring the device back all the same.
            fault("held", "does not come back, not even when it is cancelled")
                .once(Source, call, Deed::Held)
                .stalls(Source)
                .hurries(Source)
                .returns(Source, &[Cause::TimeLimit])
                .ends(Source, Ending::NotReturned, &[Cause::TimeLimit])
                .also(Also::BackHome(Source)),
            fault("stalls", "does not come back before it is cancelled")
                .with(|plan| plan.source.devices[0].stalls_at = Some(at))
                .stalls(Source)
                .returns(Source, &[Cause::TimeLimit]),
            fault("eio", "fails with EIO")
                .once(Source, call, EIO)
                .returns(Source, &[Cause::DeviceFailure]),
            fault("enodev", "fails with ENODEV, though there was no reset")
                .always(Source, call, Deed::Errno(libc::ENODEV))
                .returns(Source, &[Cause::DeviceFailure]),
            fault("eagain", "of an fd without poll answers EAGAIN for ever")
                .with(|plan| plan.source.devices[0].is_file = true)
                .always(Source, call, Deed::Errno(libc::EAGAIN))
                .stalls(Source)
                .returns(Source, &[Cause::TimeLimit, Cause::DeviceFailure]),
            fault("error", "fails, and the device is in ERROR")
                .once(Source, call, Deed::Error)
                .returns(Source, &[Cause::DeviceError]),
            fault("panics", "panics in the embedder's device")
                .once(Source, call, Deed::Panic)
                .returns(Source, &[Cause::Local]),
        ]);
    }
    all.push(
        fault("read-short", "every read gives 7000 bytes at most")
            .with(|plan| plan.source.devices[0].is_file = true)
            .always(Source, Call::Transfer(0), Deed::Short(7_000))
            .completes(),
    );
    all.extend(endless());
    all
}

/// A state of zeros that never ends.
fn endless() -> Vec<Fault> {
    const PEAK_BYTES: u64 = 192 << 20;
    let fault = |how: &str, about: &str| {
        fault(how, about)
            .with(|plan| plan.source.choices.precopy = false)
            .once(Source, Call::SetState(DeviceState::StopCopy), Deed::Endless)
            .also(Also::PeakBelow(Source, PEAK_BYTES))
            .also(Also::PeakBelow(Target, PEAK_BYTES))
    };
    vec![
        fault("endless-zeros-stalled", "the state is zeros without end, and the target takes none")
            .with(|plan| plan.target.devices[0].stalls_at = Some(0))
            .stalls(Source)
            .returns(Source, &[Cause::TimeLimit]),
        fault("endless-zeros-budget", "the state is zeros without end, within a budget of 1 s")
            .limit(Source, |limits| limits.switchover_budget = Some(Time(NEAR)))
            .returns(Source, &[Cause::TimeLimit]),
    ]
}

/// What the driver is asked beside.
fn questions() -> Vec<Fault> {
    let info = Call::PrecopyInfo;
    let asked = |how: &str, about: &str| {
        fault(&format!("precopy-info-{how}"), format!("VFIO_MIG_GET_PRECOPY_INFO {about}"))
    };
    // The first two GET_STATE are the session's start.
    let state = |deed| DriverFault { call: Call::State, deed, skip: 2, times: u32::MAX };
    vec![
        asked("late", "takes 300 ms").once(Source, info, Deed::Late(300)).completes(),
        held(asked("held", "answers after the session has ended").once(Source, info, Deed::Held)),
        asked("einval", "fails with EINVAL, though there was no reset")
            .always(Source, info, Deed::Errno(libc::EINVAL))
            .returns(Source, &[Cause::DeviceFailure]),
        asked("eio", "fails with EIO")
            .always(Source, info, EIO)
            .returns(Source, &[Cause::DeviceFailure]),
        asked("panics", "panics in the embedder's device")
            .once(Source, info, Deed::Panic)
            .returns(Source, &[Cause::Local]),
        asked("boasts", "announces 2^64 bytes, which never come")
            .always(Source, info, Deed::Boast)
            .completes(),
        fault("data-size-fails", "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE fails with EIO, always")
            .always(Source, Call::StopCopyLength, EIO)
            .completes(),
        fault("data-size-late", "VFIO_DEVICE_FEATURE_MIG_DATA_SIZE takes 300 ms, once")
            .once(Source, Call::StopCopyLength, Deed::Late(300))
            .completes(),
        held(
            fault("get-state-held", "GET_STATE answers after the session has ended")
                .driver(Source, DriverFault { times: 1, ..state(Deed::Held) }),
        ),
        fault("get-state-fails", "GET_STATE fails with EIO from the start on, always")
            .driver(Source, state(EIO))
            .ends(Source, Ending::NotReturned, &[Cause::DeviceFailure])
            .ends(Target, Ending::Blank, HEARD),
        fault("state-zeros", "the state is nothing but zeros")
            .with(|plan| plan.source.devices[0].data = DataKind::Zero)
            .completes(),
    ]
}
