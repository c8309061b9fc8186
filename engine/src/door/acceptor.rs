//! The acceptor's public face: any thread, any number of them.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::cancel::Canceller;
use super::connect::wait_for;
use super::inner::Inner;
use super::options::{DoorOptions, Protection};
use super::streams::Streams;
use super::tls::Handshake;
use super::turned_away::TurnedAway;
use crate::drive::deadline;
use crate::error::{Error, UsageError};

/// Lets sources in: one session after another, or several at once, whoever else knocks.
///
/// It has no thread. It works while somebody [`wait`](Self::wait)s or [`poll`](Self::poll)s; between
/// calls connections wait in the kernel's queue, 4096 at most where the system allows so many. All
/// methods may be called from any thread. Dropping it tells those sessions that were not taken that
/// they are not, and closes the port.
#[derive(Debug)]
pub struct Acceptor {
    inner: Mutex<Inner>,
    epoll: Arc<OwnedFd>,
    address: SocketAddr,
}

impl Acceptor {
    /// Listens on an address.
    ///
    /// # Errors
    /// [`UsageError::Plaintext`] for an address off this host that
    /// [`protection`](DoorOptions::protection) does not allow, [`UsageError::Range`],
    /// [`Error::Network`], [`Error::System`].
    pub fn bind(address: impl ToSocketAddrs, options: DoorOptions) -> Result<Acceptor, Error> {
        let network = |source| Error::Network { what: "cannot listen".to_owned(), source };
        let listener = TcpListener::bind(address).map_err(network)?;
        // std asks for 128. The system cuts it to net.core.somaxconn, 4096 by default.
        rustix::net::listen(&listener, 4096).map_err(|errno| network(errno.into()))?;
        Acceptor::new(listener, options)
    }

    /// Accepts on a socket that the embedder made: it is set to O_NONBLOCK.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn new(listener: TcpListener, options: DoorOptions) -> Result<Acceptor, Error> {
        options.check()?;
        if let Protection::Tls(tls) = &options.protection {
            Handshake::check_side(tls, false)?;
        }
        let network = |source| Error::Network { what: "the listening socket".to_owned(), source };
        let address = listener.local_addr().map_err(network)?;
        if !options.protection.allows(address.ip()) {
            return Err(UsageError::Plaintext { address: address.to_string() }.into());
        }
        listener.set_nonblocking(true).map_err(network)?;
        let inner = Inner::new(listener, options).map_err(Error::System)?;
        Ok(Acceptor { epoll: inner.epoll(), inner: Mutex::new(inner), address })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Readable when [`poll`](Self::poll) has something to do: for poll, epoll or an event loop. It
    /// belongs to the acceptor: do not read, write or close it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Goes on with those who knock, and gives a session that is complete. Never blocks; when it gives
    /// none, the embedder waits for [`fd`](Self::fd).
    ///
    /// # Errors
    /// [`Error::Network`] if the listening socket can no longer be used.
    pub fn poll(&self) -> Result<Option<Streams>, Error> {
        self.inner().round(Instant::now()).map_err(unusable)
    }

    /// Waits for a session that is complete, `timeout` at most ([`Duration::MAX`]: for ever).
    /// Strangers do not end it.
    ///
    /// # Errors
    /// [`Error::Network`], of the kind `TimedOut` and without an errno when the time is over;
    /// [`Error::Cancelled`].
    pub fn wait(&self, timeout: Duration, cancel: Option<&Canceller>) -> Result<Streams, Error> {
        let deadline = deadline(timeout);
        loop {
            if let Some(streams) = self.poll()? {
                return Ok(streams);
            }
            let ready = PollFd::new(&*self.epoll, PollFlags::IN);
            let nobody =
                |source| Error::Network { what: "no session has arrived".to_owned(), source };
            wait_for(ready, deadline, cancel).map_err(|ended| ended.into_error(nobody))?;
            // Those who knock without an end are not waited for longer than for nobody.
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                let last = self.poll()?;
                return last.ok_or_else(|| nobody(io::ErrorKind::TimedOut.into()));
            }
        }
    }

    /// Puts a session back that [`poll`](Self::poll) or [`wait`](Self::wait) gave: it is the next one
    /// again. Streams from elsewhere are closed.
    pub fn give_back(&self, streams: Streams) {
        self.inner().give_back(streams);
    }

    /// Connections that are held at this moment, while their sessions are not complete.
    pub fn held(&self) -> usize {
        self.inner().held()
    }

    /// Who was turned away so far.
    pub fn turned_away(&self) -> TurnedAway {
        self.inner().turned_away().clone()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unusable(source: io::Error) -> Error {
    Error::Network { what: "cannot accept streams any more".to_owned(), source }
}

/// Accepts the streams of one session, within `timeout` altogether, from a source on this host: with
/// an [`Acceptor`] of the default bounds. Whatever else connects meanwhile is turned away. The listener
/// is left as it was, and has O_NONBLOCK while this runs.
///
/// # Errors
/// As [`Acceptor::new`] and [`Acceptor::wait`].
pub fn accept(listener: &TcpListener, timeout: Duration) -> Result<Vec<OwnedFd>, Error> {
    let network = |source: io::Error| Error::Network { what: "the listener".to_owned(), source };
    let flags = rustix::fs::fcntl_getfl(listener).map_err(|errno| network(errno.into()))?;
    let ours = listener.try_clone().map_err(network)?;
    let acceptor = Acceptor::new(ours, DoorOptions::default());
    let streams = acceptor.and_then(|acceptor| acceptor.wait(timeout, None));
    // The flag is the open file's, which both have.
    rustix::fs::fcntl_setfl(listener, flags).map_err(|errno| network(errno.into()))?;
    streams?.into_fds().map_err(Error::System)
}
