//! Opening a VFIO device from its place in sysfs: container, group, device, through vfio-ioctls.
//!
//! No KVM is involved: without its `kvm` feature vfio-ioctls neither tells a VM of the group nor
//! needs one. No memory is mapped for DMA either; a migration reads and writes the data fd with
//! the CPU, and a VMM that runs a guest opens the device itself and hands the fd in.
//!
//! vfio-ioctls reports some failures without their errno (the iommu_group link, the group's
//! viability), so what a person can get wrong is looked at here first, and named.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vfio_ioctls::{VfioContainer, VfioError, VfioOps};

use super::device::MigrationDevice;
use super::opened::Opened;
use super::real::VfioDevice;
use crate::errno;

/// Where bare names (`0000:01:00.0`, a UUID) are looked up.
const BUSES: [&str; 2] = ["/sys/bus/pci/devices", "/sys/bus/mdev/devices"];

/// Why a device could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such device in sysfs.
    #[error(
        "{path}: no such device; give its sysfs folder (/sys/bus/pci/devices/<address> or \
         /sys/bus/mdev/devices/<uuid>), and for an mdev create it first"
    )]
    NoSuchDevice {
        /// What was looked for.
        path: PathBuf,
    },
    /// The device has no `iommu_group`.
    #[error(
        "{path}: no iommu_group, so VFIO cannot open it{driver}; switch the IOMMU on \
         (intel_iommu=on or amd_iommu=on), or for an mdev load and bind its driver"
    )]
    NoGroup {
        /// The device's folder in sysfs.
        path: PathBuf,
        /// The driver that it is bound to.
        driver: Driver,
    },
    /// `/dev/vfio/<group>` does not exist.
    #[error(
        "{path}: /dev/vfio/{group} does not exist, so the device is not bound to a VFIO \
         driver{driver}; bind it (driver_override, then drivers_probe) to its migration driver, \
         such as mlx5_vfio_pci"
    )]
    NotBound {
        /// The device's folder in sysfs.
        path: PathBuf,
        /// The IOMMU group's number.
        group: String,
        /// The driver that it is bound to.
        driver: Driver,
    },
    /// `/dev/vfio/vfio` does not exist.
    #[error("/dev/vfio/vfio does not exist: modprobe vfio")]
    NoVfio,
    /// VFIO has no type-1 IOMMU backend.
    #[error("VFIO has no type-1 IOMMU: modprobe vfio_iommu_type1")]
    NoIommuType1,
    /// A device file may not be opened.
    #[error("{path}: permission denied; run as root or give the user access to it")]
    Denied {
        /// The device file.
        path: PathBuf,
    },
    /// The group is in use.
    #[error(
        "{path}: /dev/vfio/{group} is in use; a group is opened by one process at a time, so \
         stop the other one, or have it hand over the device's fd"
    )]
    Busy {
        /// The device's folder in sysfs.
        path: PathBuf,
        /// The IOMMU group's number.
        group: String,
    },
    /// Another device of the group is bound to a driver that is not VFIO's.
    #[error(
        "{path}: IOMMU group {group} is not viable: every device in \
         /sys/kernel/iommu_groups/{group}/devices must be bound to a VFIO driver or to none"
    )]
    NotViable {
        /// The device's folder in sysfs.
        path: PathBuf,
        /// The IOMMU group's number.
        group: String,
    },
    /// The device, or its driver, has no migration.
    #[error(
        "{path}: the driver offers no migration (ENOTTY){driver}; bind the device to its \
         migration driver instead of plain vfio-pci, and see that the firmware enables migration"
    )]
    NoMigration {
        /// The device's folder in sysfs.
        path: PathBuf,
        /// The driver that it is bound to.
        driver: Driver,
    },
    /// Another answer of VFIO.
    #[error("{path}: {source}")]
    Vfio {
        /// The device's folder in sysfs, or the container.
        path: PathBuf,
        /// What vfio-ioctls said.
        source: VfioError,
    },
    /// The device opened and then failed.
    #[error("{path}: {source}")]
    Device {
        /// The device's folder in sysfs.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The driver that a device is bound to, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver(pub Option<String>);

impl Driver {
    fn of(path: &Path) -> Driver {
        Driver(last_of_link(&path.join("driver")))
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(driver) => write!(f, " (its driver is {driver})"),
            None => f.write_str(" (it has no driver)"),
        }
    }
}

/// A VFIO container, and the IOMMU groups opened through it. Devices of one group must be opened
/// through one container: the kernel lets a group be opened once.
#[derive(Clone)]
pub struct Container(Arc<VfioContainer>);

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Container").finish_non_exhaustive()
    }
}

impl Container {
    /// Opens `/dev/vfio/vfio`.
    pub fn new() -> Result<Container, OpenError> {
        let path = PathBuf::from("/dev/vfio/vfio");
        match VfioContainer::new(None) {
            Ok(container) => Ok(Container(Arc::new(container))),
            Err(VfioError::OpenContainer(error)) => Err(match error.kind() {
                io::ErrorKind::NotFound => OpenError::NoVfio,
                io::ErrorKind::PermissionDenied => OpenError::Denied { path },
                // The node exists but no module answers to it.
                _ if error.raw_os_error() == Some(errno::ENODEV) => OpenError::NoVfio,
                _ => OpenError::Device { path, source: error },
            }),
            Err(VfioError::VfioExtension) => Err(OpenError::NoIommuType1),
            Err(source) => Err(OpenError::Vfio { path, source }),
        }
    }

