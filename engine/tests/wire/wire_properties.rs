//! Arbitrary frames survive the way there and back; arbitrary bytes never panic.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::limits::{
    CHUNK_BYTES_MAX, HEADER_BYTES, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX,
};
use vfio_ferry::outcome::{Cause, Observation};
use vfio_ferry::wire::{
    Abort, Accept, Begin, DataHeader, DataPhase, DevicePlace, Digest, Discard, Encoding, Features,
    Frame, Header, Hello, Total, WireFault, WireLimits, chunk_hash, data_header, decode,
    decode_header, encode, encode_header,
};

use crate::checks;
use crate::wire_samples::{vector, vector_names};

fn device() -> impl Strategy<Value = DeviceId> {
    (0..64u32).prop_map(DeviceId)
}

fn place() -> impl Strategy<Value = DevicePlace> {
    (device(), any::<u32>(), any::<u64>()).prop_map(|(device, epoch, sequence)| DevicePlace {
        device,
        epoch: Epoch(epoch),
        sequence: Sequence(sequence),
    })
}

fn total() -> impl Strategy<Value = Total> {
    any::<(u64, u128)>().prop_map(|(bytes, digest)| Total { bytes, digest: Digest(digest) })
}

/// Text of at most `max` bytes, of one-byte and longer characters that can be seen.
fn text(max: usize) -> impl Strategy<Value = String> {
    // Where no character goes that is seen as something else, or not at all.
    let ranges = ['!'..='~', 'À'..='ÿ', 'א'..='ת', '一'..='龠', '🦀'..='🦟'];
    let seen = prop::char::ranges(ranges.to_vec().into());
    vec(seen, 0..=max / 4).prop_map(String::from_iter)
}

fn opaque(max: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        any::<u8>().prop_map(move |byte| Bytes::from(vec![byte; max])),
    ]
}

fn hello() -> impl Strategy<Value = Hello> {
    any::<(u8, u8, u64, u128, u16, u16, u32, u32)>().prop_map(
        |(version_min, version_max, features, session, stream, streams, devices, chunk_bytes)| {
            Hello {
                version_min,
                version_max,
                features: Features(features),
                session,
                stream: StreamId(stream),
                streams,
                devices,
                chunk_bytes,
            }
        },
    )
}

fn abort() -> impl Strategy<Value = Abort> {
    (
        prop::sample::select(&Cause::ALL[..]),
        prop::sample::select(&Observation::ALL[..]),
        prop::option::of(1..=i32::MAX),
        prop::option::of(device()),
        text(TEXT_BYTES_MAX),
    )
        .prop_map(|(cause, observed, errno, device, message)| Abort {
            cause,
            observed,
            errno,
            device,
            message,
        })
}

fn begin() -> impl Strategy<Value = Begin> {
    (text(NAME_BYTES_MAX), any::<bool>(), any::<bool>(), opaque(MESSAGE_BYTES_MAX))
        .prop_map(|(name, precopy, p2p, opaque)| Begin { name, precopy, p2p, opaque })
}

fn frame() -> impl Strategy<Value = Frame> {
    let epoch = || any::<u32>().prop_map(Epoch);
    let phase = prop_oneof![Just(DataPhase::PreCopy), Just(DataPhase::StopCopy)];
    let accept =
        any::<(u8, u64, u32, u128)>().prop_map(|(version, features, chunk_bytes, session)| {
            Accept { version, features: Features(features), chunk_bytes, session }
        });
    let discard = any::<(u64, bool)>()
        .prop_map(|(discarded_bytes, stop_copy_only)| Discard { discarded_bytes, stop_copy_only });
    prop_oneof![
        hello().prop_map(Frame::Hello),
        accept.prop_map(Frame::Accept),
        (place(), begin()).prop_map(|(place, begin)| Frame::Begin(place, begin)),
        (place(), phase).prop_map(|(place, phase)| Frame::Phase(place, phase)),
        place().prop_map(Frame::InitialDataSent),
        (device(), epoch()).prop_map(|(device, epoch)| Frame::InitialDataLoaded { device, epoch }),
        (place(), discard).prop_map(|(place, discard)| Frame::Discard(place, discard)),
        (place(), total()).prop_map(|(place, total)| Frame::End(place, total)),
        (device(), epoch(), total()).prop_map(|(device, epoch, total)| Frame::Loaded {
            device,
            epoch,
            total
        }),
        Just(Frame::Handover),
        Just(Frame::Running),
        (device(), epoch(), any::<u64>()).prop_map(|(device, epoch, up_to)| Frame::Credit {
            device,
            epoch,
            up_to: Sequence(up_to),
        }),
        abort().prop_map(Frame::Abort),
        opaque(MESSAGE_BYTES_MAX).prop_map(Frame::Message),
        any::<u64>().prop_map(Frame::Ping),
        any::<u64>().prop_map(Frame::Pong),
    ]
}

