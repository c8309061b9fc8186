//! The accepted golden vectors, and the value that each of them stands for.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::wire::{
    Accept, Begin, DataHeader, DataPhase, DevicePlace, Digest, Discard, Encoding, Features, Frame,
    Hello, Total, chunk_hash,
};

const SESSION: u128 = 0x0f1e2d3c_4b5a6978_8796a5b4_c3d2e1f0;
const TOTAL: Total =
    Total { bytes: 123_456_789, digest: Digest(0x00112233_44556677_8899aabb_ccddeeff) };

/// What a vector's bytes mean.
#[derive(Debug, Clone)]
pub(crate) enum Meaning {
    /// Writing the frame gives the bytes, and reading the bytes gives the frame.
    Frame(Frame),
    /// Reading the bytes gives the frame; an engine of this version writes it otherwise.
    Newer(Frame),
    /// The header is this chunk's.
    Data(DataHeader),
    /// An unknown kind that is skipped.
    Skipped,
}

/// The number that a vector's frame has on its stream.
pub(crate) fn number_of(name: &str) -> u32 {
    match name {
        "data_raw" => 0x0102_0304,
        "data_zero" | "optional_unknown" => 1,
        "handover" | "abort_session" => u32::MAX,
        "message" => 0x8000_0000,
        _ => 0,
    }
}

/// The repository's `tests` directory.
pub(crate) fn tests_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests")
}

/// The bytes of a vector, "accepted/hello" for example.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    let path = tests_dir().join("vectors").join(format!("{name}.hex"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
        .collect()
}

