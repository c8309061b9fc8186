//! The session that a device has, and who uses its fd.

use std::io;
use std::os::fd::BorrowedFd;
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

/// A session's data fd, known by its file, and the thread that uses it.
#[derive(Debug, Default)]
pub(super) struct Users {
    file: Option<(u64, u64)>,
    thread: Option<ThreadId>,
    strangers: u32,
    /// The file, of this session or one before it, whose read or write the driver holds.
    stuck: Option<(u64, u64)>,
}

impl Users {
    /// A session begins.
    pub(super) fn begin(&mut self, data_fd: BorrowedFd<'_>) -> io::Result<()> {
        (self.file, self.thread) = (Some(file(data_fd)?), None);
        Ok(())
    }

    /// The driver keeps a read or write of this fd.
    pub(super) fn sticks(&mut self, data_fd: BorrowedFd<'_>) -> io::Result<()> {
        self.stuck = Some(file(data_fd)?);
        Ok(())
    }

    /// Whether the driver was to keep a read or write of this fd.
    pub(super) fn is_stuck(&self, data_fd: BorrowedFd<'_>) -> io::Result<bool> {
        Ok(self.stuck.is_some() && self.stuck == Some(file(data_fd)?))
    }

    /// The calling thread uses an fd: whether it is the session's, and not one of an ended one.
    pub(super) fn use_of(&mut self, data_fd: BorrowedFd<'_>) -> io::Result<bool> {
        if self.file != Some(file(data_fd)?) {
            return Ok(false);
        }
        let thread = thread::current().id();
        if *self.thread.get_or_insert(thread) != thread {
            self.strangers += 1;
        }
        Ok(true)
    }

    /// How often a second thread used a session's fd.
    pub(super) fn strangers(&self) -> u32 {
        self.strangers
    }
}

fn file(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}
