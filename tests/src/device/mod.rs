//! The test device: the benchmark's double, under a layer that lets a reset come late, knows whose
//! state the device has, and notes what was done to it that nobody may do.
//!
//! A reset can be deferred: the state is stale for one more call, SET_STATE gives an fd that is dead
//! already. An fd that two threads use is a violation, and so is what the kernel would spin on.

pub use vfio_ferry_bench::data::Content;
pub use vfio_ferry_bench::device::{Conduit, Double, Drained, Passed, Plan, ResetAt, Round};

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
use vfio_ferry::vfio::state::{Capabilities, DeviceState, forbidden};

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

#[derive(Debug)]
struct Notes {
    /// Whose state it was, and how many resets ago.
    holding: (Holding, u32),
    reset_deferred: bool,
    trail: Vec<DeviceState>,
    violations: Vec<String>,
}

/// See the module's text.
#[derive(Debug)]
pub struct TestDevice {
    double: Double,
    notes: Mutex<Notes>,
}

impl TestDevice {
    /// A device in RUNNING.
    pub fn new(plan: Plan) -> TestDevice {
        let notes = Notes {
            holding: (Holding::Own, 0),
            reset_deferred: false,
            trail: Vec::new(),
            violations: Vec::new(),
        };
        TestDevice { double: Double::new(plan), notes: Mutex::new(notes) }
    }

    /// What the device is like.
    pub fn plan(&self) -> &Plan {
        self.double.plan()
    }

    /// The state, without the side effects of asking for it.
    pub fn state_now(&self) -> DeviceState {
        self.double.state_now()
    }

    /// Whose state the device has.
    pub fn holding(&self) -> Holding {
        let (holding, resets) = self.notes().holding;
        if self.double.resets() > resets { Holding::Blank } else { holding }
    }

    /// What went through the last session's fd.
    pub fn passed(&self) -> Passed {
        self.double.passed()
    }

    /// What was written, where the plan says that it is kept.
    pub fn kept(&self) -> Vec<u8> {
        self.double.kept()
    }

    /// The states that SET_STATE was asked for.
    pub fn trail(&self) -> Vec<DeviceState> {
        self.notes().trail.clone()
    }

    /// How often the device was reset.
    pub fn resets(&self) -> u32 {
        self.double.resets()
    }

    /// What was done to the device that nobody may do.
    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.notes().violations.clone();
        let strangers = self.double.strangers();
        if strangers > 0 {
            violations.push(format!("a second thread used a data fd, {strangers} times"));
        }
        violations
    }

    /// A reset as mlx5, virtio, xe and mtty do it while somebody is inside the driver: it is
    /// applied when the next call leaves.
    pub fn reset_deferred(&self) {
        self.notes().reset_deferred = true;
    }

    /// Lets a held SET_STATE or a stuck read or write go on.
    pub fn release(&self) {
        self.double.release();
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One call into the driver: a deferred reset is applied on its way out.
    fn call<T>(&self, call: impl FnOnce(&Double) -> io::Result<T>) -> io::Result<T> {
        let result = call(&self.double);
        if std::mem::take(&mut self.notes().reset_deferred) {
            self.double.reset()?;
        }
        result
    }
}

impl MigrationDevice for TestDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.double.capabilities()
    }

    fn state(&self) -> io::Result<DeviceState> {
        self.call(|double| double.state())
    }

    fn set_state(&self, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        let from = self.double.state_now();
        let mut notes = self.notes();
        notes.trail.push(to);
        if forbidden(from, to) {
            notes.violations.push(format!("SET_STATE({to}) in {from}"));
        }
        drop(notes);
        self.call(|double| {
            let resets = double.resets();
            let result = double.set_state(to);
            if result.is_ok() && from != to {
                let holding = match (from, to) {
                    (_, DeviceState::Resuming) => Holding::Partial,
                    (DeviceState::Resuming, _) => Holding::Loaded(double.passed()),
                    _ => return result,
                };
                self.notes().holding = (holding, resets);
            }
            result
        })
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.call(|double| double.precopy_info(data_fd))
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        self.call(|double| double.stop_copy_length())
    }

    fn reset(&self) -> io::Result<()> {
        self.double.reset()
    }

    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        self.double.observe(data_fd, result)
    }
}

#[cfg(test)]
mod tests;
