//! Ending a ring's wait from another thread.
//!
//! A system call is needed only while the ring's thread sleeps, or is about to: a thread that is at
//! work looks at its inbox before it sleeps, and a word in memory tells it that there is something.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::event::EventfdFlags;

/// The ring's thread is at work.
const AT_WORK: u8 = 0;
/// It sleeps, or has made up its mind to: only the eventfd ends that.
const ASLEEP: u8 = 1;
/// It was woken, and has not been told yet.
const WOKEN: u8 = 2;
/// A worker of the ring's own has something for it, which is nobody else's business.
const NUDGED: u8 = 3;

/// Ends a [`Ring::wait`](super::Ring::wait) from any thread; a wake before the wait is not lost.
#[derive(Debug, Clone)]
pub struct Waker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: AtomicU8,
    eventfd: OwnedFd,
}

impl Waker {
    pub(super) fn new() -> io::Result<Waker> {
        // Not O_NONBLOCK: a read of it that is queued on a ring waits, and is not answered EAGAIN.
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Waker { shared: Arc::new(Shared { state: AtomicU8::new(AT_WORK), eventfd }) })
    }

    /// Wakes the ring's thread.
    pub fn wake(&self) {
        // Whoever looks for what this wake is about does so after it has taken the word back: both
        // are one order for all threads.
        if self.shared.state.swap(WOKEN, Ordering::SeqCst) == ASLEEP {
            // One write for each sleep: the counter never fills up, so that this does not block.
            let _ = rustix::io::write(&self.shared.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Has the ring's thread look after its workers: it does not sleep on, and nobody is told.
    pub(super) fn nudge(&self) {
        let nudged = |state| (state != WOKEN).then_some(NUDGED);
        let before = self.shared.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, nudged);
        if before == Ok(ASLEEP) {
            let _ = rustix::io::write(&self.shared.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// The ring's thread is about to sleep. False: it must not, for it was woken.
    pub(super) fn fall_asleep(&self) -> bool {
        let state = &self.shared.state;
        state.compare_exchange(AT_WORK, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// The ring's thread is at work again. True: somebody woke it since this was last asked.
    pub(super) fn get_up(&self) -> bool {
        self.shared.state.swap(AT_WORK, Ordering::SeqCst) == WOKEN
    }

    /// Readable after a sleep was ended, until that was read.
    pub(super) fn eventfd(&self) -> BorrowedFd<'_> {
        self.shared.eventfd.as_fd()
    }

    /// Takes back what is known to be readable.
    pub(super) fn drain(&self) {
        let _ = rustix::io::read(&self.shared.eventfd, &mut [0u8; 8]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(waker: &Waker) -> bool {
        let eventfd = waker.eventfd();
        let mut fds = [PollFd::from_borrowed_fd(eventfd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("poll") == 1
    }

    #[test]
    fn a_thread_at_work_is_woken_without_a_system_call() {
        let waker = Waker::new().expect("an eventfd");
        waker.wake();
        waker.wake();
        assert!(!is_readable(&waker));
        assert!(!waker.fall_asleep(), "it was woken before");
        assert!(waker.get_up(), "and is told");
        assert!(!waker.get_up(), "once");
    }

    #[test]
    fn a_sleeper_is_woken_by_one_write() {
        let waker = Waker::new().expect("an eventfd");
        assert!(waker.fall_asleep());
        waker.wake();
        waker.wake();
        assert!(is_readable(&waker));
        waker.drain();
        assert!(!is_readable(&waker), "each wake has written");
        assert!(waker.get_up());
        assert!(waker.fall_asleep(), "nobody woke it since");
        assert!(!waker.get_up());
    }

    #[test]
    fn a_nudge_ends_a_sleep_and_is_no_wake() {
        let waker = Waker::new().expect("an eventfd");
        waker.nudge();
        assert!(!waker.fall_asleep() && !is_readable(&waker), "it was at work");
        assert!(!waker.get_up() && waker.fall_asleep());
        waker.nudge();
        waker.nudge();
        assert!(is_readable(&waker));
        waker.drain();
        assert!(!is_readable(&waker) && !waker.get_up());
        for wake_first in [true, false] {
            if wake_first {
                waker.wake();
            }
            waker.nudge();
            if !wake_first {
                waker.wake();
            }
            assert!(!waker.fall_asleep() && waker.get_up(), "a wake is not lost in a nudge");
        }
    }
}
