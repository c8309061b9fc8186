//! The test device: a VFIO migration device in user space, on real fds, that keeps the kernel's
//! rules where they hurt.
//!
//! - One session at a time; each has a new fd, and those of ended sessions are dead for good.
//! - After a reset ENODEV, never end of stream. A reset can be deferred: the state is stale for
//!   one more call, SET_STATE gives an fd that is dead already. In RESUMING it is silent.
//! - End of stream only in STOP_COPY, again and again. Both flavours of a drained PRE_COPY fd; new
//!   PRE_COPY data only after `precopy_info`, at once or one call later; REINIT.
//! - Short reads anywhere. RESUMING cannot be left with data missing (EINVAL).
//! - An fd that two threads use is a violation, and so is what the kernel would spin on.
//!
//! What the fds cannot say (ENODEV, ENOMSG) is put in by [`MigrationDevice::observe`].

mod content;
mod loading;
mod plan;
mod saving;

pub use content::{Content, Kind};
pub use plan::{Conduit, Drained, Plan, ResetAt, Round};

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;

use rustix::io::Errno;
use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::state::{Capabilities, DeviceState, forbidden, path};
use xxhash_rust::xxh3::Xxh3;

use loading::Loading;
use saving::Saving;

/// What went through a session's fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Bytes read from it, or taken out of it by the device.
    pub bytes: u64,
    /// XXH3-128 of them, where they are a whole state (source), or at any time (target).
    pub digest: Option<u128>,
}

/// Whose state a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Its own, from before the migration.
    Own,
    /// None: it was reset.
    Blank,
    /// Part of another one's: it is in RESUMING, or left it by no legal way.
    Partial,
    /// All of another one's.
    Loaded(Passed),
}

/// The checksum of what goes through an fd.
#[derive(Default)]
struct Sum(Box<Xxh3>);

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0.digest128())
    }
}

#[derive(Debug)]
enum Session {
    None,
    Saving(Saving),
    Loading(Loading),
}

#[derive(Debug)]
struct Inner {
    state: DeviceState,
    session: Session,
    /// The session's fd still works.
    alive: bool,
    /// The thread that uses the session's fd, and those that used the fds of sessions before.
    user: Option<ThreadId>,
    former_users: Vec<ThreadId>,
    holding: Holding,
    reset_at: Option<ResetAt>,
    reset_deferred: bool,
    resets: u32,
    trail: Vec<DeviceState>,
    violations: Vec<String>,
    held: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct TestDevice {
    plan: Plan,
    inner: Mutex<Inner>,
    released: Condvar,
}

impl TestDevice {
    /// A device in RUNNING.
    pub fn new(plan: Plan) -> TestDevice {
        let inner = Inner {
            state: DeviceState::Running,
            session: Session::None,
            alive: false,
            user: None,
            former_users: Vec::new(),
            holding: Holding::Own,
            reset_at: plan.reset_at,
            reset_deferred: false,
            resets: 0,
            trail: Vec::new(),
            violations: Vec::new(),
            held: plan.holds.is_some() || plan.sticks_at.is_some(),
        };
        TestDevice { plan, inner: Mutex::new(inner), released: Condvar::new() }
    }

    /// What the device is like.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The state, without the side effects of asking for it.
    pub fn state_now(&self) -> DeviceState {
        self.lock().state
    }

    /// Whose state the device has.
    pub fn holding(&self) -> Holding {
        self.lock().holding
    }

    /// What went through the last session's fd.
    pub fn passed(&self) -> Passed {
        match &self.lock().session {
            Session::None => Passed { bytes: 0, digest: None },
            Session::Saving(saving) => saving.passed(),
            Session::Loading(loading) => loading.passed(),
        }
    }

    /// What was written, where the plan says that it is kept.
    pub fn kept(&self) -> Vec<u8> {
        match &self.lock().session {
            Session::Loading(loading) => loading.kept().unwrap_or_default().to_vec(),
            _ => Vec::new(),
        }
    }

    /// The states that SET_STATE was asked for.
    pub fn trail(&self) -> Vec<DeviceState> {
        self.lock().trail.clone()
    }

    /// How often the device was reset.
    pub fn resets(&self) -> u32 {
        self.lock().resets
    }

    /// What was done to the device that nobody may do.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// A reset as mlx5, virtio, xe and mtty do it while somebody is inside the driver: it is
    /// applied when the next call leaves.
    pub fn reset_deferred(&self) {
        self.lock().reset_deferred = true;
    }

