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

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, recv, send, shutdown,
    socketpair,
};

/// The VMM's end of a stream. All methods may be called from any thread and return at once.
#[derive(Debug)]
pub struct Channel {
    ours: OwnedFd,
}

/// The result of a [`Channel::pull`] or [`Channel::push`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing to pull, or no room for a push, at this moment.
    NotNow,
    /// The session has closed the stream: nothing will come any more, and nothing is taken.
    Over,
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
        Ok((Channel { ours }, theirs))
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
    /// The system's error; none is expected.
    pub fn push(&self, bytes: &[u8]) -> io::Result<Moved> {
        if bytes.is_empty() {
            return Ok(Moved::NotNow);
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::io::retry_on_intr(|| send(&self.ours, bytes, flags)) {
            Ok(taken) => Ok(Moved::Bytes(taken)),
            Err(errno) => not_moved(errno),
        }
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
}
