//! What must hold for any bytes: plain functions, so that the fuzz targets and the ordinary test
//! run, which replays the corpora, share them. Each panics where a promise of the wire is broken.

use vfio_ferry::limits::{CHUNK_BYTES_MAX, CONTROL_BODY_BYTES_MAX, HEADER_BYTES, TEXT_BYTES_MAX};
use vfio_ferry::wire::{
    Frame, FrameNumbers, Header, Kind, WireLimits, chunk_hash, data_header, decode, decode_header,
    encode, encode_header,
};

const HEADER_HASH_AT: usize = 60;

/// A header as it is, and once more with magic and hash put right, so that the checks behind the
/// hash see arbitrary bytes too.
pub(crate) fn header(data: &[u8]) {
    let (mut bytes, _) = split(data);
    let _ = checked_header(&bytes);
    bytes[..4].copy_from_slice(b"VFRY");
    seal(&mut bytes);
    let _ = checked_header(&bytes);
}

/// A frame whose lengths and hashes are put right, so that arbitrary bodies reach their parsers.
pub(crate) fn body(data: &[u8]) {
    let (mut bytes, body) = split(data);
    bytes[..4].copy_from_slice(b"VFRY");
    bytes[8..12].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes[40..48].copy_from_slice(&chunk_hash(body).to_le_bytes());
    seal(&mut bytes);
    if let Some(header) = checked_header(&bytes) {
        checked_frame(&header, &bytes, body);
    }
}

/// Frame after frame until the bytes end or are refused. Returns how many were understood or
/// skipped.
pub(crate) fn stream(data: &[u8]) -> usize {
    let mut rest = data;
    let mut frames = 0;
    let mut numbers = FrameNumbers::default();
    while let Some((bytes, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let Some(header) = checked_header(bytes) else { break };
        if numbers.check(&header).is_err() {
            break;
        }
        let Some((body, next)) = after.split_at_checked(header.body_bytes as usize) else { break };
        let data_or_skipped = header.kind == Kind::DATA || header.is_skippable();
        if !data_or_skipped && checked_frame(&header, bytes, body).is_none() {
            break;
        }
        rest = next;
        frames += 1;
    }
    frames
}

/// The first bytes as a header, filled up with zeros, and what is left.
fn split(data: &[u8]) -> ([u8; HEADER_BYTES], &[u8]) {
    let (head, rest) = data.split_at(data.len().min(HEADER_BYTES));
    let mut bytes = [0; HEADER_BYTES];
    bytes[..head.len()].copy_from_slice(head);
    (bytes, rest)
}

/// Puts the header's hash right.
pub(crate) fn seal(bytes: &mut [u8; HEADER_BYTES]) {
    let hash = chunk_hash(&bytes[..HEADER_HASH_AT]) as u32;
    bytes[HEADER_HASH_AT..].copy_from_slice(&hash.to_le_bytes());
}

fn checked_header(bytes: &[u8; HEADER_BYTES]) -> Option<Header> {
    let header = match decode_header(bytes, &WireLimits::MAX) {
        Ok(header) => header,
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            return None;
        }
    };
    let is_data = header.kind == Kind::DATA;
    let body_max = if is_data { CHUNK_BYTES_MAX } else { CONTROL_BODY_BYTES_MAX };
    assert!(header.body_bytes as usize <= body_max, "{header:?} is beyond its limit");
    if header.kind != Kind::ABORT {
        assert_eq!(&encode_header(&header), bytes, "one header, two ways to write it");
    }
    match data_header(&header) {
        Ok(data) => assert_eq!(Header::from(data).numbered(header.number), header),
        Err(fault) => assert!(!is_data, "{fault} after the header was accepted"),
    }
    Some(header)
}

fn checked_frame(header: &Header, bytes: &[u8; HEADER_BYTES], body: &[u8]) -> Option<Frame> {
    let frame = decode(header, body).ok()?;
    let mut again = Vec::new();
    encode(&frame, header.number, &mut again).expect("what was parsed can be written");
    // A newer peer's hello and abort lose what is not understood; all else has one way only.
    if !matches!(header.kind, Kind::HELLO | Kind::ABORT) {
        assert_eq!(again, [bytes.as_slice(), body].concat(), "one frame, two ways to write it");
    }
    let (bytes, body) = again.split_first_chunk::<HEADER_BYTES>().expect("it begins so");
    let header = decode_header(bytes, &WireLimits::MAX).expect("what was written can be read");
    let second = decode(&header, body);
    let cut = matches!(&frame, Frame::Abort(abort) if abort.message.len() > TEXT_BYTES_MAX);
    match (&frame, &second) {
        (_, Ok(second)) if !cut => assert_eq!(second, &frame),
        _ => assert!(second.is_ok(), "{frame:?} was written so that it cannot be read"),
    }
    Some(frame)
}
