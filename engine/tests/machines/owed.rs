//! What is owed to the target, by whom, and for how long that is put up with: of its own driver one
//! stall limit, of the source five.

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, Epoch, StreamId};
use vfio_ferry::limits::PROGRESS_BYTES_MIN;
use vfio_ferry::machine::{Command, Event, Machine, Reply, Request, TimeLimits};
use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::receiver::Receiver;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{
    Begin, DataPhase, DevicePlace, Discard, Encoding, Frame, Hello, StateDigest, Total,
};

use crate::limits::LIMITS;
use crate::loads::{body, data, header, waiting, write, written};
use crate::receiver::{DEVICE, all_loaded, hello, loading, place, receiver, receiver_of};
use crate::run::Run;

const DRIVER_NS: u64 = LIMITS.stall_ns;
const SOURCE_NS: u64 = 5 * LIMITS.stall_ns;

/// In RESUMING, and told that PRE_COPY data follows.
fn resuming(limits: TimeLimits) -> Run<Receiver> {
    let mut run = loading(1, limits);
    run.hears(0, Frame::Phase(place(1), DataPhase::PreCopy));
    run
}

fn discard() -> Frame {
    let discard = Discard { discarded_bytes: 0, stop_copy_only: false };
    Frame::Discard(DevicePlace { epoch: Epoch(1), ..place(0) }, discard)
}

/// What is said to be owed once it is, which is then.
fn overdue(run: &mut Run<Receiver>, after_ns: u64) -> (Option<DeviceId>, String) {
    let since_ns = run.now_ns;
    run.next_deadline();
    assert_eq!(run.now_ns - since_ns, after_ns);
    let abort = run.said.iter().find_map(|(_, frame)| match frame {
        Frame::Abort(abort) => Some(abort.clone()),
        _ => None,
    });
    let abort = abort.expect("the session is given up");
    assert_eq!(abort.cause, Cause::TimeLimit);
    (abort.device, abort.message)
}

#[test]
fn a_chunk_is_owed_by_the_source_until_it_is_there_and_then_by_the_driver() {
    let on_its_way = || {
        let mut run = resuming(LIMITS);
        data(&mut run, 0, header(0, Encoding::Raw));
        run
    };
    let (device, message) = overdue(&mut on_its_way(), SOURCE_NS);
    assert_eq!(device, Some(DEVICE));
    assert!(message.contains("has begun to send a frame"), "{message}");
    let mut run = on_its_way();
    body(&mut run);
    let (_, message) = overdue(&mut run, DRIVER_NS);
    assert!(message.contains("has not given back a write"), "{message}");
    let mut run = on_its_way();
    body(&mut run);
    write(&mut run, written());
    assert_eq!(run.machine.deadline_ns(), Some(LIMITS.idle_ns), "nothing is owed");
    // The next but one has come.
    data(&mut run, 0, header(2, Encoding::Zero));
    let (_, message) = overdue(&mut run, SOURCE_NS);
    assert!(message.contains("a frame of the source is missing"), "{message}");
}

#[test]
fn much_of_a_frame_is_progress_and_what_goes_to_the_source_is_not() {
    let mut run = resuming(LIMITS);
    data(&mut run, 0, header(0, Encoding::Raw));
    let much = PROGRESS_BYTES_MIN as u32;
    run.now_ns = 7;
    for (sent, bytes, until_ns) in
        [(true, much, SOURCE_NS), (false, much - 1, SOURCE_NS), (false, 1, SOURCE_NS + 7)]
    {
        run.feed(Event::Part { stream: StreamId(0), sent, bytes });
        assert_eq!(run.machine.deadline_ns(), Some(until_ns), "{sent} {bytes}");
    }
}

