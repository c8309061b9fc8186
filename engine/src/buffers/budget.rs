//! Memory that the arenas of several sessions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes, of which arenas have shares.
#[derive(Debug, Clone)]
pub struct Budget {
    left: Arc<AtomicUsize>,
}

impl Budget {
    /// All of it is left.
    pub fn new(bytes: usize) -> Budget {
        Budget { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// What nobody has a share of, in bytes.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }

    /// A share of so many bytes, or of what is left: perhaps of none.
    pub fn take(&self, most: usize) -> Share {
        let mut bytes = 0;
        // It always succeeds.
        let _ = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            bytes = left.min(most);
            Some(left - bytes)
        });
        Share { budget: self.clone(), bytes }
    }
}

/// Part of a budget. Dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Share {
    /// How much it is.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is beyond so many bytes.
    pub fn shrink(&mut self, bytes: usize) {
        let kept = self.bytes.min(bytes);
        self.budget.left.fetch_add(self.bytes - kept, Ordering::Relaxed);
        self.bytes = kept;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_never_more_than_there_is_and_come_back() {
        let budget = Budget::new(100);
        let mut one = budget.take(60);
        let two = budget.take(60);
        assert_eq!((one.bytes(), two.bytes(), budget.take(1).bytes()), (60, 40, 0));
        one.shrink(50);
        one.shrink(70);
        assert_eq!((one.bytes(), budget.left()), (50, 10));
        drop(two);
        assert_eq!(budget.left(), 50);
        drop(one);
        assert_eq!(budget.left(), 100);
    }
}
