//! A chunk's way on the target: into a slot, through a worker, in order to the resume fd; and what
//! is thrown away or refused instead.

use vfio_ferry::ids::{DeviceId, Epoch, Sequence, SlotId, StreamId};
use vfio_ferry::machine::{
    Action, Event, Machine, PeerConfig, Reply, Request, TimeLimits, WriteResult,
};
use vfio_ferry::outcome::{Breach, Cause, Fault};
use vfio_ferry::receiver::{DeviceConfig, Receiver, ReceiverConfig};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{
    Begin, DataHeader, DataPhase, DevicePlace, Discard, Encoding, Features, Frame, Hello, Kind,
    Offer, StateDigest, Total, WireFault,
};

use crate::receiver::{DEVICE, place};
use crate::run::Run;

const CHUNK_BYTES: u32 = 4096;
const STREAMS: u16 = 4;
const SLOTS: usize = 8;
/// Begin and phase come before the first chunk.
const FIRST_CHUNK: u64 = 2;

/// One device in RESUMING, whose source saves in PRE_COPY; one worker. Chunks are agreed to have
/// half the size that this side could take, where `features` are ours.
pub(crate) fn loading(features: Features) -> Run<Receiver> {
    let mut run = Run::start(Receiver::new(ReceiverConfig {
        devices: vec![DeviceConfig {
            name: "device-0".to_owned(),
            capabilities: Capabilities { p2p: false, precopy: true },
        }],
        peer: PeerConfig { streams: STREAMS, silence_ns: u64::MAX },
        chunk_bytes: 2 * CHUNK_BYTES,
        workers: 1,
        slots_per_device: SLOTS,
        limits: TimeLimits::only_cancel(1_000_000),
    }));
    for stream in 0..STREAMS {
        let offer = Offer::new(usize::from(STREAMS), 1, CHUNK_BYTES as usize);
        let hello = Hello { features, ..offer.hello(1, StreamId(stream)) };
        run.hears(stream, Frame::Hello(hello));
    }
    let (name, opaque) = ("device-0".to_owned(), bytes::Bytes::new());
    run.hears(0, Frame::Begin(place(0), Begin { name, precopy: true, p2p: false, opaque }));
    run.set(DEVICE, DeviceState::Resuming, true);
    run.hears(0, Frame::Phase(place(1), DataPhase::PreCopy));
    run
}

/// The `number`th chunk of an epoch whose chunks are all of the full size.
pub(crate) fn header(number: u64, encoding: Encoding) -> DataHeader {
    DataHeader {
        place: place(FIRST_CHUNK + number),
        offset: number * u64::from(CHUNK_BYTES),
        encoding,
        raw_bytes: CHUNK_BYTES,
        body_bytes: match encoding {
            Encoding::Raw => CHUNK_BYTES,
            Encoding::Zstd => 100,
            Encoding::Zero => 0,
        },
        body_hash: 1,
        raw_hash: 2,
    }
}

pub(crate) fn data(run: &mut Run<Receiver>, stream: u16, header: DataHeader) {
    run.feed(Event::Data { stream: StreamId(stream), header });
}

/// The first of this kind that waits to be done.
fn take(run: &mut Run<Receiver>, kind: fn(&Action) -> bool) -> Option<Action> {
    let at = run.work.iter().position(kind)?;
    run.work.remove(at)
}

/// The body that was asked for first has come. The slot that it is in.
pub(crate) fn body(run: &mut Run<Receiver>) -> SlotId {
    let Some(Action::ReceiveBody { stream, header, slot }) =
        take(run, |action| matches!(action, Action::ReceiveBody { .. }))
    else {
        panic!("no body is on its way: {:?}", run.work);
    };
    run.feed(Event::Body { stream, header, slot });
    slot
}

/// The worker is through with the body that it was given first. The slot that it has used.
pub(crate) fn decode(run: &mut Run<Receiver>, result: Result<(), Fault>) -> SlotId {
    let Some(Action::Decode { header, slot, into }) =
        take(run, |action| matches!(action, Action::Decode { .. }))
    else {
        panic!("the worker has nothing to do: {:?}", run.work);
    };
    run.feed(Event::Decoded { header, slot, into, result });
    into
}

/// The resume fd has taken what was to be written first. Its number, and from where it came.
pub(crate) fn write(run: &mut Run<Receiver>, result: WriteResult) -> (u64, Option<SlotId>) {
    let Some(Action::Write { device, header, slot }) =
        take(run, |action| matches!(action, Action::Write { .. }))
    else {
        panic!("nothing is written: {:?}", run.work);
    };
    let (epoch, raw_bytes) = (header.place.epoch, header.raw_bytes);
    run.feed(Event::Written { device, epoch, raw_bytes, slot, result });
    (header.place.sequence.0 - FIRST_CHUNK, slot)
}

