//! A device for the examples: its whole state is a file. A VMM with real hardware has
//! `vfio_ferry::VfioDevice` in its place.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use vfio_ferry::{Capabilities, DeviceState, MigrationDevice, PrecopyInfo};

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Demo {
    state: Mutex<DeviceState>,
    content: File,
}

impl Demo {
    /// A running device whose state is this file's content.
    pub(crate) fn over(content: File) -> Arc<Demo> {
        Arc::new(Demo { state: Mutex::new(DeviceState::Running), content })
    }

    fn current(&self) -> std::sync::MutexGuard<'_, DeviceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MigrationDevice for Demo {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: false, precopy: false })
    }

    fn state(&self) -> io::Result<DeviceState> {
        Ok(*self.current())
    }

    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        *self.current() = state;
        let moves_data = matches!(state, DeviceState::StopCopy | DeviceState::Resuming);
        if !moves_data {
            return Ok(None);
        }
        let mut file = self.content.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(Some(file.into()))
    }

    fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        Err(io::Error::from_raw_os_error(libc::EINVAL))
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        Ok(self.content.metadata()?.len())
    }

    fn reset(&self) -> io::Result<()> {
        *self.current() = DeviceState::Running;
        Ok(())
    }
}
