//! A stream that the VMM carries on a channel of its own: it pulls what the engine sends, and pushes
//! what arrived from the peer.
//!
//! ```text
//! session == stream ==> Channel::pull ~~ the VMM's channel ~~> Channel::push == stream ==> session
//!         <== stream == Channel::push <~~~~~~~~~~~~~~~~~~~~~~~ Channel::pull <== stream ==
//! ```
//!
//! Frames come out whole and in order, but a pull may end inside of one: what is carried is a
//! stream of bytes, and may be cut anywhere. Inside is a socket pair, so the kernel bounds what
//! waits in each direction: a VMM that does not pull holds the engine back, and a push that finds
//! no room takes less than it was given. Neither blocks.
//!
//! Where the VMM's channel has several lanes, it carries whole frames instead
//! ([`pull_frame`](Channel::pull_frame), [`push_frame`](Channel::push_frame)): those may overtake
//! each other, and come to the session in their order (`inbox.rs`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};

use super::inbox::{self, FrameError, FrameFault, Inbox, Moved, Passed};
use crate::limits::HEADER_BYTES;

/// The VMM's end of a stream. All methods may be called from any thread and return at once.
#[derive(Debug)]
pub struct Channel {
    ours: OwnedFd,
    /// Frames that were pushed before their turn.
    inbox: Mutex<Inbox>,
}