pub(crate) fn written() -> WriteResult {
    WriteResult::Written { hash: 2 }
}

/// The numbers of the chunks that wait to be done, with what is to be done.
pub(crate) fn waiting(run: &Run<Receiver>) -> Vec<(&'static str, u64)> {
    let work = run.work.iter().map(|action| match action {
        Action::ReceiveBody { header, .. } => ("body", header),
        Action::Decode { header, .. } => ("decode", header),
        Action::Write { header, .. } => ("write", header),
        other => panic!("{other:?} of a target"),
    });
    work.map(|(what, header)| (what, header.place.sequence.0 - FIRST_CHUNK)).collect()
}

/// The device is brought back, and the session ends. Why; no slot is out any more.
fn gives_up(run: &mut Run<Receiver>) -> Fault {
    assert_eq!(run.aborted_on().len(), usize::from(STREAMS));
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
    assert_eq!(run.machine.slots_out(), 0);
    run.fault().expect("it has ended").clone()
}

#[test]
fn chunks_are_written_in_their_order_whatever_order_they_come_in() {
    let mut run = loading(Features::ALL);
    data(&mut run, 0, header(2, Encoding::Raw));
    data(&mut run, 1, header(0, Encoding::Raw));
    data(&mut run, 2, header(1, Encoding::Zero));
    assert_eq!((waiting(&run), run.machine.slots_out()), (vec![("body", 2), ("body", 0)], 2));
    let last = body(&mut run);
    assert_eq!(waiting(&run), [("body", 0)], "the first is not there");
    let first = body(&mut run);
    assert_eq!(waiting(&run), [("write", 0), ("write", 1), ("write", 2)]);
    let from = [(); 3].map(|()| write(&mut run, written()));
    assert_eq!(from, [(0, Some(first)), (1, None), (2, Some(last))]);
    assert_eq!(run.machine.slots_out(), 0);

    // What was read on the source, and what the kernel took here, come to the same.
    let mut digest = StateDigest::new();
    (0..3).for_each(|_| digest.chunk(2, CHUNK_BYTES));
    let total = Total { bytes: 3 * u64::from(CHUNK_BYTES), digest: digest.finish() };
    run.hears(0, Frame::Phase(place(FIRST_CHUNK + 3), DataPhase::StopCopy));
    run.hears(0, Frame::End(place(FIRST_CHUNK + 4), total));
    run.found(DEVICE, DeviceState::Resuming);
    run.set(DEVICE, DeviceState::Stop, false);
    run.found(DEVICE, DeviceState::Stop);
    let loaded = Frame::Loaded { device: DEVICE, epoch: Epoch(0), total };
    assert_eq!(run.said.last().map(|(_, frame)| frame), Some(&loaded));
    let report = &run.machine.reports()[0];
    assert_eq!((report.chunks, report.total), ([1, 2, 0], total), "zeros, raw, compressed");
    // 64 bytes of header each.
    assert_eq!(report.wire_bytes, 3 * 64 + 2 * u64::from(CHUNK_BYTES));
}

#[test]
fn the_worker_has_two_bodies_and_the_others_wait_in_their_slots() {
    let mut run = loading(Features::ALL);
    for number in 0..3 {
        data(&mut run, number as u16, header(number, Encoding::Zstd));
    }
    let slots = [(); 3].map(|()| body(&mut run));
    assert_eq!(waiting(&run), [("decode", 0), ("decode", 1)]);
    assert_eq!(run.machine.slots_out(), 3 + 2);
    let into = decode(&mut run, Ok(()));
    assert!(!slots.contains(&into), "a body is not decompressed into itself");
    assert_eq!(waiting(&run), [("decode", 1), ("write", 0), ("decode", 2)]);
    // The body is done with; the chunk is where the worker has put it.
    assert_eq!(write(&mut run, written()), (0, Some(into)));
    decode(&mut run, Ok(()));
    decode(&mut run, Ok(()));
    assert_eq!([(); 2].map(|()| write(&mut run, written()).0), [1, 2]);
    assert_eq!(run.machine.slots_out(), 0);
}

