//! What a session must leave behind: nothing. File descriptors and threads of this process are
//! counted before and after.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::checks::{Outcome, fail};

/// Threads end a moment after the session that they worked for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many file descriptors and threads the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    fds: usize,
    threads: usize,
}

impl Held {
    /// Counts.
    pub(crate) fn now() -> Outcome<Held> {
        // The folder that is being listed is an fd itself, before and after.
        Ok(Held {
            fds: fs::read_dir("/proc/self/fd")?.count(),
            threads: fs::read_dir("/proc/self/task")?.count(),
        })
    }

    /// Waits until there is no more than there was; after that it is a leak.
    pub(crate) fn returns(self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Held::now()?;
            if now.fds <= self.fds && now.threads <= self.threads {
                return Ok(());
            }
            if Instant::now() >= deadline {
                fail!("leaked: {self:?} before, {now:?} after; {}", open_files());
            }
            sleep(Duration::from_millis(1));
        }
    }
}

/// What the process has open and which threads it has, in words.
fn open_files() -> String {
    let links = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let files = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let names = tasks.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
    let mut words: Vec<String> = files.map(|file| file.display().to_string()).collect();
    words.extend(names.map(|name| name.trim().to_owned()));
    words.join(", ")
}
