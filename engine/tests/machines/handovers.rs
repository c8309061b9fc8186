//! The handover as the source sees it: until when it can be taken back, and what is known after it.

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, Epoch, StreamId};
use vfio_ferry::limits::MESSAGES_WAITING_MAX;
use vfio_ferry::machine::{Action, Command, Event, Machine, ReadResult, Reply, Request};
use vfio_ferry::outcome::{Cause, Fault, Observation, OnReset};
use vfio_ferry::sender::Sender;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{Frame, StateDigest, Total};

use crate::run::Run;
use crate::sender::{FIRST, SECOND, SILENCE_NS, broken, connected};

/// One device whose whole state, which is nothing, is loaded at the target as soon as that says so.
fn sent(streams: u16) -> Run<Sender> {
    sent_of(&[FIRST], streams)
}

/// The same with these devices.
fn sent_of(devices: &[DeviceId], streams: u16) -> Run<Sender> {
    let mut run = connected(&vec![false; devices.len()], streams, OnReset::Abort);
    for device in devices {
        run.answers(*device, Request::StopCopyLength, Reply::Length(0));
    }
    run.feed(Event::Command(Command::Switchover));
    for device in devices {
        run.set(*device, DeviceState::StopCopy, true);
        run.credits(*device, 0, 1);
        for _ in 0..2 {
            run.reads(*device, ReadResult::End);
        }
        run.found(*device, DeviceState::StopCopy);
    }
    assert_eq!(run.count(|frame| matches!(frame, Frame::End(..))), devices.len());
    run
}

fn loaded() -> Frame {
    loaded_of(FIRST)
}

fn loaded_of(device: DeviceId) -> Frame {
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    Frame::Loaded { device, epoch: Epoch(0), total }
}

fn local() -> Event {
    Event::Local(Fault::session(Cause::Local, Observation::Engine, "no memory"))
}

fn handovers(run: &Run<Sender>) -> usize {
    run.count(|frame| matches!(frame, Frame::Handover))
}

#[test]
fn a_handover_that_has_not_gone_out_is_taken_back() {
    let reasons: [fn() -> Event; 2] = [|| Event::Command(Command::Cancel), local];
    for reason in reasons {
        let mut run = sent(1);
        // The only stream is busy with a message when the target confirms.
        run.hold(0);
        run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
        run.hears(0, loaded());
        assert_eq!(handovers(&run), 0);
        run.feed(reason());
        run.release(0);
        assert_eq!(handovers(&run), 0, "the target must not run");
        assert_eq!(run.aborted_on(), [0]);
        // The device was on its way to STOP, and comes back.
        run.set(FIRST, DeviceState::Stop, false);
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        let (ending, cause) = run.ending().expect("it ends");
        assert_eq!(ending, "returned");
        assert!(matches!(cause, Some(Cause::Cancelled | Cause::Local)));
    }
}

#[test]
fn a_handover_that_has_gone_out_is_not() {
    let mut run = sent(1);
    run.hears(0, loaded());
    assert_eq!(handovers(&run), 1);
    run.feed(Event::Command(Command::Cancel));
    assert_eq!((run.aborted_on(), run.ending()), (vec![], None), "a cancel comes too late");
    run.feed(local());
    run.set(FIRST, DeviceState::Stop, false);
    assert_eq!(run.ending(), Some(("unconfirmed", Some(Cause::Local))));
    assert_eq!(run.aborted_on(), [0; 0], "the target may run");
}

/// A driver keeps the session for a while, in which the word comes that nobody waits for any longer.
#[test]
fn a_word_that_comes_late_is_still_heard() {
    let mut run = sent(1);
    run.hears(0, loaded());
    // The target is silent, and counts as lost.
    while run.now_ns < SILENCE_NS {
        run.next_deadline();
    }
    run.hears(0, Frame::Running);
    run.set(FIRST, DeviceState::Stop, false);
    assert_eq!(run.ending(), Some(("handed_over", None)));
}

#[test]
fn nothing_is_handed_over_while_the_peer_may_have_given_up() {
    let mut run = sent(2);
    run.feed(Event::StreamLost { stream: StreamId(1), slots: vec![], fault: broken() });
    run.hears(0, loaded());
    assert_eq!(handovers(&run), 0);
    // The word does not come: a 32nd of the silence is all that it is waited for.
    run.next_deadline();
    assert_eq!((run.now_ns, run.aborted_on()), (SILENCE_NS / 32, vec![0]));
}

