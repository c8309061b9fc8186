//! The sender: what it wants to hear, what it takes back, and to whom it says that
//! it gives up.

use bytes::Bytes;
use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::{DeviceId, Epoch, StreamId};
use vfio_ferry::machine::{
    Command, Event, Machine, Notice, PeerConfig, ReadResult, Reply, Request, TimeLimits,
};
use vfio_ferry::outcome::{Breach, Cause, DeviceOptions, Fault, Observation, OnReset};
use vfio_ferry::sender::{DeviceConfig, Sender, SenderConfig};
use vfio_ferry::vfio::device::PrecopyInfo;
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{Accept, Features, Frame, StateDigest, Total};

use crate::run::Run;

pub(crate) const FIRST: DeviceId = DeviceId(0);
pub(crate) const SECOND: DeviceId = DeviceId(1);
pub(crate) const CHUNK_BYTES: u32 = 4096;
const SILENCE_NS: u64 = 10_000_000_000;

/// A sender whose devices wait to be asked; `precopy` says which of them save in PRE_COPY.
pub(crate) fn connected(precopy: &[bool], streams: u16, on_reset: OnReset) -> Run<Sender> {
    connected_as(false, precopy, streams, on_reset)
}

/// The same, with devices that their VMM moves or the engine does.
pub(crate) fn connected_as(
    embedded: bool,
    precopy: &[bool],
    streams: u16,
    on_reset: OnReset,
) -> Run<Sender> {
    let options = DeviceOptions { on_reset, ..DeviceOptions::default() };
    let devices: Vec<_> = precopy.iter().map(|precopy| (*precopy, options.clone())).collect();
    connected_with(embedded, &devices, streams)
}

/// The same, with options of their own.
pub(crate) fn connected_with(
    embedded: bool,
    devices: &[(bool, DeviceOptions)],
    streams: u16,
) -> Run<Sender> {
    let device = |(number, (precopy, options)): (usize, &(bool, DeviceOptions))| DeviceConfig {
        name: format!("device-{number}"),
        capabilities: Capabilities { p2p: false, precopy: *precopy },
        options: options.clone(),
        paused: false,
        embedded,
    };
    let mut run = Run::start(Sender::new(SenderConfig {
        devices: devices.iter().enumerate().map(device).collect(),
        peer: PeerConfig { streams, silence_ns: SILENCE_NS },
        session: 1,
        chunk_bytes: CHUNK_BYTES,
        workers: 1,
        slots_per_device: 8,
        policy: Policy::Raw,
        path_bytes_per_s: None,
        precopy_poll_ns: 1_000_000,
        limits: TimeLimits::only_cancel(1_000_000),
    }));
    let (version, features, session) = (1, Features::NONE, 1);
    for stream in 0..streams {
        let accept = Accept { version, chunk_bytes: CHUNK_BYTES, features, session };
        run.hears(stream, Frame::Accept(accept));
    }
    run
}

/// One device in PRE_COPY, whose frames may go out.
pub(crate) fn precopy(streams: u16) -> Run<Sender> {
    let mut run = connected(&[true], streams, OnReset::Abort);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.credits(FIRST, 0, 1);
    run
}

pub(crate) fn chunk(bytes: u32) -> ReadResult {
    ReadResult::Chunk { bytes, zero: false, hash: 7 }
}

pub(crate) fn info(initial_bytes: u64, dirty_bytes: u64, reinit: bool) -> Reply {
    Reply::Info(PrecopyInfo { initial_bytes, dirty_bytes, reinit })
}

#[test]
fn of_two_answers_that_are_out_only_the_last_one_means_that_initial_data_is_loaded() {
    let loaded = |frame: &Notice| matches!(frame, Notice::InitialDataLoaded { .. });
    let marks = |frame: &Frame| matches!(frame, Frame::InitialDataSent(_));
    let answer = || Frame::InitialDataLoaded { device: FIRST, epoch: Epoch(0) };
    let mut run = precopy(1);
    run.reads(FIRST, ReadResult::Empty);
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    assert_eq!(run.count(marks), 1);
    // More initial data, before the target has answered.
    run.next_deadline();
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, true));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    assert_eq!(run.count(marks), 2);
    run.hears(0, answer());
    assert!(!run.notices.iter().any(loaded), "the second mark is still out");
    run.hears(0, answer());
    assert_eq!(run.notices.iter().filter(|notice| loaded(notice)).count(), 1);
    assert!(run.estimate().initial_data_loaded);
    // A third one answers nothing.
    run.hears(0, answer());
    assert!(matches!(run.count(|frame| matches!(frame, Frame::Abort(_))), 1));
}

