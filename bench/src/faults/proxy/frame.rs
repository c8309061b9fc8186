//! Frames as the network between two hosts sees them: from WIRE.md, not from the engine.

use std::io::{self, Read};

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a header.
const HEADER: usize = 64;
/// Where its fields stand.
const KIND: usize = 6;
const BODY_BYTES: usize = 8;
const DEVICE: usize = 16;
const EPOCH: usize = 20;
const BODY_HASH: usize = 40;
const NUMBER: usize = 56;
const HEADER_HASH: usize = 60;
/// Longer than any body.
const BODY_MAX: usize = 8 << 20;
/// The device of a frame that concerns the whole session.
const NO_DEVICE: u32 = u32::MAX;

/// What a frame is. The numbers are the wire's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hello = 1,
    Accept = 2,
    Begin = 3,
    Data = 4,
    Phase = 5,
    InitialDataLoaded = 7,
    Discard = 8,
    End = 9,
    Loaded = 10,
    Handover = 11,
    Running = 12,
    Credit = 13,
    Abort = 14,
    Ping = 16,
    Pong = 17,
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// Reads the next one; none at the stream's end.
    pub(super) fn read(from: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut bytes = vec![0; HEADER];
        let first = from.read(&mut bytes)?;
        if first == 0 {
            return Ok(None);
        }
        from.read_exact(&mut bytes[first..])?;
        let body = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
        if body > BODY_MAX {
            return Err(io::Error::other(format!("a body of {body} bytes")));
        }
        bytes.resize(HEADER + body, 0);
        from.read_exact(&mut bytes[HEADER..])?;
        Ok(Some(Frame(bytes)))
    }

    /// A new one.
    fn new(kind: Kind, device: u32, epoch: u32, body: &[u8]) -> Frame {
        let mut bytes = vec![0; HEADER];
        bytes[..5].copy_from_slice(b"VFRY\x01");
        bytes[KIND..KIND + 2].copy_from_slice(&(kind as u16).to_le_bytes());
        bytes[BODY_BYTES..BODY_BYTES + 4].copy_from_slice(&(body.len() as u32).to_le_bytes());
        bytes[DEVICE..DEVICE + 4].copy_from_slice(&device.to_le_bytes());
        bytes[EPOCH..EPOCH + 4].copy_from_slice(&epoch.to_le_bytes());
        bytes[BODY_HASH..BODY_HASH + 8].copy_from_slice(&xxh3_64(body).to_le_bytes());
        bytes.extend_from_slice(body);
        let mut frame = Frame(bytes);
        frame.seal();
        frame
    }

    /// An abort of the session: "this host could not go on", in these words.
    pub(super) fn abort(text: &str) -> Frame {
        let (cause, observed, errno) = (8u16, 12u16, 0u32);
        let mut body = Vec::new();
        body.extend_from_slice(&cause.to_le_bytes());
        body.extend_from_slice(&observed.to_le_bytes());
        body.extend_from_slice(&errno.to_le_bytes());
        body.extend_from_slice(&(text.len() as u16).to_le_bytes());
        body.extend_from_slice(&[0; 2]);
        body.extend_from_slice(text.as_bytes());
        Frame::new(Kind::Abort, NO_DEVICE, 0, &body)
    }

    /// A discard of device 0 that opens this epoch.
    pub(super) fn discard(epoch: u32) -> Frame {
        Frame::new(Kind::Discard, 0, epoch, &[0; 16])
    }

    /// A ping.
    #[cfg(test)]
    pub(super) fn ping() -> Frame {
        Frame::new(Kind::Ping, NO_DEVICE, 0, &[])
    }

    /// Whether it is of this kind.
    pub(super) fn is(&self, kind: Kind) -> bool {
        self.0[KIND..KIND + 2] == (kind as u16).to_le_bytes()
    }

    /// Whether the device's data comes from STOP_COPY from here on.
    pub(super) fn begins_stop_copy(&self) -> bool {
        self.is(Kind::Phase) && self.0[HEADER..] == 2u32.to_le_bytes()
    }

    /// The frame's number on its stream.
    fn number(&self) -> u32 {
        u32::from_le_bytes([self.0[56], self.0[57], self.0[58], self.0[59]])
    }

    /// Moves its number: after frames that were never said, or were put in.
    pub(super) fn move_number(&mut self, by: u32) {
        if by != 0 {
            self.set_number(self.number().wrapping_add(by));
        }
    }

    /// Puts it in where the frame before which it comes stands.
    pub(super) fn take_number_of(&mut self, next: &Frame, plus: u32) {
        self.set_number(next.number().wrapping_add(plus));
    }

    fn set_number(&mut self, number: u32) {
        self.0[NUMBER..NUMBER + 4].copy_from_slice(&number.to_le_bytes());
        self.seal();
    }

    /// Damages it: the last bit of its body, or of its offset where it has none.
    pub(super) fn flip(&mut self) {
        let at = if self.0.len() > HEADER { self.0.len() - 1 } else { BODY_HASH - 1 };
        self.0[at] ^= 1;
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn seal(&mut self) {
        let hash = xxh3_64(&self.0[..HEADER_HASH]) as u32;
        self.0[HEADER_HASH..HEADER].copy_from_slice(&hash.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_whole_and_one_after_the_other() {
        let frames = [Frame::abort("enough"), Frame::discard(3)];
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes().to_vec()).collect();
        let mut from = &bytes[..];
        for frame in frames {
            assert_eq!(Frame::read(&mut from).ok().flatten(), Some(frame));
        }
        assert_eq!(Frame::read(&mut from).ok(), Some(None));
        assert!(Frame::read(&mut &bytes[..70]).is_err());
    }

    /// The committed vector of an abort was packed by another program.
    #[test]
    fn what_is_made_here_is_what_the_wire_wants() {
        let vector = include_str!("../../../../tests/vectors/accepted/abort_session.hex");
        let hex: String = vector
            .lines()
            .map(|line| line.split('#').next().unwrap_or_default())
            .flat_map(|line| line.chars().filter(char::is_ascii_hexdigit))
            .collect();
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap_or(""));
        let bytes: Vec<u8> = digits.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect();
        let mut from = &bytes[..];
        let read = Frame::read(&mut from).ok().flatten();
        let mut read = read.unwrap_or_else(|| panic!("the vector is a frame"));
        assert!(read.is(Kind::Abort) && from.is_empty());
        let sealed = read.clone();
        read.seal();
        assert_eq!(read, sealed);
    }
}
