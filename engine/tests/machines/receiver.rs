//! The receiver: what it refuses, and to whom it says that it gives up.

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::limits::DISCARDS_MAX;
use vfio_ferry::machine::{
    Action, Command, Event, Machine, PeerConfig, Reply, Request, TimeLimits,
};
use vfio_ferry::outcome::{Breach, Cause};
use vfio_ferry::receiver::{DeviceConfig, Receiver, ReceiverConfig};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{
    Begin, DataHeader, DataPhase, DevicePlace, Discard, Encoding, Frame, Hello, Kind, Offer,
    StateDigest, Total,
};

use crate::run::Run;

pub(crate) const DEVICE: DeviceId = DeviceId(0);
const CHUNK_BYTES: u32 = 4096;

pub(crate) fn hello(streams: u16, stream: u16) -> Frame {
    Frame::Hello(Hello {
        session: 1,
        ..Offer::new(usize::from(streams), 1, CHUNK_BYTES as usize).hello(1, StreamId(stream))
    })
}

/// A receiver that has heard nothing yet.
pub(crate) fn receiver(streams: u16, limits: TimeLimits) -> Run<Receiver> {
    receiver_of(1, streams, limits)
}

/// The same with so many devices, named `device-0` and so on.
pub(crate) fn receiver_of(devices: usize, streams: u16, limits: TimeLimits) -> Run<Receiver> {
    let device = |number| DeviceConfig {
        name: format!("device-{number}"),
        capabilities: Capabilities { p2p: false, precopy: true },
    };
    Run::start(Receiver::new(ReceiverConfig {
        devices: (0..devices).map(device).collect(),
        peer: PeerConfig { streams, silence_ns: u64::MAX },
        chunk_bytes: CHUNK_BYTES,
        workers: 1,
        slots_per_device: 8,
        limits,
    }))
}

pub(crate) fn place(sequence: u64) -> DevicePlace {
    DevicePlace { device: DEVICE, epoch: Epoch(0), sequence: Sequence(sequence) }
}

/// No limit but the one for the way back.
const PATIENT: TimeLimits = TimeLimits::only_cancel(1_000_000);

/// The source announces the device.
pub(crate) fn begin(run: &mut Run<Receiver>, streams: u16) {
    for stream in 0..streams {
        run.hears(stream, hello(streams, stream));
    }
    let (name, opaque) = ("device-0".to_owned(), Bytes::new());
    run.hears(0, Frame::Begin(place(0), Begin { name, precopy: true, p2p: false, opaque }));
}

/// One whose device is in RESUMING.
pub(crate) fn loading(streams: u16, limits: TimeLimits) -> Run<Receiver> {
    let mut run = receiver(streams, limits);
    begin(&mut run, streams);
    run.set(DEVICE, DeviceState::Resuming, true);
    assert_eq!(run.count(|frame| matches!(frame, Frame::Credit { .. })), 1);
    run
}

/// The way back of a device that was in RESUMING.
fn blank(run: &mut Run<Receiver>) {
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
}

/// It gave up because of a frame of this kind at the wrong time.
fn assert_unexpected(run: &Run<Receiver>, kind: Kind) {
    let fault = run.fault().expect("it ends");
    assert_eq!(fault.cause, Cause::PeerMisbehaviour, "{fault}");
    let found = match &fault.breach {
        Some(Breach::Unexpected { kind, .. }) => Some(*kind),
        _ => None,
    };
    assert_eq!(found, Some(kind), "{fault}");
}

#[test]
fn two_streams_with_one_number_are_refused() {
    for stream in 0..2 {
        let mut run = receiver(2, PATIENT);
        run.hears(0, hello(2, stream));
        run.hears(1, hello(2, stream));
        assert_unexpected(&run, Kind::HELLO);
        assert_eq!(run.asked.len(), 0, "the device was not touched");
    }
    let mut run = receiver(2, PATIENT);
    run.hears(0, hello(2, 1));
    run.hears(1, hello(2, 0));
    assert_eq!(run.count(|frame| matches!(frame, Frame::Accept(_))), 2, "any order will do");
    assert_eq!(run.ending(), None);
}

#[test]
fn a_device_that_was_stopped_does_not_save_in_precopy_again() {
    for (before, after, right) in [
        (DataPhase::PreCopy, DataPhase::StopCopy, true),
        (DataPhase::StopCopy, DataPhase::PreCopy, false),
        (DataPhase::PreCopy, DataPhase::PreCopy, false),
        (DataPhase::StopCopy, DataPhase::StopCopy, false),
    ] {
        let mut run = loading(1, PATIENT);
        run.hears(0, Frame::Phase(place(1), before));
        assert_eq!(run.aborted_on(), [0; 0]);
        run.hears(0, Frame::Phase(place(2), after));
        assert_eq!(run.aborted_on().is_empty(), right, "{before:?}, {after:?}");
        if !right {
            blank(&mut run);
            assert_unexpected(&run, Kind::PHASE);
        }
    }
}

