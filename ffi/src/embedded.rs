//! Embedded mode: the VMM makes the ioctls, and hands in what they gave.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use vfio_ferry::session::{DeviceState, EmbeddedConfig, EmbeddedDevice, PrecopyInfo, Wanted};

use crate::device::{DeviceInner, Kind, name, vferry_device};
use crate::failure::{Failure, guarded};
use crate::raw;
use crate::status::vferry_status::{self, *};
use crate::values::{self, unknown};

/// For `vferry_device_embedded`: the device can save in PRE_COPY.
pub const VFERRY_EMBEDDED_PRECOPY: u32 = 1;
/// For `vferry_device_embedded`: the VMM makes VFIO_MIG_GET_PRECOPY_INFO itself when it is asked to.
pub const VFERRY_EMBEDDED_PRECOPY_INFO: u32 = 2;
/// For `vferry_device_embedded`: the VMM starts the device together with its VM, after the session
/// (target). VFERRY_WANT_RUNNING is not asked; the handover leaves the device in STOP, and both
/// hosts' sessions end as complete.
pub const VFERRY_EMBEDDED_STARTS_LATER: u32 = 4;
/// For `vferry_device_precopy_info`: VFIO_PRECOPY_INFO_REINIT, there is new initial data.
pub const VFERRY_PRECOPY_INFO_REINIT: u32 = 1;

/// What the engine waits for the VMM to do with an embedded device. The states have the kernel's
/// numbers.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_want {
    /// Nothing.
    VFERRY_WANT_NOTHING = 0,
    /// SET_STATE(STOP), on the target: the driver takes the loaded state in. Answer with
    /// `vferry_device_moved` and no fd.
    VFERRY_WANT_STOP = 1,
    /// SET_STATE(RUNNING), on the target: the device is handed over. Answer with
    /// `vferry_device_moved` and no fd.
    VFERRY_WANT_RUNNING = 2,
    /// SET_STATE(STOP_COPY), on the source, after the switchover. Answer with `vferry_device_moved`
    /// and the fd if the kernel gave one. From PRE_COPY it must not: one that comes all the same
    /// tells the engine that the device had been reset.
    VFERRY_WANT_STOP_COPY = 3,
    /// SET_STATE(RESUMING), on the target. Answer with `vferry_device_moved` and the fd.
    VFERRY_WANT_RESUMING = 4,
    /// SET_STATE(PRE_COPY), on the source. Answer with `vferry_device_moved` and the fd.
    VFERRY_WANT_PRE_COPY = 6,
    /// VFIO_MIG_GET_PRECOPY_INFO on the data fd, where the VMM makes that call. Make it now: with
    /// some drivers it is what starts the next save. Answer with `vferry_device_precopy_info`.
    VFERRY_WANT_PRECOPY_INFO = 100,
    /// VFIO_DEVICE_RESET, on the target, where the engine has no device fd: what was loaded so far
    /// is worthless. Answer with `vferry_device_reset_done`.
    VFERRY_WANT_RESET = 101,
}

fn want_number(wanted: Option<Wanted>) -> u32 {
    match wanted {
        None => vferry_want::VFERRY_WANT_NOTHING as u32,
        Some(Wanted::State(state)) => state as u32,
        Some(Wanted::PrecopyInfo) => vferry_want::VFERRY_WANT_PRECOPY_INFO as u32,
        Some(Wanted::Reset) => vferry_want::VFERRY_WANT_RESET as u32,
        // The library and its engine are one build; nothing else can be wanted.
        Some(_) => vferry_want::VFERRY_WANT_NOTHING as u32,
    }
}

fn embedded(device: Option<&mut vferry_device>) -> Result<&EmbeddedDevice, Failure> {
    let device = raw::inner(device)?;
    match &device.kind {
        Kind::Embedded(embedded) => Ok(embedded),
        Kind::Real(_) => {
            let message = format!("device {:?} is driven by the engine", device.name);
            Err(Failure::new(VFERRY_ERR_NOT_EMBEDDED, message))
        }
    }
}

/// A positive errno that C gave; what is none would be no reason for a failure.
fn errno(number: i32) -> Result<i32, Failure> {
    if number > 0 { Ok(number) } else { Err(unknown("errno", number)) }
}

/// Makes a device whose ioctls the VMM makes: it moves the device from state to state when the
/// engine wants it to (`vferry_device_wanted`), and hands the data fds in. There are no callbacks.
///
/// `host` is the `vferry_host` that this is, `flags` are VFERRY_EMBEDDED_ bits, `name` is as in
/// `vferry_device_open`. `device_fd` is the VFIO device fd, or -1. It is duplicated and stays the
/// caller's. With it the engine asks GET_STATE, and so tells a reset from a failure; asks for
/// MIG_DATA_SIZE; and resets a target device whose epoch was discarded. Without it the device's
/// state is what the VMM said last: one that finds its device reset calls `vferry_device_moved` with
/// VFERRY_STATE_RUNNING and -1.
///
/// When its session has ended the device is the VMM's again, in the state that it was left in: after
/// an abort it is the VMM that brings a source device to RUNNING and resets a target device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_device_embedded(
    name: *const c_char,
    host: u32,
    flags: u32,
    device_fd: c_int,
    device: Option<&mut MaybeUninit<*mut vferry_device>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(device, "device")?;
        // SAFETY: the caller's string, as the header asks.
        let name = unsafe { self::name(name) }?;
        let host = values::host(host)?;
        let known =
            VFERRY_EMBEDDED_PRECOPY | VFERRY_EMBEDDED_PRECOPY_INFO | VFERRY_EMBEDDED_STARTS_LATER;
        if flags & !known != 0 {
            return Err(unknown("flag among", format!("{flags:#x}")));
        }
        let device = match device_fd {
            -1 => None,
            fd => Some(raw::duplicate(fd, "the device's fd")?),
        };
        let config = EmbeddedConfig {
            precopy: flags & VFERRY_EMBEDDED_PRECOPY != 0,
            asks_precopy_info: flags & VFERRY_EMBEDDED_PRECOPY_INFO != 0,
            starts_later: flags & VFERRY_EMBEDDED_STARTS_LATER != 0,
            device,
        };
        let device = EmbeddedDevice::new(host, config)
            .map_err(|error| Failure::system(VFERRY_ERR_SYSTEM, "an eventfd", error))?;
        place.write(raw::handle(DeviceInner::new(name, Kind::Embedded(device))));
        Ok(())
    })
}

