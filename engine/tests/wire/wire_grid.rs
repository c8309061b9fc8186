//! Every kind of frame x every way to damage it: always a fault that names the right thing.

use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::wire::{
    Frame, Header, Kind, WireFault, WireLimits, chunk_hash, decode, decode_header,
};

use crate::checks::seal;
use crate::wire_samples::{Meaning, accepted, halves, vector};

struct Sample {
    name: &'static str,
    head: [u8; HEADER_BYTES],
    body: Vec<u8>,
    header: Header,
    meaning: Meaning,
}

fn samples() -> Vec<Sample> {
    accepted()
        .into_iter()
        .map(|(name, meaning)| {
            let (head, body) = halves(&vector(&format!("accepted/{name}")));
            let header = decode_header(&head, &WireLimits::MAX).expect(name);
            Sample { name, head, body, header, meaning }
        })
        .collect()
}

/// Those whose body is parsed.
fn parsed() -> Vec<Sample> {
    let is_parsed = |s: &Sample| matches!(s.meaning, Meaning::Frame(_) | Meaning::Newer(_));
    samples().into_iter().filter(is_parsed).collect()
}

fn read(head: &[u8; HEADER_BYTES]) -> Result<Header, WireFault> {
    decode_header(head, &WireLimits::MAX)
}