#[test]
fn a_sender_whose_thread_is_lost_claims_what_can_be_known() {
    let lost = |run: &Run<Sender>| {
        let fault = Fault::session(Cause::Local, Observation::Engine, "lost");
        run.machine.ending_if_lost(fault).name()
    };
    assert_eq!(lost(&connected(&[true], 1, OnReset::Abort)), "not_returned", "under way");
    let mut run = connected(&[false], 1, OnReset::Abort);
    assert_eq!(lost(&run), "returned", "nobody has moved the device");
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    run.feed(Event::Command(Command::Switchover));
    assert_eq!(lost(&run), "not_returned");
    let mut run = sent(1);
    assert_eq!(lost(&run), "not_returned");
    run.hears(0, loaded());
    assert_eq!((handovers(&run), lost(&run)), (1, "unconfirmed"));
    run.hears(0, Frame::Running);
    assert_eq!((run.ending(), lost(&run)), (None, "handed_over"), "the target has said so");
    run.set(FIRST, DeviceState::Stop, false);
    assert_eq!((run.ending(), lost(&run)), (Some(("handed_over", None)), "handed_over"));
}

#[test]
fn after_the_handover_the_source_runs_again_on_the_targets_word_alone() {
    let said = Fault::session(Cause::DeviceError, Observation::StateCheck, "it would not run");
    let mut run = sent(1);
    run.hears(0, loaded());
    run.hears(0, Frame::Abort((&said).into()));
    run.set(FIRST, DeviceState::Stop, false);
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::PeerAbort))));
    assert_eq!(run.aborted_on(), [0; 0], "the target knows");
}

/// Only its own abort says that the target does not run: not that it breaks the protocol.
#[test]
fn after_the_handover_a_target_that_misbehaves_may_run() {
    let mut run = sent(1);
    run.hears(0, loaded());
    run.hears(0, Frame::Handover);
    assert_eq!(run.aborted_on(), [0; 0]);
    run.set(FIRST, DeviceState::Stop, false);
    assert_eq!(run.ending(), Some(("unconfirmed", Some(Cause::PeerMisbehaviour))));
}

#[test]
fn a_message_too_many_ends_the_session_but_not_after_the_handover() {
    for handed_over in [false, true] {
        let mut run = sent(1);
        if handed_over {
            run.hears(0, loaded());
        }
        run.hold(0);
        // The first one is being sent.
        for _ in 0..=MESSAGES_WAITING_MAX {
            run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
        }
        assert!(!run.machine.is_ending(), "so many may wait");
        run.feed(Event::Command(Command::Message(Bytes::from_static(b"one too many"))));
        run.release(0);
        if handed_over {
            run.hears(0, Frame::Running);
            run.set(FIRST, DeviceState::Stop, false);
            assert_eq!(run.ending(), Some(("handed_over", None)), "no reason not to be told");
        } else {
            run.set(FIRST, DeviceState::Running, false);
            run.found(FIRST, DeviceState::Running);
            assert_eq!(run.ending(), Some(("returned", Some(Cause::Local))));
        }
        let messages = run.count(|frame| matches!(frame, Frame::Message(_)));
        assert_eq!(messages, if handed_over { 1 + MESSAGES_WAITING_MAX } else { 1 });
    }
}

/// The kernel's arc out of STOP_COPY ends the session of the data fd, which must be gone by then.
#[test]
fn a_device_goes_to_stop_once_its_data_fd_is_closed() {
    let mut run = sent(1);
    run.hold_fd(FIRST);
    run.hears(0, loaded());
    assert_eq!((handovers(&run), run.asked.len()), (1, 0));
    run.release_fd(FIRST);
    // A reset has put it into RUNNING meanwhile: the way to STOP opens a new fd, which nobody reads.
    run.set(FIRST, DeviceState::Stop, true);
    assert_eq!(run.thrown_away, [Action::DropFd { device: FIRST }]);
    run.hears(0, Frame::Running);
    assert_eq!(run.ending(), Some(("handed_over", None)));
}

/// The target has the state: that this device would not stop changes nothing.
#[test]
fn a_device_that_does_not_stop_after_the_handover_is_let_go() {
    let mut run = sent(1);
    run.hears(0, loaded());
    run.replies(FIRST, Request::SetState(DeviceState::Stop), Err(libc::EIO));
    assert_eq!((run.asked.len(), run.ending()), (0, None));
    run.hears(0, Frame::Running);
    assert_eq!(run.ending(), Some(("handed_over", None)));
}

#[test]
fn nothing_is_handed_over_before_all_are_loaded_and_none_is_in_doubt() {
    for in_doubt in [false, true] {
        let mut run = sent_of(&[FIRST, SECOND], 1);
        run.hears(0, loaded_of(FIRST));
        assert_eq!(handovers(&run), 0, "the second one is not loaded");
        if in_doubt {
            // Its data fd is dead.
            run.feed(Event::HungUp { device: FIRST, epoch: Epoch(0) });
            run.hears(0, loaded_of(SECOND));
            assert_eq!(handovers(&run), 0, "the first one is looked into");
            run.found(FIRST, DeviceState::Running);
            assert_eq!((handovers(&run), run.aborted_on()), (0, vec![0]));
        } else {
            run.hears(0, loaded_of(SECOND));
            assert_eq!((handovers(&run), run.aborted_on()), (1, vec![]));
        }
    }
}
