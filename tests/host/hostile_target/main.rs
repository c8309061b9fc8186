//! A target against a source that says wrong things, at every frame: a fault that names what was
//! wrong, nothing of it in the device, the device blank, memory bounded.

mod talk;

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::limits::DISCARDS_MAX;
use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::wire::{
    Accept, DataPhase, DevicePlace, Discard, Encoding, Features, Frame, Hello, Kind, Total,
};
use vfio_ferry_tests::mutate::Expected;
use vfio_ferry_tests::peer::{alter, bytes, data};
use vfio_ferry_tests::script::{Case, Step, before, find, instead, mutations, step};

use talk::{
    CHUNK, CHUNK_AT, DEVICE, begin, chunk, chunks, hello, migration, place, play, play_all,
    restart, total, zstd,
};

#[test]
fn the_conversations_are_right_to_begin_with() {
    play(&migration(), None);
    play(&restart(), None);
}

#[test]
fn a_frame_that_is_damaged_on_the_way_is_refused() {
    play_all(&migration(), &mutations(&migration()));
}

#[test]
fn a_frame_that_is_damaged_after_a_discard_is_refused() {
    let script = restart();
    let cases: Vec<Case> = mutations(&script).into_iter().filter(|case| case.at >= 2).collect();
    play_all(&script, &cases);
}

fn wrong(breach: &'static str) -> Expected {
    Expected::Fault(Cause::PeerMisbehaviour, breach)
}

#[test]
fn hellos_that_do_not_fit_are_refused() {
    let script = migration();
    let case = |what: &str, hello: Hello, expected| {
        instead(&script, "hello", what, bytes(&Frame::Hello(hello)), expected)
    };
    play_all(
        &script,
        &[
            case("two streams", Hello { streams: 2, ..hello() }, wrong("Handshake")),
            case("no streams", Hello { streams: 0, ..hello() }, wrong("Handshake")),
            case("stream 1 of 1", Hello { stream: StreamId(1), ..hello() }, wrong("Handshake")),
            case("two devices", Hello { devices: 2, ..hello() }, wrong("Handshake")),
            case("chunks of 1", Hello { chunk_bytes: 1, ..hello() }, wrong("Handshake")),
            case(
                "later versions",
                Hello { version_min: 7, version_max: 9, ..hello() },
                wrong("NoCommonVersion"),
            ),
            instead(
                &script,
                "hello",
                "no hello",
                migration().swap_remove(4).frame,
                wrong("Unexpected"),
            ),
            instead(&script, "hello", "data first", chunk(0, place(0, 0)), wrong("Unexpected")),
            before(
                &script,
                "begin",
                "two hellos",
                bytes(&Frame::Hello(hello())),
                wrong("Unexpected"),
            ),
        ],
    );
}

#[test]
fn frames_that_are_the_targets_own_are_refused() {
    let script = migration();
    let accept = Accept { version: 1, features: Features::ALL, chunk_bytes: 4096, session: 77 };
    let (device, epoch) = (DEVICE, Epoch(0));
    let frames = [
        ("accept", Frame::Accept(accept)),
        ("initial data loaded", Frame::InitialDataLoaded { device, epoch }),
        ("loaded", Frame::Loaded { device, epoch, total: total(3) }),
        ("running", Frame::Running),
        ("credit", Frame::Credit { device, epoch, up_to: Sequence(u64::MAX) }),
    ];
    let mut cases = Vec::new();
    for (what, frame) in frames {
        for label in ["hello", "begin", "raw", "end", "handover"] {
            let what = format!("{what} in place of {label}");
            cases.push(instead(&script, label, &what, bytes(&frame), wrong("Unexpected")));
        }
    }
    play_all(&script, &cases);
}

