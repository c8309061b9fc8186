//! Devices: real ones, which the engine drives. Embedded ones are in `embedded`.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use vfio_ferry::limits::{MESSAGE_BYTES_MAX, NAME_BYTES_MAX};
use vfio_ferry::{
    DeviceOptions, EmbeddedDevice, Fallback, Host, Latencies, MigrationDevice, OnReset, VfioDevice,
};

use crate::failure::{Failure, guarded};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, *};
use crate::values::{VFERRY_VALUE_UNKNOWN, unknown};

/// A device to be migrated, under the name that both hosts give it.
///
/// Made by `vferry_device_open`, `vferry_device_from_fd` or `vferry_device_embedded`, freed by
/// `vferry_device_free` at any time: a session keeps what it needs of its devices until it is
/// freed. A device belongs to one session at a time, an embedded device to one session for good.
/// Options are set before the session is made.
pub struct vferry_device {
    _opaque: [u8; 0],
}

#[derive(Debug)]
pub(crate) struct DeviceInner {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    options: Mutex<DeviceOptions>,
    used: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Real(Arc<VfioDevice>),
    Embedded(Arc<EmbeddedDevice>),
}

impl Handle for vferry_device {
    type Inner = DeviceInner;
    const WHAT: &'static str = "device";
}

/// What the source does when a device is reset while its state is saved.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_on_reset {
    /// The whole migration is aborted: the devices return to RUNNING, and the target is told why. The
    /// default.
    VFERRY_ON_RESET_ABORT = 0,
    /// Both hosts discard the device's epoch, and its saving starts again in PRE_COPY. Other devices
    /// go on.
    VFERRY_ON_RESET_RESTART = 1,
    /// Both hosts discard the device's epoch, and its whole state is sent from STOP_COPY after the
    /// switchover. Other devices go on.
    VFERRY_ON_RESET_STOP_COPY = 2,
}

/// That a device is in a session's hands.
#[derive(Debug)]
pub(crate) struct Use {
    used: Arc<AtomicBool>,
    for_good: bool,
    started: bool,
}

impl Use {
    /// The session was made.
    pub(crate) fn started(&mut self) {
        self.started = true;
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if !(self.started && self.for_good) {
            self.used.store(false, Ordering::Release);
        }
    }
}

