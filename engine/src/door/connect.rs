//! Connecting to a target's acceptor.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::cancel::Canceller;
use super::options::Protection;
use super::streams::{Stream, Streams};
use super::tls::{Finished, Handshake, Progress, Tls};
use super::waits;
use crate::drive::deadline;
use crate::error::{Error, TlsFault, UsageError};

/// How a source connects.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// How the streams are guarded.
    pub protection: Protection,
    /// How long it may take altogether. [`Duration::MAX`]: for as long as the kernel tries. Looking
    /// a host's name up is not part of it, and cannot be cancelled: give an address where that
    /// matters.
    pub timeout: Duration,
    /// Ends it from another thread.
    pub cancel: Option<Canceller>,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        let protection = Protection::Loopback;
        ConnectOptions { protection, timeout: waits::CONNECT, cancel: None }
    }
}

/// Connects `count` streams to a target on this host that [`accept`](super::accept)s, within 10
/// seconds. To another host: [`connect_with`].
///
/// # Errors
/// As [`connect_with`].
pub fn connect(address: impl ToSocketAddrs, count: usize) -> Result<Vec<OwnedFd>, Error> {
    connect_within(address, count, Some(waits::CONNECT))
}

/// As [`connect`], within `timeout`; none: for as long as the kernel tries.
///
/// # Errors
/// As [`connect_with`].
pub fn connect_within(
    address: impl ToSocketAddrs,
    count: usize,
    timeout: Option<Duration>,
) -> Result<Vec<OwnedFd>, Error> {
    let timeout = timeout.unwrap_or(Duration::MAX);
    let options = ConnectOptions { timeout, ..ConnectOptions::default() };
    connect_with(address, count, &options)?.into_fds().map_err(Error::System)
}

/// Connects `count` streams to a target's [`Acceptor`](super::Acceptor): each to the first of the
/// host's addresses that takes it.
///
/// A connected stream is no word of the target's yet: a target that does not take the session says so
/// in its place, and the session ends with [`Cause::PeerAbort`](crate::Cause::PeerAbort).
///
/// # Errors
/// [`UsageError::Plaintext`] where no address is one that the protection allows; [`Error::Network`],
/// of the kind `TimedOut` and without an errno when the time is over; [`Error::Cancelled`];
/// [`Error::Tls`] where the target is not who it has to be. Whether the target trusts this host is seen
/// only once the session has begun ([`Session::protection`](crate::Session::protection)).
pub fn connect_with(
    address: impl ToSocketAddrs,
    count: usize,
    options: &ConnectOptions,
) -> Result<Streams, Error> {
    let addresses: Vec<_> = address.to_socket_addrs().map_err(network)?.collect();
    let (allowed, others): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| options.protection.allows(address.ip()));
    if let (true, Some(address)) = (allowed.is_empty(), others.first()) {
        return Err(UsageError::Plaintext { address: address.to_string() }.into());
    }
    if let Protection::Tls(tls) = &options.protection {
        Handshake::check_side(tls, true)?;
    }
    let (deadline, cancel) = (deadline(options.timeout), options.cancel.as_ref());
    let one = |_| {
        let (stream, address) = connect_one(&allowed, deadline, cancel)?;
        stream.set_nodelay(true).map_err(network)?;
        let stream = match &options.protection {
            Protection::Tls(tls) => secure(stream.into(), tls, deadline, cancel)?.into(),
            _ => Stream::Plain(stream.into()),
        };
        Ok((stream, address))
    };
    let streams = (0..count).map(one).collect::<Result<Vec<_>, Error>>()?;
    check_key(&streams)?;
    Ok(Streams::new(streams, None, &options.protection))
}

/// That all streams lead to one target: a name may have several.
fn check_key(streams: &[(Stream, SocketAddr)]) -> Result<(), TlsFault> {
    let mut keys = streams.iter().filter_map(|(stream, _)| stream.peer_key());
    let first = keys.next();
    match keys.all(|key| Some(key) == first) {
        true => Ok(()),
        false => Err(TlsFault::OtherKey),
    }
}

/// The handshake of a stream.
fn secure(
    socket: OwnedFd,
    tls: &Tls,
    deadline: Option<Instant>,
    cancel: Option<&Canceller>,
) -> Result<Finished, Error> {
    let mut handshake = Handshake::new(tls)?;
    loop {
        let flags = match handshake.turn(&socket)? {
            Progress::Done => return Ok(handshake.finish(socket)?),
            Progress::Reads => PollFlags::IN,
            Progress::Writes => PollFlags::OUT,
        };
        let ready = PollFd::new(&socket, flags);
        wait_for(ready, deadline, cancel).map_err(|ended| ended.into_error(network))?;
    }
}

fn network(source: io::Error) -> Error {
    Error::Network { what: "could not connect to the target".to_owned(), source }
}