#[test]
fn the_last_word_goes_out_on_every_stream() {
    let mut run = loading(3, PATIENT);
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(run.aborted_on(), [0, 1, 2]);
    blank(&mut run);
    let (ending, cause) = run.ending().expect("it ends");
    assert_eq!(ending, "blank");
    assert_eq!(cause, Some(Cause::Cancelled));
}

#[test]
fn only_a_discard_opens_the_next_epoch_and_it_has_the_whole_window_again() {
    let next = |sequence| DevicePlace { epoch: Epoch(1), ..place(sequence) };
    let mut run = loading(1, PATIENT);
    run.hears(0, Frame::Phase(next(0), DataPhase::PreCopy));
    blank(&mut run);
    let fault = run.fault().expect("it ends");
    assert!(matches!(fault.breach, Some(Breach::Epoch { .. })), "{fault}");

    let mut run = loading(1, PATIENT);
    let discard = Discard { discarded_bytes: 0, stop_copy_only: false };
    run.hears(0, Frame::Discard(next(0), discard));
    blank(&mut run);
    run.set(DEVICE, DeviceState::Resuming, true);
    let credit = Frame::Credit { device: DEVICE, epoch: Epoch(1), up_to: Sequence(9) };
    assert_eq!(run.said.last().map(|(_, frame)| frame), Some(&credit), "8 beyond the discard");
}

#[test]
fn a_source_that_discards_again_and_again_is_given_up() {
    let mut run = loading(1, PATIENT);
    for epoch in 1..=DISCARDS_MAX + 1 {
        let place = DevicePlace { epoch: Epoch(epoch), ..place(0) };
        let discard = Discard { discarded_bytes: 0, stop_copy_only: false };
        run.hears(0, Frame::Discard(place, discard));
        assert_eq!(run.aborted_on().len(), usize::from(epoch > DISCARDS_MAX), "{epoch}");
        run.answers(DEVICE, Request::Reset, Reply::Reset);
        run.found(DEVICE, DeviceState::Running);
        if epoch <= DISCARDS_MAX {
            run.set(DEVICE, DeviceState::Resuming, true);
        }
    }
    let fault = run.fault().expect("it ends");
    let breach = Breach::Discards { device: DEVICE, max: DISCARDS_MAX };
    assert_eq!((fault.cause, &fault.breach), (Cause::PeerMisbehaviour, &Some(breach)));
}

#[test]
fn nothing_of_an_epoch_comes_after_its_end() {
    let mut run = loading(1, PATIENT);
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    run.hears(0, Frame::Phase(place(3), DataPhase::StopCopy));
    run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
    run.hears(0, Frame::End(place(2), total));
    assert_eq!(run.aborted_on(), [0]);
    // A chunk that has come before the end, and stands behind it: with a body, and without.
    for encoding in [Encoding::Raw, Encoding::Zero] {
        let mut run = loading(1, PATIENT);
        let header = DataHeader { place: place(3), ..crate::loads::header(0, encoding) };
        run.feed(Event::Data { stream: StreamId(0), header });
        run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
        run.hears(0, Frame::End(place(2), total));
        assert_eq!(run.aborted_on(), [0], "{encoding}");
        let written = run.work.iter().any(|work| matches!(work, Action::Write { .. }));
        assert!(!written, "{encoding}");
    }
}

/// One whose device, which has no state, is loaded; the source has been told.
pub(crate) fn all_loaded(streams: u16, limits: TimeLimits) -> Run<Receiver> {
    let mut run = loading(streams, limits);
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
    run.hears(0, Frame::End(place(2), total));
    run.found(DEVICE, DeviceState::Resuming);
    run.set(DEVICE, DeviceState::Stop, false);
    run.found(DEVICE, DeviceState::Stop);
    assert_eq!(run.count(|frame| matches!(frame, Frame::Loaded { .. })), 1);
    run
}

/// One whose device runs, and whose stream is busy with something else.
fn running() -> Run<Receiver> {
    let mut run = all_loaded(1, PATIENT);
    run.hears(0, Frame::Handover);
    run.found(DEVICE, DeviceState::Stop);
    run.hold(0);
    run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    run.now_ns = 5;
    run.set(DEVICE, DeviceState::Running, false);
    run
}