#[test]
fn what_is_damaged_is_not_written() {
    let damaged = || Fault::breach(WireFault::BodyHash { kind: Kind::DATA, found: 1, expected: 3 });
    let mut run = loading(Features::ALL);
    data(&mut run, 0, header(0, Encoding::Zstd));
    body(&mut run);
    decode(&mut run, Err(damaged()));
    assert_eq!(gives_up(&mut run).breach, damaged().breach);
    assert_eq!(waiting(&run), []);

    // A raw body is checked by who writes it.
    let mut run = loading(Features::ALL);
    data(&mut run, 0, header(0, Encoding::Raw));
    body(&mut run);
    write(&mut run, WriteResult::Corrupt(damaged()));
    assert_eq!(gives_up(&mut run).breach, damaged().breach);
}

#[test]
fn a_write_that_fails_is_looked_into() {
    for (found, cause) in [
        (DeviceState::Resuming, Cause::DeviceFailure),
        (DeviceState::Running, Cause::DeviceReset),
        (DeviceState::Error, Cause::DeviceError),
    ] {
        let mut run = loading(Features::ALL);
        for number in 0..2 {
            data(&mut run, 0, header(number, Encoding::Raw));
            body(&mut run);
        }
        write(&mut run, WriteResult::Failed(libc::EINVAL));
        data(&mut run, 0, header(2, Encoding::Raw));
        body(&mut run);
        assert_eq!(waiting(&run), [("write", 1)], "nothing more is written meanwhile");
        run.found(DEVICE, found);
        assert_eq!(gives_up(&mut run).cause, cause, "{found}");
    }
}

#[test]
fn more_than_was_agreed_on_is_refused_and_its_body_skipped() {
    let raw = header(0, Encoding::Raw);
    let too_large = DataHeader { raw_bytes: CHUNK_BYTES + 1, body_bytes: CHUNK_BYTES + 1, ..raw };
    let unasked = header(0, Encoding::Zstd);
    let (found, max) = (CHUNK_BYTES + 1, CHUNK_BYTES);
    for (features, header, expected) in [
        (Features::ALL, too_large, WireFault::RawLength { found, max }),
        (Features::NONE, unasked, WireFault::EncodingNotAgreed),
    ] {
        let mut run = loading(features);
        data(&mut run, 1, header);
        assert_eq!(run.thrown_away, [Action::SkipBody { stream: StreamId(1) }]);
        assert_eq!(gives_up(&mut run).breach, Some(expected.into()));
    }
}

#[test]
fn a_chunk_in_a_wrong_place_is_refused() {
    let right = header(0, Encoding::Zero);
    // The first credit reaches as far as the slots do, begin and phase included.
    let granted = 2 + SLOTS as u64;
    for (wrong, expected) in [
        (DataHeader { offset: 1, ..right }, "offset"),
        (DataHeader { place: place(1), ..right }, "twice"),
        (DataHeader { place: place(granted), ..right }, "credit"),
        (DataHeader { place: DevicePlace { device: DeviceId(1), ..right.place }, ..right }, "who"),
        (DataHeader { place: DevicePlace { epoch: Epoch(1), ..right.place }, ..right }, "epoch"),
    ] {
        let mut run = loading(Features::ALL);
        data(&mut run, 0, wrong);
        let breach = gives_up(&mut run).breach;
        let found = match &breach {
            Some(Breach::Offset { found: 1, expected: 0, .. }) => "offset",
            Some(Breach::Duplicate { .. }) => "twice",
            Some(Breach::OutOfCredit { up_to, .. }) if up_to.0 == granted => "credit",
            Some(Breach::UnknownDevice { kind: Kind::DATA, device: DeviceId(1) }) => "who",
            Some(Breach::Epoch { found: Epoch(1), current: Epoch(0), .. }) => "epoch",
            _ => "another",
        };
        assert_eq!(found, expected, "{breach:?}");
        assert_eq!(run.thrown_away, [], "zeros have no body");
    }
}

