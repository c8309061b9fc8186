//! Every limit of time: what is owed and does not come, and what then follows.

use bytes::Bytes;
use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::{Epoch, Sequence, StreamId};
use vfio_ferry::machine::{
    Command, Event, Machine, Notice, PeerConfig, ReadResult, Reply, Request, TimeLimits,
};
use vfio_ferry::outcome::{Cause, DeviceOptions, Fault, Observation};
use vfio_ferry::sender::{DeviceConfig, Sender, SenderConfig};
use vfio_ferry::vfio::device::PrecopyInfo;
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{Accept, DataPhase, Features, Frame, StateDigest, Total};

use crate::receiver::{self, DEVICE, all_loaded, loading, place, receiver};
use crate::run::{Ends, Run};
use crate::sender::FIRST;

/// Each limit another number, so that a message names the right one.
pub(crate) const LIMITS: TimeLimits = TimeLimits {
    handshake_ns: 11_000_000,
    stall_ns: 20_000_000,
    idle_ns: 300_000_000,
    budget_ns: 40_000_000,
    confirm_ns: 50_000_000,
    cancel_ns: 6_000_000,
};

const UNBUDGETED: TimeLimits = TimeLimits { budget_ns: u64::MAX, ..LIMITS };

/// A sender of one device, with all limits. Its accepts have not come.
fn source(precopy: bool, limits: TimeLimits) -> Run<Sender> {
    Run::start(Sender::new(SenderConfig {
        devices: vec![DeviceConfig {
            name: "device-0".to_owned(),
            capabilities: Capabilities { p2p: false, precopy },
            options: DeviceOptions::default(),
            paused: false,
            embedded: false,
        }],
        peer: PeerConfig { streams: 2, silence_ns: u64::MAX },
        session: 1,
        chunk_bytes: 4096,
        workers: 1,
        slots_per_device: 8,
        policy: Policy::Raw,
        path_bytes_per_s: None,
        precopy_poll_ns: u64::MAX,
        limits,
    }))
}

fn accepts(run: &mut Run<Sender>, stream: u16) {
    let features = Features::NONE;
    run.hears(
        stream,
        Frame::Accept(Accept { version: 1, chunk_bytes: 4096, features, session: 1 }),
    );
}

/// One that has its accepts.
fn active(precopy: bool, limits: TimeLimits) -> Run<Sender> {
    let mut run = source(precopy, limits);
    accepts(&mut run, 0);
    accepts(&mut run, 1);
    run
}

/// One whose device is in STOP_COPY; the first credit has come.
fn stop_copy(limits: TimeLimits) -> Run<Sender> {
    let mut run = active(false, limits);
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    run.feed(Event::Command(Command::Switchover));
    run.set(FIRST, DeviceState::StopCopy, true);
    run.hears(0, Frame::Credit { device: FIRST, epoch: Epoch(0), up_to: Sequence(3) });
    run
}

/// One whose state, which is nothing, is sent.
fn sent(limits: TimeLimits) -> Run<Sender> {
    let mut run = stop_copy(limits);
    for _ in 0..2 {
        run.reads(FIRST, ReadResult::End);
    }
    run.found(FIRST, DeviceState::StopCopy);
    run
}

fn loaded() -> Frame {
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    Frame::Loaded { device: FIRST, epoch: Epoch(0), total }
}

const CHUNK: ReadResult = ReadResult::Chunk { bytes: 4096, zero: false, hash: 7 };

/// The next deadline is this far away, and ends the session with a limit's fault: its message.
fn strikes<M: Ends>(run: &mut Run<M>, after_ns: u64) -> String {
    let from_ns = run.now_ns;
    run.next_deadline();
    assert_eq!(run.now_ns - from_ns, after_ns);
    assert_eq!(run.aborted_on(), [0, 1], "the peer is told");
    let abort = run.said.iter().find_map(|(_, frame)| match frame {
        Frame::Abort(abort) => Some(abort.clone()),
        _ => None,
    });
    let abort = abort.expect("an abort");
    assert_eq!((abort.cause, abort.observed), (Cause::TimeLimit, Observation::Clock));
    abort.message
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{message:?} says {part:?}");
    }
}

