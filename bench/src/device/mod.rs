//! The device double: a VFIO migration device in user space, on real fds, that keeps the kernel's
//! rules where they hurt.
//!
//! On the source the data fd is a pipe or file that is filled with content, on the target one that
//! is emptied. Both ends hash every byte in order, so that the two digests prove a migration without
//! the engine's help.
//!
//! - One session at a time; each has a new fd, and those of ended sessions are dead for good.
//! - After a reset ENODEV, never end of stream. In RESUMING a reset is silent.
//! - End of stream only in STOP_COPY, again and again. Both flavours of a drained PRE_COPY fd; new
//!   PRE_COPY data only after `precopy_info`, at once or one call later; REINIT.
//! - PRE_COPY -> STOP_COPY gives an fd only if a reset came in between.
//! - RESUMING cannot be left with data missing (EINVAL).
//! - Short reads, reads and writes that stall or stick, calls that take their time or do not return,
//!   as planned.
//!
//! What the fds cannot say (ENODEV, ENOMSG) is put in by [`MigrationDevice::observe`]. Drivers that
//! misbehave are a layer over it, [`Faulty`].

mod arcs;
mod cpu;
mod fault;
mod loading;
mod memory;
mod plan;
mod release;
mod saving;
mod session;
mod slices;
pub(crate) mod state_name;
mod stream;
mod throttle;
mod watch;

pub(crate) use cpu::used_ns as cpu_used_ns;
pub use fault::{Call, Deed, DriverFault, Faulty, OnFault};
pub use plan::{ArcLatency, Conduit, Drained, Plan, ResetAt, Round};
pub(crate) use slices::Slices;
pub(crate) use watch::{CallSpan, Record, Watch, Watched};

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::Errno;

use crate::clock::monotonic_ns;
use crate::data::Origin;
use crate::engine::{Capabilities, DeviceState, MigrationDevice, PrecopyInfo};
use loading::Loading;
use saving::Saving;
use session::{Session, Users};

/// The double. Any thread may use it; dropping it ends its session's thread.
#[derive(Debug)]
pub struct Double {
    plan: Plan,
    inner: Mutex<Inner>,
    released: Condvar,
}

#[derive(Debug)]
struct Inner {
    state: DeviceState,
    session: Session,
    users: Users,
    reset_at: Option<ResetAt>,
    resets: u32,
    /// When the planned one came, on CLOCK_MONOTONIC; 0 before.
    planned_reset_ns: u64,
    /// What is planned to block still does.
    held: bool,
    /// The first session's memory file, once it was prepared.
    ready: Option<OwnedFd>,
}

/// What went through a session's fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Bytes read from it, or taken out of it by the device.
    pub bytes: u64,
    /// XXH3-128 over them, in order; none if they are not a whole state.
    pub digest: Option<u128>,
}

impl Double {
    /// A device in RUNNING.
    pub fn new(plan: Plan) -> Double {
        let inner = Inner {
            state: DeviceState::Running,
            session: Session::None,
            users: Users::default(),
            reset_at: plan.reset_at,
            resets: 0,
            planned_reset_ns: 0,
            held: plan.holds.is_some() || plan.sticks_at.is_some(),
            ready: None,
        };
        Double { plan, inner: Mutex::new(inner), released: Condvar::new() }
    }

    /// Does beforehand what a device of [memory](Conduit::Memory) would otherwise do when its first
    /// session begins: a source fills its file, a target, which is one that expects bytes, gets its
    /// pages. Does nothing for others.
    pub fn prepare(&self) -> io::Result<()> {
        if self.plan.conduit == Conduit::Memory {
            let file = match self.plan.expects_bytes {
                0 => memory::filled(&self.plan, self.origin(0))?,
                _ => memory::empty(&self.plan)?,
            };
            self.lock().ready = Some(file);
        }
        Ok(())
    }

    fn origin(&self, resets: u32) -> Origin {
        Origin { device: self.plan.index, generation: resets as u8 }
    }

    /// What the device is like.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The state that it is in.
    pub fn state_now(&self) -> DeviceState {
        self.lock().state
    }

    /// What passed through the last session's fd. Waits up to a second for the device's thread
    /// where all was read and only the digest is missing.
    pub fn passed(&self) -> Passed {
        let session = self.lock().session.clone();
        session.passed()
    }

    /// What was written in the last session, where the plan says that it is kept.
    pub fn kept(&self) -> Vec<u8> {
        self.lock().session.kept()
    }

    /// How often the device was reset.
    pub fn resets(&self) -> u32 {
        self.lock().resets
    }

    /// When the device reset itself as planned, on CLOCK_MONOTONIC; 0 if it did not.
    pub fn planned_reset_ns(&self) -> u64 {
        self.lock().planned_reset_ns
    }

    /// How often a second thread used a session's fd, which nobody may.
    pub fn strangers(&self) -> u32 {
        self.lock().users.strangers()
    }

    /// Lets a held SET_STATE or a stuck read or write go on.
    pub fn release(&self) {
        self.lock().held = false;
        self.released.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.released.wait(inner).unwrap_or_else(PoisonError::into_inner)
    }