    /// Opens a device by its folder in sysfs, or by its bare PCI address or mdev UUID. It must
    /// offer migration. Close its data fds before the returned device is dropped.
    pub fn open(&self, device: impl AsRef<Path>) -> Result<VfioDevice, OpenError> {
        let path = find(device.as_ref())?;
        let group = group_of(&path)?;
        let ops: Arc<dyn VfioOps> = self.0.clone();
        let opened = vfio_ioctls::VfioDevice::new(&path, ops, false)
            .map_err(|source| explain(&path, &group, source))?;
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(errno::ENOTTY) => {
                OpenError::NoMigration { path: path.clone(), driver: Driver::of(&path) }
            }
            _ => OpenError::Device { path: path.clone(), source },
        };
        let device = VfioDevice::from_opened(Opened::new(opened)).map_err(failed)?;
        device.capabilities().map_err(failed)?;
        Ok(device)
    }
}

impl VfioDevice {
    /// Opens one device in a container of its own: [`Container::new`], then [`Container::open`].
    pub fn open(device: impl AsRef<Path>) -> Result<VfioDevice, OpenError> {
        // The device first: without it there is nothing to load vfio for.
        let path = find(device.as_ref())?;
        group_of(&path)?;
        Container::new()?.open(path)
    }
}

/// The device's folder, with links resolved: its last part is the name VFIO knows it by.
fn find(device: &Path) -> Result<PathBuf, OpenError> {
    let bare = device.components().count() == 1 && device.is_relative();
    let places: Vec<PathBuf> = if bare {
        BUSES.iter().map(|bus| Path::new(bus).join(device)).collect()
    } else {
        vec![device.to_path_buf()]
    };
    places
        .iter()
        .find_map(|place| place.canonicalize().ok())
        .ok_or_else(|| OpenError::NoSuchDevice { path: device.to_path_buf() })
}

/// The number of the device's IOMMU group.
fn group_of(path: &Path) -> Result<String, OpenError> {
    last_of_link(&path.join("iommu_group"))
        .ok_or_else(|| OpenError::NoGroup { path: path.to_path_buf(), driver: Driver::of(path) })
}

fn last_of_link(link: &Path) -> Option<String> {
    let target = link.read_link().ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// What vfio-ioctls' error means for a person.
fn explain(path: &Path, group: &str, error: VfioError) -> OpenError {
    let (path, group) = (path.to_path_buf(), group.to_owned());
    match error {
        VfioError::OpenGroup(source, _) => match source.raw_os_error() {
            Some(errno::ENOENT) => OpenError::NotBound { driver: Driver::of(&path), path, group },
            Some(errno::EACCES | errno::EPERM) => {
                OpenError::Denied { path: Path::new("/dev/vfio").join(group) }
            }
            Some(errno::EBUSY) => OpenError::Busy { path, group },
            _ => OpenError::Device { path, source },
        },
        VfioError::GroupViable => OpenError::NotViable { path, group },
        source => OpenError::Vfio { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_does_not_exist_is_named() {
        let error = VfioDevice::open("/sys/bus/mdev/devices/no-such").expect_err("no device");
        assert!(matches!(&error, OpenError::NoSuchDevice { path }
            if path == Path::new("/sys/bus/mdev/devices/no-such")));
        assert!(error.to_string().contains("give its sysfs folder"));
    }

    #[test]
    fn a_bare_name_is_looked_up_on_the_buses() {
        assert!(matches!(VfioDevice::open("ffff:ff:1f.7"), Err(OpenError::NoSuchDevice { .. })));
    }

    #[test]
    fn a_device_without_a_group_says_so_with_its_driver() {
        let folder = std::env::temp_dir().join(format!("vfio-ferry-open-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a scratch folder");
        std::os::unix::fs::symlink("../drivers/virtio-pci", folder.join("driver")).expect("link");
        let error = VfioDevice::open(&folder).expect_err("no group");
        std::fs::remove_dir_all(&folder).expect("removed");
        let OpenError::NoGroup { driver, .. } = &error else { panic!("{error}") };
        assert_eq!(driver.0.as_deref(), Some("virtio-pci"));
        assert!(error.to_string().contains("its driver is virtio-pci"), "{error}");
    }

    #[test]
    fn vfio_errors_are_explained() {
        let path = Path::new("/sys/bus/pci/devices/0000:01:00.0");
        let group = |errno| {
            let source = io::Error::from_raw_os_error(errno);
            explain(path, "7", VfioError::OpenGroup(source, "7".into()))
        };
        assert!(matches!(group(errno::ENOENT), OpenError::NotBound { .. }));
        assert!(matches!(group(errno::EBUSY), OpenError::Busy { .. }));
        assert!(matches!(group(errno::EACCES), OpenError::Denied { .. }));
        let viable = explain(path, "7", VfioError::GroupViable);
        assert!(viable.to_string().contains("/sys/kernel/iommu_groups/7/devices"));
    }
}