/// One device whose whole state, which is nothing, is loaded at the target as soon as that says so.
fn sent(streams: u16) -> Run<Sender> {
    let mut run = connected(&[false], streams, OnReset::Abort);
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    run.feed(Event::Command(Command::Switchover));
    run.set(FIRST, DeviceState::StopCopy, true);
    run.credits(FIRST, 0, 1);
    for _ in 0..2 {
        run.reads(FIRST, ReadResult::End);
    }
    run.found(FIRST, DeviceState::StopCopy);
    assert_eq!(run.count(|frame| matches!(frame, Frame::End(..))), 1);
    run
}

fn loaded() -> Frame {
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    Frame::Loaded { device: FIRST, epoch: Epoch(0), total }
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
fn the_last_word_goes_out_on_every_stream_that_there_is() {
    let mut run = precopy(4);
    run.hold(1);
    // A stream at a time: the first idle one takes what is queued.
    run.hold(0);
    let message = || Event::Command(Command::Message(Bytes::from_static(b"long")));
    run.feed(message());
    run.feed(message());
    run.feed(Event::StreamLost { stream: StreamId(2), slots: vec![], fault: broken() });
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(run.aborted_on(), [3], "two are busy, one is lost");
    run.release(1);
    run.release(0);
    assert_eq!(run.aborted_on(), [3, 1, 0]);
}

fn broken() -> Fault {
    Fault::session(Cause::Network, Observation::Stream, "a stream broke")
}

#[test]
fn what_the_peer_says_counts_for_more_than_the_stream_that_it_closed() {
    let said = Fault::session(Cause::Local, Observation::Engine, "out of memory");
    let word = || Frame::Abort((&said).into());
    for lost in [0, 1] {
        let mut run = precopy(2);
        run.feed(Event::StreamLost { stream: StreamId(lost), slots: vec![], fault: broken() });
        assert_eq!(run.aborted_on(), [0; 0], "the word may be on its way on the other one");
        run.hears(1 - lost, word());
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        let fault = run.fault().expect("it ends");
        assert_eq!(fault.cause, Cause::PeerAbort);
        assert!(fault.message.starts_with("the target gave up: local"), "{fault}");
        assert!(fault.message.contains("out of memory"), "{fault}");
        assert_eq!(run.aborted_on(), [0; 0], "the peer knows");
    }
}

#[test]
fn what_was_damaged_on_its_way_ends_it_at_once() {
    let mut run = precopy(2);
    let fault = Fault::breach(Breach::Answers { max: 1 });
    run.feed(Event::StreamLost { stream: StreamId(0), slots: vec![], fault });
    assert_eq!(run.aborted_on(), [1]);
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
fn a_read_that_fails_after_bytes_is_not_one_of_a_dead_fd() {
    for (bytes, seen) in [(None, Observation::DeadOnArrival), (Some(1), Observation::Read)] {
        let mut run = precopy(1);
        if let Some(bytes) = bytes {
            run.reads(FIRST, chunk(bytes));
        }
        run.reads(FIRST, ReadResult::Failed(19));
        run.found(FIRST, DeviceState::Running);
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        assert_eq!(run.fault().map(|fault| fault.observed), Some(seen));
    }
}

#[test]
fn a_device_that_fails_is_not_restarted() {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.reads(FIRST, ReadResult::Failed(libc::ENOTCONN));
    while run.asked.get(&FIRST) == Some(&Request::GetState) {
        run.found(FIRST, DeviceState::PreCopy);
        if run.asked.is_empty() {
            // A reset in progress would look the same for a while.
            run.next_deadline();
        }
    }
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceFailure))));
}

#[test]
fn an_fd_where_none_may_be_is_read_or_given_up_as_was_chosen() {
    for (on_reset, begins) in [(OnReset::Abort, 0), (OnReset::restart(), 1)] {
        let mut run = connected(&[true], 1, on_reset);
        run.set(FIRST, DeviceState::PreCopy, true);
        run.feed(Event::Command(Command::Switchover));
        run.set(FIRST, DeviceState::StopCopy, true);
        let discards = run.count(|frame| matches!(frame, Frame::Discard(..)));
        assert_eq!((discards, run.aborted_on().len()), (begins, 1 - begins));
        let completion = run.completions().first().and_then(|c| c.fault.clone());
        if begins == 1 {
            let fault = completion.expect("the first epoch has ended");
            assert_eq!(fault.cause, Cause::DeviceReset);
            assert_eq!(fault.observed, Observation::UnexpectedFd);
            run.reads(FIRST, chunk(1));
        } else {
            run.set(FIRST, DeviceState::Running, false);
            run.found(FIRST, DeviceState::Running);
            assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceReset))));
        }
    }
}

