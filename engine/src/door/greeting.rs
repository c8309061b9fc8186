//! What a connection says first. A plain stream's hello is looked at and left where it is: the session
//! reads it again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::streams::Stream;
use super::tls::{InKernel, Secured};
use super::turned_away::Reason;
use crate::cause::{Cause, Observation};
use crate::error::TlsFault;
use crate::limits::HEADER_BYTES;
use crate::wire::{
    Abort, Frame, Hello, Kind, WireFault, WireLimits, decode, decode_header, encode,
};

/// Most bytes of one that is read: a later version may say more, which is ignored here.
const HELLO_BYTES_MAX: usize = 1024;
/// "VFRY" as it travels.
const MAGIC: [u8; 4] = *b"VFRY";

/// What is known of a connection so far.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// Not all of its hello is there.
    Part,
    /// Its hello.
    Hello(Hello),
    /// It is no stream.
    Stranger(Reason),
}

/// Looks at what has come.
pub(super) fn hear(fd: BorrowedFd<'_>) -> Heard {
    peek(fd).unwrap_or(Heard::Stranger(Reason::Closed))
}

/// The same of a protected connection: the kernel opens it, and leaves it where it is.
pub(super) fn hear_in_kernel(stream: &InKernel) -> Heard {
    peek(stream.as_fd()).unwrap_or_else(|errno| {
        Heard::Stranger(reason_of(&stream.fault(Some(errno.raw_os_error()))))
    })
}

fn peek(fd: BorrowedFd<'_>) -> Result<Heard, Errno> {
    let mut bytes = [0u8; HELLO_BYTES_MAX];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::io::retry_on_intr(|| recv(fd, &mut bytes, flags)) {
        Ok((got, _)) => Ok(match judge(&bytes[..got]) {
            Heard::Part if has_ended(fd) => Heard::Stranger(Reason::Closed),
            heard => heard,
        }),
        Err(Errno::AGAIN) => Ok(Heard::Part),
        Err(errno) => Err(errno),
    }
}

/// What is there of a protected connection, opened.
pub(super) fn hear_secured(secured: &mut Secured) -> Heard {
    match secured.listen(HELLO_BYTES_MAX) {
        Ok(true) => judge(secured.heard()),
        Ok(false) => Heard::Stranger(Reason::Closed),
        Err(fault) => Heard::Stranger(reason_of(&fault)),
    }
}

/// Why a connection that has no protection has to go.
pub(super) fn reason_of(fault: &TlsFault) -> Reason {
    match fault {
        TlsFault::Untrusted(_) | TlsFault::Expired(_) => Reason::Untrusted,
        TlsFault::Cut => Reason::Closed,
        _ => Reason::NoHandshake,
    }
}

/// Judges the first bytes of a stream as soon as they can be told from a hello's.
fn judge(bytes: &[u8]) -> Heard {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Heard::Stranger(Reason::NotAHello);
    }
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Heard::Part;
    };
    let Ok(header) = decode_header(header, &WireLimits::MAX) else {
        return Heard::Stranger(Reason::NotAHello);
    };
    let body_bytes = header.body_bytes as usize;
    if header.kind != Kind::HELLO || body_bytes > HELLO_BYTES_MAX - HEADER_BYTES {
        return Heard::Stranger(Reason::NotAHello);
    }
    let Some(body) = body.get(..body_bytes) else { return Heard::Part };
    match decode(&header, body) {
        Ok(Frame::Hello(hello)) => Heard::Hello(hello),
        _ => Heard::Stranger(Reason::NotAHello),
    }
}

/// Whether the other end has closed its side, or the connection broke.
pub(super) fn has_ended(fd: BorrowedFd<'_>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Without an answer it is left to whoever uses it.
    rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now))).is_ok_and(|ready| ready > 0)
}

/// Tells one that has said a good hello that its session is not taken. What does not go out at once
/// does not go out: nobody waits for one who is sent away, and one who has left cannot be told.
pub(super) fn send_away(stream: &mut Stream, reason: Reason) {
    let Ok(frame) = last_word(reason) else { return };
    match stream {
        Stream::Plain(socket) => drop(send_plain(socket.as_fd(), &frame, || ())),
        Stream::Kernel(stream) => drop(send_plain(stream.as_fd(), &frame, || stream.part())),
        Stream::Secured(secured) => drop(secured.part(&frame)),
    }
}

/// `last` is what has to come between the frame and the end.
fn send_plain(fd: BorrowedFd<'_>, frame: &[u8], last: impl FnOnce()) -> io::Result<()> {
    // A socket that is closed with unread bytes resets the connection, and may take our words with it.
    let mut hello = [0u8; HELLO_BYTES_MAX];
    let _ = recv(fd, &mut hello, RecvFlags::DONTWAIT)?;
    send(fd, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    last();
    shutdown(fd, Shutdown::Write)?;
    Ok(())
}

fn last_word(reason: Reason) -> Result<Vec<u8>, WireFault> {
    let abort = Abort {
        cause: Cause::Local,
        observed: Observation::Engine,
        errno: None,
        device: None,
        message: reason.words().to_owned(),
    };
    let mut frame = Vec::new();
    encode(&Frame::Abort(abort), 0, &mut frame)?;
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StreamId;
    use crate::wire::Offer;

    fn hello() -> (Hello, Vec<u8>) {
        let (hello, mut bytes) = (Offer::new(2, 1, 4096).hello(7, StreamId(1)), Vec::new());
        encode(&Frame::Hello(hello), 0, &mut bytes).expect("within limits");
        (hello, bytes)
    }

    #[test]
    fn a_hello_is_known_when_all_of_it_is_there() {
        let (hello, bytes) = hello();
        for part in 0..bytes.len() {
            assert_eq!(judge(&bytes[..part]), Heard::Part, "{part} bytes");
        }
        assert_eq!(judge(&bytes), Heard::Hello(hello));
    }

    #[test]
    fn anything_else_is_known_at_its_first_wrong_byte() {
        let not = Heard::Stranger(Reason::NotAHello);
        for first in [&b"G"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"VFRX", b"SSH-2.0"] {
            assert_eq!(judge(first), not, "{first:?}");
        }
        let (_, bytes) = hello();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(judge(&changed), not, "byte {at}");
        }
        let mut ping = Vec::new();
        encode(&Frame::Ping(1), 0, &mut ping).expect("within limits");
        assert_eq!(judge(&ping), not);
    }
}
