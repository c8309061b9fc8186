//! The devices of a session: each with a thread that asks it, and one that reads or writes its
//! data fd while there is one.
//!
//! ```text
//! control.rs       the thread of the ioctls
//! data_thread.rs   the thread of a data fd
//! data_fd.rs       one data fd on a ring: a chunk read, a chunk written
//! jobs.rs          what the thread of a data fd is to do, and how it waits for that
//! ```

mod control;
mod data_fd;
mod data_thread;
mod jobs;
#[cfg(test)]
pub(super) mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::ids::Epoch;
use crate::vfio::device::MigrationDevice;
pub(super) use control::Control;
pub(super) use data_thread::{DataHandle, DataThread};
pub(super) use jobs::Job;

/// One device: its threads and fds.
pub(super) struct Device {
    pub(super) device: Arc<dyn MigrationDevice>,
    pub(super) control: Control,
    /// The control thread is with the driver.
    pub(super) asked: bool,
    /// What the last SET_STATE gave and nobody has taken.
    pub(super) fresh: Option<OwnedFd>,
    /// The epoch of the data fd that was attached last.
    pub(super) epoch: Epoch,
    /// The data fd that is attached.
    pub(super) data: Option<Attached>,
    /// The data fd that was attached before, while its thread is waited for.
    pub(super) detaching: Option<Detaching>,
}

/// A data fd and its thread.
pub(super) struct Attached {
    pub(super) thread: DataHandle,
    pub(super) fd: Arc<OwnedFd>,
}

/// A data fd's thread that was told to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detaching {
    pub(super) epoch: Epoch,
    /// When the driver is given up.
    pub(super) until_ns: u64,
}

impl Device {
    pub(super) fn new(device: Arc<dyn MigrationDevice>, control: Control) -> Device {
        Device {
            device,
            control,
            asked: false,
            fresh: None,
            epoch: Epoch::default(),
            data: None,
            detaching: None,
        }
    }
}