/// The names of all vectors in a directory of them.
pub(crate) fn vector_names(group: &str) -> Vec<String> {
    let dir = tests_dir().join("vectors").join(group);
    let mut names: Vec<String> = std::fs::read_dir(&dir)
        .expect("the vectors are committed")
        .map(|entry| entry.expect("readable").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// A frame's bytes as header and body.
pub(crate) fn halves(bytes: &[u8]) -> ([u8; HEADER_BYTES], Vec<u8>) {
    let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a whole header");
    (*header, body.to_vec())
}

/// The bytes that `generate.py` calls `pattern`.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + (i >> 8) * 17 + 7) as u8).collect()
}

fn place(epoch: u32, sequence: u64) -> DevicePlace {
    DevicePlace { device: DeviceId(2), epoch: Epoch(epoch), sequence: Sequence(sequence) }
}

fn data(
    place: DevicePlace,
    offset: u64,
    encoding: Encoding,
    chunk: &[u8],
    body: &[u8],
) -> DataHeader {
    DataHeader {
        place,
        offset,
        encoding,
        raw_bytes: chunk.len() as u32,
        body_bytes: body.len() as u32,
        body_hash: chunk_hash(body),
        raw_hash: chunk_hash(chunk),
    }
}

/// The zstd frame of 4096 times 0x5a that `generate.py` writes by hand.
pub(crate) const RLE: [u8; 11] = [0x28, 0xb5, 0x2f, 0xfd, 0x60, 0x00, 0x0f, 0x03, 0x80, 0x00, 0x5a];

/// Every accepted vector with its meaning.
pub(crate) fn accepted() -> Vec<(&'static str, Meaning)> {
    let frame = Meaning::Frame;
    let at = place(5, 0x0102_0304_0506_0708);
    let first = DevicePlace { device: DeviceId(0), epoch: Epoch(0), sequence: Sequence(1) };
    let (device, epoch) = (DeviceId(2), Epoch(5));
    let hello = Hello {
        version_min: 1,
        version_max: 1,
        features: Features::ZSTD,
        session: SESSION,
        stream: StreamId(2),
        streams: 4,
        devices: 3,
        chunk_bytes: 262_144,
    };
    let newer_hello =
        Hello { version_min: 3, version_max: 9, features: Features((1 << 63) | 3), ..hello };
    let accept =
        Accept { version: 1, features: Features::ZSTD, chunk_bytes: 131_072, session: SESSION };
    let begin = Begin {
        name: "0000:3b:00.2 é".into(),
        precopy: true,
        p2p: true,
        opaque: Bytes::from_static(&[0, 255, 16]),
    };
    let bare = Begin { name: String::new(), precopy: false, p2p: false, opaque: Bytes::new() };
    let bare_place = DevicePlace { device: DeviceId(1), epoch: Epoch(0), sequence: Sequence(0) };
    let discard = Discard { discarded_bytes: 0x1122_3344_5566_7788, stop_copy_only: false };
    let stop_copy_only = Discard { discarded_bytes: 9, stop_copy_only: true };
    let reset = Fault::device(
        device,
        Cause::DeviceReset,
        Observation::Read,
        Some(19),
        "the guest reset the device",
    );
    let local = Fault { errno: Some(12), ..Fault::session(Cause::Local, Observation::Engine, "") };
    let cancelled =
        Fault::session(Cause::Cancelled, Observation::Embedder, "cancelled by the operator");
    let newer = Fault::device(
        device,
        Cause::PeerAbort,
        Observation::Peer,
        None,
        "why (the peer is newer: cause 77, seen as 300)",
    );
    let stranger = Fault {
        errno: Some(5),
        ..Fault::session(Cause::DeviceFailure, Observation::SetState, "firmware")
    };
    let time = Fault::session(Cause::TimeLimit, Observation::Clock, "stall_limit (30 s) is over");
    let unseen = Fault::session(
        Cause::PeerMisbehaviour,
        Observation::Peer,
        "\u{fffd}[31mwhy\u{fffd}\u{fffd}yhw\u{fffd}",
    );
    let number = 0xfedc_ba98_7654_3210;
    let raw = pattern(48);
    vec![
        ("hello", frame(Frame::Hello(hello))),
        ("hello_newer", Meaning::Newer(Frame::Hello(newer_hello))),
        ("accept", frame(Frame::Accept(accept))),
        ("begin", frame(Frame::Begin(place(0, 0), begin))),
        ("begin_bare", frame(Frame::Begin(bare_place, bare))),
        ("data_zero", Meaning::Data(data(place(5, 7), 1 << 40, Encoding::Zero, &[0; 4096], &[]))),
        ("data_raw", Meaning::Data(data(place(5, 8), (1 << 40) + 4096, Encoding::Raw, &raw, &raw))),
        ("data_zstd", Meaning::Data(data(first, 0, Encoding::Zstd, &[0x5a; 4096], &RLE))),
        ("phase_pre_copy", frame(Frame::Phase(at, DataPhase::PreCopy))),
        ("phase_stop_copy", frame(Frame::Phase(at, DataPhase::StopCopy))),
        ("initial_data_sent", frame(Frame::InitialDataSent(at))),
        ("initial_data_loaded", frame(Frame::InitialDataLoaded { device, epoch })),
        ("discard", frame(Frame::Discard(place(6, 0), discard))),
        ("discard_stop_copy_only", frame(Frame::Discard(place(6, 0), stop_copy_only))),
        ("end", frame(Frame::End(at, TOTAL))),
        ("loaded", frame(Frame::Loaded { device, epoch, total: TOTAL })),
        ("handover", frame(Frame::Handover)),
        ("running", frame(Frame::Running)),
        ("credit", frame(Frame::Credit { device, epoch, up_to: at.sequence })),
        ("abort_session", frame(Frame::Abort((&cancelled).into()))),
        ("abort_device", frame(Frame::Abort((&reset).into()))),
        ("abort_bare", frame(Frame::Abort((&local).into()))),
        ("abort_newer", Meaning::Newer(Frame::Abort((&newer).into()))),
        ("abort_unknown_device", Meaning::Newer(Frame::Abort((&stranger).into()))),
        ("abort_time", frame(Frame::Abort((&time).into()))),
        ("abort_unseen", Meaning::Newer(Frame::Abort((&unseen).into()))),
        ("message", frame(Frame::Message(pattern(33).into()))),
        ("message_empty", frame(Frame::Message(Bytes::new()))),
        ("ping", frame(Frame::Ping(number))),
        ("pong", frame(Frame::Pong(number))),
        ("optional_unknown", Meaning::Skipped),
    ]
}