/// Says what the engine waits for: a `vferry_want`. Never blocks. It stays until it is answered, or
/// until the session ends.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_wanted(
    device: Option<&mut vferry_device>,
    want: Option<&mut MaybeUninit<u32>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(want, "want")?;
        place.write(want_number(embedded(device)?.wanted()));
        Ok(())
    })
}

/// An eventfd that is readable while the engine waits for something; for poll, epoll or an event
/// loop. It belongs to the device and lives as long as it does: do not read, write or close it.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_event_fd(
    device: Option<&mut vferry_device>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(fd, "fd")?;
        place.write(embedded(device)?.event_fd().as_raw_fd());
        Ok(())
    })
}

/// SET_STATE(`state`) succeeded, and gave `data_fd`, or -1 if it gave none. Never blocks. The answer
/// may come before the question: it is kept for it, and dropped when another question is asked. But the
/// fd of a PRE_COPY that was never asked for, because the switchover came first, is STOP_COPY's if the
/// kernel gives none there.
///
/// On success `data_fd` is the engine's, which closes it when the epoch or the session ends; the
/// caller does not use the number again. On failure it is still the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_device_moved(
    device: Option<&mut vferry_device>,
    state: i32,
    data_fd: c_int,
) -> vferry_status {
    guarded(|| {
        let device = embedded(device)?;
        let state = values::state(state)?;
        let data_fd = match data_fd {
            -1 => None,
            // SAFETY: the caller gives the fd away, as the header says.
            fd => Some(unsafe { raw::adopt(fd, "the data fd") }?),
        };
        device.moved(state, data_fd);
        Ok(())
    })
}

/// SET_STATE(`state`) failed with this positive errno. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_failed(
    device: Option<&mut vferry_device>,
    state: i32,
    os_error: i32,
) -> vferry_status {
    guarded(|| {
        let device = embedded(device)?;
        let state: DeviceState = values::state(state)?;
        device.failed(state, errno(os_error)?);
        Ok(())
    })
}

/// VFIO_MIG_GET_PRECOPY_INFO gave these sizes in bytes; `flags` is 0 or VFERRY_PRECOPY_INFO_REINIT.
/// Pass REINIT only if the kernel accepted VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: without it the
/// kernel leaves in `flags` whatever was there before. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_precopy_info(
    device: Option<&mut vferry_device>,
    initial_bytes: u64,
    dirty_bytes: u64,
    flags: u32,
) -> vferry_status {
    guarded(|| {
        let device = embedded(device)?;
        if flags & !VFERRY_PRECOPY_INFO_REINIT != 0 {
            return Err(unknown("flag among", format!("{flags:#x}")));
        }
        let reinit = flags != 0;
        device.precopy_info_is(Ok(PrecopyInfo { initial_bytes, dirty_bytes, reinit }));
        Ok(())
    })
}

/// VFIO_MIG_GET_PRECOPY_INFO failed with this positive errno. Never blocks. A device that was reset
/// answers EINVAL: hand it in, and the engine finds out.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_precopy_info_failed(
    device: Option<&mut vferry_device>,
    os_error: i32,
) -> vferry_status {
    guarded(|| {
        embedded(device)?.precopy_info_is(Err(errno(os_error)?));
        Ok(())
    })
}

/// VFIO_DEVICE_RESET returned: `os_error` is 0, or the positive errno that it failed with. Never
/// blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_reset_done(
    device: Option<&mut vferry_device>,
    os_error: i32,
) -> vferry_status {
    guarded(|| {
        let device = embedded(device)?;
        device.reset_was(match os_error {
            0 => Ok(()),
            error => Err(errno(error)?),
        });
        Ok(())
    })
}

/// What VFIO_DEVICE_FEATURE_MIG_DATA_SIZE says, in bytes, where the engine has no device fd to ask
/// with. May be called again when it has changed.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_set_stop_copy_length(
    device: Option<&mut vferry_device>,
    bytes: u64,
) -> vferry_status {
    guarded(|| {
        embedded(device)?.set_stop_copy_length(bytes);
        Ok(())
    })
}

const _: () = assert!(vferry_want::VFERRY_WANT_STOP as u32 == DeviceState::Stop as u32);
const _: () = assert!(vferry_want::VFERRY_WANT_RUNNING as u32 == DeviceState::Running as u32);
const _: () = assert!(vferry_want::VFERRY_WANT_STOP_COPY as u32 == DeviceState::StopCopy as u32);
const _: () = assert!(vferry_want::VFERRY_WANT_RESUMING as u32 == DeviceState::Resuming as u32);
const _: () = assert!(vferry_want::VFERRY_WANT_PRE_COPY as u32 == DeviceState::PreCopy as u32);