#[test]
fn a_target_that_runs_waits_for_a_stream_within_its_bound() {
    let mut run = running();
    assert_eq!(run.ending(), None, "the source has not been told");
    run.next_deadline();
    assert_eq!((run.now_ns, run.ending()), (1_000_005, Some(("running", None))));
    let mut run = running();
    run.release(0);
    assert_eq!(run.count(|frame| matches!(frame, Frame::Running)), 1);
    assert_eq!((run.now_ns, run.ending()), (5, Some(("running", None))));
}

#[test]
fn after_its_end_a_device_has_nothing_more_to_say() {
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    for (after, kind) in [
        (Frame::Phase(place(3), DataPhase::StopCopy), Kind::PHASE),
        (Frame::InitialDataSent(place(3)), Kind::INITIAL_DATA_SENT),
        (Frame::End(place(3), total), Kind::END),
    ] {
        let mut run = loading(1, PATIENT);
        run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
        run.hears(0, Frame::End(place(2), total));
        run.hears(0, after);
        run.found(DEVICE, DeviceState::Resuming);
        blank(&mut run);
        assert_unexpected(&run, kind);
    }
    let mut run = loading(1, PATIENT);
    run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
    run.hears(0, Frame::End(place(2), total));
    let header = crate::loads::header(1, vfio_ferry::wire::Encoding::Zero);
    run.feed(Event::Data { stream: StreamId(0), header });
    run.found(DEVICE, DeviceState::Resuming);
    blank(&mut run);
    assert_unexpected(&run, Kind::DATA);
}

#[test]
fn what_only_a_target_says_is_refused_from_a_source() {
    let credit = Frame::Credit { device: DEVICE, epoch: Epoch(0), up_to: Sequence(9) };
    for (frame, kind) in [(credit, Kind::CREDIT), (Frame::Running, Kind::RUNNING)] {
        let mut run = loading(1, PATIENT);
        run.hears(0, frame);
        blank(&mut run);
        assert_unexpected(&run, kind);
    }
}

#[test]
fn a_source_of_another_shape_is_refused() {
    // Of two devices, on two streams.
    for (streams, devices, right) in [(2, 2, true), (1, 2, false), (2, 1, false)] {
        let mut run = receiver_of(2, 2, PATIENT);
        let Frame::Hello(hello) = hello(streams, 0) else { panic!("a hello") };
        run.hears(0, Frame::Hello(Hello { devices, ..hello }));
        assert_eq!(run.ending().is_none(), right, "{streams} {devices}");
        if !right {
            assert_unexpected(&run, Kind::HELLO);
        }
    }
}

/// A frame that is not an accept could overtake one on another stream.
#[test]
fn nothing_but_accepts_goes_out_before_the_source_has_them_all() {
    let pongs = |run: &Run<Receiver>| run.count(|frame| matches!(frame, Frame::Pong(_)));
    let mut run = receiver(2, PATIENT);
    run.hears(0, hello(2, 0));
    run.hears(0, Frame::Ping(1));
    assert_eq!(pongs(&run), 0);
    run.hears(1, hello(2, 1));
    assert_eq!(pongs(&run), 0, "they are on their way");
    run.hears(0, Frame::Ping(2));
    assert_eq!(pongs(&run), 2);
}

#[test]
fn after_the_handover_only_this_host_can_end_it() {
    let handed_over = || {
        let mut run = all_loaded(1, PATIENT);
        run.hears(0, Frame::Handover);
        // The source misbehaves, and is not listened to.
        run.hears(0, Frame::Handover);
        assert_eq!((run.aborted_on(), run.machine.deadline_ns()), (vec![], None));
        run
    };
    let mut run = handed_over();
    run.found(DEVICE, DeviceState::Running);
    blank(&mut run);
    assert_eq!(run.ending(), Some(("blank", Some(Cause::DeviceReset))));
    let mut run = handed_over();
    run.feed(Event::Command(Command::Cancel));
    run.next_deadline();
    assert_eq!(
        (run.now_ns, run.ending()),
        (1_000_000, Some(("not_blank", Some(Cause::Cancelled))))
    );
}

#[test]
fn a_target_has_told_when_its_abort_is_out() {
    let mut run = loading(1, PATIENT);
    run.hold(0);
    run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    run.feed(Event::Command(Command::Cancel));
    blank(&mut run);
    assert_eq!((run.ending().is_some(), run.machine.has_told()), (true, false));
    run.release(0);
    assert_eq!((run.aborted_on(), run.machine.has_told()), (vec![0], true));
    assert_eq!(run.machine.deadline_ns(), None);
}