/// The first address that takes a connection, or what the last one said. What time is left is shared
/// among those that are: one that is silent does not keep us from the next.
fn connect_one(
    addresses: &[SocketAddr],
    deadline: Option<Instant>,
    cancel: Option<&Canceller>,
) -> Result<(TcpStream, SocketAddr), Error> {
    let mut refused = network(io::ErrorKind::InvalidInput.into());
    for (index, address) in addresses.iter().enumerate() {
        let others = (addresses.len() - index) as u32;
        let share = deadline.map(|deadline| {
            let now = Instant::now();
            now + deadline.saturating_duration_since(now) / others
        });
        match connect_to(address, share, cancel) {
            Ok(stream) => return Ok((stream, *address)),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// connect(2) on a non-blocking socket, and poll for how it went: as the man page has it.
fn connect_to(
    address: &SocketAddr,
    deadline: Option<Instant>,
    cancel: Option<&Canceller>,
) -> Result<TcpStream, Error> {
    let system = |errno: Errno| network(errno.into());
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None).map_err(system)?;
    match rustix::net::connect(&socket, address) {
        Ok(()) => {}
        // Interrupted, it goes on by itself.
        Err(Errno::INPROGRESS | Errno::INTR) => {
            let ready = PollFd::new(&socket, PollFlags::OUT);
            wait_for(ready, deadline, cancel).map_err(|ended| ended.into_error(network))?;
            socket_error(&socket).map_err(system)?.map_err(system)?;
        }
        Err(errno) => return Err(system(errno)),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).map_err(network)?;
    Ok(stream)
}

/// Why a wait ended without what it was for.
#[derive(Debug)]
pub(super) enum Ended {
    Cancelled,
    /// The time is over, or the system said no.
    Failed(io::Error),
}

impl Ended {
    pub(super) fn into_error(self, failed: impl FnOnce(io::Error) -> Error) -> Error {
        match self {
            Ended::Cancelled => Error::Cancelled,
            Ended::Failed(error) => failed(error),
        }
    }
}

/// Waits until an fd is ready. A signal of the embedder's that interrupts this does not end it.
pub(super) fn wait_for(
    ready: PollFd<'_>,
    deadline: Option<Instant>,
    cancel: Option<&Canceller>,
) -> Result<(), Ended> {
    let mut fds = vec![ready];
    fds.extend(cancel.map(|cancel| PollFd::from_borrowed_fd(cancel.fd(), PollFlags::IN)));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // What does not fit is as good as none.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) if left == Some(Duration::ZERO) => {
                return Err(Ended::Failed(io::ErrorKind::TimedOut.into()));
            }
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) if fds.get(1).is_some_and(|cancel| !cancel.revents().is_empty()) => {
                return Err(Ended::Cancelled);
            }
            Ok(_) => return Ok(()),
            Err(errno) => return Err(Ended::Failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A port of this host that takes no more connections: its queue is full, so that the kernel
    /// drops what comes.
    fn full() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        rustix::net::listen(&listener, 0).expect("a shorter queue");
        let address = listener.local_addr().expect("its address");
        let mut queued = Vec::new();
        let brief = Duration::from_millis(300);
        while let Ok(stream) = TcpStream::connect_timeout(&address, brief) {
            queued.push(stream);
            assert!(queued.len() < 100, "nothing bounds the queue");
        }
        (listener, queued, address)
    }

    #[test]
    fn a_target_that_does_not_answer_is_given_up_in_time() {
        let (_listener, _queued, address) = full();
        let options =
            ConnectOptions { timeout: Duration::from_millis(50), ..ConnectOptions::default() };
        let error = connect_with(address, 1, &options).expect_err("nobody answers");
        let Error::Network { source, .. } = &error else { panic!("{error}") };
        assert_eq!((source.kind(), source.raw_os_error()), (io::ErrorKind::TimedOut, None));
    }

    #[test]
    fn another_thread_ends_it() {
        let (_listener, _queued, address) = full();
        let cancel = Canceller::new().expect("an eventfd");
        let options = ConnectOptions {
            timeout: Duration::MAX,
            cancel: Some(cancel.clone()),
            ..ConnectOptions::default()
        };
        let connecting = std::thread::spawn(move || connect_with(address, 1, &options));
        cancel.cancel();
        let error = connecting.join().expect("no panic").expect_err("cancelled");
        assert!(matches!(error, Error::Cancelled), "{error}");
    }

    #[test]
    fn a_silent_address_does_not_keep_us_from_the_next() {
        let (_listener, _queued, silent) = full();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let good = listener.local_addr().expect("its address");
        let options =
            ConnectOptions { timeout: Duration::from_secs(2), ..ConnectOptions::default() };
        let streams = connect_with(&[silent, good][..], 1, &options).expect("the second answers");
        assert_eq!(streams.peers(), [good]);
    }

    #[test]
    fn plaintext_stays_on_this_host_unless_it_is_asked_for() {
        let error = connect("192.0.2.1:7000", 1).expect_err("refused before anything is sent");
        let refused = |error: &Error| matches!(error, Error::Usage(UsageError::Plaintext { .. }));
        assert!(refused(&error), "{error}");
        let options = ConnectOptions {
            protection: Protection::Plaintext,
            timeout: Duration::from_millis(1),
            ..ConnectOptions::default()
        };
        let error = connect_with("192.0.2.1:7000", 1, &options).expect_err("nobody is there");
        assert!(!refused(&error), "{error}");
    }
}
