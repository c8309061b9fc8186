//! The migration ioctls, over any fd: the one file of `vfio` that has `unsafe`.
//!
//! Ours, not vfio-ioctls': that crate keeps the data fd to itself, replaces it without a word when
//! SET_STATE gives a new one (which is how a reset at switchover shows), and has no reset that
//! returns an error.
//!
//! Errors are [`io::Error::from_raw_os_error`] of what the kernel said. EINTR (mlx5 waits for its
//! firmware interruptibly) is retried a few times where asking again is the same question: the GETs, the
//! opt-in and the precopy ioctl. It is handed on from SET_STATE and RESET: the device may be
//! anywhere on the path by then, and the caller must look before it asks again.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::FdFlags;

use super::device::PrecopyInfo;
use super::state::DeviceState;
use super::uapi;
use super::waits::{INTERRUPTED_MAX, INTERRUPTED_PAUSE};
use crate::errno;

/// VFIO_DEVICE_FEATURE_MIGRATION, GET: the `flags`
/// ([`Capabilities::from_flags`](super::state::Capabilities::from_flags) reads them).
/// ENOTTY: the device, or its driver, has no migration.
pub fn migration_flags(device: BorrowedFd<'_>) -> io::Result<u64> {
    let answer = again(|| {
        feature(
            device,
            uapi::VFIO_DEVICE_FEATURE_MIGRATION | uapi::VFIO_DEVICE_FEATURE_GET,
            uapi::Migration::default(),
        )
    })?;
    Ok(answer.flags)
}

/// VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, GET. After a deferred reset the first answer may be
/// stale (the driver copies the state before it lets `state_mutex` go and applies the reset).
/// A number that is no known state is an error of kind [`io::ErrorKind::InvalidData`].
pub fn get_state(device: BorrowedFd<'_>) -> io::Result<DeviceState> {
    let answer = again(|| {
        feature(
            device,
            uapi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | uapi::VFIO_DEVICE_FEATURE_GET,
            uapi::MigState { device_state: 0, data_fd: -1 },
        )
    })?;
    DeviceState::try_from(answer.device_state)
        .map_err(|unknown| io::Error::new(io::ErrorKind::InvalidData, unknown))
}

/// VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, SET. The data fd, if the kernel opened one, is the
/// caller's. May block for as long as the driver does, and is not retried on EINTR.
///
/// The caller must have refused [`forbidden`](super::state::forbidden) pairs: kernels before
/// 6.12.96 never return from them.
pub fn set_state(device: BorrowedFd<'_>, state: DeviceState) -> io::Result<Option<OwnedFd>> {
    let answer = feature(
        device,
        uapi::VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE | uapi::VFIO_DEVICE_FEATURE_SET,
        uapi::MigState { device_state: state as u32, data_fd: -1 },
    )?;
    if answer.data_fd < 0 {
        return Ok(None);
    }
    // SAFETY: the ioctl succeeded, so the kernel has just installed this number in our table for
    // us (vfio_ioct_mig_return_fd), nobody else owns it, and the answer, which is a local copy,
    // is not read again.
    let data_fd = unsafe { OwnedFd::from_raw_fd(answer.data_fd) };
    // The kernel opens it O_CLOEXEC; an emulated device (a test's, a VMM's) might forget.
    let flags = rustix::io::fcntl_getfd(&data_fd)?;
    if !flags.contains(FdFlags::CLOEXEC) {
        rustix::io::fcntl_setfd(&data_fd, flags | FdFlags::CLOEXEC)?;
    }
    Ok(Some(data_fd))
}

/// VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, GET: the estimated STOP_COPY data in bytes, in any state.
/// ENOTTY where the kernel (before 6.2) or driver does not estimate.
pub fn stop_copy_length(device: BorrowedFd<'_>) -> io::Result<u64> {
    let answer = again(|| {
        feature(
            device,
            uapi::VFIO_DEVICE_FEATURE_MIG_DATA_SIZE | uapi::VFIO_DEVICE_FEATURE_GET,
            uapi::DataSize::default(),
        )
    })?;
    Ok(answer.stop_copy_length)
}

/// VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, SET: from now until the device is closed,
/// [`precopy_info`] may report REINIT. False where the kernel does not know it: ENOTTY, or EINVAL
/// from older kernels if the driver has no features of its own (mtty).
pub fn precopy_info_v2_opt_in(device: BorrowedFd<'_>) -> io::Result<bool> {
    let request = uapi::VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 | uapi::VFIO_DEVICE_FEATURE_SET;
    match again(|| feature(device, request, ())) {
        Ok(()) => Ok(true),
        Err(error) => match error.raw_os_error() {
            Some(errno::ENOTTY | errno::EINVAL) => Ok(false),
            _ => Err(error),
        },
    }
}