impl DeviceInner {
    pub(crate) fn new(name: &str, kind: Kind) -> DeviceInner {
        DeviceInner {
            name: name.to_owned(),
            kind,
            options: Mutex::new(DeviceOptions::default()),
            used: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Gives the device to a session of this host.
    pub(crate) fn take_for(&self, host: Host) -> Result<Use, Failure> {
        let name = &self.name;
        if let Kind::Embedded(device) = &self.kind
            && device.host() != host
        {
            let message = format!("device {name:?} was made for the other host");
            return Err(Failure::new(VFERRY_ERR_WRONG_HOST, message));
        }
        if self.used.swap(true, Ordering::AcqRel) {
            return Err(Failure::new(
                VFERRY_ERR_DEVICE_IN_USE,
                format!("device {name:?} is in a session"),
            ));
        }
        let for_good = matches!(self.kind, Kind::Embedded(_));
        Ok(Use { used: Arc::clone(&self.used), for_good, started: false })
    }

    pub(crate) fn behind(&self) -> Arc<dyn MigrationDevice> {
        match &self.kind {
            Kind::Real(device) => device.clone(),
            Kind::Embedded(device) => device.clone(),
        }
    }

    pub(crate) fn options(&self) -> DeviceOptions {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, DeviceOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets one option of a device that is in no session yet.
fn set(
    device: Option<&mut vferry_device>,
    change: impl FnOnce(&mut DeviceOptions) -> Result<(), Failure>,
) -> vferry_status {
    guarded(|| {
        let device = raw::inner(device)?;
        if device.used.load(Ordering::Acquire) {
            let message = format!("device {:?} is in a session: set it before", device.name);
            return Err(Failure::new(VFERRY_ERR_DEVICE_IN_USE, message));
        }
        change(&mut device.lock())
    })
}

/// A device's name.
///
/// # Safety
/// As [`raw::text`].
pub(crate) unsafe fn name<'a>(name: *const c_char) -> Result<&'a str, Failure> {
    // SAFETY: handed on.
    let name = unsafe { raw::text(name, "name") }?;
    if name.is_empty() {
        return Err(Failure::new(VFERRY_ERR_DEVICE_NAME, "a device's name is empty"));
    }
    too_long("a device's name", name.len(), NAME_BYTES_MAX)?;
    Ok(name)
}

fn too_long(what: &str, found: usize, max: usize) -> Result<(), Failure> {
    if found <= max {
        return Ok(());
    }
    let message = format!("{what} has {found} bytes; at most {max} are allowed");
    Err(Failure::new(VFERRY_ERR_TOO_LONG, message))
}

/// Opens a VFIO device by its folder in sysfs (/sys/bus/pci/devices/ADDRESS,
/// /sys/bus/mdev/devices/UUID), or by its bare address or UUID, with a group and container of its
/// own. The engine drives its state machine. It maps no memory for DMA: a VMM that runs a guest on
/// the device opens it itself and uses `vferry_device_from_fd`.
///
/// A library that was built without this answers VFERRY_ERR_NOT_BUILT_IN.
///
/// `name` is 1 to 255 bytes of UTF-8 and the same on both hosts. On success `*device` is the
/// caller's, to be freed by `vferry_device_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_device_open(
    name: *const c_char,
    path: *const c_char,
    device: Option<&mut MaybeUninit<*mut vferry_device>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(device, "device")?;
        // SAFETY: the caller's string, as the header asks.
        let name = unsafe { self::name(name) }?;
        // SAFETY: the caller's string, as the header asks.
        let path = unsafe { raw::text(path, "path") }?;
        let opened = open(path)?;
        place.write(raw::handle(DeviceInner::new(name, Kind::Real(Arc::new(opened)))));
        Ok(())
    })
}

#[cfg(feature = "open")]
fn open(path: &str) -> Result<VfioDevice, Failure> {
    Ok(VfioDevice::open(path)?)
}

#[cfg(not(feature = "open"))]
fn open(path: &str) -> Result<VfioDevice, Failure> {
    let message = format!("this library was built without opening devices, so not {path} either");
    Err(Failure::new(VFERRY_ERR_NOT_BUILT_IN, message))
}

/// Takes a VFIO device that the VMM has opened (VFIO_GROUP_GET_DEVICE_FD, or a bound cdev). The
/// engine drives its state machine, so the VMM makes no migration ioctls meanwhile.
///
/// `fd` is duplicated and stays the caller's. The duplicate is closed when the device was freed and
/// its session has ended. `name` is as in `vferry_device_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_device_from_fd(
    name: *const c_char,
    fd: c_int,
    device: Option<&mut MaybeUninit<*mut vferry_device>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(device, "device")?;
        // SAFETY: the caller's string, as the header asks.
        let name = unsafe { self::name(name) }?;
        let real =
            VfioDevice::from_fd(raw::duplicate(fd, "the device's fd")?).map_err(|error| {
                Failure::system(VFERRY_ERR_DEVICE_IO, format!("device {name:?}"), error)
            })?;
        place.write(raw::handle(DeviceInner::new(name, Kind::Real(Arc::new(real)))));
        Ok(())
    })
}

/// Frees a device and sets the variable to NULL. Does nothing where it, or `device`, is NULL. A
/// session that has the device keeps what it needs.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_free(device: Option<&mut *mut vferry_device>) {
    guarded(|| {
        drop(raw::take(device));
        Ok(())
    });
}

/// Whether to save in PRE_COPY while the guest runs, where the device can (source). On by default.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_set_precopy(
    device: Option<&mut vferry_device>,
    precopy: bool,
) -> vferry_status {
    set(device, |options| {
        options.precopy = precopy;
        Ok(())
    })
}

