// Threads that an input has started end with it.

use std::time::{Duration, Instant};

/// Longer than a thread takes to its end, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(100);

/// Runs an input, and waits until the threads that it has started are gone: none may be left, and what
/// one that is ending still has would be a leak to LeakSanitizer.
pub(crate) fn until_they_end(run: impl FnOnce()) {
    let count = || std::fs::read_dir("/proc/self/task").expect("procfs").count();
    let before = count();
    run();
    let deadline = Instant::now() + PATIENCE;
    while count() > before {
        assert!(Instant::now() < deadline, "{} threads are left", count() - before);
        std::thread::sleep(Duration::from_millis(1));
    }
}
