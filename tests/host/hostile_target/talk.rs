//! What a source says, right to begin with, and what every conversation with a real target must
//! come to.

use std::slice::from_ref;
use std::sync::Arc;

use bytes::Bytes;
use vfio_ferry::compress::codec::Codec;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::outcome::{Cause, Observation, TargetEnding};
use vfio_ferry::session::{Options, TargetSession};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{
    Begin, DataPhase, DevicePlace, Discard, Encoding, Frame, Hello, Kind, Offer, StateDigest,
    Total, chunk_hash,
};
use vfio_ferry_tests::device::{Holding, Plan, TestDevice};
use vfio_ferry_tests::mutate::{Expected, assert_expected};
use vfio_ferry_tests::pair::{end, streams, targets};
use vfio_ferry_tests::peer::{Peer, bytes, data};
use vfio_ferry_tests::process::peak_bytes;
use vfio_ferry_tests::script::{Case, Step, after, lead, step};

pub(crate) const CHUNK: usize = 4096;
pub(crate) const CHUNK_AT: usize = 8;
/// More than the sessions of all tests of this file need, which run side by side; far less than
/// any length that the frames announce.
pub(crate) const PEAK_BYTES_MAX: u64 = 256 << 20;

pub(crate) const DEVICE: DeviceId = DeviceId(0);

pub(crate) fn place(epoch: u32, sequence: u64) -> DevicePlace {
    DevicePlace { device: DEVICE, epoch: Epoch(epoch), sequence: Sequence(sequence) }
}

/// The state's three chunks: one for each encoding.
pub(crate) fn chunks() -> [Vec<u8>; 3] {
    let noise = (0..CHUNK as u64).map(|i| chunk_hash(&i.to_le_bytes()) as u8).collect();
    [noise, vec![0; CHUNK], b"descriptor table "[..].repeat(300)[..CHUNK].to_vec()]
}

pub(crate) fn zstd(chunk: &[u8]) -> Vec<u8> {
    let mut into = vec![0; chunk.len()];
    let mut codec = Codec::new().expect("zstd");
    let length = codec.compress(chunk, &mut into, 3).expect("zstd").expect("it shrinks");
    into.truncate(length);
    into
}

/// The digest of the first chunks.
pub(crate) fn total(count: usize) -> Total {
    let mut digest = StateDigest::new();
    for chunk in chunks().iter().take(count) {
        digest.chunk(chunk_hash(chunk), chunk.len() as u32);
    }
    Total { bytes: digest.bytes(), digest: digest.finish() }
}

pub(crate) fn hello() -> Hello {
    Offer::new(1, 1, 256 << 10).hello(77, StreamId(0))
}

pub(crate) fn begin(place: DevicePlace, name: &str) -> Vec<u8> {
    let opaque = Bytes::from_static(b"opaque");
    let begin = Begin { name: name.to_owned(), precopy: true, p2p: true, opaque };
    bytes(&Frame::Begin(place, begin))
}

pub(crate) fn phase(place: DevicePlace, phase: DataPhase) -> Vec<u8> {
    bytes(&Frame::Phase(place, phase))
}

/// The chunk of this number at its place in the state.
pub(crate) fn chunk(number: usize, place: DevicePlace) -> Vec<u8> {
    let chunk = &chunks()[number];
    let offset = (number * CHUNK) as u64;
    match number {
        0 => data(place, offset, Encoding::Raw, chunk, chunk),
        1 => data(place, offset, Encoding::Zero, chunk, &[]),
        _ => data(place, offset, Encoding::Zstd, chunk, &zstd(chunk)),
    }
}

/// A whole migration with PRE_COPY.
pub(crate) fn migration() -> Vec<Step> {
    vec![
        step("hello", bytes(&Frame::Hello(hello()))),
        after(Kind::ACCEPT, "message", bytes(&Frame::Message(Bytes::from_static(b"hello")))),
        step("ping", bytes(&Frame::Ping(1))),
        after(Kind::PONG, "pong", bytes(&Frame::Pong(9))),
        step("begin", begin(place(0, 0), "device-0")),
        after(Kind::CREDIT, "precopy", phase(place(0, 1), DataPhase::PreCopy)),
        step("raw", chunk(0, place(0, 2))),
        step("initial", bytes(&Frame::InitialDataSent(place(0, 3)))),
        after(Kind::INITIAL_DATA_LOADED, "stop", phase(place(0, 4), DataPhase::StopCopy)),
        step("zero", chunk(1, place(0, 5))),
        step("zstd", chunk(2, place(0, 6))),
        step("end", bytes(&Frame::End(place(0, 7), total(3)))),
        after(Kind::LOADED, "handover", bytes(&Frame::Handover)),
    ]
}

