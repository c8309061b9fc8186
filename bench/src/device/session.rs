//! The session that a device has, and who uses its fd.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use super::Passed;
use super::loading::Loading;
use super::saving::Saving;
use crate::engine::DeviceState;

/// The session that runs, or the last one: its digest is asked for after it ended.
#[derive(Debug, Clone)]
pub(super) enum Session {
    None,
    Saving(Arc<Saving>),
    Loading(Arc<Loading>),
}

impl Session {
    /// Whether its fd works on a device in this state.
    pub(super) fn is_alive_in(&self, state: DeviceState) -> bool {
        match self {
            Session::None => false,
            Session::Saving(_) => state.is_saving(),
            Session::Loading(_) => state == DeviceState::Resuming,
        }
    }

    /// Ends it. A parked read or write must come back: it hangs on the device's end of the fd.
    pub(super) fn kill(&self) {
        match self {
            Session::None => {}
            Session::Saving(saving) => saving.kill(),
            Session::Loading(loading) => loading.kill(),
        }
    }

    /// Bytes that went through its fd, by the user's report.
    pub(super) fn observed_bytes(&self) -> u64 {
        match self {
            Session::None => 0,
            Session::Saving(saving) => saving.observed_bytes(),
            Session::Loading(loading) => loading.observed_bytes(),
        }
    }

    /// What went through its fd, by the device's own count.
    pub(super) fn passed(&self) -> Passed {
        match self {
            Session::None => Passed { bytes: 0, digest: None },
            Session::Saving(saving) => saving.passed(),
            Session::Loading(loading) => loading.passed(),
        }
    }

    /// What was written, where it is kept.
    pub(super) fn kept(&self) -> Vec<u8> {
        match self {
            Session::Loading(loading) => loading.kept(),
            _ => Vec::new(),
        }
    }
}

/// The threads that use the data fds. `observe` is not told which fd was used: a thread that has
/// used one of an ended session's is taken to go on using that one.
#[derive(Debug, Default)]
pub(super) struct Users {
    current: Option<ThreadId>,
    former: Vec<ThreadId>,
    strangers: u32,
}

impl Users {
    /// Whether the calling thread uses the session's fd.
    pub(super) fn is_current(&mut self) -> bool {
        let thread = thread::current().id();
        if self.former.contains(&thread) {
            return false;
        }
        if *self.current.get_or_insert(thread) != thread {
            self.strangers += 1;
        }
        true
    }

    /// Another session begins.
    pub(super) fn end_session(&mut self) {
        self.former.extend(self.current.take());
    }

    /// How often a second thread used a session's fd.
    pub(super) fn strangers(&self) -> u32 {
        self.strangers
    }
}