impl Channel {
    /// A channel, and its session's end: one of the streams that a session is
    /// started with.
    ///
    /// # Errors
    /// The system's error if it gives no sockets.
    pub fn new() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok((Channel { ours, inbox: Mutex::default() }, theirs))
    }

    /// Takes bytes that are to be carried to the peer's [`push`](Self::push).
    ///
    /// # Errors
    /// The system's error; none is expected.
    pub fn pull(&self, into: &mut [u8]) -> io::Result<Moved> {
        if into.is_empty() {
            return Ok(Moved::NotNow);
        }
        match rustix::io::retry_on_intr(|| recv(&self.ours, &mut *into, RecvFlags::DONTWAIT)) {
            Ok((_, 0)) => Ok(Moved::Over),
            Ok((_, bytes)) => Ok(Moved::Bytes(bytes)),
            Err(errno) => not_moved(errno),
        }
    }

    /// Gives bytes that were pulled at the peer, in their order. Takes as many as there is room
    /// for; the rest is to be pushed again when [`fd`](Self::fd) is writable.
    ///
    /// # Errors
    /// [`FrameFault::Mixed`] where whole frames were pushed before; the system's error, of which none
    /// is expected.
    pub fn push(&self, bytes: &[u8]) -> Result<Moved, FrameError> {
        let inbox = &mut *self.inbox();
        if bytes.is_empty() {
            return Ok(Moved::NotNow);
        }
        inbox.takes_bytes()?;
        Ok(self.send(bytes)?)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<Moved> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::io::retry_on_intr(|| send(&self.ours, bytes, flags)) {
            Ok(taken) => Ok(Moved::Bytes(taken)),
            Err(errno) => not_moved(errno),
        }
    }

    /// Takes one whole frame that is to be carried to the peer's [`push_frame`](Self::push_frame), by
    /// whatever way: it may overtake others. Of it `have` bytes are in `room` already, 0 of a new one;
    /// after the call there may be more. [`Moved::Bytes`]: it is whole, and so long.
    /// [`Moved::NotNow`]: call again with the same `room` and `have`.
    ///
    /// Bytes and frames may be pulled in turn, each frame after a whole one.
    ///
    /// # Errors
    /// [`FrameFault::Room`] if `room` is shorter than the frame, which can then be pulled into a longer
    /// one that has the same first bytes; [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX) are always
    /// enough. [`FrameFault::Wire`] if what was pulled does not begin with a frame's header.
    pub fn pull_frame(&self, room: &mut [u8], have: &mut usize) -> Result<Moved, FrameError> {
        loop {
            let bytes = match room.first_chunk::<HEADER_BYTES>() {
                Some(header) if *have >= HEADER_BYTES => inbox::frame_bytes(header)?,
                _ => HEADER_BYTES,
            };
            if room.len() < bytes {
                return Err(FrameFault::Room { bytes }.into());
            }
            if *have >= bytes && *have >= HEADER_BYTES {
                return Ok(Moved::Bytes(bytes));
            }
            match self.pull(&mut room[*have..bytes])? {
                Moved::Bytes(came) => *have += came,
                nothing => return Ok(nothing),
            }
        }
    }

    /// Gives one whole frame that was pulled at the peer. Frames may come in any order: one that is
    /// before its turn is kept in memory until the ones before it have come. How many and how much may
    /// be kept is bounded, by more than what the session's credit lets an honest peer send
    /// ([`hold_at_most`](Self::hold_at_most)).
    ///
    /// The frame is taken in any case. [`Passed::Waits`]: what is in order waits for room; call
    /// [`flush`](Self::flush) when [`fd`](Self::fd) is writable. A session always makes room again, as
    /// long as its peer keeps to its credit, and a frame that never comes is for the session to notice
    /// (`Options::peer_silence`).
    ///
    /// # Errors
    /// [`FrameError::Fault`]: the peer, or who carried the frame, has broken the protocol. Nothing more
    /// is taken, and the session sees a broken stream.
    pub fn push_frame(&self, frame: &[u8]) -> Result<Passed, FrameError> {
        let inbox = &mut *self.inbox();
        let result = inbox.take(frame, |bytes| self.send(bytes));
        if matches!(result, Err(FrameError::Fault(_))) {
            self.close();
        }
        result
    }

    /// Passes on what is in order and waited for room.
    ///
    /// # Errors
    /// As [`push_frame`](Self::push_frame).
    pub fn flush(&self) -> Result<Passed, FrameError> {
        self.inbox().flush(|bytes| self.send(bytes))
    }

    /// How many bytes of frames may be kept for frames before them: by default
    /// [`FRAMES_HELD_DEFAULT`](crate::limits::FRAMES_HELD_DEFAULT), which suits a session with the
    /// default memory. It is kept within
    /// [`FRAMES_HELD_MIN`](crate::limits::FRAMES_HELD_MIN) and
    /// [`FRAMES_HELD_MAX`](crate::limits::FRAMES_HELD_MAX).
    pub fn hold_at_most(&self, bytes: usize) {
        self.inbox().hold_at_most(bytes);
    }

    /// Bytes of frames that were pushed and are not with the session yet: that wait for an earlier
    /// one, or for room.
    pub fn held_bytes(&self) -> usize {
        self.inbox().held_bytes()
    }

    /// Every change of the inbox is whole before anything can panic, so a poisoned lock is as good.
    fn inbox(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The peer's bytes have ended: its [`pull`](Self::pull) said [`Moved::Over`], or the VMM's own
    /// channel broke. What waits to be pulled still can be.
    pub fn close(&self) {
        // ENOTCONN: the session was faster.
        let _ = shutdown(&self.ours, Shutdown::Write);
    }

    /// Readable while there is something to pull, or the session is over; writable while a push
    /// finds room. For poll, epoll or an event loop: do not read, write or close it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }
}

