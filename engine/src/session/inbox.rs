//! Whole frames that a channel is given in whatever order, for a session that reads a stream.
//!
//! Every frame has its number on its stream in its header. The one that is next goes straight into the
//! session's socket; one that is ahead waits here. What waits is bounded twice, in frames and in
//! bytes: an honest peer sends within its credit, and while a frame is missing no credit is given. So
//! who goes beyond is told so, and nothing more of him is taken.

use std::collections::HashMap;
use std::io;

use thiserror::Error;

use crate::limits::{
    FRAMES_AHEAD_MAX, FRAMES_HELD_DEFAULT, FRAMES_HELD_MAX, FRAMES_HELD_MIN, HEADER_BYTES,
};
use crate::wire::{Header, WireFault, WireLimits, decode_header};

/// The result of a [`Channel::pull`](super::Channel::pull) or [`Channel::push`](super::Channel::push).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing to pull, or no room for a push, at this moment.
    NotNow,
    /// The session has closed the stream: nothing will come any more, and nothing is taken.
    Over,
}

/// What has become of the frames that were pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The session has what is in order; frames whose turn has not come may be kept.
    On,
    /// Some of what is in order waits for room.
    Waits,
    /// The session has closed the stream: nothing is taken any more.
    Over,
}

/// What is wrong with a frame, or with how it was pushed or pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameFault {
    /// It does not begin with a header that could be one of this version's.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// It is not as long as its header says.
    #[error("a frame of {found} bytes, whose header says that it has {expected}")]
    Length {
        /// Bytes that were given.
        found: usize,
        /// Bytes of the frame, or of a header.
        expected: usize,
    },
    /// It has come before.
    #[error("frame {number} of a stream has come twice")]
    Twice {
        /// Its number.
        number: u32,
    },
    /// It is further ahead than any credit allows.
    #[error("frame {number} of a stream came while number {next} is missing: too far ahead")]
    TooFar {
        /// Its number.
        number: u32,
        /// The one that is next.
        next: u32,
    },
    /// More waits for a frame that is missing than any credit allows.
    #[error("more than {most} bytes of frames came while number {next} is missing")]
    TooMuch {
        /// Bytes that may wait.
        most: usize,
        /// The one that is next.
        next: u32,
    },
    /// Bytes and whole frames were pushed into one channel.
    #[error("bytes and whole frames were pushed into one channel")]
    Mixed,
    /// The buffer is too short for the frame.
    #[error("the frame has {bytes} bytes, and there is no room for them")]
    Room {
        /// Bytes of the frame, or of its header.
        bytes: usize,
    },
}

/// Why a frame was not moved.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Somebody has made a mistake.
    #[error(transparent)]
    Fault(#[from] FrameFault),
    /// The system has; none is expected.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<WireFault> for FrameError {
    fn from(fault: WireFault) -> FrameError {
        FrameFault::Wire(fault).into()
    }
}