#[test]
fn a_handshake_that_does_not_end_is_given_up_on_both_hosts() {
    let mut run = source(true, LIMITS);
    accepts(&mut run, 0);
    run.now_ns = 10_999_999;
    run.hears(0, Frame::Pong(1));
    assert_says(&strikes(&mut run, 1), &["handshake_limit (11ms)", "accepted"]);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::TimeLimit))));

    let mut run = receiver(2, LIMITS);
    run.hears(0, receiver::hello(2, 0));
    assert_says(&strikes(&mut run, 11_000_000), &["handshake_limit (11ms)", "hello"]);
    assert_eq!(run.ending(), Some(("blank", Some(Cause::TimeLimit))));
}

#[test]
fn a_handshake_that_ended_has_no_limit() {
    let run = active(true, TimeLimits { stall_ns: u64::MAX, ..LIMITS });
    assert_eq!(run.machine.deadline_ns(), None);
    let run = loading(2, TimeLimits { stall_ns: u64::MAX, idle_ns: u64::MAX, ..LIMITS });
    assert_eq!(run.machine.deadline_ns(), None);
}

#[test]
fn a_driver_that_does_not_answer_is_stalled() {
    let mut run = active(true, LIMITS);
    let message = strikes(&mut run, 20_000_000);
    assert_says(&message, &["stall_limit (20ms)", "driver", "SET_STATE(PRE_COPY)"]);

    let mut run = active(true, LIMITS);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.reads(FIRST, ReadResult::Empty);
    assert_says(&strikes(&mut run, 20_000_000), &["VFIO_MIG_GET_PRECOPY_INFO"]);
}

#[test]
fn a_read_in_stop_copy_is_owed_and_one_in_precopy_is_not() {
    let mut run = stop_copy(LIMITS);
    assert_says(&strikes(&mut run, 20_000_000), &["read in STOP_COPY"]);

    let mut run = active(true, LIMITS);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.hears(0, Frame::Credit { device: FIRST, epoch: Epoch(0), up_to: Sequence(9) });
    assert_eq!(run.machine.deadline_ns(), None, "a driver may hold it until there is data");
}

#[test]
fn a_read_that_comes_is_progress() {
    let mut run = stop_copy(LIMITS);
    run.now_ns += 19_000_000;
    run.reads(FIRST, CHUNK);
    assert_says(&strikes(&mut run, 20_000_000), &["read in STOP_COPY"]);
}

#[test]
fn a_target_that_grants_nothing_is_stalled() {
    let mut run = stop_copy(UNBUDGETED);
    // Begin, phase and one chunk are within the credit; the second chunk is not.
    run.reads(FIRST, CHUNK);
    run.reads(FIRST, CHUNK);
    run.now_ns += 99_000_000;
    // Life is not progress, and the same credit again is none.
    run.hears(0, Frame::Pong(1));
    run.hears(0, Frame::Credit { device: FIRST, epoch: Epoch(0), up_to: Sequence(3) });
    assert_says(&strikes(&mut run, 1_000_000), &["stall_limit (20ms)", "target", "frames"]);

    // More credit is progress, though more frames wait than it lets go.
    let mut run = stop_copy(UNBUDGETED);
    (0..3).for_each(|_| run.reads(FIRST, CHUNK));
    run.now_ns += 99_000_000;
    run.hears(0, Frame::Credit { device: FIRST, epoch: Epoch(0), up_to: Sequence(4) });
    assert_eq!(run.sent_data.len(), 2, "the third one waits");
    assert_says(&strikes(&mut run, 100_000_000), &["stall_limit (20ms)", "target", "frames"]);
}

#[test]
fn a_stream_that_takes_nothing_is_stalled_and_one_that_takes_much_of_a_frame_is_not() {
    let mut run = stop_copy(UNBUDGETED);
    run.hears(0, Frame::Credit { device: FIRST, epoch: Epoch(0), up_to: Sequence(9) });
    run.hold(0);
    run.hold(1);
    (0..3).for_each(|_| run.reads(FIRST, CHUNK));
    run.now_ns += 20_000_000;
    let part = |bytes| Event::Part { stream: StreamId(0), sent: true, bytes };
    run.feed(part(60_000));
    assert_eq!(run.machine.deadline_ns(), Some(100_000_000), "it trickles");
    run.feed(part(6_000));
    assert_eq!(run.machine.deadline_ns(), Some(120_000_000));
    run.next_deadline();
    run.release(0);
    run.release(1);
    let fault = run.said.last().map(|(_, frame)| frame.clone());
    let Some(Frame::Abort(abort)) = fault else { panic!("{fault:?}") };
    assert_says(&abort.message, &["stall_limit (20ms)", "streams"]);
}