    /// One direct arc.
    fn go(&self, inner: &mut Inner, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        let from = inner.state;
        let mut fd = None;
        if to.is_saving() && !from.is_saving() {
            let origin = self.origin(inner.resets);
            let ready = inner.ready.take().filter(|_| inner.resets == 0);
            let (saving, opened) = Saving::start(&self.plan, origin, to.is_precopy(), ready)?;
            inner.begin_session(Session::Saving(saving), &opened)?;
            fd = Some(opened);
        } else if to == DeviceState::Resuming {
            let ready = inner.ready.take();
            let (loading, opened) = Loading::start(&self.plan, ready)?;
            inner.begin_session(Session::Loading(Arc::new(loading)), &opened)?;
            fd = Some(opened);
        } else if from.is_saving() && !to.is_saving() {
            inner.session.kill();
        } else {
            match &inner.session {
                Session::Saving(saving) if from.is_precopy() && to == DeviceState::StopCopy => {
                    saving.stop_copy()?;
                }
                Session::Loading(loading) if from == DeviceState::Resuming => loading.finish()?,
                _ => {}
            }
        }
        inner.state = to;
        Ok(fd)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.lock().session.kill();
    }
}

impl Inner {
    fn begin_session(&mut self, session: Session, data_fd: &OwnedFd) -> io::Result<()> {
        self.session.kill();
        self.users.begin(data_fd.as_fd())?;
        self.session = session;
        Ok(())
    }

    fn reset(&mut self) {
        self.session.kill();
        self.state = DeviceState::Running;
        self.resets += 1;
    }

    /// Applies the planned reset if its moment has come.
    fn reset_if(&mut self, is_due: impl FnOnce(&Session, ResetAt) -> bool) {
        if self.reset_at.is_some_and(|at| is_due(&self.session, at)) {
            self.reset_at = None;
            self.planned_reset_ns = monotonic_ns();
            self.reset();
        }
    }

    /// Whether the session's fd works.
    fn is_alive(&self) -> bool {
        self.session.is_alive_in(self.state)
    }
}

impl MigrationDevice for Double {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(self.plan.capabilities)
    }

    fn state(&self) -> io::Result<DeviceState> {
        Ok(self.state_now())
    }

    fn set_state(&self, target: DeviceState) -> io::Result<Option<OwnedFd>> {
        let mut inner = self.lock();
        while inner.held && self.plan.holds == Some(target) {
            inner = self.wait(inner);
        }
        if inner.state.is_precopy() && target == DeviceState::StopCopy {
            inner.reset_if(|_, at| at == ResetAt::Stopping);
        }
        let mut fd = None;
        while inner.state != target {
            let next =
                arcs::next(inner.state, target, self.plan.capabilities).ok_or(Errno::INVAL)?;
            let latency = self.plan.latency(inner.state, next);
            if !latency.is_zero() {
                // The driver waits for its firmware; who reads or asks meanwhile does not.
                let from = inner.state;
                drop(inner);
                thread::sleep(latency);
                inner = self.lock();
                if inner.state != from {
                    // A reset came in between; the driver goes on from where that has led.
                    continue;
                }
            }
            fd = self.go(&mut inner, next)?.or(fd);
        }
        Ok(fd)
    }

    fn precopy_info(&self, _data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        let inner = self.lock();
        match &inner.session {
            Session::Saving(saving) if inner.state.is_precopy() => saving.precopy_info(),
            _ => Err(Errno::INVAL.into()),
        }
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        let inner = self.lock();
        Ok(match &inner.session {
            Session::Saving(saving) if inner.is_alive() => saving.stop_copy_length(),
            _ => self.plan.total_bytes(),
        })
    }

    fn reset(&self) -> io::Result<()> {
        self.lock().reset();
        Ok(())
    }

    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        // A cancelled or interrupted operation stays what it is.
        if result.as_ref().is_err_and(is_interruption) {
            return result;
        }
        let mut inner = self.lock();
        if inner.held && inner.users.is_stuck(data_fd)? {
            return Err(Errno::INPROGRESS.into());
        }
        if !inner.users.use_of(data_fd)? {
            return Err(Errno::NODEV.into());
        }
        if let (Ok(bytes), Some(at)) = (&result, self.plan.sticks_at)
            && inner.held
            && inner.session.observed_bytes() + *bytes as u64 >= at
        {
            inner.users.sticks(data_fd)?;
            return Err(Errno::INPROGRESS.into());
        }
        if !inner.is_alive() {
            return Err(Errno::NODEV.into());
        }
        match (&inner.session, result) {
            (Session::Saving(saving), result) => {
                let answer = saving.observed(result);
                inner.reset_if(
                    |session, at| matches!(session, Session::Saving(saving) if saving.is_due(at)),
                );
                if inner.is_alive() { answer } else { Err(Errno::NODEV.into()) }
            }
            (Session::Loading(loading), Ok(bytes)) => {
                let written = loading.observed(bytes)?;
                inner.reset_if(|_, at| matches!(at, ResetAt::Written(bytes) if written >= bytes));
                Ok(bytes)
            }
            (_, result) => result,
        }
    }
}

/// EINTR, ECANCELED, and the ERESTARTSYS that the kernel leaks through io_uring.
fn is_interruption(error: &io::Error) -> bool {
    const LEAKED_RESTART: i32 = 512;
    let Some(errno) = error.raw_os_error() else { return false };
    let ends = [Errno::INTR.raw_os_error(), Errno::CANCELED.raw_os_error(), LEAKED_RESTART];
    ends.contains(&errno)
}

#[cfg(test)]
mod tests;
