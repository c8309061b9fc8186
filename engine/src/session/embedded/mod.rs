//! Embedded mode: the VMM makes the SET_STATE calls itself, and hands the data fds in.
//!
//! An [`EmbeddedDevice`] takes a real device's place in a session. The engine never calls back to have
//! something done with the device: the VMM polls [`EmbeddedDevice::wanted`] (or its eventfd),
//! makes the ioctl, and hands its result in with [`EmbeddedDevice::answer`]. It may also act first:
//! an answer that comes before its request is kept for it.
//!
//! | host | the engine wants | the VMM answers with |
//! |---|---|---|
//! | source | PRE_COPY, where the device saves in it | its data fd |
//! | source | STOP_COPY, after the switchover | its data fd, or none if the kernel gave none |
//! | target | RESUMING | its data fd |
//! | target | STOP: the driver takes the state in | no data fd |
//! | target | RUNNING, after the handover, unless the VMM [starts it later](EmbeddedConfig::starts_later) | no data fd |
//! | source | precopy info, if the VMM [makes that call](EmbeddedConfig::asks_precopy_info) | the sizes |
//! | target | a reset after a discard, if the engine has no device fd | done |
//!
//! Any of them may fail; the answer then is the errno.
//!
//! At the end of a session the device is the VMM's again: after an abort it is the VMM that brings
//! a source device to RUNNING and resets a target device, as its own error paths do.

mod exchange;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::errno;
use crate::outcome::Host;
use crate::vfio::device::{MigrationDevice, PrecopyInfo};
use crate::vfio::ioctl;
use crate::vfio::state::{Capabilities, DeviceState};
use exchange::Exchange;

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

/// What an ioctl of the VMM's gave. The errors are positive errnos.
#[derive(Debug)]
pub enum Answer {
    /// SET_STATE to this state, and the data fd if the kernel gave one. The engine owns that fd and
    /// closes it at the end of the epoch or the session. `State(Running, Ok(None))` also tells the
    /// engine of a device that the VMM found reset.
    State(DeviceState, Result<Option<OwnedFd>, i32>),
    /// VFIO_MIG_GET_PRECOPY_INFO.
    PrecopyInfo(Result<PrecopyInfo, i32>),
    /// VFIO_DEVICE_RESET.
    Reset(Result<(), i32>),
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
    /// says so with [`Answer::State`].
    pub device: Option<OwnedFd>,
}

/// A device whose state machine the VMM drives, for one session. All methods may be called from
/// any thread and return at once.
#[derive(Debug)]
pub struct EmbeddedDevice {
    host: Host,
    config: EmbeddedConfig,
    exchange: Exchange,
}

impl EmbeddedDevice {
    /// A device of this host, in RUNNING.
    ///
    /// # Errors
    /// The system's error if it gives no eventfd.
    pub fn new(host: Host, config: EmbeddedConfig) -> io::Result<Arc<EmbeddedDevice>> {
        Ok(Arc::new(EmbeddedDevice { host, config, exchange: Exchange::new()? }))
    }

    /// Which host's device this is.
    pub fn host(&self) -> Host {
        self.host
    }

    /// What the engine waits for, if it waits for anything. It stays until it is answered or the
    /// session ends.
    pub fn wanted(&self) -> Option<Wanted> {
        self.exchange.wanted()
    }

    /// Readable while the engine waits for something. Do not read, write or close it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.exchange.event_fd()
    }

    /// Hands in what an ioctl gave. The answer to what is [`wanted`](Self::wanted) goes to the
    /// engine, and nothing that is answered afterwards can replace it. Any other answer waits for
    /// its request, one of each kind, the latest.
    pub fn answer(&self, answer: Answer) {
        self.exchange.answer(answer);
    }

    /// MIG_DATA_SIZE, in bytes, where the VMM asked and the engine has no device fd to ask with.
    pub fn set_stop_copy_length(&self, bytes: u64) {
        self.exchange.set_stop_copy_length(bytes);
    }
}

impl MigrationDevice for EmbeddedDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: false, precopy: self.config.precopy })
    }

    fn state(&self) -> io::Result<DeviceState> {
        match &self.config.device {
            Some(device) => ioctl::get_state(device.as_fd()),
            None => Ok(self.exchange.state()),
        }
    }

    /// On the source RUNNING and STOP are not waited for: a device that was reset is in RUNNING, one
    /// whose session is over is the VMM's. Nor is RUNNING on a target that starts it later.
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        let hands_back = matches!(state, DeviceState::Running | DeviceState::Stop);
        if self.host == Host::Source && hands_back {
            self.exchange.set_state(state);
            return Ok(None);
        }
        if state == DeviceState::Running && self.config.starts_later {
            return Ok(None);
        }
        self.exchange.ask(Wanted::State(state), |answer| match answer {
            Answer::State(_, result) => Some(result),
            _ => None,
        })
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        if !self.config.asks_precopy_info {
            return ioctl::precopy_info(data_fd, false);
        }
        self.exchange.ask(Wanted::PrecopyInfo, |answer| match answer {
            Answer::PrecopyInfo(result) => Some(result),
            _ => None,
        })
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        match &self.config.device {
            Some(device) => ioctl::stop_copy_length(device.as_fd()),
            None => self
                .exchange
                .stop_copy_length()
                .ok_or_else(|| io::Error::from_raw_os_error(errno::ENOTTY)),
        }
    }

    fn reset(&self) -> io::Result<()> {
        match &self.config.device {
            Some(device) => ioctl::reset(device.as_fd()),
            None => self.exchange.ask(Wanted::Reset, |answer| match answer {
                Answer::Reset(result) => Some(result),
                _ => None,
            }),
        }
    }

    /// The VMM may have acted before the session was started.
    fn state_at_start(&self) -> io::Result<DeviceState> {
        Ok(DeviceState::Running)
    }

    fn device_fd(&self) -> Option<BorrowedFd<'_>> {
        self.config.device.as_ref().map(AsFd::as_fd)
    }

    fn interrupt(&self) {
        self.exchange.end();
    }
}