#[test]
fn frames_out_of_turn_are_refused() {
    let script = migration();
    let case = |label, what, bytes, expected| instead(&script, label, what, bytes, expected);
    let again = |label: &str| script[find(&script, label)].frame.clone();
    let twice = |label: &str| again(label).repeat(2);
    let discard = |place| {
        bytes(&Frame::Discard(place, Discard { discarded_bytes: 0, stop_copy_only: false }))
    };
    let other = DevicePlace { device: DeviceId(1), ..place(0, 0) };
    let phase = |place| bytes(&Frame::Phase(place, DataPhase::PreCopy));
    let early_end = bytes(&Frame::End(place(0, 5), total(1)));
    let abort = Fault::session(Cause::Cancelled, Observation::Embedder, "enough");
    play_all(
        &script,
        &[
            case("begin", "another name", begin(place(0, 0), "device-1"), wrong("Name")),
            case("begin", "another device", begin(other, "device-1"), wrong("DeviceNumber")),
            case(
                "begin",
                "begin without credit",
                begin(place(0, 1), "device-0"),
                wrong("OutOfCredit"),
            ),
            case("begin", "data before begin", chunk(0, place(0, 0)), wrong("Unexpected")),
            case("begin", "zeros before begin", chunk(1, place(0, 0)), wrong("Unexpected")),
            case("begin", "a phase before begin", phase(place(0, 0)), wrong("Unexpected")),
            case("begin", "a discard before begin", discard(place(0, 0)), wrong("Unexpected")),
            case("begin", "an epoch before begin", discard(place(1, 0)), wrong("Unexpected")),
            case("begin", "handover before begin", bytes(&Frame::Handover), wrong("Unexpected")),
            case("precopy", "data of no phase", chunk(0, place(0, 1)), wrong("Unexpected")),
            case("precopy", "begin again", begin(place(0, 1), "device-0"), wrong("Unexpected")),
            case("precopy", "a discard in its epoch", discard(place(0, 1)), wrong("Unexpected")),
            case("raw", "the next epoch's data", chunk(0, place(1, 0)), wrong("Epoch")),
            case("raw", "a far epoch's data", chunk(0, place(9, 2)), wrong("Epoch")),
            case("raw", "a far epoch's discard", discard(place(2, 0)), wrong("Epoch")),
            case("raw", "a discard that is not first", discard(place(1, 1)), wrong("Epoch")),
            case("raw", "data beyond the credit", chunk(0, place(0, 100)), wrong("OutOfCredit")),
            case(
                "raw",
                "data at the end of time",
                chunk(0, place(0, u64::MAX)),
                wrong("OutOfCredit"),
            ),
            case("zero", "PRE_COPY after STOP_COPY", phase(place(0, 5)), wrong("Unexpected")),
            case("stop", "a phase beyond the credit", phase(place(0, 99)), wrong("OutOfCredit")),
            case("begin", "begin twice", twice("begin"), wrong("Duplicate")),
            case("precopy", "a phase twice", twice("precopy"), wrong("Duplicate")),
            // The first copies are the script's own: they may have reached the device by then.
            case("initial", "a chunk twice", again("raw"), wrong("Duplicate")),
            case("zstd", "zeros twice", again("zero"), wrong("Duplicate")),
            case("initial", "a mark twice", twice("initial"), wrong("Duplicate")),
            case("end", "a chunk again once another has come", again("zero"), wrong("Duplicate")),
            case("end", "an end twice", twice("end"), wrong("Duplicate")),
            case(
                "zero",
                "data after the end",
                [early_end.clone(), chunk(0, place(0, 6))].concat(),
                wrong("Unexpected"),
            ),
            case(
                "zero",
                "a phase after the end",
                [early_end, phase(place(0, 6))].concat(),
                wrong("Unexpected"),
            ),
            case("end", "handover before the end", bytes(&Frame::Handover), wrong("Unexpected")),
            case("handover", "handover twice", twice("handover"), Expected::Nothing),
            case(
                "zstd",
                "an abort",
                bytes(&Frame::Abort((&abort).into())),
                Expected::Fault(Cause::PeerAbort, "none"),
            ),
        ],
    );
}

#[test]
fn frames_of_an_epoch_may_overtake_each_other() {
    let script = migration();
    // Places 5, 6 and 7 in another order; nothing else is left out of them.
    let frames = ["end", "zstd", "zero"].map(|label| script[find(&script, label)].frame.clone());
    let mut reordered = script.clone();
    reordered.drain(find(&script, "zstd")..=find(&script, "end"));
    let case = instead(&reordered, "zero", "backwards", frames.concat(), Expected::Nothing);
    play(&reordered, Some(&case));
}

#[test]
fn frames_of_a_discarded_epoch_are_dropped() {
    let script = restart();
    let late = [
        chunk(0, place(0, 7)),
        chunk(1, place(0, 2)),
        bytes(&Frame::End(place(0, 3), total(1))),
        bytes(&Frame::Phase(place(0, 4), DataPhase::StopCopy)),
    ];
    let cases = ["raw", "zero", "end"]
        .map(|at| before(&script, at, "late", late.concat(), Expected::Nothing));
    play_all(&script, &cases);
}

/// Each discard is right by itself and costs the target a reset.
#[test]
fn a_source_that_discards_again_and_again_is_refused() {
    let script = restart();
    let discards = |count: u32| -> Vec<u8> {
        let discard = Discard { discarded_bytes: 0, stop_copy_only: false };
        (1..=count).flat_map(|n| bytes(&Frame::Discard(place(n, 0), discard))).collect()
    };
    let too_many = discards(DISCARDS_MAX + 1);
    play(&script, Some(&instead(&script, "discard", "discards", too_many, wrong("Discards"))));

    // As many as are taken, and the state in the last of their epochs.
    let mut patient = script.clone();
    let at = find(&patient, "discard");
    patient[at].frame = discards(DISCARDS_MAX);
    patient.truncate(at + 1);
    let credit = Step {
        after: Some((Kind::CREDIT, DISCARDS_MAX)),
        ..step("stop", bytes(&Frame::Phase(place(DISCARDS_MAX, 1), DataPhase::StopCopy)))
    };
    patient.push(credit);
    for (number, label) in ["raw", "zero", "zstd"].into_iter().enumerate() {
        patient.push(step(label, chunk(number, place(DISCARDS_MAX, number as u64 + 2))));
    }
    patient.push(step("end", bytes(&Frame::End(place(DISCARDS_MAX, 5), total(3)))));
    patient.push(Step {
        after: Some((Kind::LOADED, DISCARDS_MAX)),
        ..step("handover", bytes(&Frame::Handover))
    });
    play(&patient, None);
}

