//! Streams over TCP: as many connections as a session wants.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::drive::deadline;
use crate::error::Error;
use crate::limits::HEADER_BYTES;
use crate::limits::STREAMS_MAX;
use crate::wire::{self, Frame, WireLimits, decode, decode_header};

/// Connects `count` streams to a target that [`accept`]s, for as long as the kernel tries.
///
/// # Errors
/// [`Error::Network`].
pub fn connect(address: impl ToSocketAddrs, count: usize) -> Result<Vec<OwnedFd>, Error> {
    connect_within(address, count, None)
}

/// As [`connect`], within `timeout` altogether. Looking a host's name up is not part of that.
///
/// # Errors
/// [`Error::Network`], of the kind `TimedOut` and without an errno when the timeout is over.
pub fn connect_within(
    address: impl ToSocketAddrs,
    count: usize,
    timeout: Option<Duration>,
) -> Result<Vec<OwnedFd>, Error> {
    let network =
        |source| Error::Network { what: "could not connect to the target".to_owned(), source };
    let addresses: Vec<_> = address.to_socket_addrs().map_err(network)?.collect();
    let deadline = timeout.and_then(deadline);
    let one = |_| {
        let stream = connect_one(&addresses, deadline).map_err(network)?;
        stream.set_nodelay(true).map_err(network)?;
        Ok(OwnedFd::from(stream))
    };
    (0..count).map(one).collect()
}

/// The first address that takes a connection, or what the last one said.
fn connect_one(addresses: &[SocketAddr], deadline: Option<Instant>) -> io::Result<TcpStream> {
    let mut refused = io::ErrorKind::InvalidInput.into();
    for address in addresses {
        let stream = match deadline {
            None => TcpStream::connect(address),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                TcpStream::connect_timeout(address, left.max(Duration::from_millis(1)))
            }
        };
        match stream {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Accepts all streams of one session: as many as the first one's hello announces, which must come
/// within `timeout` altogether.
///
/// # Errors
/// [`Error::Network`], [`Error::Peer`] if the first connection does not begin with a hello.
pub fn accept(listener: &TcpListener, timeout: Duration) -> Result<Vec<OwnedFd>, Error> {
    let deadline = deadline(timeout);
    let first = accept_one(listener, deadline)?;
    let count = announced_streams(&first, deadline)?;
    let mut streams = vec![OwnedFd::from(first)];
    for _ in 1..count {
        streams.push(OwnedFd::from(accept_one(listener, deadline)?));
    }
    Ok(streams)
}

fn accept_one(listener: &TcpListener, deadline: Option<Instant>) -> Result<TcpStream, Error> {
    let network = |source| Error::Network { what: "could not accept a stream".to_owned(), source };
    wait_for(PollFd::new(listener, PollFlags::IN), deadline).map_err(network)?;
    let (stream, _) = listener.accept().map_err(network)?;
    stream.set_nodelay(true).map_err(network)?;
    Ok(stream)
}

/// Waits until something is there. A signal of the embedder's that interrupts this does not end it.
fn wait_for(fd: PollFd<'_>, deadline: Option<Instant>) -> io::Result<()> {
    let mut fds = [fd];
    loop {
        let left = left(deadline);
        // What does not fit is as good as none.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) if left == Some(Duration::ZERO) => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// How long it is until then; none: for ever.
fn left(deadline: Option<Instant>) -> Option<Duration> {
    deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
}

/// Looks at the hello without taking it.
fn announced_streams(stream: &TcpStream, deadline: Option<Instant>) -> Result<usize, Error> {
    let network =
        |source| Error::Network { what: "no hello came on the first stream".to_owned(), source };
    let mut bytes = [0u8; HEADER_BYTES + wire::HELLO_BODY_BYTES];
    let got = peek(stream, &mut bytes, deadline).map_err(network)?;
    let peer = |fault: wire::WireFault| Error::Peer(fault.to_string());
    let (Some(header), true) = (bytes.first_chunk::<HEADER_BYTES>(), got == bytes.len()) else {
        return Err(Error::Peer(format!("it closed the first stream after {got} bytes")));
    };
    let header = decode_header(header, &WireLimits::MAX).map_err(peer)?;
    let body = &bytes[HEADER_BYTES..];
    match decode(&header, body).map_err(peer)? {
        Frame::Hello(hello) if (1..=STREAMS_MAX).contains(&usize::from(hello.streams)) => {
            Ok(usize::from(hello.streams))
        }
        Frame::Hello(hello) => Err(Error::Peer(format!(
            "it announces {} streams; 1 to {STREAMS_MAX} are possible",
            hello.streams
        ))),
        _ => Err(Error::Peer("its first frame is not a hello".to_owned())),
    }
}

/// Fills the buffer with what came first, and leaves it where it is. Less at the stream's end.
fn peek(stream: &TcpStream, bytes: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::WAITALL;
    loop {
        let left = left(deadline);
        let over = left == Some(Duration::ZERO);
        stream.set_read_timeout(left.map(|left| left.max(Duration::from_millis(1))))?;
        // Short where it was interrupted, where the time is over, and at the end.
        let got = match recv(stream, &mut *bytes, flags) {
            Ok((got, _)) if got == bytes.len() || got == 0 || has_ended(stream)? => got,
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) if over => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => continue,
            Err(errno) => return Err(errno.into()),
        };
        stream.set_read_timeout(None)?;
        return Ok(got);
    }
}

fn has_ended(stream: &TcpStream) -> io::Result<bool> {
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::io::retry_on_intr(|| poll(&mut fds, Some(&now)))? > 0)
}
