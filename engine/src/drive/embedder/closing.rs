//! Whether a session has let go of its streams: for a process that exits right after its end.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Closing {
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Closing {
    /// The streams are closed.
    pub(in crate::drive) fn done(&self) {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until they are; false at the deadline.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        while !*closed {
            closed = match deadline {
                None => self.changed.wait(closed).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = self.changed.wait_timeout(closed, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_streams_are_waited_for_until_the_deadline() {
        let closing = Closing::default();
        let past = Some(Instant::now());
        assert!(!closing.wait(past));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| closing.wait(None));
            closing.done();
            assert!(waiting.join().expect("no panic"));
        });
        assert!(closing.wait(past) && closing.wait(None), "they are closed");
    }
}