#[test]
fn a_target_that_never_says_loaded_is_stalled() {
    let mut run = sent(UNBUDGETED);
    assert_says(&strikes(&mut run, 100_000_000), &["stall_limit", "not loaded the state"]);

    let mut run = active(true, LIMITS);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.hears(0, Frame::Credit { device: FIRST, epoch: Epoch(0), up_to: Sequence(9) });
    run.reads(FIRST, ReadResult::Empty);
    let info = PrecopyInfo { initial_bytes: 0, dirty_bytes: 0, reinit: false };
    run.answers(FIRST, Request::PrecopyInfo, Reply::Info(info));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    assert_says(&strikes(&mut run, 100_000_000), &["initial data"]);
}

#[test]
fn a_guest_stands_still_no_longer_than_the_budget_wherever_it_is_held_up() {
    let budget = TimeLimits { stall_ns: u64::MAX, ..LIMITS };
    let stopping = || {
        let mut run = active(false, budget);
        run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
        run.feed(Event::Command(Command::Switchover));
        run
    };
    let uncredited = || {
        let mut run = stop_copy(budget);
        (0..2).for_each(|_| run.reads(FIRST, CHUNK));
        run
    };
    let points: [(Run<Sender>, &str); 4] = [
        (stopping(), "SET_STATE(STOP_COPY)"),
        (stop_copy(budget), "read in STOP_COPY"),
        (uncredited(), "does not take the frames"),
        (sent(budget), "not loaded the state"),
    ];
    for (mut run, owed) in points {
        let message = strikes(&mut run, 40_000_000);
        assert_says(&message, &["switchover_budget (40ms)", owed]);
        if run.asked.get(&FIRST) == Some(&Request::SetState(DeviceState::StopCopy)) {
            run.set(FIRST, DeviceState::StopCopy, true);
        }
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        assert_eq!(run.ending(), Some(("returned", Some(Cause::TimeLimit))));
    }
}

#[test]
fn a_handover_that_no_stream_takes_is_within_the_budget() {
    let mut run = sent(TimeLimits { stall_ns: u64::MAX, ..LIMITS });
    for stream in 0..2 {
        run.hold(stream);
        run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    }
    run.hears(0, loaded());
    run.next_deadline();
    assert_eq!(run.now_ns, 40_000_000);
    run.release(0);
    run.release(1);
    assert_eq!(run.count(|frame| matches!(frame, Frame::Handover)), 0, "it was taken back");
    assert_eq!(run.aborted_on(), [0, 1]);
}

#[test]
fn without_a_budget_a_handover_that_no_stream_takes_is_stalled() {
    let mut run = sent(UNBUDGETED);
    for stream in 0..2 {
        run.hold(stream);
        run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    }
    run.hears(0, loaded());
    run.next_deadline();
    assert_eq!(run.now_ns, 20_000_000);
    run.release(0);
    run.release(1);
    assert_eq!(run.count(|frame| matches!(frame, Frame::Handover)), 0, "it was taken back");
    assert_eq!(run.aborted_on(), [0, 1]);
}

#[test]
fn a_handover_that_is_out_has_another_limit() {
    let mut run = sent(LIMITS);
    run.now_ns = 39_000_000;
    run.hears(0, loaded());
    assert_eq!(run.count(|frame| matches!(frame, Frame::Handover)), 1);
    run.set(FIRST, DeviceState::Stop, false);
    run.hears(0, Frame::Pong(1));
    run.next_deadline();
    assert_eq!(run.now_ns, 89_000_000);
    assert_eq!(run.ending(), Some(("unconfirmed", Some(Cause::TimeLimit))));
    assert_says(&run.fault().expect("a fault").message, &["confirm_limit (50ms)"]);
}

