//! Embedded mode: the VMM makes the ioctls and hands their results in.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use vfio_ferry::{Answer, DeviceState, EmbeddedConfig, EmbeddedDevice, PrecopyInfo, Wanted};

use crate::device::{DeviceInner, Kind, name, vferry_device};
use crate::failure::{Failure, guarded};
use crate::raw;
use crate::status::vferry_status::{self, *};
use crate::values::{self, unknown};

/// For `vferry_device_embedded`: the device can save in PRE_COPY. Not for the device of a paused VM,
/// which must not run.
pub const VFERRY_EMBEDDED_PRECOPY: u32 = 1;
/// For `vferry_device_embedded`: the VMM makes VFIO_MIG_GET_PRECOPY_INFO itself, when the engine
/// wants it.
pub const VFERRY_EMBEDDED_PRECOPY_INFO: u32 = 2;
/// For `vferry_device_embedded`: the VMM starts the device together with its VM, after the session
/// (target). The engine then never wants VFERRY_WANT_RUNNING: the handover leaves the device in STOP,
/// and both hosts' sessions end as if it ran.
pub const VFERRY_EMBEDDED_STARTS_LATER: u32 = 4;
/// For `vferry_device_embedded`: the kernel has accepted VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 for
/// this device. Where the engine makes VFIO_MIG_GET_PRECOPY_INFO it then heeds REINIT. Since version
/// 4.
pub const VFERRY_EMBEDDED_PRECOPY_INFO_V2: u32 = 8;
/// For `vferry_device_precopy_info_done`: VFIO_PRECOPY_INFO_REINIT, there is new initial data.
pub const VFERRY_PRECOPY_INFO_REINIT: u32 = 1;

/// An ioctl that the engine wants the VMM to make for an embedded device. The states have the
/// kernel's numbers, so that VFERRY_WANT_STOP_COPY is also the state that SET_STATE takes.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_want {
    /// None.
    VFERRY_WANT_NOTHING = 0,
    /// SET_STATE(STOP), on the target: the driver loads the state. It gives no fd. Answer with
    /// `vferry_device_state_done`.
    VFERRY_WANT_STOP = 1,
    /// SET_STATE(RUNNING), on the target: the device is handed over. It gives no fd. Answer with
    /// `vferry_device_state_done`.
    VFERRY_WANT_RUNNING = 2,
    /// SET_STATE(STOP_COPY), on the source, after the switchover. Answer with
    /// `vferry_device_state_done` and the fd if the kernel gave one. Out of PRE_COPY it gives none; if
    /// it does, the engine knows that the device had been reset.
    VFERRY_WANT_STOP_COPY = 3,
    /// SET_STATE(RESUMING), on the target. Answer with `vferry_device_state_done` and the fd.
    VFERRY_WANT_RESUMING = 4,
    /// SET_STATE(PRE_COPY), on the source. Answer with `vferry_device_state_done` and the fd.
    /// Never wanted of a device that stands in STOP_COPY, as far as the VMM or the kernel has said.
    VFERRY_WANT_PRE_COPY = 6,
    /// VFIO_MIG_GET_PRECOPY_INFO on the data fd, where the VMM makes that call. Make it now and not
    /// earlier: some drivers start the next save in it. Answer with
    /// `vferry_device_precopy_info_done`.
    VFERRY_WANT_PRECOPY_INFO = 100,
    /// VFIO_DEVICE_RESET, on the target, where the engine has no device fd: the state loaded so far is
    /// worthless. Answer with `vferry_device_reset_done`.
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

/// The result of an ioctl: 0, or a positive errno. The kernel's own form, -EIO, is refused, because
/// it is easily passed by mistake.
fn result<T>(os_error: i32, value: T) -> Result<Result<T, i32>, Failure> {
    match os_error {
        0 => Ok(Ok(value)),
        1.. => Ok(Err(os_error)),
        _ => Err(unknown("errno", os_error)),
    }
}

/// Makes an embedded device: the VMM makes its ioctls, when the engine wants them
/// (`vferry_device_wanted`), and hands the data fds in. There are no callbacks.
///
/// `host` is a `vferry_host`, `flags` are VFERRY_EMBEDDED_ bits, `name` is as in
/// `vferry_device_open`. `device_fd` is the VFIO device fd, or -1; it is duplicated and stays the
/// caller's. The engine uses it for GET_STATE, which tells a reset from a failure; for MIG_DATA_SIZE;
/// and to reset a target device whose epoch was discarded or whose session was given up. Without it
/// the device's state is what the VMM said last, and unknown before; and a call that fails as it does
/// for a device that was reset (EINVAL from VFIO_MIG_GET_PRECOPY_INFO, ENODEV, a hang-up of the data
/// fd) counts as one.
///
/// A VMM that finds its device reset calls `vferry_device_state_done` with VFERRY_STATE_RUNNING: the
/// session acts on that at once, also while it wants nothing. What the engine wanted of the device as
/// it was is withdrawn, and wanted again when the saving begins anew.
///
/// When its session has ended the device is the VMM's again, in the state that it was left in: the
/// table at the top of this header says what the VMM does then. Its answers are still taken, and their
/// fds closed.
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
        let known = VFERRY_EMBEDDED_PRECOPY
            | VFERRY_EMBEDDED_PRECOPY_INFO
            | VFERRY_EMBEDDED_STARTS_LATER
            | VFERRY_EMBEDDED_PRECOPY_INFO_V2;
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
            reports_reinit: flags & VFERRY_EMBEDDED_PRECOPY_INFO_V2 != 0,
            starts_later: flags & VFERRY_EMBEDDED_STARTS_LATER != 0,
            device,
        };
        let device = EmbeddedDevice::new(host, config)
            .map_err(|error| Failure::system(VFERRY_ERR_SYSTEM, "an eventfd", error))?;
        place.write(raw::handle(DeviceInner::new(name, Kind::Embedded(device))));
        Ok(())
    })
}

