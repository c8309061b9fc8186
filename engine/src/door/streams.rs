//! What comes through the door: the connected streams of one session.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::options::Protection;

/// The streams of one session, connected: what a session is started with.
///
/// Sockets that the embedder connected itself become this by `from`, and are then the embedder's to
/// protect: a stream that leaves the host in plaintext is refused at the session's start unless
/// [`Options::plaintext`](crate::Options::plaintext) says that it may.
#[derive(Debug)]
pub struct Streams {
    pub(crate) fds: Vec<OwnedFd>,
    peers: Vec<SocketAddr>,
    session: Option<u128>,
    protection: Protection,
}

impl Streams {
    pub(super) fn new(
        streams: Vec<(OwnedFd, SocketAddr)>,
        session: Option<u128>,
        protection: Protection,
    ) -> Streams {
        let (fds, peers) = streams.into_iter().unzip();
        Streams { fds, peers, session, protection }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.fds.len()
    }

    /// Where each of them leads to, in their order. Empty where the embedder connected them.
    pub fn peers(&self) -> &[SocketAddr] {
        &self.peers
    }

    /// The source's number for the session, once it has said it: at an acceptor.
    pub fn session(&self) -> Option<u128> {
        self.session
    }

    /// The streams one by one; none where the embedder connected them.
    pub(super) fn into_parts(self) -> impl Iterator<Item = (OwnedFd, SocketAddr)> {
        self.fds.into_iter().zip(self.peers)
    }

    /// Whether the embedder has said, in any way, that they need no protection of ours.
    pub(crate) fn may_be_plain(&self) -> bool {
        matches!(self.protection, Protection::Plaintext)
    }
}

impl From<Vec<OwnedFd>> for Streams {
    fn from(fds: Vec<OwnedFd>) -> Streams {
        Streams { fds, peers: Vec::new(), session: None, protection: Protection::Loopback }
    }
}

impl From<Streams> for Vec<OwnedFd> {
    fn from(streams: Streams) -> Vec<OwnedFd> {
        streams.fds
    }
}
