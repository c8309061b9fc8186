//! Mediated devices: made and removed through sysfs, opened through the engine.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfio_ferry::vfio::ioctl;
use vfio_ferry::vfio::real::VfioDevice;
use vfio_ferry::vfio::state::DeviceState;

use crate::checks::{Failure, Outcome};

/// A mediated device of this process; removed when dropped.
#[derive(Debug)]
pub(crate) struct Mdev {
    folder: PathBuf,
    /// Open until just before the removal, which waits for it otherwise.
    device: Option<Arc<VfioDevice>>,
}

impl Mdev {
    /// Makes a device of a type, such as `/sys/class/mtty/mtty` and `mtty-2`, and opens it.
    pub(crate) fn create(parent: &str, kind: &str) -> Outcome<Mdev> {
        Mdev::closed(parent, kind)?.reopened()
    }

    /// Makes a device that another process is going to open.
    pub(crate) fn closed(parent: &str, kind: &str) -> Outcome<Mdev> {
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
        let create = Path::new(parent).join("mdev_supported_types").join(kind).join("create");
        write(&create, &uuid)?;
        let folder = Path::new("/sys/bus/mdev/devices").join(uuid.trim());
        Ok(Mdev { folder, device: None })
    }

    /// Opens it, once nobody else has it any more.
    pub(crate) fn reopened(mut self) -> Outcome<Mdev> {
        self.device = Some(Arc::new(VfioDevice::open(&self.folder)?));
        Ok(self)
    }

    /// Closes it, for another process to open.
    pub(crate) fn hand_out(mut self) -> Mdev {
        self.device = None;
        self
    }

    /// Its folder in sysfs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The device as the engine wants it.
    pub(crate) fn device(&self) -> Arc<VfioDevice> {
        Arc::clone(self.open())
    }

    /// A duplicate of the device's fd, for resets behind the engine's back.
    pub(crate) fn fd(&self) -> Outcome<OwnedFd> {
        Ok(self.open().as_fd().try_clone_to_owned()?)
    }

    /// GET_STATE, twice: the first one may be stale.
    pub(crate) fn state(&self) -> Outcome<DeviceState> {
        ioctl::get_state(self.open().as_fd())?;
        Ok(ioctl::get_state(self.open().as_fd())?)
    }

    /// SET_STATE; a data fd is closed at once.
    pub(crate) fn set_state(&self, state: DeviceState) -> Outcome {
        drop(ioctl::set_state(self.open().as_fd(), state)?);
        Ok(())
    }

    /// The device's whole state by plain ioctls and read(2), without the engine: STOP_COPY, read
    /// to the end, and on to RUNNING.
    pub(crate) fn read_state(&self) -> Outcome<Vec<u8>> {
        let data_fd = ioctl::set_state(self.open().as_fd(), DeviceState::StopCopy)?
            .ok_or_else(|| Failure("STOP_COPY gave no data fd".to_owned()))?;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut fs::File::from(data_fd), &mut bytes)?;
        self.set_state(DeviceState::Running)?;
        Ok(bytes)
    }

    fn open(&self) -> &Arc<VfioDevice> {
        self.device.as_ref().expect("open until dropped")
    }
}

impl Drop for Mdev {
    fn drop(&mut self) {
        self.device = None;
        if let Err(Failure(why)) = write(&self.folder.join("remove"), "1") {
            println!("# {} stays: {why}", self.folder.display());
        }
    }
}

/// Writes a file of sysfs; the error names it.
pub(crate) fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text)
        .map_err(|error| Failure(format!("{text:?} to {}: {error}", path.display())))
}