/// Tells which ioctl the engine waits for: a `vferry_want`. Never blocks. It stays until it is
/// answered or the session ends; answering clears it at once, so that polling again cannot repeat
/// the ioctl.
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

/// Gives an eventfd that is readable while the engine wants something; for poll, epoll or an event
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

/// Answers with the result of SET_STATE(`state`): `os_error` is 0, or the positive errno that it
/// failed with. `data_fd` is the fd that the kernel gave, or -1; it is -1 where SET_STATE failed.
/// Never blocks.
///
/// An answer may come before the engine wants it, and is kept until then. Answers may come in any
/// order and from any thread: what the engine wanted, and a state that it will still want, is not lost
/// to a later answer. Where the VM stops before the engine has asked for PRE_COPY, STOP_COPY answers
/// that as well, and the engine reads its fd: it never wants PRE_COPY of a device in STOP_COPY.
///
/// VFERRY_STATE_RUNNING, and VFERRY_STATE_ERROR, about a device that saves or loads say that it was
/// reset, or has failed: see `vferry_device_embedded`.
///
/// On success `data_fd` is the engine's, which closes it when the epoch or the session ends; the
/// caller does not use the number again. On failure it is still the caller's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_device_state_done(
    device: Option<&mut vferry_device>,
    state: i32,
    data_fd: c_int,
    os_error: i32,
) -> vferry_status {
    guarded(|| {
        let device = embedded(device)?;
        let state = values::state(state)?;
        let done = result(os_error, ())?;
        if done.is_err() && data_fd != -1 {
            let message = format!("errno {os_error} and data fd {data_fd} exclude each other");
            return Err(Failure::new(VFERRY_ERR_RANGE, message));
        }
        let data_fd = match data_fd {
            -1 => None,
            // SAFETY: the caller gives the fd away, as the header says.
            fd => Some(unsafe { raw::adopt(fd, "the data fd") }?),
        };
        device.answer(Answer::State(state, done.map(|()| data_fd)));
        Ok(())
    })
}

/// Answers with the result of VFIO_MIG_GET_PRECOPY_INFO: `os_error` is 0, or the positive errno that
/// it failed with, and then the sizes do not matter. Sizes are in bytes; `flags` is 0 or
/// VFERRY_PRECOPY_INFO_REINIT. Never blocks.
///
/// Pass REINIT only if the kernel accepted VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2: without it the
/// kernel returns in `flags` what the caller put there. Pass EINVAL on as any other errno: a device
/// that was reset answers so, and the engine finds out. So does one that the VMM has stopped
/// meanwhile; that is no failure.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_precopy_info_done(
    device: Option<&mut vferry_device>,
    initial_bytes: u64,
    dirty_bytes: u64,
    flags: u32,
    os_error: i32,
) -> vferry_status {
    guarded(|| {
        let device = embedded(device)?;
        if flags & !VFERRY_PRECOPY_INFO_REINIT != 0 {
            return Err(unknown("flag among", format!("{flags:#x}")));
        }
        let info = PrecopyInfo { initial_bytes, dirty_bytes, reinit: flags != 0 };
        device.answer(Answer::PrecopyInfo(result(os_error, info)?));
        Ok(())
    })
}

/// Answers with the result of VFIO_DEVICE_RESET: `os_error` is 0, or the positive errno that it
/// failed with. Where it was not wanted it tells of a reset, too. Never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_device_reset_done(
    device: Option<&mut vferry_device>,
    os_error: i32,
) -> vferry_status {
    guarded(|| {
        embedded(device)?.answer(Answer::Reset(result(os_error, ())?));
        Ok(())
    })
}

/// Hands in the result of VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, in bytes, where the engine has no device
/// fd to ask with. May be called again when it has changed.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_is_positive() {
        assert_eq!(result(0, 7).ok(), Some(Ok(7)));
        assert_eq!(result(5, 7).ok(), Some(Err(5)));
        assert_eq!(result(-5, 7).map_err(|failure| failure.status), Err(VFERRY_ERR_RANGE));
    }
}
