//! What the engine asks of a device: the [`MigrationDevice`] trait.

use std::any::Any;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use super::state::{Capabilities, DeviceState};

/// The answer of VFIO_MIG_GET_PRECOPY_INFO (`struct vfio_precopy_info`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrecopyInfo {
    /// Estimated bytes of initial state still to be read.
    pub initial_bytes: u64,
    /// Estimated bytes of state that changed since and are still to be read.
    pub dirty_bytes: u64,
    /// VFIO_PRECOPY_INFO_REINIT: there is new initial data, so readiness must be judged again.
    /// Never set unless VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 was accepted: without it the kernel
    /// echoes what user space put into `flags`.
    pub reinit: bool,
}

/// A device whose migration state machine the engine drives.
///
/// Errors are the kernel's, as [`io::Error::raw_os_error`]. All methods take `&self` and may be
/// called from two threads at once (the control thread, and a thread that checks the state while
/// the first one waits in a driver): for an ioctl on a VFIO device fd that is what the kernel
/// allows. A method may block for as long as the driver does.
pub trait MigrationDevice: Any + Send + Sync {
    /// VFIO_DEVICE_FEATURE_MIGRATION, GET: what the device can do. ENOTTY: no migration.
    fn capabilities(&self) -> io::Result<Capabilities>;

    /// VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, GET. After a deferred reset the first answer may be
    /// stale; a second call is right.
    fn state(&self) -> io::Result<DeviceState>;

    /// The state after a deferred reset has been applied: two [`state`](Self::state) calls, the
    /// second answer. The first one's way out of the driver (`*_state_mutex_unlock`) applies what
    /// was deferred. This is what [`classify`](crate::outcome::classify) wants as `found`.
    fn settled_state(&self) -> io::Result<DeviceState> {
        self.state()?;
        self.state()
    }

    /// VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, SET. Returns the data fd where the kernel opened one:
    /// on entry to PRE_COPY, STOP_COPY or RESUMING from outside the saving states, and not on a
    /// move inside them. The caller owns the fd. On failure the device may be anywhere on the path.
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>>;

    /// VFIO_MIG_GET_PRECOPY_INFO on the data fd. On mlx5 and virtio this call is also what starts
    /// the next save: without it no further PRE_COPY data appears.
    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo>;

    /// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, GET: the estimated size of the STOP_COPY data in bytes.
    /// ENOTTY where the driver does not estimate.
    fn stop_copy_length(&self) -> io::Result<u64>;

    /// VFIO_DEVICE_RESET. May return before the data fds are dead (mlx5, virtio, xe, mtty).
    fn reset(&self) -> io::Result<()>;

    /// The state that a session finds the device in, asked once at its start, before anything is
    /// moved. A device whose states are its embedder's business says RUNNING.
    fn state_at_start(&self) -> io::Result<DeviceState> {
        self.settled_state()
    }

    /// The VFIO device fd, where there is one: so that a device that is given twice to one session is
    /// found out. Nothing else is done with it.
    fn device_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The session gives up: a method that waits for anything but the driver returns ECANCELED
    /// from now on. Real devices keep the default.
    fn interrupt(&self) {}

    /// Last say over the result of a read or write of one of this device's data fds. Real devices
    /// keep the default. A test double on a pipe, which cannot answer ENODEV, puts it in here.
    /// Called on the session's thread, which must not wait in here: where the driver that is played
    /// holds the operation, this returns EINPROGRESS, and is asked again, with the same result, until
    /// it says something else.
    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        let _ = data_fd;
        result
    }
}
