//! The codec against vectors that another writer made, in both directions.

use std::collections::BTreeSet;

use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::wire::{
    Header, Kind, WireFault, WireLimits, chunk_hash, data_header, decode, decode_header, encode,
    encode_header,
};

use crate::wire_samples::{Meaning, RLE, accepted, halves, number_of, vector, vector_names};

#[test]
fn wire_every_accepted_vector_has_a_meaning_here() {
    let named: BTreeSet<String> = accepted().iter().map(|(name, _)| (*name).into()).collect();
    let committed: BTreeSet<String> = vector_names("accepted").into_iter().collect();
    assert_eq!(named, committed);
}

#[test]
fn wire_every_kind_has_a_vector() {
    let seen: BTreeSet<u16> = accepted()
        .iter()
        .map(|(name, _)| vector(&format!("accepted/{name}")))
        .map(|bytes| u16::from_le_bytes([bytes[6], bytes[7]]))
        .collect();
    let known: BTreeSet<u16> = (0..=u16::MAX).filter(|kind| Kind(*kind).is_known()).collect();
    assert_eq!(known, (1..=17).collect());
    assert!(seen.is_superset(&known), "{seen:?} lacks some of {known:?}");
}

#[test]
fn wire_accepted_vectors_are_read_and_written_byte_for_byte() {
    for (name, meaning) in accepted() {
        let bytes = vector(&format!("accepted/{name}"));
        let (head, body) = halves(&bytes);
        let header = decode_header(&head, &WireLimits::MAX)
            .unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let number = number_of(name);
        assert_eq!((header.body_bytes as usize, header.number), (body.len(), number), "{name}");
        match meaning {
            Meaning::Frame(frame) => {
                assert_eq!(decode(&header, &body), Ok(frame.clone()), "{name}");
                let mut written = vec![0xee; 3];
                assert_eq!(encode(&frame, number, &mut written), Ok(()), "{name}");
                assert_eq!(written[3..], bytes, "{name}");
                assert_eq!(written[..3], [0xee; 3], "{name}: what was there is gone");
            }
            Meaning::Newer(frame) => {
                assert_eq!(decode(&header, &body), Ok(frame), "{name}");
            }
            Meaning::Data(data) => {
                assert_eq!(data_header(&header), Ok(data), "{name}");
                assert_eq!(encode_header(&Header::from(data).numbered(number)), head, "{name}");
                assert_eq!(chunk_hash(&body), data.body_hash, "{name}");
                let fault = Err(WireFault::UnknownKind { kind: Kind::DATA });
                assert_eq!(decode(&header, &body), fault, "{name}: a chunk is no frame");
            }
            Meaning::Skipped => {
                assert!(header.is_skippable() && !header.kind.is_known(), "{name}");
                assert_eq!(encode_header(&header), head, "{name}");
                let fault = Err(WireFault::UnknownKind { kind: header.kind });
                assert_eq!(decode(&header, &body), fault, "{name}");
            }
        }
    }
}

#[test]
fn wire_the_zstd_vector_is_the_chunk_that_it_says() {
    let chunk = zstd::bulk::decompress(&RLE, 4096).expect("a zstd frame written by hand");
    assert_eq!(chunk, [0x5a; 4096]);
}

