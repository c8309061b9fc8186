//! A peer without an engine: frames by hand, right or wrong, on one stream.
//!
//! Frames are made without a number and get it where they are sent, as an engine does: a number
//! that stands in one already is added, so that 1 is a frame that is missing before it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::Duration;

use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::wire::{
    Abort, DataHeader, DevicePlace, Encoding, Frame, FrameNumbers, Header, Hello, Kind, WireLimits,
    chunk_hash, decode, decode_header, encode, encode_header,
};

use crate::pair::PATIENCE;

/// Where a header has the length of its body, the frame's number, and its own hash.
const BODY_BYTES_AT: usize = 8;
const NUMBER_AT: usize = 56;
const HEADER_HASH_AT: usize = HEADER_BYTES - 4;

/// See the module's text.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    sent: FrameNumbers,
    heard: FrameNumbers,
}

impl From<OwnedFd> for Peer {
    fn from(stream: OwnedFd) -> Peer {
        let stream = TcpStream::from(stream);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Peer { stream, sent: FrameNumbers::default(), heard: FrameNumbers::default() }
    }
}

impl Peer {
    /// Sends bytes, in which each frame is numbered whose header is whole; an error only says that the session has
    /// ended.
    pub fn send(&mut self, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        let mut rest = bytes.as_mut_slice();
        while let Some(length) = frame_bytes(rest) {
            let (frame, after) = rest.split_at_mut(length);
            let number = self.sent.take();
            alter(frame, |header| {
                let said = u32_at(header, NUMBER_AT).wrapping_add(number);
                header[NUMBER_AT..].copy_from_slice(&said.to_le_bytes());
            });
            rest = after;
        }
        let _ = self.stream.write_all(&bytes);
    }

    /// Sends bytes as they are, one each `interval`, until all are sent or the session has ended.
    pub fn trickle(&mut self, bytes: &[u8], interval: Duration) {
        for byte in bytes {
            if self.stream.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(interval);
        }
    }

    /// Lives and does nothing else: answers pings, and pings each `interval`, until the stream ends.
    /// Gives the abort that came on the way.
    pub fn chatter(&mut self, interval: Duration) -> Option<Abort> {
        let mut abort = None;
        loop {
            self.stream.set_read_timeout(Some(interval)).expect("a timeout");
            match self.stream.peek(&mut [0]) {
                Ok(0) => return abort,
                Ok(_) => {
                    self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                    match self.next_frame() {
                        Some((_, Some(Frame::Ping(number)))) => {
                            self.send(&bytes(&Frame::Pong(number)));
                        }
                        Some((_, Some(Frame::Abort(said)))) => abort = Some(said),
                        Some(_) => {}
                        None => return abort,
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.send(&bytes(&Frame::Ping(0)));
                }
                Err(_) => return abort,
            }
        }
    }

    /// Pings each `interval`, and reads nothing, until the session has ended.
    pub fn chatter_deaf(&mut self, interval: Duration) {
        let mut number = 0;
        while self.is_there() {
            number += 1;
            self.send(&bytes(&Frame::Ping(number)));
            std::thread::sleep(interval);
        }
    }

    /// Whether the other end is open: an end or an error shows behind what was not read, too.
    fn is_there(&self) -> bool {
        let mut fds = [rustix::event::PollFd::new(
            &self.stream,
            rustix::event::PollFlags::RDHUP | rustix::event::PollFlags::HUP,
        )];
        matches!(rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default())), Ok(0))
    }

    /// Says nothing more.
    pub fn stop_sending(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Reads up to a frame of this kind; none if the stream ends before. Pings go unanswered.
    pub fn expect(&mut self, kind: Kind) -> Option<Header> {
        self.expect_in(kind, 0)
    }

    /// Reads up to a frame of this kind and epoch.
    pub fn expect_in(&mut self, kind: Kind, epoch: u32) -> Option<Header> {
        loop {
            let header = self.next()?;
            if (header.kind, header.epoch) == (kind, epoch) {
                return Some(header);
            }
        }
    }

    /// The hello that a source begins with.
    ///
    /// # Panics
    /// If it begins with anything else.
    pub fn expect_hello(&mut self) -> Hello {
        match self.next_frame() {
            Some((_, Some(Frame::Hello(hello)))) => hello,
            other => panic!("no hello but {other:?}"),
        }
    }

    /// Reads up to a frame of this kind, which is not data, and gives it.
    pub fn expect_frame(&mut self, kind: Kind) -> Option<Frame> {
        loop {
            let (header, frame) = self.next_frame()?;
            if header.kind == kind {
                return frame;
            }
        }
    }

    /// Reads to the stream's end, and gives the abort that came on the way.
    pub fn last_word(&mut self) -> Option<Header> {
        let mut abort = None;
        while let Some(header) = self.next() {
            if header.kind == Kind::ABORT {
                abort = Some(header);
            }
        }
        abort
    }

    fn next(&mut self) -> Option<Header> {
        self.next_frame().map(|(header, _)| header)
    }

    /// The next frame, parsed unless it is data; what an engine sends must be right, and all there.
    pub fn next_frame(&mut self) -> Option<(Header, Option<Frame>)> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).ok()?;
        let header = decode_header(&header, &WireLimits::MAX).expect("an engine's header");
        self.heard.check(&header).expect("an engine's next frame");
        let mut body = vec![0; header.body_bytes as usize];
        self.stream.read_exact(&mut body).ok()?;
        if header.kind == Kind::DATA {
            assert_eq!(header.body_hash, chunk_hash(&body));
            return Some((header, None));
        }
        Some((header, Some(decode(&header, &body).expect("an engine's body"))))
    }
}

/// A frame's bytes.
pub fn bytes(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, 0, &mut bytes).expect("a frame within its limits");
    bytes
}

/// A chunk's frame: `chunk` at `offset`, of which `body` travels.
pub fn data(
    place: DevicePlace,
    offset: u64,
    encoding: Encoding,
    chunk: &[u8],
    body: &[u8],
) -> Vec<u8> {
    let header = DataHeader {
        place,
        offset,
        encoding,
        raw_bytes: chunk.len() as u32,
        body_bytes: body.len() as u32,
        body_hash: chunk_hash(body),
        raw_hash: chunk_hash(chunk),
    };
    [&encode_header(&Header::from(header)), body].concat()
}

/// Changes a frame's header and makes its hash right again.
pub fn alter(frame: &mut [u8], change: impl FnOnce(&mut [u8])) {
    change(&mut frame[..HEADER_HASH_AT]);
    let hash = chunk_hash(&frame[..HEADER_HASH_AT]) as u32;
    frame[HEADER_HASH_AT..HEADER_BYTES].copy_from_slice(&hash.to_le_bytes());
}

/// How much is there of the frame that these bytes begin with; none if not even a whole header.
fn frame_bytes(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let is_whole = u32_at(header, HEADER_HASH_AT) == chunk_hash(&header[..HEADER_HASH_AT]) as u32;
    let length = HEADER_BYTES + u32_at(header, BODY_BYTES_AT) as usize;
    is_whole.then_some(length.min(bytes.len()))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A frame's kind, and whether it has a body.
pub fn kind(frame: &[u8]) -> Kind {
    Kind(u16::from_le_bytes([frame[6], frame[7]]))
}
