//! [`VfioDevice`]: the [`MigrationDevice`] of a real VFIO device, over its fd.
//!
//! Whoever drops it must have closed the device's data fds first: closing the device disables
//! them under whoever still reads or writes. This type does not know the data fds it handed out,
//! so the order is the caller's business; the engine closes them when an epoch ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::device::{MigrationDevice, PrecopyInfo};
use super::ioctl;
use super::state::{Capabilities, DeviceState, forbidden};
use crate::errno;

/// A VFIO device through the kernel's ioctls.
#[derive(Debug)]
pub struct VfioDevice {
    handle: Handle,
    /// VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 was accepted. It holds until the device is closed,
    /// so it is asked for once.
    precopy_info_v2: bool,
}

/// Whose the fd is.
#[derive(Debug)]
enum Handle {
    /// Handed in, for example by a VMM that keeps the group and the container itself.
    Owned(OwnedFd),
    /// Opened here, with the group and the container that belong to it.
    #[cfg(feature = "open")]
    Opened(super::opened::Opened),
}

impl VfioDevice {
    /// Takes an open device fd (VFIO_GROUP_GET_DEVICE_FD, or a bound cdev), and opts in to
    /// PRECOPY_INFOv2 where the kernel has it. A duplicate of a VMM's fd is fine: both are the
    /// same open device. Fails where the opt-in fails other than by being unknown.
    pub fn from_fd(device: OwnedFd) -> io::Result<VfioDevice> {
        VfioDevice::with(Handle::Owned(device))
    }

    /// As [`from_fd`](Self::from_fd), for a device opened here.
    #[cfg(feature = "open")]
    pub(super) fn from_opened(device: super::opened::Opened) -> io::Result<VfioDevice> {
        VfioDevice::with(Handle::Opened(device))
    }

    fn with(handle: Handle) -> io::Result<VfioDevice> {
        let precopy_info_v2 = ioctl::precopy_info_v2_opt_in(handle.as_fd())?;
        Ok(VfioDevice { handle, precopy_info_v2 })
    }

    /// Whether [`PrecopyInfo::reinit`] can be reported.
    pub fn has_precopy_info_v2(&self) -> bool {
        self.precopy_info_v2
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Handle::Owned(device) => device.as_fd(),
            #[cfg(feature = "open")]
            Handle::Opened(device) => device.as_fd(),
        }
    }
}

impl AsFd for VfioDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl MigrationDevice for VfioDevice {
    /// ENOTTY also where the driver offers migration without STOP_COPY, which vfio.h rules out.
    fn capabilities(&self) -> io::Result<Capabilities> {
        let flags = ioctl::migration_flags(self.as_fd())?;
        Capabilities::from_flags(flags).ok_or_else(|| io::Error::from_raw_os_error(errno::ENOTTY))
    }

    fn state(&self) -> io::Result<DeviceState> {
        ioctl::get_state(self.as_fd())
    }

    /// EINVAL without asking the driver for STOP_COPY -> PRE_COPY and PRE_COPY_P2P, on which
    /// Linux before 6.12.96 never returns. Asking for these two states costs two GET_STATEs.
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        if state.is_precopy() && forbidden(self.settled_state()?, state) {
            return Err(io::Error::from_raw_os_error(errno::EINVAL));
        }
        ioctl::set_state(self.as_fd(), state)
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        ioctl::precopy_info(data_fd, self.precopy_info_v2)
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        ioctl::stop_copy_length(self.as_fd())
    }

    fn reset(&self) -> io::Result<()> {
        ioctl::reset(self.as_fd())
    }

    fn device_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handed_in_fd_is_asked_and_not_opted_in_where_that_is_unknown() {
        let null: OwnedFd = std::fs::File::open("/dev/null").expect("/dev/null opens").into();
        let device = VfioDevice::from_fd(null).expect("ENOTTY on the opt-in is no error");
        assert!(!device.has_precopy_info_v2());
        let error = device.capabilities().expect_err("no migration on /dev/null");
        assert_eq!(error.raw_os_error(), Some(errno::ENOTTY));
    }
}