/// Which fault each refused vector must give: the variant's name, and one of its values.
const REFUSED: &[(&str, &str)] = &[
    ("abort_cut", "Truncated { kind: Kind(abort), missing: 1 }"),
    ("abort_reserved", "Reserved { kind: Kind(abort), found: 1 }"),
    ("abort_text", "Text { field: \"abort message\" }"),
    ("abort_text_long", "TooLong { field: \"abort message\", found: 1025, max: 1024 }"),
    ("abort_trailing", "Trailing { kind: Kind(abort), extra: 1 }"),
    ("accept_reserved", "Reserved { kind: Kind(accept), found: 65536 }"),
    ("begin_flags", "Reserved { kind: Kind(begin), found: 4 }"),
    ("begin_name_cut", "Truncated { kind: Kind(begin), missing: 2 }"),
    ("begin_name_long", "TooLong { field: \"device name\", found: 256, max: 255 }"),
    ("begin_name_text", "Text { field: \"device name\" }"),
    ("begin_name_unseen", "Unseen { field: \"device name\", found: 8238 }"),
    ("begin_opaque_4g", "TooLong { field: \"opaque bytes\", found: 4294967295, max: 32768 }"),
    ("begin_trailing", "Trailing { kind: Kind(begin), extra: 1 }"),
    ("body_4g", "BodyTooLong { kind: Kind(message), found: 4294967295, max: 32768 }"),
    ("body_4g_data", "BodyTooLong { kind: Kind(data), found: 4294967295, max: 4194304 }"),
    ("body_hash", "BodyHash { kind: Kind(message)"),
    (
        "body_hash_empty",
        "BodyHash { kind: Kind(message), found: 0, expected: 3244421341483603138 }",
    ),
    ("body_long", "BodyTooLong { kind: Kind(end), found: 25, max: 24 }"),
    ("body_short", "BodyLength { kind: Kind(end), found: 8, min: 24, max: 24 }"),
    ("data_device", "DeviceNumber { kind: Kind(data), found: 64, devices: 64 }"),
    ("data_empty", "RawLength { found: 0, max: 4194304 }"),
    ("data_encoding", "UnknownEncoding { found: 3 }"),
    ("data_offset", "Offset { offset: 18446744073709551569, raw_bytes: 48 }"),
    ("data_raw_hash", "RawHash { body_hash: "),
    ("data_raw_length", "BodyLength { kind: Kind(data), found: 47, min: 48, max: 48 }"),
    ("data_zero_body", "BodyLength { kind: Kind(data), found: 1, min: 0, max: 0 }"),
    ("data_zero_hash", "BodyHash { kind: Kind(data), found: 0, expected: 3244421341483603138 }"),
    ("data_zstd_empty", "BodyLength { kind: Kind(data), found: 0, min: 1, max: 47 }"),
    ("data_zstd_length", "BodyLength { kind: Kind(data), found: 48, min: 1, max: 47 }"),
    ("device_number", "DeviceNumber { kind: Kind(credit), found: 64, devices: 64 }"),
    ("discard_flags", "Reserved { kind: Kind(discard), found: 2 }"),
    ("discard_reserved", "Reserved { kind: Kind(discard), found: 1 }"),
    ("header_hash", "HeaderHash { found: 305419896"),
    ("hello_reserved", "Reserved { kind: Kind(hello), found: 1 }"),
    ("hello_trailing", "Trailing { kind: Kind(hello), extra: 1 }"),
    ("kind_unknown", "UnknownKind { kind: Kind(kind 0x0012) }"),
    ("kind_zero", "UnknownKind { kind: Kind(kind 0x0000) }"),
    ("magic", "BadMagic { found: 1515341398 }"),
    ("optional_too_long", "BodyTooLong { kind: Kind(kind 0x8123), found: 65537, max: 65536 }"),
    ("phase_unknown", "Value { kind: Kind(phase), field: \"phase\", found: 3 }"),
    ("phase_zero", "Value { kind: Kind(phase), field: \"phase\", found: 0 }"),
    ("unused_device", "UnusedField { kind: Kind(handover), field: \"device\", found: 1 }"),
    ("unused_encoding", "UnusedField { kind: Kind(handover), field: \"encoding\", found: 1 }"),
    ("unused_epoch", "UnusedField { kind: Kind(abort), field: \"epoch\", found: 1 }"),
    ("unused_offset", "UnusedField { kind: Kind(credit), field: \"offset\", found: 1 }"),
    ("unused_raw_bytes", "UnusedField { kind: Kind(handover), field: \"raw_bytes\", found: 1 }"),
    ("unused_raw_hash", "UnusedField { kind: Kind(end), field: \"raw_hash\", found: 1 }"),
    ("unused_sequence", "UnusedField { kind: Kind(loaded), field: \"sequence\", found: 1 }"),
    ("version", "Version { kind: Kind(ping), found: 2, min: 1, max: 1 }"),
    ("version_abort", "Version { kind: Kind(abort), found: 2, min: 1, max: 1 }"),
    ("version_hello", "Version { kind: Kind(hello), found: 2, min: 1, max: 1 }"),
    ("version_zero", "Version { kind: Kind(ping), found: 0, min: 1, max: 1 }"),
];

#[test]
fn wire_refused_vectors_are_refused_for_the_right_reason() {
    let names: Vec<&str> = REFUSED.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, vector_names("refused"));
    for (name, expected) in REFUSED {
        let (head, body) = halves(&vector(&format!("refused/{name}")));
        // A chunk's body is no frame's: all that can be wrong with it must show in the header.
        let result = decode_header(&head, &WireLimits::MAX).and_then(|header| match header.kind {
            Kind::DATA => Ok(()),
            _ => decode(&header, &body).map(|_| ()),
        });
        let fault = result.expect_err(name);
        let found = format!("{fault:?}");
        assert!(found.starts_with(expected), "{name}: {found} instead of {expected}");
    }
}

#[test]
fn wire_numbers_that_are_fixed_for_ever() {
    assert_eq!(HEADER_BYTES, 64);
    assert_eq!(chunk_hash(&[]), 0x2d06_8005_38d3_94c2);
    assert_eq!(Kind::OPTIONAL_BIT, 0x8000);
}
