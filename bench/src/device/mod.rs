//! The test device: a migration state machine in user space whose data fd is a real fd.
//!
//! On the source the data fd is the read end of a pipe which a thread fills ([`saving`]); on the
//! target it is the write end of one which a thread empties ([`loading`]). Both threads hash every
//! byte in order, so that the two digests prove a migration without the engine's help.
//!
//! What the double keeps of a real device:
//! - one session at a time, and a new fd for each; fds of an ended session are dead for good;
//! - ENODEV after a reset, never end of stream; end of stream repeats, and only in STOP_COPY;
//! - a drained PRE_COPY fd says ENOMSG, and new data appears only after `precopy_info`, as on mlx5;
//! - PRE_COPY -> STOP_COPY gives an fd only if a reset came in between;
//! - a reset in RESUMING is silent; leaving RESUMING with data missing fails with EINVAL.
//!
//! A pipe cannot say ENODEV or ENOMSG: [`MigrationDevice::observe`] puts them in.

mod arcs;
mod cpu;
mod loading;
mod reset;
mod saving;
mod throttle;
mod watch;

pub(crate) use cpu::used_ns as cpu_used_ns;
pub(crate) use reset::ResetPlan;
pub(crate) use watch::{Watch, Watched};

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::clock::monotonic_ns;
use crate::data::{Content, Origin};
use crate::engine::{Capabilities, DeviceState, MigrationDevice, PrecopyInfo};
use crate::spec::Rate;
use loading::Loading;
use saving::Saving;

/// Bytes that a pipe holds, where the host allows it.
const PIPE_BYTES: usize = 1 << 20;
/// Bytes that the device's thread moves at once; small enough to stay in a core's cache.
const PIECE_BYTES: usize = 128 << 10;

/// What a test device is like.
#[derive(Debug, Clone)]
pub(crate) struct DeviceConfig {
    /// The device's number.
    pub(crate) index: u8,
    /// Bytes of its state. PRE_COPY adds what gets dirty.
    pub(crate) state_bytes: u64,
    /// Where they come from.
    pub(crate) content: Content,
    /// How fast they get dirty in PRE_COPY.
    pub(crate) dirty_rate: Option<Rate>,
    /// How fast the device gives or takes them.
    pub(crate) device_rate: Option<Rate>,
    /// When the device resets itself.
    pub(crate) reset: Option<ResetPlan>,
}

/// The device.
#[derive(Debug)]
pub(crate) struct TestDevice {
    config: DeviceConfig,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: DeviceState,
    session: Session,
    generation: u8,
    resets: u32,
    plan: Option<ResetPlan>,
    /// When the plan came true, on CLOCK_MONOTONIC; 0 before.
    planned_reset_ns: u64,
}

/// The session that runs, or the last one: its digest is asked for after it ended.
#[derive(Debug)]
enum Session {
    None,
    Saving(Arc<Saving>),
    Loading(Loading),
}

/// What the device's own thread saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Bytes given or taken in the last session.
    pub(crate) bytes: u64,
    /// XXH3-128 over them, in order; none if the session did not reach its end.
    pub(crate) digest: Option<u128>,
}

impl TestDevice {
    /// A device in RUNNING.
    pub(crate) fn new(config: DeviceConfig) -> TestDevice {
        let plan = config.reset;
        let inner = Inner {
            state: DeviceState::Running,
            session: Session::None,
            generation: 0,
            resets: 0,
            plan,
            planned_reset_ns: 0,
        };
        TestDevice { config, inner: Mutex::new(inner) }
    }

    /// What passed through the last session's fd. Waits a little for the device's thread, which
    /// may still be between its last byte and its digest.
    pub(crate) fn passed(&self) -> Passed {
        const PATIENCE: Duration = Duration::from_secs(1);
        let saving = match &self.lock().session {
            Session::None => return Passed { bytes: 0, digest: None },
            Session::Saving(saving) => Arc::clone(saving),
            Session::Loading(loading) => return loading.passed(),
        };
        saving.passed(PATIENCE)
    }

    /// How often the device was reset.
    pub(crate) fn resets(&self) -> u32 {
        self.lock().resets
    }

