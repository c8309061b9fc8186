//! What the doubles' own threads cost: the part of a process's CPU that a real device would not use.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock;

static USED_NS: AtomicU64 = AtomicU64::new(0);

/// Adds what the calling thread has used since it last called this.
pub(super) fn count_thread() {
    thread_local!(static COUNTED_NS: Cell<u64> = const { Cell::new(0) });
    let used = clock::thread_cpu_ns();
    USED_NS.fetch_add(used - COUNTED_NS.replace(used), Ordering::Relaxed);
}

/// CPU of all these threads so far.
pub(crate) fn used_ns() -> u64 {
    USED_NS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_counts() {
        let before = used_ns();
        let counted = std::thread::spawn(|| {
            std::hint::black_box((0..1_000_000u64).fold(0, |sum, i| sum ^ std::hint::black_box(i)));
            count_thread();
        });
        assert!(counted.join().is_ok() && used_ns() > before);
    }
}
