//! The async face: a session's events, awaited. It runs on a tokio-uring runtime, whose reactor is
//! tokio's, and on plain tokio. The data path stays on the session's own threads and rings.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{ReportOf, Session, SessionEvent, Side};

/// A session whose events are awaited. Dropping a future of it loses no event; dropping it is
/// dropping the [`Session`].
#[derive(Debug)]
pub struct AsyncSession<S: Side> {
    readable: AsyncFd<OwnedFd>,
    session: Session<S>,
}

impl<S: Side> AsyncSession<S> {
    /// Takes a session over. To be called on the runtime that will await it.
    ///
    /// # Errors
    /// The system's error if it gives no fd, or if the reactor does not take it.
    pub fn new(session: Session<S>) -> io::Result<AsyncSession<S>> {
        let eventfd = session.event_fd().try_clone_to_owned()?;
        #[expect(deprecated, reason = "the successor is unsafe; an OwnedFd keeps its promise")]
        let readable = AsyncFd::with_interest(eventfd, Interest::READABLE)?;
        Ok(AsyncSession { readable, session })
    }

    /// The session, for everything that does not wait.
    pub fn session(&self) -> &Session<S> {
        &self.session
    }

    /// The next event; none after the last one, as [`Session::wait_event`]. For one task at a time.
    pub async fn next_event(&self) -> Option<SessionEvent> {
        loop {
            // Asked first: what comes before nothing more comes is not missed.
            let closed = self.session.running.outbox.is_closed();
            if let Some(event) = self.session.poll_event() {
                return Some(event);
            }
            if closed {
                return None;
            }
            // An error is the reactor's end: there is nothing left that could be awaited.
            self.readable.readable().await.ok()?.clear_ready();
        }
    }

    /// Awaits the end, throwing away the events before it. None if the runtime ends first.
    pub async fn finish(self) -> Option<ReportOf<S>> {
        while !self.session.has_ended() {
            self.next_event().await?;
        }
        self.session.report()
    }
}
