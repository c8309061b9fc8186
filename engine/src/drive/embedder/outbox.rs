//! What the embedder has not fetched yet: a queue that never blocks the drive, an eventfd that is
//! readable while something waits, and a condition for blocking callers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::event::EventfdFlags;

use crate::limits::{EVENTS_WAITING_MAX, MESSAGES_WAITING_MAX};
use crate::machine::Notice;

/// What a session tells its embedder.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// Something happened on the way.
    Notice(Notice),
    /// The session has ended, and its report says how. The last event, unless the report says that
    /// a device's driver is late: then a [`Notice::CameBack`] follows when it has answered.
    Finished,
}

/// See the module's text.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    arrived: Condvar,
    eventfd: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<SessionEvent>,
    messages: usize,
    /// The session has ended.
    finished: bool,
    /// Nothing more comes.
    closed: bool,
    /// The eventfd is readable.
    lit: bool,
    /// Callers that sleep until something comes.
    sleepers: usize,
}

impl Outbox {
    pub(in crate::drive) fn new() -> io::Result<Outbox> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Outbox {
            state: Mutex::new(State::default()),
            arrived: Condvar::new(),
            eventfd: rustix::event::eventfd(0, flags)?,
        })
    }

    /// Adds an event. False if it is a message and too many of those wait already.
    ///
    /// Estimates replace each other, and beyond [`EVENTS_WAITING_MAX`] phases are dropped: an
    /// embedder that does not look loses detail, never a completion.
    pub(in crate::drive) fn push(&self, event: SessionEvent) -> bool {
        let mut state = self.lock();
        match &event {
            SessionEvent::Notice(Notice::Message(_)) => {
                if state.messages >= MESSAGES_WAITING_MAX {
                    return false;
                }
                state.messages += 1;
            }
            SessionEvent::Notice(Notice::Estimate(_)) => {
                state.events.retain(|e| !matches!(e, SessionEvent::Notice(Notice::Estimate(_))));
            }
            SessionEvent::Notice(Notice::Phase { .. })
                if state.events.len() >= EVENTS_WAITING_MAX =>
            {
                return true;
            }
            SessionEvent::Finished => state.finished = true,
            SessionEvent::Notice(_) => {}
        }
        state.events.push_back(event);
        self.wake(state);
        true
    }

    /// Nothing more comes. Who polls the eventfd is woken to look once more, and finds nothing.
    pub(in crate::drive) fn close(&self) {
        let mut state = self.lock();
        if !state.closed {
            state.closed = true;
            self.light(&mut state);
            self.wake(state);
        }
    }

    /// Somebody who sleeps takes what came: whoever polls need not see it, and a system call is
    /// spared while a VM stands still.
    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let sleepers = state.sleepers > 0;
        if !sleepers {
            self.light(&mut state);
        }
        // Whoever this wakes wants the lock.
        drop(state);
        if sleepers {
            self.arrived.notify_all();
        }
    }

    /// Makes the eventfd readable.
    fn light(&self, state: &mut State) {
        if !std::mem::replace(&mut state.lit, true) {
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
    }

    /// Takes the next event, if there is one. The eventfd is readable while there are more, and once
    /// more when the last one was fetched and nothing more comes.
    pub fn poll(&self) -> Option<SessionEvent> {
        let mut state = self.lock();
        self.take(&mut state)
    }

    /// Waits for the next event until `deadline`, or for ever. None at the deadline, and once the
    /// last event was fetched.
    pub fn wait(&self, deadline: Option<Instant>) -> Option<SessionEvent> {
        let mut state = self.lock();
        loop {
            if let Some(event) = self.take(&mut state) {
                return Some(event);
            }
            if state.closed {
                return None;
            }
            state = self.sleep(state, deadline)?;
        }
    }

    /// Waits until the session has ended, throwing away the events before that.
    pub(crate) fn wait_finished(&self) {
        let mut state = self.lock();
        while !state.finished {
            while self.take(&mut state).is_some() {}
            state.sleepers += 1;
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.sleepers -= 1;
        }
    }

    /// Whether nothing more comes.
    #[cfg(any(test, feature = "tokio-uring"))]
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// None at the deadline.
    fn sleep<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        deadline: Option<Instant>,
    ) -> Option<MutexGuard<'a, State>> {
        let left = match deadline {
            Some(deadline) => Some(deadline.checked_duration_since(Instant::now())?),
            None => None,
        };
        state.sleepers += 1;
        let mut state = match left {
            Some(left) => {
                let waited = self.arrived.wait_timeout(state, left);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.sleepers -= 1;
        Some(state)
    }

    /// Readable while an event waits. For poll, epoll or an event loop; never read it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    fn take(&self, state: &mut State) -> Option<SessionEvent> {
        let event = state.events.pop_front();
        // Once more, too, when nothing more comes: for whoever polls to look, and find nothing.
        let readable = !state.events.is_empty() || (state.closed && event.is_some());
        if readable {
            self.light(state);
        } else if std::mem::take(&mut state.lit) {
            let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
        }
        let event = event?;
        if matches!(event, SessionEvent::Notice(Notice::Message(_))) {
            state.messages -= 1;
        }
        Some(event)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::devices::tests::until_asleep;
    use crate::ids::DeviceId;
    use crate::machine::Estimate;
    use crate::outcome::Phase;
    use bytes::Bytes;

    fn readable(outbox: &Outbox) -> bool {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(
            outbox.event_fd(),
            rustix::event::PollFlags::IN,
        )];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut fds, Some(&now)).expect("poll") == 1
    }

    fn message(n: u8) -> SessionEvent {
        SessionEvent::Notice(Notice::Message(Bytes::copy_from_slice(&[n])))
    }

    #[test]
    fn the_eventfd_is_readable_while_something_waits() {
        let outbox = Outbox::new().expect("eventfd");
        assert!(!readable(&outbox));
        outbox.push(message(1));
        outbox.push(message(2));
        assert!(readable(&outbox));
        assert_eq!(outbox.poll(), Some(message(1)));
        assert!(readable(&outbox));
        assert_eq!(outbox.poll(), Some(message(2)));
        assert!(!readable(&outbox));
        assert_eq!(outbox.poll(), None);
    }

    #[test]
    fn after_the_end_who_waits_waits_for_what_still_comes() {
        let outbox = Outbox::new().expect("eventfd");
        outbox.push(message(1));
        outbox.push(SessionEvent::Finished);
        outbox.wait_finished();
        assert_eq!(outbox.wait(None), Some(message(1)));
        assert_eq!(outbox.wait(None), Some(SessionEvent::Finished));
        let past = Some(Instant::now());
        assert!(outbox.wait(past).is_none() && !outbox.is_closed(), "a device is late");
        outbox.push(message(2));
        assert_eq!(outbox.wait(None), Some(message(2)));
        assert!(!readable(&outbox));
        outbox.close();
        assert!(readable(&outbox), "who polls is not told that nothing more comes");
        assert_eq!((outbox.poll(), readable(&outbox)), (None, false));
        assert!(outbox.wait(None).is_none() && outbox.is_closed());
    }

    /// Who polls and stops at an event, and then sleeps on the fd, would sleep for ever.
    #[test]
    fn after_the_last_event_who_polls_is_told_that_nothing_more_comes() {
        let outbox = Outbox::new().expect("eventfd");
        outbox.push(message(1));
        outbox.push(SessionEvent::Finished);
        outbox.close();
        assert_eq!((outbox.poll(), readable(&outbox)), (Some(message(1)), true));
        assert_eq!((outbox.poll(), readable(&outbox)), (Some(SessionEvent::Finished), true));
        assert_eq!((outbox.poll(), readable(&outbox)), (None, false));
    }

    #[test]
    fn the_end_is_waited_for_by_who_wants_no_events() {
        let outbox = Outbox::new().expect("eventfd");
        let (told, thread) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                told.send(rustix::thread::gettid()).expect("the test waits");
                outbox.wait_finished();
            });
            let thread = thread.recv().expect("it begins");
            until_asleep(thread);
            outbox.push(message(1));
            until_asleep(thread);
            assert!(!waiting.is_finished(), "an event is not the end");
            outbox.push(SessionEvent::Finished);
        });
    }

    /// Who has woken up sleeps no more: what comes then is for who polls.
    #[test]
    fn the_eventfd_is_readable_again_after_somebody_has_waited() {
        let outbox = Outbox::new().expect("eventfd");
        outbox.push(message(1));
        assert!(readable(&outbox), "nobody sleeps");
        for waits in [
            (|outbox: &Outbox| drop(outbox.wait(None))) as fn(&Outbox),
            |outbox| drop(outbox.wait(Some(Instant::now() + std::time::Duration::from_secs(600)))),
            Outbox::wait_finished,
        ] {
            let outbox = Outbox::new().expect("eventfd");
            let (told, thread) = std::sync::mpsc::channel();
            let of = &outbox;
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    told.send(rustix::thread::gettid()).expect("the test waits");
                    waits(of);
                });
                until_asleep(thread.recv().expect("it begins"));
                of.push(SessionEvent::Finished);
            });
            while outbox.poll().is_some() {}
            assert!(!readable(&outbox));
            outbox.push(message(2));
            assert!(readable(&outbox));
        }
    }

    #[test]
    fn messages_are_bounded() {
        let outbox = Outbox::new().expect("eventfd");
        for n in 0..MESSAGES_WAITING_MAX {
            assert!(outbox.push(message(n as u8)));
        }
        assert!(!outbox.push(message(0)));
        outbox.poll();
        assert!(outbox.push(message(0)));
    }

    #[test]
    fn only_the_newest_estimate_waits() {
        let outbox = Outbox::new().expect("eventfd");
        for pending_bytes in 0..10 {
            outbox.push(SessionEvent::Notice(Notice::Estimate(Estimate {
                initial_data_loaded: true,
                pending_bytes,
                stop_copy_bytes: None,
                state_bytes_per_s: 0,
                ratio: 1.0,
                downtime_ns: None,
                latency_ns: 0,
                converged: false,
                switchover_budget_ns: None,
            })));
        }
        let Some(SessionEvent::Notice(Notice::Estimate(estimate))) = outbox.poll() else {
            panic!("an estimate waits");
        };
        assert_eq!(estimate.pending_bytes, 9);
        assert_eq!(outbox.poll(), None);
    }

    #[test]
    fn an_embedder_that_does_not_look_loses_phases_and_nothing_else() {
        let outbox = Outbox::new().expect("eventfd");
        let (device, phase) = (DeviceId(0), Phase::PreCopy);
        for _ in 0..2 * EVENTS_WAITING_MAX {
            assert!(outbox.push(SessionEvent::Notice(Notice::Phase { device, phase })));
        }
        let loaded = SessionEvent::Notice(Notice::InitialDataLoaded { device });
        assert!(outbox.push(loaded.clone()));
        let fetched: Vec<SessionEvent> = std::iter::from_fn(|| outbox.poll()).collect();
        assert_eq!(fetched.len(), EVENTS_WAITING_MAX + 1);
        assert_eq!(fetched.last(), Some(&loaded));
    }

    #[test]
    fn who_waits_is_woken_by_an_event_and_by_the_deadline() {
        let outbox = Outbox::new().expect("eventfd");
        assert_eq!(outbox.wait(Some(Instant::now())), None);
        let (told, thread) = std::sync::mpsc::channel();
        let of = &outbox;
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || {
                told.send(rustix::thread::gettid()).expect("the test waits");
                of.wait(None)
            });
            until_asleep(thread.recv().expect("it begins"));
            outbox.push(message(3));
            assert_eq!(waiting.join().expect("no panic"), Some(message(3)));
        });
    }
}
