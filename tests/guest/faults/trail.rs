//! A device that notes what an engine makes of it: the states that it was set to and its resets,
//! one after the other, as far as they succeeded.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use vfio_ferry::vfio::VfioDevice;
use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};

/// One thing that was done to the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// SET_STATE.
    Set(DeviceState),
    /// VFIO_DEVICE_RESET.
    Reset,
}

/// See the module's text.
pub(super) struct Trail {
    device: Arc<VfioDevice>,
    steps: Mutex<Vec<Step>>,
}

impl Trail {
    /// Of this device, from now on.
    pub(super) fn of(device: Arc<VfioDevice>) -> Arc<Trail> {
        Arc::new(Trail { device, steps: Mutex::new(Vec::new()) })
    }

    /// What was done so far.
    pub(super) fn steps(&self) -> Vec<Step> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, step: Step) {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner).push(step);
    }
}

impl MigrationDevice for Trail {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.device.capabilities()
    }
    fn state(&self) -> io::Result<DeviceState> {
        self.device.state()
    }
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        let fd = self.device.set_state(state)?;
        self.note(Step::Set(state));
        Ok(fd)
    }
    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.device.precopy_info(data_fd)
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        self.device.stop_copy_length()
    }
    fn reset(&self) -> io::Result<()> {
        self.device.reset()?;
        self.note(Step::Reset);
        Ok(())
    }
}
