//! What comes through the door: the connected streams of one session.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::options::Protection;
use super::tls::{Finished, Guard, InKernel, Secured};
use crate::error::TlsFault;
use crate::threads::Threads;

/// The streams of one session, connected: what a session is started with.
///
/// Sockets that the embedder connected itself become this by `from`, and are then the embedder's to
/// protect: a stream that leaves the host in plaintext is refused at the session's start unless
/// [`Options::plaintext`](crate::Options::plaintext) says that it may.
#[derive(Debug)]
pub struct Streams {
    streams: Vec<Stream>,
    peers: Vec<SocketAddr>,
    session: Option<u128>,
    /// The embedder has asked for plaintext.
    plaintext: bool,
}

/// One of them.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(OwnedFd),
    Kernel(Box<InKernel>),
    Secured(Box<Secured>),
}

impl From<Finished> for Stream {
    fn from(finished: Finished) -> Stream {
        match finished {
            Finished::Kernel(stream) => Stream::Kernel(stream),
            Finished::Secured(secured) => Stream::Secured(secured),
        }
    }
}

/// How a session's stream is guarded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamProtection {
    /// Not by the engine.
    None,
    /// TLS 1.3.
    Tls {
        /// Who seals and opens its records.
        records: TlsRecords,
        /// How it broke, if it did: what the session only knows as a broken stream.
        fault: Option<TlsFault>,
    },
}

/// Who seals and opens the records of a stream that TLS guards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsRecords {
    /// The kernel, in the stream's own socket.
    Kernel,
    /// The engine, on a thread of the stream's own: the kernel has no TLS, not this cipher, or was not
    /// to be asked ([`Tls::with_kernel`](super::Tls::with_kernel)).
    UserSpace,
}

impl StreamProtection {
    pub(crate) fn of(guard: Option<&Guard>) -> StreamProtection {
        match guard {
            None => StreamProtection::None,
            Some(guard) => StreamProtection::Tls {
                records: match guard {
                    Guard::Kernel(_) => TlsRecords::Kernel,
                    Guard::Pumped(_) => TlsRecords::UserSpace,
                },
                fault: guard.fault().cloned(),
            },
        }
    }
}

impl Stream {
    /// The socket that leads to the peer.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Plain(socket) => socket.as_fd(),
            Stream::Kernel(stream) => stream.as_fd(),
            Stream::Secured(secured) => secured.socket().as_fd(),
        }
    }

    /// The key that the peer has shown; none where the stream is not protected.
    pub(super) fn peer_key(&self) -> Option<[u8; 32]> {
        match self {
            Stream::Plain(_) => None,
            Stream::Kernel(stream) => Some(stream.peer_key),
            Stream::Secured(secured) => Some(secured.peer_key),
        }
    }
}

impl Streams {
    pub(super) fn new(
        streams: Vec<(Stream, SocketAddr)>,
        session: Option<u128>,
        protection: &Protection,
    ) -> Streams {
        let (streams, peers) = streams.into_iter().unzip();
        let plaintext = matches!(protection, Protection::Plaintext);
        Streams { streams, peers, session, plaintext }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.streams.len()
    }

    /// Where each of them leads to, in their order. Empty where the embedder connected them.
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// The source's number for the session, once it has said it: at an acceptor.
    pub fn session(&self) -> Option<u128> {
        self.session
    }

    /// SHA-256 of the SubjectPublicKeyInfo that the peer has shown on every stream; none where they are
    /// not protected.
    pub fn peer_key(&self) -> Option<[u8; 32]> {
        self.streams.first()?.peer_key()
    }

    /// The streams as sockets, for another use than a session's start. Of protected ones each is one end
    /// of a socket pair, with a thread that seals and opens between it and the peer until it is closed; or
    /// the connection itself, where the kernel does that. That one says no close_notify when it is closed,
    /// and the peer's is EIO in place of an end: who does not want it has
    /// [`Tls::with_kernel`](super::Tls::with_kernel).
    ///
    /// # Errors
    /// The system's where it gives no threads or sockets.
    pub fn into_fds(self) -> io::Result<Vec<OwnedFd>> {
        self.open(&Threads::default())
            .map(|opened| opened.into_iter().map(|(stream, _)| stream).collect())
    }

    /// The engine's ends.
    pub(crate) fn open(self, threads: &Threads) -> io::Result<Vec<(OwnedFd, Option<Guard>)>> {
        let open = |(number, stream)| match stream {
            Stream::Plain(socket) => Ok((socket, None)),
            Stream::Kernel(stream) => Ok((stream.socket, Some(Guard::Kernel(stream.tls)))),
            Stream::Secured(secured) => {
                let (end, pumped) = secured.start(number, threads)?;
                Ok((end, Some(Guard::Pumped(pumped))))
            }
        };
        self.streams.into_iter().enumerate().map(open).collect()
    }

    /// The sockets that lead to the peer, in their order: to set options on (congestion control, pacing,
    /// DSCP), and to ask TCP what it knows. Whoever reads or writes one takes from the session what is its.
    pub fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams.iter().map(Stream::socket)
    }

    /// The streams one by one; none where the embedder connected them.
    pub(super) fn into_parts(self) -> impl Iterator<Item = (Stream, SocketAddr)> {
        self.streams.into_iter().zip(self.peers)
    }

    /// Those that have a thread which seals and opens, and its memory.
    pub(crate) fn pumped(&self) -> usize {
        self.streams.iter().filter(|stream| matches!(stream, Stream::Secured(_))).count()
    }

    /// Whether nobody has to ask what these are: they are protected, or asked for in plaintext.
    pub(crate) fn may_leave(&self) -> bool {
        let is_plain = |stream: &Stream| matches!(stream, Stream::Plain(_));
        self.plaintext || !self.streams.iter().any(is_plain)
    }
}

impl From<Vec<OwnedFd>> for Streams {
    fn from(fds: Vec<OwnedFd>) -> Streams {
        let streams = fds.into_iter().map(Stream::Plain).collect();
        Streams { streams, peers: Vec::new(), session: None, plaintext: false }
    }
}