#[test]
fn what_the_embedder_discards_begins_anew_where_there_is_such_a_device() {
    let fault = || Fault::session(Cause::DeviceReset, Observation::Embedder, "a guest's FLR");
    let discards = |run: &Run<Sender>| run.count(|frame| matches!(frame, Frame::Discard(..)));
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.feed(Event::Command(Command::Discard(SECOND, fault())));
    assert_eq!((discards(&run), run.aborted_on()), (0, vec![]), "there is no second one");
    run.feed(Event::Command(Command::Discard(FIRST, fault())));
    assert_eq!((discards(&run), run.aborted_on()), (1, vec![]));
}

#[test]
fn a_device_that_is_back_is_told_of_before_the_other_is() {
    let mut run = connected(&[true, true], 1, OnReset::Abort);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.set(SECOND, DeviceState::PreCopy, true);
    run.feed(Event::Command(Command::Cancel));
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    let told: Vec<DeviceId> = run.completions().iter().map(|c| c.device).collect();
    assert_eq!((told, run.ending()), (vec![FIRST], None));
    // The other driver does not answer: the bound is over.
    run.next_deadline();
    assert_eq!(run.now_ns, 1_000_000);
    assert_eq!(run.ending(), Some(("not_returned", Some(Cause::Cancelled))));
    assert_eq!(run.completions()[1].state, None, "nobody knows");
}

/// A device that was reset in PRE_COPY, seen by a read, and may restart; it is on its way back.
fn restarting() -> Run<Sender> {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.reads(FIRST, ReadResult::Failed(19));
    run.found(FIRST, DeviceState::Running);
    run
}

#[test]
fn a_device_that_does_not_come_back_ends_the_session() {
    let mut run = restarting();
    for _ in 0..6 {
        if run.asked.get(&FIRST) == Some(&Request::SetState(DeviceState::Running)) {
            run.replies(FIRST, Request::SetState(DeviceState::Running), Err(5));
            run.found(FIRST, DeviceState::StopCopy);
        }
    }
    let (ending, cause) = run.ending().expect("it ends");
    assert_eq!((ending, cause), ("not_returned", Some(Cause::DeviceError)));
}

#[test]
fn a_device_that_begins_anew_is_in_its_first_phase_again() {
    let mut run = restarting();
    let phases = |run: &Run<Sender>| {
        let phases = run.notices.iter().filter_map(|notice| match notice {
            Notice::Phase { phase, .. } => Some(phase.name()),
            _ => None,
        });
        phases.collect::<Vec<_>>()
    };
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    run.set(FIRST, DeviceState::PreCopy, true);
    assert_eq!(phases(&run), ["start", "pre_copy", "start", "pre_copy"]);
}

#[test]
fn after_the_switchover_a_discard_announces_stop_copy_data_alone() {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.feed(Event::Command(Command::Switchover));
    run.set(FIRST, DeviceState::StopCopy, false);
    run.reads(FIRST, ReadResult::Failed(19));
    run.found(FIRST, DeviceState::Running);
    let flags: Vec<bool> = run
        .said
        .iter()
        .filter_map(|(_, frame)| match frame {
            Frame::Discard(_, discard) => Some(discard.stop_copy_only),
            _ => None,
        })
        .collect();
    assert_eq!(flags, [true]);
}

#[test]
fn a_reset_is_said_to_be_seen_as_it_was_seen_first() {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.reads(FIRST, chunk(1));
    run.feed(Event::Command(Command::Switchover));
    run.reads(FIRST, ReadResult::Failed(19));
    run.set(FIRST, DeviceState::StopCopy, true);
    let fault = run.completions()[0].fault.clone().expect("the epoch has ended");
    assert_eq!((fault.observed, fault.cause), (Observation::Read, Cause::DeviceReset));
}

#[test]
fn a_source_ends_when_its_devices_are_back_and_its_abort_goes_out_all_the_same() {
    let mut run = precopy(1);
    run.hold(0);
    run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    run.feed(Event::Command(Command::Cancel));
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::Cancelled))), "the guest need not wait");
    assert_eq!((run.aborted_on(), run.machine.has_told()), (vec![], false));
    run.release(0);
    assert_eq!((run.aborted_on(), run.machine.has_told()), (vec![0], true));
    run.now_ns = u64::MAX;
    run.feed(Event::Tick);
    assert_eq!(run.machine.deadline_ns(), None);
}

#[test]
fn nothing_is_estimated_once_the_vm_has_stopped() {
    let mut run = connected(&[false], 1, OnReset::Abort);
    run.feed(Event::Command(Command::Switchover));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1));
    assert!(!run.notices.iter().any(|notice| matches!(notice, Notice::Estimate(_))));
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