/// VFIO_MIG_GET_PRECOPY_INFO on the data fd. `v2` says whether the device was opted in: only then
/// are the kernel's `flags` its own and not an echo. EINVAL outside PRE_COPY and PRE_COPY_P2P
/// (after a reset too: the state is checked before the fd), ENODEV if the fd is dead.
pub fn precopy_info(data_fd: BorrowedFd<'_>, v2: bool) -> io::Result<PrecopyInfo> {
    again(|| {
        let mut info = uapi::vfio_precopy_info {
            argsz: size_of::<uapi::vfio_precopy_info>() as u32,
            ..Default::default()
        };
        // SAFETY: VFIO_MIG_GET_PRECOPY_INFO reads and writes at most `argsz` bytes of the struct,
        // which is that long, is ours alone, outlives the call, and has no invalid bit pattern.
        // On an fd of another kind this ioctl number is refused (ENOTTY).
        let result = unsafe {
            libc::ioctl(data_fd.as_raw_fd(), uapi::VFIO_MIG_GET_PRECOPY_INFO, &raw mut info)
        };
        check(result)?;
        Ok(PrecopyInfo {
            initial_bytes: info.initial_bytes,
            dirty_bytes: info.dirty_bytes,
            reinit: v2 && info.flags & uapi::VFIO_PRECOPY_INFO_REINIT != 0,
        })
    })
}

/// VFIO_DEVICE_RESET. Success does not mean that the data fds are dead yet (mlx5, virtio, xe and
/// mtty defer that while another call holds `state_mutex`). EAGAIN: the bus lock is taken, ask
/// again. ENOTTY: the device cannot be reset.
pub fn reset(device: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: VFIO_DEVICE_RESET takes no argument; the kernel touches no memory of ours.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), uapi::VFIO_DEVICE_RESET) };
    check(result)
}

/// The device fd inside vfio-ioctls' object, for as long as that object is borrowed.
#[cfg(feature = "open")]
pub(super) fn device_fd(device: &vfio_ioctls::VfioDevice) -> BorrowedFd<'_> {
    // SAFETY: VfioDevice owns this fd and closes it only when it is dropped, which the borrow
    // behind the returned lifetime rules out.
    unsafe { BorrowedFd::borrow_raw(device.as_raw_fd()) }
}

/// VFIO_DEVICE_FEATURE: `flags` is the feature's index and GET or SET. The payload as the kernel
/// left it.
fn feature<P: uapi::Payload>(device: BorrowedFd<'_>, flags: u32, payload: P) -> io::Result<P> {
    let mut request = uapi::Feature::new(flags, payload);
    // SAFETY: VFIO_DEVICE_FEATURE reads and writes at most `argsz` bytes from the pointer.
    // Feature::new set that to the struct's size, the struct is ours alone and outlives the call,
    // and a Payload has no invalid bit pattern. On an fd of another kind the number is refused.
    let result =
        unsafe { libc::ioctl(device.as_raw_fd(), uapi::VFIO_DEVICE_FEATURE, &raw mut request) };
    check(result)?;
    Ok(request.payload)
}

/// -1 is errno; these ioctls return 0 otherwise.
fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks again when a signal has interrupted, a few times: a driver that always says so has failed.
fn again<T>(mut ask: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..INTERRUPTED_MAX {
        match ask() {
            Err(error) if error.raw_os_error() == Some(errno::EINTR) => {}
            answer => return answer,
        }
        std::thread::sleep(INTERRUPTED_PAUSE);
    }
    ask()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// An fd on which every ioctl of VFIO is unknown.
    fn not_vfio() -> OwnedFd {
        std::fs::File::open("/dev/null").expect("/dev/null opens").into()
    }

    #[test]
    fn an_fd_that_is_no_vfio_device_answers_enotty() {
        let file = not_vfio();
        let fd = file.as_fd();
        let errnos = [
            migration_flags(fd).err(),
            get_state(fd).err(),
            set_state(fd, DeviceState::Running).err(),
            stop_copy_length(fd).err(),
            precopy_info(fd, true).err(),
            reset(fd).err(),
        ];
        for error in errnos {
            let errno = error.expect("an error").raw_os_error();
            assert_eq!(errno, Some(errno::ENOTTY));
        }
    }

    #[test]
    fn an_unknown_opt_in_is_no_error() {
        assert!(!precopy_info_v2_opt_in(not_vfio().as_fd()).expect("ENOTTY means no"));
    }

    #[test]
    fn only_interruption_is_retried() {
        let mut asked = 0;
        let answer = again(|| {
            asked += 1;
            match asked {
                1 | 2 => Err(io::Error::from_raw_os_error(errno::EINTR)),
                _ => Err::<(), _>(io::Error::from_raw_os_error(errno::ENODEV)),
            }
        });
        assert_eq!(answer.expect_err("an error").raw_os_error(), Some(errno::ENODEV));
        assert_eq!(asked, 3);
    }

    #[test]
    fn a_driver_that_is_interrupted_for_ever_is_not_asked_for_ever() {
        let mut asked = 0;
        let answer = again(|| {
            asked += 1;
            Err::<(), _>(io::Error::from_raw_os_error(errno::EINTR))
        });
        assert_eq!(answer.expect_err("an error").raw_os_error(), Some(errno::EINTR));
        assert_eq!(asked, INTERRUPTED_MAX + 1);
    }
}
