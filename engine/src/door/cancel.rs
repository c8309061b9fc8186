//! A wait that another thread can end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

/// Ends the waits that it was given to, from any thread: those of
/// [`connect_with`](super::connect_with) and [`Acceptor::wait`](super::Acceptor::wait), now and later.
/// Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Canceller {
    /// An eventfd that stays readable once it is.
    fired: Arc<OwnedFd>,
}

impl Canceller {
    /// One that nobody has used.
    ///
    /// # Errors
    /// The system's error if it gives no eventfd.
    pub fn new() -> io::Result<Canceller> {
        let fired = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Canceller { fired: Arc::new(fired) })
    }

    /// Ends the waits, which then fail with [`Error::Cancelled`](crate::Error::Cancelled). Returns at
    /// once; for good.
    pub fn cancel(&self) {
        // EAGAIN after 2^64 of them: it is readable all the same.
        let _ = rustix::io::write(&*self.fired, &1u64.to_ne_bytes());
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fired.as_fd()
    }
}
