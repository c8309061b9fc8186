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
//! Any of them may fail; the answer then is the errno. The VMM may answer in any order and from any
//! thread: what the open request was answered with is not lost to a later answer. What a request
//! asks for may be behind the device by then: PRE_COPY is answered by STOP_COPY, and EINVAL of the
//! precopy info says nothing where the VMM has stopped the device.
//!
//! **Resets.** `Answer::State(Running, Ok(None))` about a device that saves (target: loads) says that
//! it was reset. The session hears of it at once, also while nothing is wanted, and does what was
//! chosen for the device; on the target it is given up. A request that is open then is withdrawn,
//! and made again where the saving begins anew. So do a data fd that only a reset explains, and
//! ERROR, which ends the session.
//!
//! **At the end** of a session the device is the VMM's again, in the state that it was left in.
//! [`SourceEnding::Returned`](crate::SourceEnding::Returned) says of an embedded device that nothing
//! of the engine's holds it: its data fd is closed. The VMM brings it to RUNNING, from where the
//! report says that it last was. [`TargetEnding::Blank`](crate::TargetEnding::Blank) says that it was
//! reset, by the engine or by the VMM's own word; otherwise the VMM resets it. What the VMM says
//! after the end is noted, and its data fds are closed.

mod books;
mod exchange;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::drive::SAID_AFTER;
use crate::errno;
use crate::ids::DeviceId;
use crate::outcome::{Fault, Host};
use crate::vfio::device::{MigrationDevice, PrecopyInfo};
use crate::vfio::ioctl;
use crate::vfio::state::{Capabilities, DeviceState};
use books::Books;
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
    /// engine, at once, of a device that the VMM found reset, and `State(Error, Ok(None))` of one
    /// that it found in ERROR.
    State(DeviceState, Result<Option<OwnedFd>, i32>),
    /// VFIO_MIG_GET_PRECOPY_INFO.
    PrecopyInfo(Result<PrecopyInfo, i32>),
    /// VFIO_DEVICE_RESET. Where it was not wanted it tells of a reset, too.
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
    /// The VMM has opted in to VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, and the kernel accepted:
    /// where the engine asks for the precopy info it heeds REINIT. (What the VMM hands in is taken
    /// as it is.)
    pub reports_reinit: bool,
    /// The VMM starts the device together with its VM, later (target): RUNNING is not wanted, the
    /// handover leaves the device in STOP, and the source hears that it is taken over. What is
    /// reported as RUNNING is then the VMM's promise.
    pub starts_later: bool,
    /// A duplicate of the VFIO device fd. With it the engine reads the state itself and so tells a
    /// reset from a failure, asks for MIG_DATA_SIZE, and resets a target device whose epoch was
    /// discarded or whose session was given up. Without it the state is what the VMM said last,
    /// unknown before it has said anything; and where a call fails as it fails for a device that was
    /// reset (EINVAL from the precopy info, ENODEV, a hang-up) that is what the engine takes it for.
    pub device: Option<OwnedFd>,
}

/// A device whose state machine the VMM drives, for one session: a second one is refused. All
/// methods may be called from any thread and return at once.
#[derive(Debug)]
pub struct EmbeddedDevice {
    host: Host,
    config: EmbeddedConfig,
    exchange: Exchange,
    joined: AtomicBool,
}

/// That a session has an embedded device. Dropped, it gives the device back as it was.
#[derive(Debug)]
pub(super) struct Joined(Option<Arc<EmbeddedDevice>>);

impl Joined {
    /// The session was made: the device is its for good. `tell` takes the news of a loss to it, and
    /// must not wait.
    pub(super) fn keep(mut self, id: DeviceId, tell: impl Fn(Fault) + Send + Sync + 'static) {
        if let Some(device) = self.0.take() {
            device.exchange.listen(Box::new(move |loss| {
                tell(Fault::device(id, loss.cause(), loss.observed(), None, loss.message()));
            }));
        }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        if let Some(device) = &self.0 {
            device.joined.store(false, Ordering::Release);
        }
    }
}

/// The embedded device that this is, if it is one.
pub(super) fn embedded(device: &Arc<dyn MigrationDevice>) -> Option<Arc<EmbeddedDevice>> {
    let any: Arc<dyn Any + Send + Sync> = device.clone();
    any.downcast().ok()
}

impl EmbeddedDevice {
    /// A device of this host, which nobody has touched.
    ///
    /// # Errors
    /// The system's error if it gives no eventfd.
    pub fn new(host: Host, config: EmbeddedConfig) -> io::Result<Arc<EmbeddedDevice>> {
        let exchange = Exchange::new(host)?;
        Ok(Arc::new(EmbeddedDevice { host, config, exchange, joined: AtomicBool::new(false) }))
    }

    /// Gives the device to a session; none if it has one.
    pub(super) fn join(self: Arc<EmbeddedDevice>) -> Option<Joined> {
        let had_one = self.joined.swap(true, Ordering::AcqRel);
        (!had_one).then_some(Joined(Some(self)))
    }

