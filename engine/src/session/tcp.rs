//! Streams over TCP: as many connections as a session wants.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

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
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
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
    let deadline = Instant::now() + timeout;
    let first = accept_one(listener, deadline)?;
    let count = announced_streams(&first, deadline)?;
    let mut streams = vec![OwnedFd::from(first)];
    for _ in 1..count {
        streams.push(OwnedFd::from(accept_one(listener, deadline)?));
    }
    Ok(streams)
}

fn accept_one(listener: &TcpListener, deadline: Instant) -> Result<TcpStream, Error> {
    let network = |source| Error::Network { what: "could not accept a stream".to_owned(), source };
    let mut fds = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = rustix::event::Timespec {
        tv_sec: left.as_secs() as i64,
        tv_nsec: left.subsec_nanos().into(),
    };
    let ready = rustix::event::poll(&mut fds, Some(&timeout)).map_err(|e| network(e.into()))?;
    if ready == 0 {
        return Err(network(io::ErrorKind::TimedOut.into()));
    }
    let (stream, _) = listener.accept().map_err(network)?;
    stream.set_nodelay(true).map_err(network)?;
    Ok(stream)
}

/// Looks at the hello without taking it.
fn announced_streams(stream: &TcpStream, deadline: Instant) -> Result<usize, Error> {
    let network =
        |source| Error::Network { what: "no hello came on the first stream".to_owned(), source };
    let mut bytes = [0u8; HEADER_BYTES + wire::HELLO_BODY_BYTES];
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    stream.set_read_timeout(Some(left)).map_err(network)?;
    let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::WAITALL;
    let (got, _) =
        rustix::net::recv(stream, &mut bytes[..], flags).map_err(|e| network(e.into()))?;
    stream.set_read_timeout(None).map_err(network)?;
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