/// What to do when the device is reset while its state is saved: a `vferry_on_reset` (source).
///
/// `attempts` and `fallback` are used for VFERRY_ON_RESET_RESTART only: how often this device may be
/// restarted in one session, and what to do after that, VFERRY_ON_RESET_ABORT or
/// VFERRY_ON_RESET_STOP_COPY. More attempts than a target takes are refused when a session is made
/// (VFERRY_ERR_RANGE; the sentence has the number).
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_set_on_reset(
    device: Option<&mut vferry_device>,
    on_reset: u32,
    attempts: u32,
    fallback: u32,
) -> vferry_status {
    set(device, |options| {
        options.on_reset = match (on_reset, fallback) {
            (0, _) => OnReset::Abort,
            (1, 0) => OnReset::Restart { attempts, then: Fallback::Abort },
            (1, 2) => OnReset::Restart { attempts, then: Fallback::StopCopy },
            (2, _) => OnReset::StopCopy,
            (1, _) => return Err(unknown("fallback", fallback)),
            _ => return Err(unknown("answer to a reset", on_reset)),
        };
        Ok(())
    })
}

/// Whether the device may be reset where SET_STATE does not bring it back to where it was found
/// (source). The guest then finds a reset device, and the device's report says so (`was_reset`). Off
/// by default: the session ends as VFERRY_ENDING_NOT_RETURNED. For a device that the engine drives.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_set_reset_to_return(
    device: Option<&mut vferry_device>,
    reset_to_return: bool,
) -> vferry_status {
    set(device, |options| {
        options.reset_to_return = reset_to_return;
        Ok(())
    })
}

/// What the device's transitions take, in nanoseconds, VFERRY_VALUE_UNKNOWN for what is not known, as
/// by default (source): what `vferry_device_report` had of the device's last migration, or of another
/// of its kind. The forecast of the downtime (VFERRY_EVENT_ESTIMATE) goes by it; nothing else does.
/// Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_set_latencies(
    device: Option<&mut vferry_device>,
    stop_ns: u64,
    load_ns: u64,
    run_ns: u64,
) -> vferry_status {
    set(device, |options| {
        let known = |ns| (ns != VFERRY_VALUE_UNKNOWN).then_some(Duration::from_nanos(ns));
        let [stop, load, run] = [stop_ns, load_ns, run_ns].map(known);
        options.latencies = Latencies { stop, load, run };
        Ok(())
    })
}

/// The device's weight when the devices of its session share the link, 1 or more (source). By default
/// 1.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_set_weight(
    device: Option<&mut vferry_device>,
    weight: u32,
) -> vferry_status {
    set(device, |options| match weight {
        0 => Err(unknown("weight", weight)),
        _ => {
            options.weight = weight;
            Ok(())
        }
    })
}