    /// The VMM knows of a reset. False if it is for the session to find out what that means: the
    /// books do not know of anything that it could have lost.
    pub(super) fn told_of_reset(&self) -> bool {
        self.exchange.told_of_reset();
        self.exchange.with(|books| books.is_lost())
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
    /// its request: states that a source device went through until a reset, of the rest the latest
    /// of each kind.
    pub fn answer(&self, answer: Answer) {
        self.exchange.answer(answer);
    }

    /// MIG_DATA_SIZE, in bytes, where the VMM asked and the engine has no device fd to ask with.
    pub fn set_stop_copy_length(&self, bytes: u64) {
        self.exchange.with(|books| books.stop_copy_bytes = Some(bytes));
    }
}

impl EmbeddedDevice {
    fn kernels_state(&self) -> io::Result<Option<DeviceState>> {
        self.config.device.as_ref().map(|device| ioctl::get_state(device.as_fd())).transpose()
    }

    /// Whether the VMM has stopped the device, or is about to say so: then that PRECOPY_INFO is
    /// refused says nothing.
    fn has_stopped(&self) -> bool {
        let patience = match self.kernels_state() {
            Ok(Some(DeviceState::StopCopy)) => {
                // Unless there is a data fd that only a reset explains.
                return self.exchange.with(|books| books.has_gone_on() != Some(false));
            }
            Ok(None) => SAID_AFTER,
            _ => return false,
        };
        self.exchange.has_stopped(patience)
    }
}

impl MigrationDevice for EmbeddedDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: false, precopy: self.config.precopy })
    }

    fn state(&self) -> io::Result<DeviceState> {
        let kernel = self.kernels_state()?;
        // ENODATA: the VMM has not said.
        self.exchange.state(kernel).ok_or_else(|| io::Error::from_raw_os_error(errno::ENODATA))
    }

    /// The kernel is asked twice, the books once: they note what the engine is told.
    fn settled_state(&self) -> io::Result<DeviceState> {
        if self.kernels_state()? == Some(DeviceState::StopCopy) {
            // Its VMM may be about to say so, and whether that gave a data fd.
            self.exchange.has_stopped(SAID_AFTER);
        }
        self.state()
    }

    /// On the source RUNNING and STOP are not waited for: a device that was reset is in RUNNING, one
    /// whose session is over is the VMM's, who alone knows where it is. Nor is RUNNING on a target
    /// that starts it later.
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        match (self.host, state) {
            (Host::Source, DeviceState::Running) => {
                self.exchange.with(Books::let_go);
                return Ok(None);
            }
            (Host::Source, DeviceState::Stop) => {
                return Err(io::Error::from_raw_os_error(errno::ECANCELED));
            }
            (Host::Source, DeviceState::PreCopy) => {
                // What the kernel says is newer than the VMM's last word: it may have been reset since.
                let stopped = self.exchange.with(|books| books.is_stopped_for_good());
                let is_there = |state| state == DeviceState::StopCopy;
                if stopped && self.kernels_state()?.is_none_or(is_there) {
                    return Err(io::Error::from_raw_os_error(errno::EINVAL));
                }
            }
            (Host::Target, DeviceState::Running) => {
                self.exchange.with(Books::may_run);
                if self.config.starts_later {
                    return Ok(None);
                }
            }
            _ => {}
        }
        self.exchange.ask(Wanted::State(state), |answer| match answer {
            Answer::State(_, result) => Some(result),
            _ => None,
        })
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        let answer = match self.config.asks_precopy_info {
            true => self.exchange.ask(Wanted::PrecopyInfo, |answer| match answer {
                Answer::PrecopyInfo(result) => Some(result),
                _ => None,
            }),
            false => ioctl::precopy_info(data_fd, self.config.reports_reinit),
        };
        let refused = answer.as_ref().err().and_then(io::Error::raw_os_error);
        let as_elsewhere = matches!(refused, Some(errno::EINVAL | errno::ENODEV));
        if as_elsewhere && self.has_stopped() {
            return Ok(PrecopyInfo::default());
        }
        if refused.is_some() {
            self.exchange.with(|books| books.was_refused(as_elsewhere));
        }
        answer
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        match &self.config.device {
            Some(device) => ioctl::stop_copy_length(device.as_fd()),
            None => self
                .exchange
                .with(|books| books.stop_copy_bytes)
                .ok_or_else(|| io::Error::from_raw_os_error(errno::ENOTTY)),
        }
    }

    fn reset(&self) -> io::Result<()> {
        self.exchange.with(Books::resets);
        match &self.config.device {
            Some(device) => {
                ioctl::reset(device.as_fd())?;
                self.exchange.with(Books::has_reset);
                Ok(())
            }
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

    fn observe(&self, _: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        if let Err(error) = &result {
            match error.raw_os_error().unwrap_or(errno::EIO) {
                errno::EAGAIN | errno::ENOMSG => {}
                errno if errno::is_interruption(errno) => {}
                errno => {
                    self.exchange.with(|books| books.was_refused(errno == errno::ENODEV));
                }
            }
        }
        result
    }
}