    /// Lets a held SET_STATE or a stuck read or write go on.
    pub fn release(&self) {
        self.lock().held = false;
        self.released.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call into the driver: a deferred reset is applied on its way out.
    fn call<T>(&self, call: impl FnOnce(&mut Inner) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.lock();
        let result = call(&mut inner);
        if std::mem::take(&mut inner.reset_deferred) {
            inner.reset();
        }
        result
    }

    /// One arc.
    fn step(&self, inner: &mut Inner, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        let from = inner.state;
        let mut fd = None;
        if to.is_saving() && !from.is_saving() {
            inner.end_session();
            let content = Content {
                seed: self.plan.content.seed ^ u64::from(inner.resets) << 32,
                ..self.plan.content
            };
            let (saving, opened) = Saving::start(&self.plan, content, to.is_precopy())?;
            inner.begin_session(Session::Saving(saving));
            fd = Some(opened);
        } else if to == DeviceState::Resuming {
            let (loading, opened) = Loading::start(&self.plan)?;
            inner.begin_session(Session::Loading(loading));
            inner.holding = Holding::Partial;
            fd = Some(opened);
        } else if from == DeviceState::Resuming {
            if let Session::Loading(loading) = &mut inner.session {
                loading.finish()?;
                inner.holding = Holding::Loaded(loading.passed());
            }
            inner.alive = false;
        } else if from.is_precopy() && to == DeviceState::StopCopy {
            if let Session::Saving(saving) = &mut inner.session {
                saving.stop()?;
            }
        } else if from.is_saving() && !to.is_saving() {
            inner.alive = false;
        }
        inner.state = to;
        Ok(fd)
    }
}

impl Inner {
    fn begin_session(&mut self, session: Session) {
        self.end_session();
        self.session = session;
        self.alive = true;
    }

    fn end_session(&mut self) {
        self.alive = false;
        self.former_users.extend(self.user.take());
    }

    fn reset(&mut self) {
        if self.alive {
            self.alive = false;
            // A parked read or write must come back: both hang on this end.
            if let Session::Saving(saving) = &mut self.session {
                saving.kill();
            }
            if let Session::Loading(loading) = &mut self.session {
                loading.kill();
            }
        }
        self.state = DeviceState::Running;
        self.holding = Holding::Blank;
        self.resets += 1;
    }

    fn reset_if(&mut self, due: impl FnOnce(ResetAt) -> bool) {
        if self.reset_at.is_some_and(due) {
            self.reset_at = None;
            self.reset();
        }
    }

    /// Bytes that went through the session's fd.
    fn bytes_so_far(&self) -> u64 {
        match &self.session {
            Session::None => 0,
            Session::Saving(saving) => saving.passed().bytes,
            Session::Loading(loading) => loading.passed().bytes,
        }
    }

    /// Whether the calling thread uses an fd that still works.
    fn is_current_user(&mut self) -> bool {
        let thread = std::thread::current().id();
        if self.former_users.contains(&thread) {
            return false;
        }
        if *self.user.get_or_insert(thread) != thread {
            self.violations.push(format!("a second thread used the data fd in {}", self.state));
        }
        self.alive
    }
}

impl MigrationDevice for TestDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(self.plan.capabilities)
    }

    fn state(&self) -> io::Result<DeviceState> {
        self.call(|inner| Ok(inner.state))
    }

    fn set_state(&self, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        let mut held = self.lock();
        held.trail.push(to);
        while held.held && self.plan.holds == Some(to) {
            held = self.released.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        drop(held);
        self.call(|inner| {
            if inner.state.is_precopy() && to == DeviceState::StopCopy {
                inner.reset_if(|at| at == ResetAt::Stopping);
            }
            if forbidden(inner.state, to) {
                inner.violations.push(format!("SET_STATE({to}) in {}", inner.state));
            }
            let steps = path(inner.state, to, self.plan.capabilities).ok_or(Errno::INVAL)?;
            let mut fd = None;
            for step in steps {
                fd = self.step(inner, step)?.or(fd);
            }
            Ok(fd)
        })
    }

    fn precopy_info(&self, _data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.call(|inner| match &mut inner.session {
            Session::Saving(saving) if inner.state.is_precopy() => saving.precopy_info(),
            _ => Err(Errno::INVAL.into()),
        })
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        self.call(|inner| {
            Ok(match &inner.session {
                Session::Saving(saving) if inner.alive => saving.left_bytes(),
                _ => self.plan.total_bytes(),
            })
        })
    }

    fn reset(&self) -> io::Result<()> {
        self.lock().reset();
        Ok(())
    }

    fn observe(&self, result: io::Result<usize>) -> io::Result<usize> {
        if let Err(error) = &result
            && is_interruption(error)
        {
            return result;
        }
        let mut inner = self.lock();
        if !inner.is_current_user() {
            return Err(Errno::NODEV.into());
        }
        if let (Ok(bytes), Some(at)) = (&result, self.plan.sticks_at)
            && inner.bytes_so_far() + *bytes as u64 >= at
        {
            while inner.held {
                inner = self.released.wait(inner).unwrap_or_else(PoisonError::into_inner);
            }
        }
        match (&mut inner.session, result) {
            (Session::Saving(saving), Ok(bytes)) => {
                let answer = saving.read(bytes);
                let read = saving.read_bytes();
                inner.reset_if(|at| matches!(at, ResetAt::Read(bytes) if read >= bytes));
                answer
            }
            (Session::Loading(loading), Ok(bytes)) => {
                let written = loading.written(bytes)?;
                inner.reset_if(|at| matches!(at, ResetAt::Written(bytes) if written >= bytes));
                Ok(bytes)
            }
            (_, result) => result,
        }
    }
}

/// EINTR, ECANCELED, and the ERESTARTSYS that io_uring lets out: a cancel stays what it is.
fn is_interruption(error: &io::Error) -> bool {
    const LEAKED_RESTART: i32 = 512;
    let cancels = [Errno::INTR.raw_os_error(), Errno::CANCELED.raw_os_error(), LEAKED_RESTART];
    error.raw_os_error().is_some_and(|errno| cancels.contains(&errno))
}

#[cfg(test)]
mod tests;
