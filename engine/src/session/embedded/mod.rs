//! Embedded mode: the VMM makes the SET_STATE calls itself, and hands the data fds in.
//!
//! An [`EmbeddedDevice`] takes a real device's place in a session. What the engine wants done with
//! the device is fetched, never called: the VMM polls [`EmbeddedDevice::wanted`] (or its eventfd),
//! does it, and answers. It may also act first: an answer that comes before the question is kept
//! for it.
//!
//! | host | the engine wants | the VMM answers |
//! |---|---|---|
//! | source | PRE_COPY, where the device saves in it | `moved(PreCopy, fd)` |
//! | source | STOP_COPY, after the switchover | `moved(StopCopy, fd)`, the fd none if the kernel gave none |
//! | target | RESUMING | `moved(Resuming, fd)` |
//! | target | STOP: the driver takes the state in | `moved(Stop, None)` |
//! | target | RUNNING, after the handover, unless the VMM [starts it later](EmbeddedConfig::starts_later) | `moved(Running, None)` |
//! | source | precopy info, if the VMM [makes that call](EmbeddedConfig::asks_precopy_info) | `precopy_info_is(sizes or errno)` |
//! | target | a reset after a discard, if the engine has no device fd | `reset_was(done or errno)` |
//!
//! Instead of `moved` the answer may be `failed`, with the errno.
//!
//! At the end of a session the device is the VMM's again: after an abort it is the VMM that brings
//! a source device to RUNNING and resets a target device, as its own error paths do.

mod books;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::outcome::Host;
use crate::vfio::device::{MigrationDevice, PrecopyInfo};
use crate::vfio::ioctl;
use crate::vfio::state::{Capabilities, DeviceState};
use books::{Answer, Books};

/// What the engine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// SET_STATE to this state.
    State(DeviceState),
    /// VFIO_MIG_GET_PRECOPY_INFO on the data fd: it has been read until it was drained. Ask the
    /// driver now and not before: on mlx5 and virtio this call is what starts the next save.
    PrecopyInfo,
    /// VFIO_DEVICE_RESET: the state that was loaded so far is worthless.
    Reset,
}

/// How a VMM embeds a device.
#[derive(Debug, Default)]
pub struct EmbeddedConfig {
    /// The device can save in PRE_COPY. P2P stays the VMM's business.
    pub precopy: bool,
    /// The VMM makes VFIO_MIG_GET_PRECOPY_INFO itself, and hands the sizes or the errno in.
    /// Otherwise the engine asks the data fd.
    pub asks_precopy_info: bool,
    /// The VMM starts the device together with its VM, later (target): RUNNING is not wanted, the
    /// handover leaves the device in STOP, and the source hears that it is taken over. What is
    /// reported as RUNNING is then the VMM's promise.
    pub starts_later: bool,
    /// A duplicate of the VFIO device fd. With it the engine reads the state itself and so tells a
    /// reset from a failure, asks for MIG_DATA_SIZE, and resets a target device whose epoch was
    /// discarded. Without it the state is what the VMM said last: one that finds its device reset
    /// says `moved(Running, None)`.
    pub device: Option<OwnedFd>,
}

/// A device whose state machine the VMM drives, for one session. All methods may be called from
/// any thread and return at once.
#[derive(Debug)]
pub struct EmbeddedDevice {
    host: Host,
    config: EmbeddedConfig,
    books: Books,
}

impl EmbeddedDevice {
    /// A device of this host, in RUNNING.
    ///
    /// # Errors
    /// What the system says where it gives no eventfd.
    pub fn new(host: Host, config: EmbeddedConfig) -> io::Result<Arc<EmbeddedDevice>> {
        Ok(Arc::new(EmbeddedDevice { host, config, books: Books::new()? }))
    }

    /// Which host's device this is.
    pub fn host(&self) -> Host {
        self.host
    }

    /// What the engine waits for, if it waits for anything.
    pub fn wanted(&self) -> Option<Wanted> {
        self.books.wanted()
    }

    /// Readable while the engine waits for something. Do not read, write or close it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.books.event_fd()
    }

    /// SET_STATE(`state`) succeeded and gave `data_fd`. The engine owns that fd from here on and
    /// closes it at the end of the epoch or the session.
    pub fn moved(&self, state: DeviceState, data_fd: Option<OwnedFd>) {
        self.books.answer(Answer::State(state, Ok(data_fd)));
    }

    /// SET_STATE(`state`) failed with this positive errno.
    pub fn failed(&self, state: DeviceState, errno: i32) {
        self.books.answer(Answer::State(state, Err(errno)));
    }

    /// VFIO_MIG_GET_PRECOPY_INFO gave these sizes, or failed with this positive errno.
    pub fn precopy_info_is(&self, result: Result<PrecopyInfo, i32>) {
        self.books.answer(Answer::PrecopyInfo(result));
    }

    /// VFIO_DEVICE_RESET returned, or failed with this positive errno.
    pub fn reset_was(&self, result: Result<(), i32>) {
        self.books.answer(Answer::Reset(result));
    }

    /// MIG_DATA_SIZE, in bytes, where the VMM asked and the engine has no device fd to ask with.
    pub fn set_stop_copy_length(&self, bytes: u64) {
        self.books.set_stop_copy_length(bytes);
    }
}

impl MigrationDevice for EmbeddedDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: false, precopy: self.config.precopy })
    }

    fn state(&self) -> io::Result<DeviceState> {
        match &self.config.device {
            Some(device) => ioctl::get_state(device.as_fd()),
            None => Ok(self.books.state()),
        }
    }

    /// On the source RUNNING and STOP are not waited for: a device that was reset is in RUNNING, one
    /// whose session is over is the VMM's. Nor is RUNNING on a target that starts it later.
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        let hands_back = matches!(state, DeviceState::Running | DeviceState::Stop);
        if self.host == Host::Source && hands_back {
            self.books.set_state(state);
            return Ok(None);
        }
        if state == DeviceState::Running && self.config.starts_later {
            return Ok(None);
        }
        self.books.ask(Wanted::State(state), |answer| match answer {
            Answer::State(found, result) if found == state => Ok(result),
            other => Err(other),
        })
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        if !self.config.asks_precopy_info {
            return ioctl::precopy_info(data_fd, false);
        }
        self.books.ask(Wanted::PrecopyInfo, |answer| match answer {
            Answer::PrecopyInfo(result) => Ok(result),
            other => Err(other),
        })
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        match &self.config.device {
            Some(device) => ioctl::stop_copy_length(device.as_fd()),
            None => self
                .books
                .stop_copy_length()
                .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOTTY)),
        }
    }

    fn reset(&self) -> io::Result<()> {
        match &self.config.device {
            Some(device) => ioctl::reset(device.as_fd()),
            None => self.books.ask(Wanted::Reset, |answer| match answer {
                Answer::Reset(result) => Ok(result),
                other => Err(other),
            }),
        }
    }

    fn interrupt(&self) {
        self.books.end();
    }
}
