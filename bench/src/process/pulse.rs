//! Telling how far a migration is while it runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(100);

/// Runs `work` while another thread calls `beat` from time to time.
pub(crate) fn with_pulse<T>(mut beat: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let teller = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                thread::park_timeout(PERIOD);
                beat();
            }
        });
        let result = work();
        done.store(true, Ordering::Release);
        teller.thread().unpark();
        result
    })
}