#[test]
fn the_slots_of_a_discarded_epoch_are_owed_by_the_source() {
    let mut run = resuming(LIMITS);
    data(&mut run, 0, header(0, Encoding::Raw));
    run.hears(0, discard());
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
    assert_eq!(waiting(&run), [("body", 0)]);
    let (_, message) = overdue(&mut run, SOURCE_NS);
    assert!(message.contains("missing"), "{message}");
    // What the driver still holds, and no slot, has a bound elsewhere.
    let mut run = resuming(LIMITS);
    data(&mut run, 0, header(0, Encoding::Zero));
    run.hold_fd(DEVICE);
    run.hears(0, discard());
    assert_eq!((run.asked.len(), run.machine.slots_out()), (0, 0));
    assert_eq!(run.machine.deadline_ns(), Some(LIMITS.idle_ns));
}

#[test]
fn a_write_that_the_driver_keeps_ends_the_session_where_the_device_was_to_begin_anew() {
    for (discarded, cause) in [(true, Cause::DeviceFailure), (false, Cause::Cancelled)] {
        let mut run = resuming(TimeLimits::only_cancel(1_000_000));
        data(&mut run, 0, header(0, Encoding::Zero));
        run.hold_fd(DEVICE);
        if discarded {
            run.hears(0, discard());
        } else {
            run.feed(Event::Command(Command::Cancel));
        }
        run.feed(Event::Detached { device: DEVICE, stuck: true });
        assert_eq!(run.aborted_on(), [0]);
        run.next_deadline();
        assert_eq!(run.ending(), Some(("not_blank", Some(cause))));
        assert!(run.machine.reports()[0].stuck);
    }
}

#[test]
fn the_idle_limit_does_not_count_while_a_driver_is_busy() {
    let limits = TimeLimits { idle_ns: DRIVER_NS / 2, ..LIMITS };
    let mut run = resuming(limits);
    data(&mut run, 0, header(0, Encoding::Zero));
    run.next_deadline();
    assert_eq!((run.now_ns, run.aborted_on()), (DRIVER_NS / 2, vec![]));
    write(&mut run, written());
    let (_, message) = overdue(&mut run, DRIVER_NS / 2);
    assert!(message.contains("idle_limit"), "{message}");
}

#[test]
fn once_the_vm_has_stopped_the_source_owes_the_state_of_every_device() {
    let late = DeviceId(1);
    let mut run = receiver_of(2, 1, LIMITS);
    let Frame::Hello(hello) = hello(1, 0) else { panic!("a hello") };
    run.hears(0, Frame::Hello(Hello { devices: 2, ..hello }));
    let begin =
        Begin { name: "device-0".to_owned(), precopy: true, p2p: false, opaque: Bytes::new() };
    run.hears(0, Frame::Begin(place(0), begin));
    run.set(DEVICE, DeviceState::Resuming, true);
    assert_eq!(run.machine.deadline_ns(), Some(LIMITS.idle_ns), "the VM runs");
    run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    run.hears(0, Frame::End(place(2), total));
    run.found(DEVICE, DeviceState::Resuming);
    run.set(DEVICE, DeviceState::Stop, false);
    run.found(DEVICE, DeviceState::Stop);
    // The first one is loaded; the second has not even begun.
    let (device, message) = overdue(&mut run, SOURCE_NS);
    assert_eq!(device, Some(late));
    assert!(message.contains("has stopped the device and sends no state"), "{message}");
}

#[test]
fn a_target_whose_thread_is_lost_claims_what_can_be_known() {
    let lost = |run: &Run<Receiver>| {
        let fault = Fault::session(Cause::Local, Observation::Engine, "lost");
        run.machine.ending_if_lost(fault).name()
    };
    let patient = TimeLimits::only_cancel(1_000_000);
    assert_eq!(lost(&receiver(1, patient)), "blank", "nobody has touched it");
    let mut run = all_loaded(1, patient);
    assert_eq!(lost(&run), "not_blank");
    run.hears(0, Frame::Handover);
    run.found(DEVICE, DeviceState::Stop);
    run.hold(0);
    run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    assert_eq!(lost(&run), "not_blank");
    run.set(DEVICE, DeviceState::Running, false);
    assert_eq!((run.ending(), lost(&run)), (None, "running"), "the source has not been told");
    run.release(0);
    assert_eq!((run.ending(), lost(&run)), (Some(("running", None)), "running"));
}