#[test]
fn a_cancel_after_the_handover_bounds_the_wait_on_the_source() {
    let mut run = sent(LIMITS);
    run.hears(0, loaded());
    run.now_ns = 1_000_000;
    run.feed(Event::Command(Command::Cancel));
    assert_eq!((run.aborted_on(), run.ending()), (vec![], None));
    // Half of the bound for the target's word, the rest for the device's way to STOP.
    run.next_deadline();
    assert_eq!((run.now_ns, run.ending()), (4_000_000, None));
    run.next_deadline();
    assert_eq!(run.now_ns, 7_000_000);
    assert_eq!(run.ending(), Some(("unconfirmed", Some(Cause::Cancelled))));
}

#[test]
fn a_cancel_after_the_handover_does_not_keep_the_targets_word_from_counting() {
    let mut run = sent(LIMITS);
    run.hears(0, loaded());
    run.feed(Event::Command(Command::Cancel));
    run.hears(0, Frame::Running);
    run.set(FIRST, DeviceState::Stop, false);
    assert_eq!(run.ending(), Some(("handed_over", None)));
}

/// A device that is loaded, by a source that hands over.
fn handed_over(limits: TimeLimits) -> Run<vfio_ferry::receiver::Receiver> {
    let mut run = all_loaded(2, limits);
    run.hears(0, Frame::Handover);
    run
}

#[test]
fn a_source_that_only_lives_is_given_up_by_what_it_owes() {
    // Begun, and nothing else: it may be idle for long.
    let mut run = loading(2, LIMITS);
    run.now_ns = 299_999_999;
    run.hears(0, Frame::Ping(1));
    assert_says(&strikes(&mut run, 1), &["idle_limit (300ms)"]);

    // Its device has stopped there.
    let mut run = loading(2, LIMITS);
    run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
    assert_says(&strikes(&mut run, 100_000_000), &["stall_limit (20ms)", "sends no state"]);

    // Much of a long frame is state too.
    let mut run = loading(2, LIMITS);
    run.now_ns = 200_000_000;
    run.feed(Event::Part { stream: StreamId(0), sent: false, bytes: 65_536 });
    assert_eq!(run.machine.deadline_ns(), Some(500_000_000));

    // A frame is missing before one that came.
    let mut run = loading(2, LIMITS);
    run.hears(0, Frame::Phase(place(2), DataPhase::PreCopy));
    assert_says(&strikes(&mut run, 100_000_000), &["missing"]);

    // It has everything, and does not hand over.
    let mut run = all_loaded(2, LIMITS);
    assert_says(&strikes(&mut run, 100_000_000), &["lets none go"]);
}

#[test]
fn a_driver_of_the_target_that_does_not_answer_is_stalled() {
    let mut run = receiver(2, LIMITS);
    receiver::begin(&mut run, 2);
    assert_says(&strikes(&mut run, 20_000_000), &["SET_STATE(RESUMING)", "stall_limit (20ms)"]);
}

#[test]
fn a_target_that_cannot_run_says_so_only_when_it_is_blank() {
    let mut run = handed_over(LIMITS);
    run.found(DEVICE, DeviceState::Stop);
    run.next_deadline();
    assert_eq!((run.now_ns, run.aborted_on()), (20_000_000, vec![]), "it may still run");
    // The driver answers late, and the device is reset after all.
    run.set(DEVICE, DeviceState::Running, false);
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
    assert_eq!(run.aborted_on(), [0, 1]);
    assert_eq!(run.ending(), Some(("blank", Some(Cause::TimeLimit))));
}

#[test]
fn a_cancel_after_the_handover_bounds_the_wait_on_the_target() {
    let mut run = handed_over(LIMITS);
    run.found(DEVICE, DeviceState::Stop);
    run.feed(Event::Command(Command::Cancel));
    run.next_deadline();
    assert_eq!(run.now_ns, 6_000_000);
    assert_eq!(run.ending(), Some(("not_blank", Some(Cause::Cancelled))));
    assert_eq!(run.aborted_on(), [0; 0], "the source is not told what is not known");
    // The driver answers: nobody waits for the guest here any longer, and the device is reset.
    run.set(DEVICE, DeviceState::Running, false);
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
    let Some(Notice::CameBack(report)) = run.notices.last() else { panic!("it came back") };
    assert_eq!((report.state, report.home), (Some(DeviceState::Running), true));
    assert_eq!(run.aborted_on(), [0, 1], "that it does not run is known now");

    let mut run = handed_over(LIMITS);
    run.found(DEVICE, DeviceState::Stop);
    run.feed(Event::Command(Command::Cancel));
    run.set(DEVICE, DeviceState::Running, false);
    assert_eq!(run.ending(), Some(("running", None)), "it came in time");
}