#[test]
fn data_that_is_not_what_it_says_is_refused() {
    let script = migration();
    let case = |label, what, bytes, expected| instead(&script, label, what, bytes, expected);
    let [noise, zeros, table] = chunks();
    let packed = zstd(&table);
    let here = place(0, 6);
    let at = 2 * CHUNK as u64;
    let as_zstd = |chunk: &[u8], body: &[u8]| data(here, at, Encoding::Zstd, chunk, body);
    let raw = |offset| data(place(0, 2), offset, Encoding::Raw, &noise, &noise);
    let altered = |mut frame: Vec<u8>, at: usize, with: &[u8]| {
        alter(&mut frame, |header| header[at..at + with.len()].copy_from_slice(with));
        frame
    };
    // 16 MiB in a few hundred bytes; once with a header that says so, once with one that lies: the
    // content size stands behind magic and descriptor.
    let bomb = zstd(&vec![0; 16 << 20]);
    let mut liar = bomb.clone();
    assert_eq!(liar[4] >> 6, 2, "a content size of four bytes");
    let size_at = if liar[4] & 0x20 == 0 { 6 } else { 5 };
    liar[size_at..size_at + 4].copy_from_slice(&(CHUNK as u32).to_le_bytes());
    let end = |total| bytes(&Frame::End(place(0, 7), total));
    play_all(
        &script,
        &[
            case("raw", "a gap", raw(1), wrong("Offset")),
            case("raw", "a far gap", raw(1 << 40), wrong("Offset")),
            case("raw", "beyond the end of the world", raw(u64::MAX - 9), wrong("Offset")),
            case(
                "zero",
                "zeros over data",
                data(place(0, 5), 0, Encoding::Zero, &zeros, &[]),
                wrong("Offset"),
            ),
            case("raw", "two hashes", altered(raw(0), 48, &[0; 8]), wrong("RawHash")),
            case("raw", "an unknown encoding", altered(raw(0), 5, &[7]), wrong("UnknownEncoding")),
            case("raw", "an empty chunk", altered(raw(0), CHUNK_AT, &[0; 8]), wrong("RawLength")),
            case(
                "raw",
                "a body longer than the chunk",
                altered(raw(0), 12, &[1]),
                wrong("BodyLength"),
            ),
            case(
                "zero",
                "4 GiB of zeros",
                altered(chunk(1, place(0, 5)), 12, &[0xff; 4]),
                wrong("RawLength"),
            ),
            case(
                "zero",
                "zeros that are none",
                data(place(0, 5), CHUNK as u64, Encoding::Zero, &noise, &[]),
                wrong("Chunk"),
            ),
            case("zstd", "no zstd", as_zstd(&table, &noise[..500]), wrong("Chunk")),
            case("zstd", "another content", as_zstd(&noise, &packed), wrong("Chunk")),
            case(
                "zstd",
                "a cut frame",
                as_zstd(&table, &packed[..packed.len() - 1]),
                wrong("Chunk"),
            ),
            case(
                "zstd",
                "two frames",
                as_zstd(&table, &[&packed[..], &packed].concat()),
                wrong("Chunk"),
            ),
            case("zstd", "a bomb", as_zstd(&table, &bomb), wrong("Chunk")),
            case("zstd", "a bomb that denies it", as_zstd(&table, &liar), wrong("Chunk")),
            case("end", "other bytes", end(Total { bytes: 1, ..total(3) }), wrong("Total")),
            case(
                "end",
                "another digest",
                end(Total { digest: total(2).digest, ..total(3) }),
                wrong("Total"),
            ),
        ],
    );
}

#[test]
fn what_was_not_agreed_is_refused() {
    let mut script = migration();
    let plain = Hello { features: Features::NONE, ..hello() };
    script[0].frame = bytes(&Frame::Hello(plain));
    let zstd = script[find(&script, "zstd")].frame.clone();
    play(&script, Some(&instead(&script, "zstd", "zstd", zstd, wrong("EncodingNotAgreed"))));

    let small = Hello { chunk_bytes: CHUNK as u32, ..hello() };
    script[0].frame = bytes(&Frame::Hello(small));
    let long = vec![7; CHUNK + 1];
    let long = data(place(0, 2), 0, Encoding::Raw, &long, &long);
    play(&script, Some(&instead(&script, "raw", "a long chunk", long, wrong("RawLength"))));
}

#[test]
fn a_flood_of_messages_is_bounded() {
    let script = migration();
    let message = bytes(&Frame::Message(Bytes::from(vec![1; 32 << 10])));
    // The embedder of this test looks at nothing before the peer is through.
    let flood = message.repeat(vfio_ferry::limits::MESSAGES_WAITING_MAX + 1);
    let case = instead(&script, "begin", "a flood", flood, wrong("Messages"));
    play_all(&script, &[case]);
}
