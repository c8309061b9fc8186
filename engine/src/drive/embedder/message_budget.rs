//! How many of the embedder's messages wait for a stream, in the inbox or with the machine. The
//! embedder's side counts up, the drive counts down when it sends one. So the embedder is told that
//! there is no room, and the machine's own bound is never reached.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::limits::MESSAGES_WAITING_MAX;

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct MessageBudget {
    waiting: AtomicUsize,
}

impl MessageBudget {
    /// Counts one more message in. False if there is no room for it.
    pub(crate) fn take(&self) -> bool {
        self.change(|waiting| (waiting < MESSAGES_WAITING_MAX).then_some(waiting + 1))
    }

    /// Counts a message out: it was sent.
    pub(in crate::drive) fn free(&self) {
        let counted = self.change(|waiting| waiting.checked_sub(1));
        debug_assert!(counted, "a message was sent that nobody counted in");
    }

    /// The number is all that is shared, so no order with other memory is needed.
    fn change(&self, by: impl Fn(usize) -> Option<usize>) -> bool {
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, by).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_as_many_as_the_limit_says() {
        let budget = MessageBudget::default();
        assert!((0..MESSAGES_WAITING_MAX).all(|_| budget.take()));
        assert!(!budget.take());
        budget.free();
        assert!(budget.take());
        assert!(!budget.take());
    }

    #[test]
    fn many_threads_never_take_more_than_there_is() {
        let budget = MessageBudget::default();
        let taken = || (0..MESSAGES_WAITING_MAX).filter(|_| budget.take()).count();
        let total: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(taken)).collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!(total, MESSAGES_WAITING_MAX);
    }
}