    /// When the device reset itself as planned, on CLOCK_MONOTONIC; 0 if it did not.
    pub(crate) fn planned_reset_ns(&self) -> u64 {
        self.lock().planned_reset_ns
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn origin(&self, generation: u8) -> Origin {
        Origin { device: self.config.index, generation }
    }

    /// One direct arc.
    fn go(&self, inner: &mut Inner, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        use DeviceState::{PreCopy, Resuming, Running, Stop, StopCopy};
        let mut fd = None;
        match (inner.state, to) {
            (Running, PreCopy) | (Stop, StopCopy) => {
                let origin = self.origin(inner.generation);
                let (saving, data_fd) = Saving::start(&self.config, origin, to == PreCopy)?;
                inner.session = Session::Saving(saving);
                fd = Some(data_fd);
            }
            (PreCopy, StopCopy) => {
                if let Session::Saving(saving) = &inner.session {
                    saving.stop_copy();
                }
            }
            (PreCopy, Running) | (StopCopy, Stop) => inner.end_session(),
            (Stop, Resuming) => {
                let (loading, data_fd) = Loading::start(&self.config)?;
                inner.session = Session::Loading(loading);
                fd = Some(data_fd);
            }
            (Resuming, Stop) => {
                if let Session::Loading(loading) = &inner.session {
                    loading.finish(self.config.state_bytes)?;
                }
            }
            _ => {}
        }
        inner.state = to;
        Ok(fd)
    }
}

impl Inner {
    fn end_session(&mut self) {
        match &self.session {
            Session::None => {}
            Session::Saving(saving) => saving.kill(),
            Session::Loading(loading) => loading.kill(),
        }
    }

    fn reset(&mut self) {
        self.end_session();
        self.state = DeviceState::Running;
        self.generation = self.generation.wrapping_add(1);
        self.resets += 1;
    }

    /// Applies the reset plan if its moment has come.
    fn reset_if_due(&mut self, moment: reset::Moment) {
        if self.plan.is_some_and(|plan| plan.is_due(moment)) {
            self.plan = None;
            self.planned_reset_ns = monotonic_ns();
            self.reset();
        }
    }
}

impl MigrationDevice for TestDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(Capabilities { p2p: false, precopy: true })
    }

    fn state(&self) -> io::Result<DeviceState> {
        Ok(self.lock().state)
    }

    fn set_state(&self, target: DeviceState) -> io::Result<Option<OwnedFd>> {
        let mut inner = self.lock();
        if inner.state == DeviceState::PreCopy && target == DeviceState::StopCopy {
            inner.reset_if_due(reset::Moment::Stopping);
        }
        let mut fd = None;
        while inner.state != target {
            let next = arcs::next(inner.state, target).ok_or(Errno::INVAL)?;
            if let Some(opened) = self.go(&mut inner, next)? {
                fd = Some(opened);
            }
        }
        Ok(fd)
    }

    fn precopy_info(&self, _data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        let inner = self.lock();
        match (&inner.session, inner.state) {
            (Session::Saving(saving), DeviceState::PreCopy) => Ok(saving.precopy_info()),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        let inner = self.lock();
        Ok(match (&inner.session, inner.state) {
            (Session::Saving(saving), DeviceState::PreCopy | DeviceState::StopCopy) => {
                saving.stop_copy_length()
            }
            _ => self.config.state_bytes,
        })
    }

    fn reset(&self) -> io::Result<()> {
        self.lock().reset();
        Ok(())
    }

    fn observe(&self, result: io::Result<usize>) -> io::Result<usize> {
        let mut inner = self.lock();
        if let (Session::Saving(saving), Ok(bytes)) = (&inner.session, &result) {
            let moment = saving.observed(*bytes);
            inner.reset_if_due(moment);
        }
        let loaded = match (&inner.session, &result) {
            (Session::Loading(loading), Ok(bytes)) => loading.observed(*bytes),
            _ => false,
        };
        let answers = matches!(
            (&inner.session, inner.state),
            (Session::Saving(_), DeviceState::PreCopy | DeviceState::StopCopy)
                | (Session::Loading(_), DeviceState::Resuming)
        );
        match (result, &inner.session) {
            // A cancelled or interrupted operation stays what it is.
            (Err(error), _) if is_interruption(&error) => Err(error),
            _ if !answers => Err(Errno::NODEV.into()),
            (Err(error), Session::Saving(saving)) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(if saving.is_drained() { Errno::NOMSG.into() } else { error })
            }
            (result, _) => {
                if loaded {
                    // The write succeeds; its session is gone afterwards, and nobody says so.
                    inner.reset_if_due(reset::Moment::Loaded);
                }
                result
            }
        }
    }
}

fn is_interruption(error: &io::Error) -> bool {
    /// ERESTARTSYS, which the kernel leaks through io_uring.
    const LEAKED_RESTART: i32 = 512;
    let Some(errno) = error.raw_os_error() else { return false };
    let ends = [Errno::INTR.raw_os_error(), Errno::CANCELED.raw_os_error(), LEAKED_RESTART];
    ends.contains(&errno)
}

#[cfg(test)]
mod tests;
