//! The numbers that a stream's frames have: a frame that is missing shows with the next one.

use vfio_ferry::outcome::{Breach, Cause, Fault, Observation};
use vfio_ferry::wire::{
    Frame, FrameNumbers, Header, WireFault, WireLimits, decode, decode_header, encode,
    encode_header, padding,
};

use crate::wire_samples::{accepted, halves, vector};

fn header(number: u32) -> Header {
    let mut bytes = Vec::new();
    encode(&Frame::Ping(7), number, &mut bytes).expect("a frame");
    decode_header(&halves(&bytes).0, &WireLimits::MAX).expect("its own header")
}

/// The numbers of a stream that has come so far.
fn at(next: u32) -> FrameNumbers {
    // The wrap is far away: what leads there is not counted out.
    let mut numbers = FrameNumbers::default();
    for _ in 0..next {
        numbers.take();
    }
    numbers
}

#[test]
fn wire_numbers_begin_at_0_and_have_no_gaps() {
    let (mut writer, mut reader) = (FrameNumbers::default(), FrameNumbers::default());
    for expected in 0..1000 {
        let number = writer.take();
        assert_eq!(number, expected);
        assert_eq!(reader.check(&header(number)), Ok(()));
    }
    assert_eq!(reader, writer);
}

#[test]
fn wire_any_other_number_is_refused_and_changes_nothing() {
    let mut reader = at(5);
    for found in [0, 1, 4, 6, 7, 5 + (1 << 16), 1 << 31, u32::MAX - 4, u32::MAX] {
        let fault = WireFault::Missing { found, expected: 5 };
        assert_eq!(reader.check(&header(found)), Err(fault));
        assert_eq!(reader, at(5));
        let fault = Fault::from(fault);
        assert_eq!((fault.cause, fault.observed), (Cause::Network, Observation::Stream));
        assert!(fault.message.starts_with("a frame is missing on this stream"), "{fault}");
        assert!(matches!(fault.breach, Some(Breach::Wire(WireFault::Missing { .. }))));
    }
    assert_eq!(reader.check(&header(5)), Ok(()));
}

/// Every kind has a number, also one that is not known and skipped.
#[test]
fn wire_every_number_of_every_kind_survives_the_header() {
    for (name, _) in accepted() {
        let (head, _) = halves(&vector(&format!("accepted/{name}")));
        let header = decode_header(&head, &WireLimits::MAX).expect(name);
        for bit in 0..32 {
            let numbered = header.numbered(1 << bit);
            let bytes = encode_header(&numbered);
            assert_eq!(bytes[56..60], (1u32 << bit).to_le_bytes(), "{name}");
            assert_eq!(decode_header(&bytes, &WireLimits::MAX), Ok(numbered), "{name}");
        }
    }
}

#[test]
fn wire_padding_is_skipped_and_has_its_number() {
    for bytes in [0, 1, 65_536, u32::MAX] {
        let frame = padding(bytes, 9);
        let (head, body) = halves(&frame);
        let header = decode_header(&head, &WireLimits::MAX).expect("its own header");
        assert!(header.is_skippable() && header.number == 9);
        assert_eq!(
            (header.body_bytes as usize, body.len()),
            (body.len(), bytes.min(65_536) as usize)
        );
        let refused = decode(&header, &body);
        assert!(matches!(refused, Err(WireFault::UnknownKind { .. })), "{refused:?}");
    }
}