/// Both halves with length and hashes put right around another body.
fn rebodied(head: &[u8; HEADER_BYTES], body: &[u8]) -> Result<Frame, WireFault> {
    let mut head = *head;
    head[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    head[40..48].copy_from_slice(&chunk_hash(body).to_le_bytes());
    seal(&mut head);
    decode(&read(&head)?, body)
}

#[test]
fn wire_every_single_flipped_header_bit_is_seen() {
    for sample in samples() {
        for bit in 0..HEADER_BYTES * 8 {
            let mut head = sample.head;
            head[bit / 8] ^= 1 << (bit % 8);
            match read(&head) {
                Err(WireFault::BadMagic { .. }) if bit < 32 => {}
                Err(WireFault::HeaderHash { .. }) if bit >= 32 => {}
                other => panic!("{}: bit {bit}: {other:?}", sample.name),
            }
        }
    }
}

#[test]
fn wire_every_single_flipped_body_bit_is_seen() {
    for sample in parsed() {
        for bit in 0..sample.body.len() * 8 {
            let mut body = sample.body.clone();
            body[bit / 8] ^= 1 << (bit % 8);
            match decode(&sample.header, &body) {
                Err(WireFault::BodyHash { kind, .. }) if kind == sample.header.kind => {}
                other => panic!("{}: bit {bit}: {other:?}", sample.name),
            }
        }
    }
}

#[test]
fn wire_a_body_that_is_not_what_the_header_announced_is_seen() {
    for sample in parsed() {
        let kind = sample.header.kind;
        for len in 0..sample.body.len() {
            let missing = sample.body.len() - len;
            let fault = Err(WireFault::Truncated { kind, missing });
            assert_eq!(decode(&sample.header, &sample.body[..len]), fault, "{}", sample.name);
        }
        let longer = [sample.body.as_slice(), &[0; 3]].concat();
        let fault = Err(WireFault::Trailing { kind, extra: 3 });
        assert_eq!(decode(&sample.header, &longer), fault, "{}", sample.name);
    }
}

/// The shortest body, and whether any longer one can be right. Written down here once more, from
/// the description of the wire.
fn body_rule(kind: Kind) -> (usize, bool) {
    match kind {
        Kind::HELLO => (40, false),
        Kind::ACCEPT => (32, false),
        Kind::BEGIN => (8, false),
        Kind::PHASE => (4, false),
        Kind::DISCARD => (16, false),
        Kind::END | Kind::LOADED => (24, false),
        Kind::ABORT => (12, false),
        Kind::MESSAGE => (0, true),
        _ => (0, false),
    }
}

#[test]
fn wire_a_well_hashed_body_of_every_wrong_length_is_seen() {
    for sample in parsed() {
        let kind = sample.header.kind;
        let (shortest, any_length) = body_rule(kind);
        let newer_hello = sample.name == "hello_newer";
        for len in 0..sample.body.len() {
            match rebodied(&sample.head, &sample.body[..len]) {
                Ok(_) if any_length || newer_hello && len >= shortest => {}
                Err(WireFault::BodyLength { kind: k, found, .. }) if len < shortest => {
                    assert_eq!((k, found as usize), (kind, len));
                }
                Err(WireFault::Truncated { kind: k, missing }) if len >= shortest => {
                    assert!(k == kind && missing > 0 && !any_length);
                }
                other => panic!("{}: {len} bytes: {other:?}", sample.name),
            }
        }
        for extra in 1..4 {
            let longer = [sample.body.as_slice(), &vec![0; extra]].concat();
            match rebodied(&sample.head, &longer) {
                Ok(_) if any_length || newer_hello => {}
                Err(WireFault::Trailing { extra: found, .. }) => assert_eq!(found, extra),
                Err(WireFault::BodyTooLong { found, .. }) => {
                    assert_eq!(found as usize, longer.len());
                }
                other => panic!("{}: {extra} more: {other:?}", sample.name),
            }
        }
    }
}

#[test]
fn wire_a_body_of_4_gib_is_refused_before_anything_is_read() {
    for sample in samples() {
        for announced in [u32::MAX, 1 << 31, (4 << 20) + 1] {
            let mut head = sample.head;
            head[8..12].copy_from_slice(&announced.to_le_bytes());
            seal(&mut head);
            match read(&head) {
                Err(WireFault::BodyTooLong { kind, found, max }) => {
                    assert_eq!((kind, found), (sample.header.kind, announced));
                    assert!(max <= 4 << 20);
                }
                other => panic!("{}: {other:?}", sample.name),
            }
        }
    }
}

#[test]
fn wire_every_wrong_version_is_named() {
    for sample in samples() {
        for version in (0..=u8::MAX).filter(|version| *version != 1) {
            let mut head = sample.head;
            head[4] = version;
            seal(&mut head);
            let kind = sample.header.kind;
            let fault = WireFault::Version { kind, found: version, min: 1, max: 1 };
            assert_eq!(read(&head), Err(fault), "{}", sample.name);
        }
    }
}

/// The fields beyond those of every frame, where they are, and the kinds that use them. Written
/// down here once more, from the description of the wire.
const FIELDS: [(&str, std::ops::Range<usize>, &[Kind]); 7] = {
    const DEVICES: &[Kind] = &[
        Kind::BEGIN,
        Kind::DATA,
        Kind::PHASE,
        Kind::INITIAL_DATA_SENT,
        Kind::INITIAL_DATA_LOADED,
        Kind::DISCARD,
        Kind::END,
        Kind::LOADED,
        Kind::CREDIT,
    ];
    const SEQUENCES: &[Kind] = &[
        Kind::BEGIN,
        Kind::DATA,
        Kind::PHASE,
        Kind::INITIAL_DATA_SENT,
        Kind::DISCARD,
        Kind::END,
        Kind::CREDIT,
        Kind::PING,
        Kind::PONG,
    ];
    const DATA: &[Kind] = &[Kind::DATA];
    [
        ("encoding", 5..6, DATA),
        ("raw_bytes", 12..16, DATA),
        ("device", 16..20, DEVICES),
        ("epoch", 20..24, DEVICES),
        ("sequence", 24..32, SEQUENCES),
        ("offset", 32..40, DATA),
        ("raw_hash", 48..56, DATA),
    ]
};

#[test]
fn wire_every_bit_of_an_unused_field_is_named() {
    for sample in samples().into_iter().filter(|sample| sample.header.kind.is_known()) {
        for (name, bytes, users) in &FIELDS {
            for bit in bytes.start * 8..bytes.end * 8 {
                let mut head = sample.head;
                head[bit / 8] ^= 1 << (bit % 8);
                seal(&mut head);
                let kind = sample.header.kind;
                match read(&head) {
                    Err(WireFault::UnusedField { kind: k, field, found }) => {
                        assert_eq!((k, field), (kind, *name));
                        assert_eq!(found, 1 << (bit - bytes.start * 8), "{}", sample.name);
                        assert!(!users.contains(&kind));
                    }
                    // An abort's device may be any number.
                    Ok(_) if kind == Kind::ABORT && *name == "device" => {}
                    _ => assert!(users.contains(&kind), "{}: {name} bit {bit}", sample.name),
                }
            }
        }
    }
}

#[test]
fn wire_no_number_makes_an_abort_anything_else() {
    let sample = samples().into_iter().find(|s| s.name == "abort_device").expect("it exists");
    for at in [0, 2] {
        for number in (0..=u16::MAX).step_by(7).chain(0..20) {
            let mut body = sample.body.clone();
            body[at..at + 2].copy_from_slice(&number.to_le_bytes());
            let frame = rebodied(&sample.head, &body);
            assert!(matches!(frame, Ok(Frame::Abort(_))), "{number} at {at}: {frame:?}");
        }
    }
    for device in [0, 63, 64, 1000, u32::MAX - 1, u32::MAX] {
        let mut head = sample.head;
        head[16..20].copy_from_slice(&device.to_le_bytes());
        match rebodied(&head, &sample.body) {
            Ok(Frame::Abort(fault)) => {
                let known = (device < 64).then_some(device);
                assert_eq!(fault.device.map(|device| device.0), known);
            }
            other => panic!("device {device}: {other:?}"),
        }
    }
}

#[test]
fn wire_every_kind_number_is_known_skipped_or_refused() {
    let (ping, _) = halves(&vector("accepted/handover"));
    for number in 0..=u16::MAX {
        let mut head = ping;
        head[6..8].copy_from_slice(&number.to_le_bytes());
        seal(&mut head);
        let kind = Kind(number);
        match read(&head) {
            Ok(header) if header.is_skippable() => assert!(number >= 0x8000),
            Ok(_) => assert!((1..=17).contains(&number)),
            Err(WireFault::UnknownKind { kind: k }) => {
                assert!(k == kind && (number == 0 || (18..0x8000).contains(&number)));
            }
            Err(fault) => assert!((1..=17).contains(&number), "{number}: {fault}"),
        }
    }
}