/// What follows a late cancel has a bound of its own, and takes no more than what is left of the
/// cancel's.
#[test]
fn a_cancel_after_the_handover_is_one_bound_whatever_follows_it() {
    /// Two thirds of the bound are over when that comes.
    fn cancelled<M: Ends>(run: &mut Run<M>) {
        run.now_ns = 1_000_000;
        run.feed(Event::Command(Command::Cancel));
        run.now_ns = 5_000_000;
    }
    fn end<M: Ends>(mut run: Run<M>) -> (u64, Option<(&'static str, Option<Cause>)>) {
        while run.ending().is_none() {
            run.next_deadline();
        }
        (run.now_ns, run.ending())
    }

    // The target does not run, and the source's driver does not answer.
    let mut run = sent(TimeLimits { cancel_ns: 12_000_000, ..LIMITS });
    run.hears(0, loaded());
    cancelled(&mut run);
    let said = Fault::session(Cause::DeviceFailure, Observation::Write, "a write failed");
    run.hears(0, Frame::Abort((&said).into()));
    assert_eq!(end(run), (13_000_000, Some(("not_returned", Some(Cause::PeerAbort)))));

    // The target runs, and the source's driver does not answer.
    let mut run = sent(LIMITS);
    run.hears(0, loaded());
    run.now_ns = 1_000_000;
    run.feed(Event::Command(Command::Cancel));
    run.now_ns = 3_000_000;
    run.hears(0, Frame::Running);
    assert_eq!(end(run), (7_000_000, Some(("handed_over", None))));

    // The target's device has lost its state, and its driver does not answer.
    let mut run = handed_over(LIMITS);
    cancelled(&mut run);
    run.found(DEVICE, DeviceState::Running);
    assert_eq!(end(run), (7_000_000, Some(("not_blank", Some(Cause::DeviceReset)))));

    // It runs, and no stream takes its word.
    let mut run = handed_over(LIMITS);
    run.found(DEVICE, DeviceState::Stop);
    [0, 1].into_iter().for_each(|stream| run.hold(stream));
    for _ in 0..2 {
        run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    }
    cancelled(&mut run);
    run.set(DEVICE, DeviceState::Running, false);
    assert_eq!(end(run), (7_000_000, Some(("running", None))));
}

#[test]
fn a_driver_that_says_again_for_ever_is_stalled() {
    let mut run = stop_copy(LIMITS);
    while run.now_ns < 19_000_000 {
        run.now_ns += 1_000_000;
        run.reads(FIRST, ReadResult::Failed(libc::EAGAIN));
    }
    assert_says(&strikes(&mut run, 1_000_000), &["stall_limit (20ms)", "read in STOP_COPY"]);
}

#[test]
fn a_device_that_fails_after_this_host_did_has_failed_because_of_that() {
    let mut run = handed_over(LIMITS);
    run.found(DEVICE, DeviceState::Stop);
    let message = "set_state of device 0 panicked";
    run.feed(Event::Local(Fault::session(Cause::Local, Observation::Engine, message)));
    assert_eq!(run.aborted_on(), [0; 0], "devices that run go on");
    run.replies(DEVICE, Request::SetState(DeviceState::Running), Err(libc::EIO));
    run.found(DEVICE, DeviceState::Stop);
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
    assert_eq!(run.ending(), Some(("blank", Some(Cause::Local))));
}

#[test]
fn no_limit_is_for_ever_and_nothing_overflows() {
    let never = TimeLimits::only_cancel(u64::MAX);
    let mut run = stop_copy(never);
    run.now_ns = u64::MAX / 2;
    run.reads(FIRST, CHUNK);
    assert_eq!(run.machine.deadline_ns(), None);
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(run.machine.deadline_ns(), None);
    let mut run = loading(2, never);
    run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
    assert_eq!(run.machine.deadline_ns(), None);
}
