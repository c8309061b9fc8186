//! The devices of a session: each with a thread that asks it, and data fds on the session's ring.
//!
//! ```text
//! control.rs       the thread of the ioctls
//! spare.rs         a descriptor that is kept free for SET_STATE
//! data_fd.rs       one data fd on the ring: a chunk read, a chunk written
//! chunk.rs         a chunk: what an answer means for it
//! data_fds.rs      a device's data fds: the one that is attached, and those that a driver holds
//! zeros.rs         what is written of chunks of zeros
//! ```

mod chunk;
mod control;
mod data_fd;
mod data_fds;
mod spare;
#[cfg(test)]
pub(super) mod tests;
mod zeros;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::machine::Goal;
use crate::vfio::device::MigrationDevice;
pub(super) use control::Control;
pub(super) use data_fd::{DataEvent, Job, Tools};
pub(super) use data_fds::DataFds;
pub(super) use zeros::Zeros;

/// One device: its thread and fds.
pub(super) struct Device {
    /// Before its thread, which is to drop the last reference to the device.
    pub(super) data: DataFds,
    threads: Option<Threads>,
    /// How it is left where the migration does not take place.
    pub(super) goal: Goal,
    /// The control thread is with the driver.
    pub(super) asked: bool,
    /// What the last SET_STATE gave and nobody has taken.
    pub(super) fresh: Option<OwnedFd>,
}

/// What holds the device.
pub(super) struct Threads {
    pub(super) device: Arc<dyn MigrationDevice>,
    pub(super) control: Control,
}

impl Device {
    pub(super) fn new(data: DataFds, threads: Threads, goal: Goal) -> Device {
        Device { data, threads: Some(threads), goal, asked: false, fresh: None }
    }

    /// Its threads, until it is released.
    pub(super) fn threads(&mut self) -> Option<&mut Threads> {
        self.threads.as_mut()
    }

    /// Whether its driver holds something.
    pub(super) fn is_late(&self) -> bool {
        self.asked || self.data.is_late()
    }

    /// Lets its thread end. What comes back is disconnected once that holds the device no more. None
    /// where a data fd is still attached, or the device was released before.
    pub(super) fn release(&mut self) -> Option<Receiver<()>> {
        self.fresh = None;
        if !self.data.are_closed() {
            return None;
        }
        let Threads { device, control } = self.threads.take()?;
        // Whoever drops the last reference may run the embedder's code: the control thread.
        drop(device);
        Some(control.end())
    }
}
