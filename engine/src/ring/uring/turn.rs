//! One turn of the ring: into the kernel, out again, and what has to be done in between.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use io_uring::types;

use super::{IGNORED, UringRing, WAKE};
use crate::errno;
use crate::ring::Done;
use crate::ring::table::Key;
use crate::ring::workers::Worked;

/// A cancel that met its operation between two steps, or on its way to a worker, finds nothing;
/// so it is asked again this often until the operation completes.
const CANCEL_AGAIN: Duration = Duration::from_millis(20);
/// How long to leave a kernel alone that has no memory for a request.
const NO_MEMORY_PAUSE: Duration = Duration::from_millis(1);

impl UringRing {
    /// Submits what is queued, and waits for a completion entry if `wait` says so, `until` then
    /// at most.
    pub(super) fn enter(&mut self, wait: bool, until: Option<Instant>) -> io::Result<()> {
        self.fill_submissions();
        let (waiting, unrun) = {
            let submissions = self.ring.submission();
            (!submissions.is_empty(), submissions.taskrun())
        };
        let entered = match (wait, until) {
            // The kernel has completions to work out, which it does for who waits only.
            (false, _) if unrun => {
                let at_once = types::Timespec::new();
                let args = types::SubmitArgs::new().timespec(&at_once);
                self.ring.submitter().submit_with_args(1, &args)
            }
            (false, _) if waiting => self.ring.submit(),
            (false, _) => return Ok(()),
            (true, None) => self.ring.submit_and_wait(1),
            (true, Some(until)) => {
                let rest = types::Timespec::from(until.saturating_duration_since(Instant::now()));
                let args = types::SubmitArgs::new().timespec(&rest);
                self.ring.submitter().submit_with_args(1, &args)
            }
        };
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => Ok(()),
            // EBUSY: completions first; `reap` takes them.
            Err((Some(errno::EINTR | errno::ETIME | errno::EBUSY), _)) => Ok(()),
            Err((Some(errno::EAGAIN), _)) => {
                thread::sleep(NO_MEMORY_PAUSE);
                Ok(())
            }
            Err((_, error)) => Err(error),
        }
    }

    /// Takes all completion entries, then reacts to them.
    pub(super) fn reap(&mut self, done: &mut Vec<Done>) {
        let mut reaped = std::mem::take(&mut self.reaped);
        let entries = self.ring.completion();
        reaped.extend(entries.map(|entry| (entry.user_data(), entry.result(), entry.flags())));
        for (user_data, result, flags) in reaped.drain(..) {
            match user_data {
                IGNORED => {}
                // Whether it was woken, the waker knows: this only ends a sleep.
                WAKE => {
                    self.wake_in_flight = false;
                    self.queue_wake_read();
                }
                _ => self.complete(Key::from_user_data(user_data), result, flags, done),
            }
        }
        self.reaped = reaped;
    }

    /// Takes what the workers have done.
    pub(super) fn take_worked(&mut self, done: &mut Vec<Done>) {
        while let Some(Worked { key, buffer, result }) = self.workers.take() {
            let Some((flight, _)) = self.table.flight(key) else { continue };
            (flight.op.buffer, flight.away) = (buffer, false);
            // A system call moves no more than an i32 holds.
            let result = result.map_or_else(|errno| -errno.raw_os_error(), |moved| moved as i32);
            self.complete(key, result, 0, done);
        }
    }

    /// Gives the workers what is theirs.
    pub(super) fn give_work(&mut self, done: &mut Vec<Done>) {
        for key in std::mem::take(&mut self.for_workers) {
            let Some((flight, file)) = self.table.flight(key) else { continue };
            if flight.cancelled || !self.workers.give(key, flight, file) {
                done.extend(self.table.finish(key, Err(errno::ECANCELED)));
            }
        }
    }

    /// Cancels again what was cancelled and is still in flight, when it is time.
    pub(super) fn cancel_late(&mut self) {
        let now = Instant::now();
        if self.cancel_again.is_none_or(|at| now < at) {
            return;
        }
        let waiting = self.table.keys().filter(|(_, flight)| flight.cancelled && !flight.away);
        // With an outcome only notifications are outstanding, which nothing hastens.
        let late = waiting.filter(|(_, flight)| flight.state.outcome.is_none());
        let late: Vec<Key> = late.map(|(key, _)| key).collect();
        self.cancel_again = if late.is_empty() { None } else { Some(now + CANCEL_AGAIN) };
        for key in late {
            self.queue_cancel(key);
        }
    }

    pub(super) fn cancel_key(&mut self, key: Key) {
        let Some((flight, _)) = self.table.flight(key) else {
            return;
        };
        if flight.cancelled {
            return;
        }
        flight.cancelled = true;
        if flight.away || self.for_workers.contains(&key) {
            // Nothing reaches it with a worker; what follows it is not begun.
            return;
        }
        self.queue_cancel(key);
        let again = Instant::now() + CANCEL_AGAIN;
        self.cancel_again = Some(self.cancel_again.map_or(again, |at| at.min(again)));
    }
}

impl Drop for UringRing {
    /// Cancels everything and waits for every completion: as long as a driver keeps an operation,
    /// for the kernel may write into its buffer until then. Who cannot wait lets the thread linger.
    fn drop(&mut self) {
        let mut done = Vec::new();
        self.workers.finish();
        let away = self.table.keys().filter(|(_, flight)| flight.away).map(|(key, _)| key);
        let away: Vec<Key> = away.chain(std::mem::take(&mut self.for_workers)).collect();
        for key in away {
            self.table.finish(key, Err(errno::ECANCELED));
        }
        let keys: Vec<Key> = self.table.keys().map(|(key, _)| key).collect();
        for key in keys {
            self.cancel_key(key);
        }
        self.queue_end_of_wakes();
        while self.table.in_flight() > 0 || self.wake_in_flight {
            self.cancel_late();
            if let Err(error) = self.enter(true, self.cancel_again) {
                tracing::error!(%error, "a ring cannot be waited for; its buffers are leaked");
                self.table.leak();
                std::mem::forget(std::mem::take(&mut self.wake_count));
                return;
            }
            self.reap(&mut done);
            done.clear();
        }
        // The kernel takes a ring down some time after its descriptor is closed, and would keep
        // the registered files open until then: a data fd must be closed before its device's.
        if self.fixed_files {
            let _ = self.ring.submitter().unregister_files();
        }
        if self.zero_copy.registered() {
            let _ = self.ring.submitter().unregister_buffers();
        }
    }
}