fn not_moved(errno: Errno) -> io::Result<Moved> {
    match errno {
        Errno::AGAIN => Ok(Moved::NotNow),
        Errno::PIPE | Errno::CONNRESET => Ok(Moved::Over),
        other => Err(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Frame, encode};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn pair() -> (Channel, UnixStream) {
        let (channel, theirs) = Channel::new().expect("sockets");
        (channel, theirs.into())
    }

    #[test]
    fn bytes_pass_in_both_directions() {
        let (channel, mut session) = pair();
        let mut buffer = [0u8; 16];
        assert_eq!(channel.pull(&mut buffer).expect("pull"), Moved::NotNow);
        session.write_all(b"out").expect("room");
        assert_eq!(channel.pull(&mut buffer).expect("pull"), Moved::Bytes(3));
        assert_eq!(&buffer[..3], b"out");
        assert_eq!(channel.push(b"into").expect("push"), Moved::Bytes(4));
        let mut came = [0u8; 4];
        session.read_exact(&mut came).expect("came");
        assert_eq!(&came, b"into");
    }

    #[test]
    fn a_full_channel_takes_no_more_and_loses_nothing() {
        let (channel, mut session) = pair();
        let (block, mut pushed) = ([7u8; 4096], 0);
        while let Moved::Bytes(bytes) = channel.push(&block).expect("push") {
            pushed += bytes;
            assert!(pushed < 64 << 20, "nothing bounds the channel");
        }
        channel.close();
        let mut came = Vec::new();
        session.read_to_end(&mut came).expect("to the end");
        assert_eq!(came.len(), pushed);
    }

    #[test]
    fn what_was_sent_before_the_end_can_be_pulled() {
        let (channel, mut session) = pair();
        session.write_all(b"last words").expect("room");
        drop(session);
        assert_eq!(channel.push(b"too late").expect("push"), Moved::Over);
        let mut buffer = [0u8; 64];
        assert_eq!(channel.pull(&mut buffer).expect("pull"), Moved::Bytes(10));
        assert_eq!(channel.pull(&mut buffer).expect("pull"), Moved::Over);
        channel.close();
    }

    #[test]
    fn an_empty_buffer_moves_nothing_and_says_no_end() {
        let (channel, _session) = pair();
        assert_eq!(channel.pull(&mut []).expect("pull"), Moved::NotNow);
        assert_eq!(channel.push(&[]).expect("push"), Moved::NotNow);
    }

    fn frame(number: u32, bytes: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let message = Frame::Message(vec![number as u8; bytes].into());
        encode(&message, number, &mut out).expect("a frame");
        out
    }

    #[test]
    fn whole_frames_are_pulled_one_at_a_time() {
        let (channel, mut session) = pair();
        let (first, second) = (frame(0, 1000), frame(1, 0));
        let (mut room, mut have) = (vec![0; 2000], 0);
        let pull = |room: &mut [u8], have: &mut usize| channel.pull_frame(room, have);
        for part in [&first[..40], &first[40..64], &first[64..900]] {
            session.write_all(part).expect("room");
            assert_eq!(pull(&mut room, &mut have).expect("pulled"), Moved::NotNow);
        }
        assert_eq!(have, 900);
        session.write_all(&first[900..]).expect("room");
        session.write_all(&second).expect("room");
        // It was begun in a buffer that is too short for it, and is gone on with in one that is not.
        let found = pull(&mut room[..950], &mut have);
        let Err(FrameError::Fault(FrameFault::Room { bytes })) = found else { panic!("{found:?}") };
        assert_eq!(bytes, first.len());
        assert_eq!(pull(&mut room, &mut have).expect("whole"), Moved::Bytes(first.len()));
        assert!(room[..first.len()] == first);
        have = 0;
        assert_eq!(pull(&mut room, &mut have).expect("whole"), Moved::Bytes(second.len()));
        have = 0;
        assert_eq!(pull(&mut room, &mut have).expect("nothing"), Moved::NotNow);
        session.write_all(&[7; 64]).expect("room");
        let found = pull(&mut room, &mut have);
        assert!(matches!(found, Err(FrameError::Fault(FrameFault::Wire(_)))), "{found:?}");
    }

    #[test]
    fn frames_that_overtake_each_other_come_in_order_and_a_bad_one_breaks_the_stream() {
        let (channel, mut session) = pair();
        let frames: Vec<_> = (0..20).map(|number| frame(number, 32 << 10)).collect();
        for number in (2..20).rev().chain([0]) {
            channel.push_frame(&frames[number]).expect("taken");
        }
        assert_eq!(channel.held_bytes(), 18 * frames[0].len());
        let mut came = vec![0; frames.concat().len()];
        let one = frames[0].len();
        session.read_exact(&mut came[..one]).expect("the first");
        assert_eq!(channel.push_frame(&frames[1]).expect("taken"), Passed::Waits);
        let mut from = one;
        while from < came.len() {
            channel.flush().expect("passed on");
            from += session.read(&mut came[from..]).expect("more");
        }
        assert!(came == frames.concat());
        assert_eq!(channel.flush().expect("nothing"), Passed::On);
        let twice = channel.push_frame(&frames[1]).expect_err("twice");
        assert!(matches!(twice, FrameError::Fault(FrameFault::Twice { number: 1 })), "{twice}");
        assert_eq!(session.read(&mut came).expect("the end"), 0);
        channel.push(b"bytes").expect_err("after frames");
    }
}