/// How many bytes the frame has that begins with this header.
pub(super) fn frame_bytes(header: &[u8; HEADER_BYTES]) -> Result<usize, WireFault> {
    let Header { body_bytes, .. } = decode_header(header, &WireLimits::MAX)?;
    Ok(HEADER_BYTES + body_bytes as usize)
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Inbox {
    /// What was pushed first.
    pushed: Pushed,
    /// The number of the first frame of which the session has nothing, and `sending` is not.
    next: u32,
    /// The frames behind it that have come, by number.
    held: HashMap<u32, Box<[u8]>>,
    /// A frame that was next, and from where on it waits for room.
    sending: Option<(Box<[u8]>, usize)>,
    /// Bytes of both.
    held_bytes: usize,
    held_most: usize,
    fault: Option<FrameFault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushed {
    Nothing,
    Bytes,
    Frames,
}

impl Default for Inbox {
    fn default() -> Inbox {
        Inbox {
            pushed: Pushed::Nothing,
            next: 0,
            held: HashMap::new(),
            sending: None,
            held_bytes: 0,
            held_most: FRAMES_HELD_DEFAULT,
            fault: None,
        }
    }
}

impl Inbox {
    /// Bytes are about to be pushed.
    pub(super) fn takes_bytes(&mut self) -> Result<(), FrameFault> {
        self.takes(Pushed::Bytes)
    }

    fn takes(&mut self, what: Pushed) -> Result<(), FrameFault> {
        match self.pushed {
            before if before == what || before == Pushed::Nothing => self.pushed = what,
            _ => return Err(FrameFault::Mixed),
        }
        Ok(())
    }

    pub(super) fn hold_at_most(&mut self, bytes: usize) {
        self.held_most = bytes.clamp(FRAMES_HELD_MIN, FRAMES_HELD_MAX);
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes a frame, and passes on what is in order now.
    pub(super) fn take(
        &mut self,
        frame: &[u8],
        mut send: impl FnMut(&[u8]) -> io::Result<Moved>,
    ) -> Result<Passed, FrameError> {
        if let Some(fault) = self.fault {
            return Err(fault.into());
        }
        let checked = self.takes(Pushed::Frames).and_then(|()| self.check(frame));
        let number = checked.inspect_err(|&fault| self.fault = Some(fault))?;
        let mut from = 0;
        if number == self.next && self.sending.is_none() {
            while from < frame.len() {
                match send(&frame[from..])? {
                    Moved::Bytes(sent) => from += sent,
                    Moved::NotNow => break,
                    Moved::Over => return Ok(Passed::Over),
                }
            }
            self.next = number.wrapping_add(1);
            if from < frame.len() {
                self.held_bytes += frame.len() - from;
                self.sending = Some((frame[from..].into(), 0));
                return Ok(Passed::Waits);
            }
        } else {
            self.held_bytes += frame.len();
            self.held.insert(number, frame.into());
        }
        self.flush(send)
    }

    /// The frame's number, if it may be taken.
    fn check(&self, frame: &[u8]) -> Result<u32, FrameFault> {
        let short = FrameFault::Length { found: frame.len(), expected: HEADER_BYTES };
        let bytes = frame.first_chunk::<HEADER_BYTES>().ok_or(short)?;
        let Header { number, body_bytes, .. } = decode_header(bytes, &WireLimits::MAX)?;
        let expected = HEADER_BYTES + body_bytes as usize;
        if frame.len() != expected {
            return Err(FrameFault::Length { found: frame.len(), expected });
        }
        let (next, ahead) = (self.next, number.wrapping_sub(self.next));
        if ahead > u32::MAX / 2 || self.held.contains_key(&number) {
            return Err(FrameFault::Twice { number });
        }
        if ahead > FRAMES_AHEAD_MAX {
            return Err(FrameFault::TooFar { number, next });
        }
        // The one that is next is always taken, or those that wait for it would be the end.
        if ahead > 0 && self.held_bytes + frame.len() > self.held_most {
            return Err(FrameFault::TooMuch { most: self.held_most, next });
        }
        Ok(number)
    }

    /// Passes on what is in order.
    pub(super) fn flush(
        &mut self,
        mut send: impl FnMut(&[u8]) -> io::Result<Moved>,
    ) -> Result<Passed, FrameError> {
        loop {
            let Some((frame, from)) = &mut self.sending else {
                let Some(frame) = self.held.remove(&self.next) else { return Ok(Passed::On) };
                self.next = self.next.wrapping_add(1);
                self.sending = Some((frame, 0));
                continue;
            };
            match send(&frame[*from..])? {
                Moved::Bytes(sent) => {
                    *from += sent;
                    self.held_bytes -= sent;
                    if *from == frame.len() {
                        self.sending = None;
                    }
                }
                Moved::NotNow => return Ok(Passed::Waits),
                Moved::Over => return Ok(Passed::Over),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CHUNK_BYTES_MAX;
    use crate::wire::{Frame, encode, encode_header};
    use bytes::Bytes;

    /// A message of so many bytes as its stream's frame of this number.
    fn frame(number: u32, bytes: usize) -> Vec<u8> {
        let body: Vec<u8> = (0..bytes).map(|at| (at as u32 ^ number) as u8).collect();
        let mut out = Vec::new();
        encode(&Frame::Message(Bytes::from(body)), number, &mut out).expect("a frame");
        out
    }

    /// A session's socket with so much room.
    #[derive(Default)]
    struct Socket {
        came: Vec<u8>,
        room: usize,
    }

    impl Socket {
        fn send(&mut self) -> impl FnMut(&[u8]) -> io::Result<Moved> + '_ {
            |bytes| {
                let taken = bytes.len().min(self.room);
                self.room -= taken;
                self.came.extend(&bytes[..taken]);
                Ok(if taken == 0 { Moved::NotNow } else { Moved::Bytes(taken) })
            }
        }
    }

    fn fault(result: Result<Passed, FrameError>) -> FrameFault {
        match result.expect_err("a fault") {
            FrameError::Fault(fault) => fault,
            FrameError::System(error) => panic!("{error}"),
        }
    }

    #[test]
    fn frames_come_out_in_order_whatever_the_order_they_came_in_and_the_room() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let start = if seed % 2 == 0 { 0 } else { u32::MAX - 20 };
            let mut frames: Vec<_> =
                (0..60u32).map(|at| frame(start.wrapping_add(at), rng.usize(1..3000))).collect();
            let whole = frames.concat();
            rng.shuffle(&mut frames);
            let mut inbox = Inbox { next: start, ..Inbox::default() };
            let mut socket = Socket::default();
            for frame in &frames {
                socket.room += rng.usize(..4000);
                inbox.take(frame, socket.send()).expect("taken");
            }
            while socket.came.len() < whole.len() {
                socket.room = rng.usize(1..4000);
                inbox.flush(socket.send()).expect("passed on");
            }
            assert_eq!(inbox.flush(socket.send()).expect("passed on"), Passed::On, "{seed}");
            assert!(socket.came == whole, "{seed}");
            assert_eq!((inbox.held_bytes, inbox.held.len()), (0, 0), "{seed}");
        }
    }

    #[test]
    fn a_frame_that_comes_twice_is_refused_and_nothing_is_taken_after_it() {
        for (again, sent_before) in [(0, true), (2, false)] {
            let mut inbox = Inbox::default();
            let mut socket = Socket { room: 1 << 20, ..Socket::default() };
            for number in [0, 2] {
                inbox.take(&frame(number, 10), socket.send()).expect("taken");
            }
            let twice = fault(inbox.take(&frame(again, 10), socket.send()));
            assert_eq!(twice, FrameFault::Twice { number: again }, "{sent_before}");
            assert_eq!(fault(inbox.take(&frame(1, 10), socket.send())), twice);
            assert_eq!(socket.came.len(), frame(0, 10).len());
        }
    }

    #[test]
    fn what_waits_for_a_missing_frame_has_a_bound_in_frames_and_in_bytes() {
        let (mut inbox, mut socket) = (Inbox::default(), Socket::default());
        inbox.take(&frame(FRAMES_AHEAD_MAX, 1), socket.send()).expect("within the bound");
        let far = FRAMES_AHEAD_MAX + 1;
        assert_eq!(
            fault(inbox.take(&frame(far, 1), socket.send())),
            FrameFault::TooFar { number: far, next: 0 }
        );

        let mut inbox = Inbox::default();
        inbox.hold_at_most(0);
        let bytes = frame(1, 32 << 10).len();
        let fit = FRAMES_HELD_MIN / bytes;
        for number in 1..=fit as u32 {
            inbox.take(&frame(number, 32 << 10), socket.send()).expect("within the bound");
            assert!(inbox.held_bytes() <= FRAMES_HELD_MIN);
        }
        // The one that is missing has room in any case, and sets the others free.
        assert_eq!(
            inbox.take(&frame(0, 32 << 10), socket.send()).expect("the next"),
            Passed::Waits
        );
        let number = fit as u32 + 1;
        assert_eq!(
            fault(inbox.take(&frame(number, 32 << 10), socket.send())),
            FrameFault::TooMuch { most: FRAMES_HELD_MIN, next: 1 }
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let whole = frame(0, 100);
        let mut hash = whole.clone();
        hash[30] ^= 1;
        let mut long = Header { body_bytes: CHUNK_BYTES_MAX as u32 + 1, ..message_header(&whole) };
        let too_long = encode_header(&long).to_vec();
        long.body_bytes = 99;
        let shorter = [encode_header(&long).as_slice(), &whole[HEADER_BYTES..]].concat();
        let wire = |fault| matches!(fault, FrameFault::Wire(_));
        let length = |fault| matches!(fault, FrameFault::Length { .. });
        type Is = fn(FrameFault) -> bool;
        let cases: [(&[u8], Is); 7] = [
            (&[], length),
            (&whole[..63], length),
            (&whole[..100], length),
            (&[whole.as_slice(), &[0]].concat(), length),
            (&hash, wire),
            (&too_long, wire),
            (&shorter, length),
        ];
        for (at, (bytes, is)) in cases.into_iter().enumerate() {
            let (mut inbox, mut socket) = (Inbox::default(), Socket::default());
            let found = fault(inbox.take(bytes, socket.send()));
            assert!(is(found), "{at}: {found}");
            assert_eq!(fault(inbox.take(&whole, socket.send())), found);
        }
    }

    fn message_header(frame: &[u8]) -> Header {
        let bytes = frame.first_chunk::<HEADER_BYTES>().expect("a header");
        decode_header(bytes, &WireLimits::MAX).expect("a header")
    }
}