fn data() -> impl Strategy<Value = DataHeader> {
    let lengths = (1..=CHUNK_BYTES_MAX as u32).prop_flat_map(|raw_bytes| {
        let zstd = (1..raw_bytes.max(2)).prop_map(|body_bytes| (Encoding::Zstd, body_bytes));
        (
            Just(raw_bytes),
            prop_oneof![Just((Encoding::Zero, 0)), Just((Encoding::Raw, raw_bytes)), zstd],
        )
    });
    (place(), any::<(u64, u64, u64)>(), lengths)
        .prop_filter("one byte is never compressed", |(_, _, (raw_bytes, (_, body_bytes)))| {
            body_bytes <= raw_bytes && *raw_bytes > 1
        })
        .prop_map(|(place, (offset, body_hash, raw_hash), (raw_bytes, (encoding, body_bytes)))| {
            DataHeader {
                place,
                offset: offset & (u64::MAX >> 1),
                encoding,
                raw_bytes,
                body_bytes,
                body_hash: match encoding {
                    Encoding::Zero => chunk_hash(&[]),
                    Encoding::Raw => raw_hash,
                    Encoding::Zstd => body_hash,
                },
                raw_hash,
            }
        })
}

proptest! {
    #[test]
    fn wire_any_frame_survives_the_way_there_and_back(frame in frame(), number: u32) {
        let mut bytes = Vec::new();
        encode(&frame, number, &mut bytes).expect("within the limits");
        let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a header");
        let header = decode_header(head, &WireLimits::MAX).expect("its own header");
        prop_assert_eq!((header.body_bytes as usize, header.number), (body.len(), number));
        prop_assert_eq!(decode(&header, body), Ok(frame));
    }

    #[test]
    fn wire_any_chunk_header_survives_the_way_there_and_back(data in data(), number: u32) {
        let bytes = encode_header(&Header::from(data).numbered(number));
        let header = decode_header(&bytes, &WireLimits::MAX).expect("its own header");
        prop_assert_eq!(header.number, number);
        prop_assert_eq!(data_header(&header), Ok(data));
    }

    #[test]
    fn wire_any_bytes_keep_the_promises(data in vec(any::<u8>(), 0..300)) {
        checks::header(&data);
        checks::body(&data);
        checks::stream(&data);
    }

    #[test]
    fn wire_any_known_kind_with_any_fields_keeps_the_promises(
        kind in 0..20u16,
        data in vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 64..200),
    ) {
        let mut data = data;
        data[4] = 1;
        data[6..8].copy_from_slice(&kind.to_le_bytes());
        checks::header(&data);
        checks::body(&data);
    }

    #[test]
    fn wire_any_damaged_vector_keeps_the_promises(
        name in prop::sample::select(vector_names("accepted")),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = vector(&format!("accepted/{name}"));
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        checks::header(&bytes);
        checks::body(&bytes);
        checks::stream(&bytes);
    }

    #[test]
    fn wire_an_abort_of_any_length_can_be_written(message in vec(any::<char>(), 0..2000)) {
        let message = String::from_iter(message);
        let abort = |message: &str| Frame::Abort(Abort {
            cause: Cause::Local,
            observed: Observation::Engine,
            errno: None,
            device: None,
            message: message.to_owned(),
        });
        let travel = |frame: &Frame| {
            let mut bytes = Vec::new();
            assert_eq!(encode(frame, 0, &mut bytes), Ok(()));
            let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a header");
            let header = decode_header(head, &WireLimits::MAX).expect("its own header");
            decode(&header, body)
        };
        let Ok(Frame::Abort(heard)) = travel(&abort(&message)) else { panic!("no abort") };
        // Character by character the same, or what stands for one that cannot be seen.
        for (said, heard) in message.chars().zip(heard.message.chars()) {
            prop_assert!(said == heard || heard == char::REPLACEMENT_CHARACTER);
            prop_assert!(!heard.is_control());
        }
        prop_assert!(heard.message.len() <= TEXT_BYTES_MAX);
        prop_assert!(heard.message.len() >= message.len().min(TEXT_BYTES_MAX - 3));
        prop_assert_eq!(travel(&abort(&heard.message)), Ok(abort(&heard.message)));
    }
}

#[test]
fn wire_what_is_too_long_is_not_written() {
    let at = DevicePlace { device: DeviceId(0), epoch: Epoch(0), sequence: Sequence(0) };
    let begin = |name: usize, opaque: usize| {
        let opaque = Bytes::from(vec![0; opaque]);
        Frame::Begin(at, Begin { name: "n".repeat(name), precopy: true, p2p: false, opaque })
    };
    let message = |len: usize| Frame::Message(Bytes::from(vec![0; len]));
    let cases = [
        ("device name", begin(NAME_BYTES_MAX + 1, 0)),
        ("opaque bytes", begin(0, MESSAGE_BYTES_MAX + 1)),
        ("message", message(MESSAGE_BYTES_MAX + 1)),
    ];
    for (expected, frame) in cases {
        let mut out = vec![1, 2, 3];
        match encode(&frame, 0, &mut out) {
            Err(WireFault::TooLong { field, found, max }) => {
                assert_eq!((field, found), (expected, max + 1));
            }
            other => panic!("{expected}: {other:?}"),
        }
        assert_eq!(out, [1, 2, 3]);
    }
    let named =
        Begin { name: "a\u{202e}b".into(), precopy: true, p2p: false, opaque: Bytes::new() };
    let fault = WireFault::Unseen { field: "device name", found: 0x202e };
    assert_eq!(encode(&Frame::Begin(at, named), 0, &mut Vec::new()), Err(fault));
    assert_eq!(
        fault.to_string(),
        "device name holds U+202E, which cannot be seen where it is printed"
    );
    for frame in [begin(NAME_BYTES_MAX, MESSAGE_BYTES_MAX), message(MESSAGE_BYTES_MAX)] {
        let mut out = Vec::new();
        assert_eq!(encode(&frame, 0, &mut out), Ok(()));
        assert_eq!(checks::stream(&out), 1);
    }
}