/// A migration whose device is reset once.
pub(crate) fn restart() -> Vec<Step> {
    let discard = Discard { discarded_bytes: CHUNK as u64, stop_copy_only: true };
    vec![
        step("hello", bytes(&Frame::Hello(hello()))),
        after(Kind::ACCEPT, "begin", begin(place(0, 0), "device-0")),
        after(Kind::CREDIT, "precopy", phase(place(0, 1), DataPhase::PreCopy)),
        step("old", chunk(0, place(0, 2))),
        step("discard", bytes(&Frame::Discard(place(1, 0), discard))),
        Step {
            after: Some((Kind::CREDIT, 1)),
            ..step("stop", phase(place(1, 1), DataPhase::StopCopy))
        },
        step("raw", chunk(0, place(1, 2))),
        step("zero", chunk(1, place(1, 3))),
        step("zstd", chunk(2, place(1, 4))),
        step("end", bytes(&Frame::End(place(1, 5), total(3)))),
        Step { after: Some((Kind::LOADED, 1)), ..step("handover", bytes(&Frame::Handover)) },
    ]
}

/// Leads one conversation with a real target, and checks what every one must come to.
pub(crate) fn play(script: &[Step], case: Option<&Case>) {
    let what = case.map_or("nothing wrong", |case| case.what.as_str());
    let expected = case.map_or(&Expected::Nothing, |case| &case.expected);
    let device = Arc::new(TestDevice::new(Plan { keeps: true, ..Plan::default() }));
    let (mut ours, theirs) = streams(1);
    let options = Options { workers: 1, ..Options::default() };
    let session = TargetSession::start(targets(from_ref(&device)), theirs, options);
    let session = session.expect("a session");
    let mut peer = Peer::from(ours.remove(0));
    assert!(lead(&mut peer, script, case), "{what}: the target did not answer");
    if *expected == Expected::Nothing {
        assert!(peer.expect(Kind::RUNNING).is_some(), "{what}: the target does not run");
    }
    let aborted = peer.last_word().is_some();
    drop(peer);
    let ended = end(session);
    assert_expected(expected, ended.fault(), what);

    let whole = chunks().concat();
    assert_eq!(device.state_now(), DeviceState::Running, "{what}");
    assert_eq!(device.violations(), [""; 0]);
    let kept = device.kept();
    if *expected == Expected::Nothing {
        assert_eq!(ended.report.ending, TargetEnding::Running, "{what}");
        assert!(kept == whole && matches!(device.holding(), Holding::Loaded(_)), "{what}");
        return;
    }
    let TargetEnding::Blank(fault) = ended.report.ending else { panic!("{what}") };
    let begun = device.trail().contains(&DeviceState::Resuming);
    let blank = if begun { Holding::Blank } else { Holding::Own };
    assert_eq!(device.holding(), blank, "{what}");
    let good = case.map_or(0, |case| {
        let begins = script[..case.at].iter().rposition(|step| step.label == "discard");
        let epoch = &script[begins.unwrap_or(0)..case.at];
        epoch.iter().filter(|s| ["old", "raw", "zero", "zstd"].contains(&s.label)).count()
    });
    assert!(kept.len() <= good * CHUNK, "{what}: {} bytes were written", kept.len());
    assert!(whole.starts_with(&kept), "{what}: other bytes were written");
    // A stream that cannot be understood any more is closed; else the source is told why.
    if fault.observed == Observation::Peer && fault.cause == Cause::PeerMisbehaviour {
        assert!(aborted, "{what}: the source was not told");
    }
}

pub(crate) fn play_all(script: &[Step], cases: &[Case]) {
    for case in cases {
        println!("{}", case.what);
        play(script, Some(case));
    }
    println!("{} cases, at most {} MiB", cases.len(), peak_bytes() >> 20);
    assert!(peak_bytes() < PEAK_BYTES_MAX, "{} bytes of memory", peak_bytes());
}
