//! The devices of a session: each with a thread that asks it, and one that reads or writes its
//! data fds.
//!
//! ```text
//! control.rs       the thread of the ioctls
//! spare.rs         a descriptor that is kept free for SET_STATE
//! data_thread.rs   the thread of the data fds
//! data_fd.rs       data fds on a ring: a chunk read, a chunk written
//! jobs.rs          what the thread of the data fds is to do, and how it waits for that
//! ```

mod control;
mod data_fd;
mod data_thread;
mod jobs;
mod spare;
#[cfg(test)]
pub(super) mod tests;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::ids::Epoch;
use crate::machine::Goal;
use crate::vfio::device::MigrationDevice;
pub(super) use control::Control;
pub(super) use data_thread::{DataHandle, DataThread, Starting};
pub(super) use jobs::Job;

/// One device: its threads and fds.
pub(super) struct Device {
    threads: Option<Threads>,
    /// How it is left where the migration does not take place.
    pub(super) goal: Goal,
    /// The control thread is with the driver.
    pub(super) asked: bool,
    /// What the last SET_STATE gave and nobody has taken.
    pub(super) fresh: Option<OwnedFd>,
    /// The epoch of the data fd that was attached last.
    pub(super) epoch: Epoch,
    /// The data fd that is attached.
    pub(super) fd: Option<Arc<OwnedFd>>,
    /// The data fd that was attached before, while it is waited for.
    pub(super) detaching: Option<Detaching>,
    /// Data fds that were given up while the driver held an operation, and have not come back.
    pub(super) stuck: u32,
    /// The thread of the data fds is no more.
    pub(super) dead: bool,
}

/// What holds the device.
pub(super) struct Threads {
    pub(super) device: Arc<dyn MigrationDevice>,
    pub(super) control: Control,
    pub(super) data: DataHandle,
}

/// A data fd that was taken from its thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Detaching {
    pub(super) epoch: Epoch,
    /// When the driver is given up.
    pub(super) until_ns: u64,
}

impl Device {
    pub(super) fn new(threads: Threads, goal: Goal) -> Device {
        Device {
            threads: Some(threads),
            goal,
            asked: false,
            fresh: None,
            epoch: Epoch::default(),
            fd: None,
            detaching: None,
            stuck: 0,
            dead: false,
        }
    }

    /// Its threads, until it is released.
    pub(super) fn threads(&mut self) -> Option<&mut Threads> {
        self.threads.as_mut()
    }

    /// Whether its driver holds something.
    pub(super) fn is_late(&self) -> bool {
        self.asked || self.detaching.is_some() || self.stuck > 0
    }

    /// Lets its threads end. What comes back is disconnected once they hold the device no more.
    pub(super) fn release(&mut self) -> Vec<Receiver<()>> {
        (self.fresh, self.fd) = (None, None);
        let Some(Threads { device, control, data }) = self.threads.take() else {
            return Vec::new();
        };
        // Whoever drops the last reference may run the embedder's code: the control thread.
        drop(device);
        vec![data.end(), control.end()]
    }
}
