//! vfio-ioctls' device, as [`VfioDevice`](super::real::VfioDevice) holds it.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::ioctl;

/// An open device with the group and container behind it.
pub(super) struct Opened(Option<vfio_ioctls::VfioDevice>);

impl Opened {
    pub(super) fn new(device: vfio_ioctls::VfioDevice) -> Opened {
        Opened(Some(device))
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Opened").finish_non_exhaustive()
    }
}

impl AsFd for Opened {
    fn as_fd(&self) -> BorrowedFd<'_> {
        ioctl::device_fd(self.0.as_ref().expect("present until dropped"))
    }
}

impl Drop for Opened {
    /// vfio-ioctls 0.10 closes the device and then looks its group up in sysfs once more, with
    /// `unwrap`: a device that is unplugged at that moment would take the process down. By then
    /// the device is closed, and the group and container close while the panic unwinds.
    fn drop(&mut self) {
        let device = self.0.take();
        if catch_unwind(AssertUnwindSafe(|| drop(device))).is_err() {
            tracing::warn!("a VFIO device went away while it was being closed");
        }
    }
}