/// Bytes that the target's embedder gets as the payload of the device's VFERRY_EVENT_BEGIN, at most
/// VFERRY_MESSAGE_BYTES_MAX (source). The engine does not look at them. They are copied; `bytes` may
/// be NULL if `count` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_device_set_opaque(
    device: Option<&mut vferry_device>,
    bytes: *const u8,
    count: usize,
) -> vferry_status {
    set(device, |options| {
        too_long("the opaque part", count, MESSAGE_BYTES_MAX)?;
        // SAFETY: the caller's array of this count, as the header asks.
        let bytes = unsafe { raw::array(bytes, count, "bytes") }?;
        options.opaque = Bytes::copy_from_slice(bytes);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use vfio_ferry::EmbeddedConfig;

    use super::*;

    /// A device as C has it.
    fn embedded(host: Host) -> *mut vferry_device {
        let device = EmbeddedDevice::new(host, EmbeddedConfig::default()).expect("an eventfd");
        raw::handle(DeviceInner::new("net0", Kind::Embedded(device)))
    }

    /// Every setter changes its own option, to what it was told.
    #[test]
    fn setters_set_what_they_say() {
        let mut variable = embedded(Host::Source);
        let handle = variable;
        let set = |call: &dyn Fn(Option<&mut vferry_device>) -> vferry_status| {
            assert_eq!(call(raw::tests::borrow(handle)), vferry_status::VFERRY_OK);
            raw::inner(raw::tests::borrow(handle)).expect("a device").options()
        };
        assert!(!set(&|d| vferry_device_set_precopy(d, false)).precopy);
        assert!(set(&|d| vferry_device_set_precopy(d, true)).precopy);
        let after = |on_reset, fallback| {
            set(&|d| vferry_device_set_on_reset(d, on_reset, 3, fallback)).on_reset
        };
        let restart = |then| OnReset::Restart { attempts: 3, then };
        assert_eq!(after(1, 0), restart(Fallback::Abort));
        assert_eq!(after(1, 2), restart(Fallback::StopCopy));
        assert_eq!([0, 1, 9].map(|fallback| after(0, fallback)), [OnReset::Abort; 3]);
        assert_eq!([0, 1, 9].map(|fallback| after(2, fallback)), [OnReset::StopCopy; 3]);
        assert!(set(&|d| vferry_device_set_reset_to_return(d, true)).reset_to_return);
        let unknown = VFERRY_VALUE_UNKNOWN;
        let found = set(&|d| vferry_device_set_latencies(d, 1, unknown, 0)).latencies;
        let ns = |ns| Some(Duration::from_nanos(ns));
        assert_eq!([found.stop, found.load, found.run], [ns(1), None, ns(0)]);
        assert_eq!(set(&|d| vferry_device_set_weight(d, 7)).weight, 7);
        vferry_device_free(Some(&mut variable));
        assert!(variable.is_null());
    }

    /// The sentence says which of the two numbers is wrong.
    #[test]
    fn an_unknown_fallback_is_named() {
        let mut variable = embedded(Host::Source);
        for (on_reset, fallback, named) in [(1, 1, "fallback 1"), (3, 0, "answer to a reset 3")] {
            let device = raw::tests::borrow(variable);
            let status = vferry_device_set_on_reset(device, on_reset, 1, fallback);
            assert_eq!(status, VFERRY_ERR_RANGE);
            crate::failure::last(|said, _| assert!(said.contains(named), "{said}"));
        }
        vferry_device_free(Some(&mut variable));
    }

    /// One that the engine drives is free again after its session, and an embedded one where no
    /// session was made.
    #[test]
    fn an_embedded_device_that_had_a_session_is_not_changed_any_more() {
        let mut variable = embedded(Host::Target);
        let device = raw::inner(raw::tests::borrow(variable)).expect("a device");
        let weigh = || vferry_device_set_weight(raw::tests::borrow(variable), 2);
        let mut used = device.take_for(Host::Target).expect("nobody has it");
        assert_eq!(weigh(), VFERRY_ERR_DEVICE_IN_USE);
        drop(used);
        assert_eq!(weigh(), VFERRY_OK);
        used = device.take_for(Host::Target).expect("nobody has it");
        used.started();
        drop(used);
        assert_eq!(weigh(), VFERRY_ERR_DEVICE_IN_USE);
        vferry_device_free(Some(&mut variable));
    }

    /// An embedded device is for one session; another is free once its session is. Neither is used
    /// up by a session that was not made.
    #[test]
    fn a_device_is_free_again_unless_its_vmm_moved_it() {
        for (for_good, started, stays) in
            [(false, false, false), (false, true, false), (true, false, false), (true, true, true)]
        {
            let used = Arc::new(AtomicBool::new(true));
            let mut taken = Use { used: Arc::clone(&used), for_good, started: false };
            if started {
                taken.started();
            }
            drop(taken);
            assert_eq!(used.load(Ordering::Acquire), stays, "for good {for_good}, {started}");
        }
    }
}
