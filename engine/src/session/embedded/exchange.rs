//! Where the engine's threads and the VMM's meet over a device: the [`Books`] under a lock, an
//! eventfd that is readable while a question is open, and a condition for the thread that waits for
//! its answer.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;

use super::books::{Books, Loss};
use super::{Answer, Wanted};
use crate::errno;
use crate::outcome::Host;
use crate::vfio::state::DeviceState;

/// Takes the news of a loss to the session. Called under the lock: it must not wait.
pub(super) type Tell = Box<dyn Fn(Loss) + Send + Sync>;

/// See the module's text.
pub(super) struct Exchange {
    eventfd: OwnedFd,
    shared: Mutex<Shared>,
    changed: Condvar,
}

struct Shared {
    books: Books,
    /// From the session's start to its end.
    tell: Option<Tell>,
    /// What there was nobody to be told of yet.
    untold: Option<Loss>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("books", &self.lock().books).finish_non_exhaustive()
    }
}

impl Shared {
    /// The news goes out before any answer that comes after it: whoever takes one needs the lock.
    fn pass_on(&mut self, loss: Option<Loss>) {
        match (loss, &self.tell) {
            (None, _) => {}
            (Some(loss), Some(tell)) => tell(loss),
            (Some(loss), None) => self.untold = Some(loss),
        }
    }
}

impl Exchange {
    pub(super) fn new(host: Host) -> io::Result<Exchange> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let shared = Shared { books: Books::new(host), tell: None, untold: None };
        Ok(Exchange {
            eventfd: rustix::event::eventfd(0, flags)?,
            shared: Mutex::new(shared),
            changed: Condvar::new(),
        })
    }

    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.lock().books.question()
    }

    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// The session can be told from here on.
    pub(super) fn listen(&self, tell: Tell) {
        let mut shared = self.lock();
        shared.tell = Some(tell);
        let untold = shared.untold.take();
        shared.pass_on(untold);
    }

    /// Does something to the books.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut Books) -> T) -> T {
        change(&mut self.lock().books)
    }

    /// The VMM has said something.
    pub(super) fn answer(&self, answer: Answer) {
        self.heard(|books| books.hear(answer));
    }

    /// The VMM knows of a reset. False if that is no news to the books.
    pub(super) fn told_of_reset(&self) {
        self.heard(Books::told_of_reset);
    }

    fn heard(&self, hear: impl FnOnce(&mut Books) -> Option<Loss>) {
        let mut shared = self.lock();
        let loss = hear(&mut shared.books);
        shared.pass_on(loss);
        // At once and not when the engine's thread wakes up, so that a VMM that polls again cannot
        // repeat the ioctl.
        self.show(&shared.books);
        drop(shared);
        self.changed.notify_all();
    }

    pub(super) fn end(&self) {
        let mut shared = self.lock();
        shared.books.end();
        (shared.tell, shared.untold) = (None, None);
        self.show(&shared.books);
        drop(shared);
        self.changed.notify_all();
    }

    /// Makes a request and waits for its answer, whose content `open` takes out.
    pub(super) fn ask<T>(
        &self,
        wanted: Wanted,
        open: impl Fn(Answer) -> Option<Result<T, i32>>,
    ) -> io::Result<T> {
        let answer = self.wait_for(wanted).ok_or(errno::ECANCELED);
        answer
            .and_then(|answer| open(answer).unwrap_or(Err(errno::EPROTO)))
            .map_err(io::Error::from_raw_os_error)
    }

    /// None when the session is over.
    fn wait_for(&self, wanted: Wanted) -> Option<Answer> {
        let mut shared = self.lock();
        shared.books.ask(wanted);
        self.show(&shared.books);
        loop {
            if let Some(answer) = shared.books.take_reply() {
                return Some(answer);
            }
            if shared.books.has_ended() {
                return None;
            }
            shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until the VMM has said where it has taken a device that was in PRE_COPY: whether to
    /// STOP_COPY, with what was saved so far.
    pub(super) fn has_stopped(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut shared = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match shared.books.has_gone_on() {
                Some(stopped) => return stopped,
                None if left.is_zero() => return false,
                None => {}
            }
            let waited = self.changed.wait_timeout(shared, left);
            shared = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets the eventfd say whether a question is open.
    fn show(&self, books: &Books) {
        // EAGAIN: it was read before, or the counter is full and so it is readable.
        if books.question().is_some() {
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        } else {
            let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
        }
    }

    pub(super) fn state(&self, kernel: Option<DeviceState>) -> Option<DeviceState> {
        self.with(|books| books.state(kernel))
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