#[test]
fn the_state_of_a_discarded_epoch_is_thrown_away_wherever_it_is() {
    let next = |sequence| DevicePlace { epoch: Epoch(1), ..place(sequence) };
    let mut run = loading(Features::ALL);
    // One is being written, one waits for its turn, two are with the worker and one waits for it.
    data(&mut run, 0, header(0, Encoding::Raw));
    body(&mut run);
    data(&mut run, 0, header(5, Encoding::Raw));
    body(&mut run);
    for number in 1..4 {
        data(&mut run, 1, header(number, Encoding::Zstd));
        body(&mut run);
    }
    assert_eq!(waiting(&run), [("write", 0), ("decode", 1), ("decode", 2)]);
    // And one is still on its way.
    data(&mut run, 2, header(4, Encoding::Raw));
    assert_eq!(run.machine.slots_out(), 6 + 2);
    let discard = Discard { discarded_bytes: 0, stop_copy_only: false };
    run.hears(0, Frame::Discard(next(0), discard));
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
    assert_eq!(waiting(&run), [("decode", 1), ("decode", 2), ("body", 4)]);
    assert_eq!((run.machine.slots_out(), run.asked.len()), (2 * 2 + 1, 0), "slots are awaited");
    decode(&mut run, Ok(()));
    decode(&mut run, Ok(()));
    assert_eq!((run.machine.slots_out(), run.asked.len()), (1, 0));
    body(&mut run);
    assert_eq!((waiting(&run), run.machine.slots_out()), (vec![], 0));
    run.set(DEVICE, DeviceState::Resuming, true);

    // What comes late is counted and skipped.
    data(&mut run, 3, header(6, Encoding::Raw));
    assert_eq!(run.thrown_away, [Action::SkipBody { stream: StreamId(3) }]);
    run.hears(0, Frame::InitialDataSent(place(FIRST_CHUNK + 7)));
    let report = &run.machine.reports()[0];
    assert_eq!((report.late_frames, report.epoch, report.discarded_bytes), (2, Epoch(1), 0));
    // The new epoch begins from nothing.
    run.hears(0, Frame::Phase(next(1), DataPhase::PreCopy));
    let first = DataHeader { place: next(FIRST_CHUNK), ..header(0, Encoding::Zero) };
    data(&mut run, 0, first);
    assert_eq!(waiting(&run), [("write", 0)]);
}

#[test]
fn a_stream_that_breaks_gives_back_the_slot_of_its_body() {
    let mut run = loading(Features::ALL);
    data(&mut run, 1, header(0, Encoding::Raw));
    let Some(Action::ReceiveBody { slot, .. }) = run.work.pop_front() else {
        panic!("a body is on its way");
    };
    let fault = Fault::breach(Breach::Cut { stream: StreamId(1), found: 1, expected: 4096 });
    run.feed(Event::StreamLost { stream: StreamId(1), slots: vec![slot], fault });
    assert_eq!(run.machine.slots_out(), 0);
}

#[test]
fn data_without_a_phase_has_no_meaning() {
    let mut run = crate::receiver::loading(1, TimeLimits::only_cancel(1_000_000));
    let header = DataHeader { place: place(1), ..header(0, Encoding::Zero) };
    run.feed(Event::Data { stream: StreamId(0), header });
    run.answers(DEVICE, Request::Reset, Reply::Reset);
    run.found(DEVICE, DeviceState::Running);
    let breach = run.fault().and_then(|fault| fault.breach.clone());
    assert!(matches!(breach, Some(Breach::Unexpected { kind: Kind::DATA, .. })), "{breach:?}");
}

/// The source measures the path by credits: at the start, and while chunks are compressed.
#[test]
fn credit_follows_what_is_done_with() {
    let credits = |run: &Run<Receiver>| {
        let credits = run.said.iter().filter_map(|(_, frame)| match frame {
            Frame::Credit { up_to, .. } => Some(*up_to),
            _ => None,
        });
        credits.collect::<Vec<_>>()
    };
    let slots = SLOTS as u64;
    for encoding in [Encoding::Raw, Encoding::Zstd] {
        let mut run = loading(Features::ALL);
        assert_eq!(credits(&run).last(), Some(&Sequence(2 + slots)), "begin and phase are done");
        let mut given = Vec::new();
        for number in 0..24 {
            let before = credits(&run).len();
            data(&mut run, 0, header(number, encoding));
            body(&mut run);
            if encoding == Encoding::Zstd {
                decode(&mut run, Ok(()));
            }
            assert_eq!(credits(&run).len(), before, "it is not written");
            write(&mut run, written());
            if let [up_to] = credits(&run)[before..] {
                assert_eq!(up_to, Sequence(FIRST_CHUNK + number + 1 + slots));
                given.push(FIRST_CHUNK + number);
            }
        }
        // Raw ones come fast: after the first 16 frames a credit for each half of the window will do.
        let expected: Vec<u64> = match encoding {
            Encoding::Raw => (FIRST_CHUNK..16).chain([19, 23]).collect(),
            _ => (FIRST_CHUNK..FIRST_CHUNK + 24).collect(),
        };
        assert_eq!(given, expected, "{encoding:?}");
    }
}
