//! A device that tells where it is, and whose state it has, whenever that changes.
//!
//! It tells by the device's own word, not by the engine's: what a host says of its devices is
//! compared with this.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Tell;
use crate::device::{Conduit, Double, Faulty, Plan};
use crate::engine::{Capabilities, DeviceState, MigrationDevice, PrecopyInfo};
use crate::faults::message::{DeviceSpec, Holds, Moved, What};

/// See the module's text.
pub(super) struct Told {
    index: usize,
    double: Arc<Double>,
    faulty: Faulty,
    tell: Tell,
    notes: Mutex<Notes>,
}

/// What was told last.
struct Notes {
    state: DeviceState,
    holds: Holds,
    resets: u32,
}

impl Told {
    /// Makes a device that is in the state in which the migration is to find it.
    pub(super) fn new(
        index: usize,
        spec: &DeviceSpec,
        plan: Plan,
        tell: &Tell,
    ) -> io::Result<Told> {
        let double = Arc::new(Double::new(plan));
        drop(double.set_state(spec.found)?);
        let of_faults = tell.clone();
        let on_fault = Box::new(move |_: &_| of_faults.tell(What::Struck));
        let faulty = Faulty::new(double.clone(), spec.faults.clone(), on_fault);
        let notes = Notes { state: spec.found, holds: Holds::Own, resets: 0 };
        tell.tell(What::Moved(Moved { device: index, state: spec.found, holds: Holds::Own }));
        Ok(Told { index, double, faulty, tell: tell.clone(), notes: Mutex::new(notes) })
    }

    /// The device itself.
    pub(super) fn double(&self) -> &Double {
        &self.double
    }

    /// What the driver holds goes on.
    pub(super) fn release(&self) {
        self.faulty.release();
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what has changed.
    fn note(&self, holds: Option<Holds>) {
        let mut notes = self.notes();
        let resets = self.double.resets();
        let state = match self.faulty.is_in_error() {
            true => DeviceState::Error,
            false => self.double.state_now(),
        };
        let holds = match holds {
            _ if resets > notes.resets => Holds::Blank,
            Some(holds) => holds,
            None => notes.holds,
        };
        if (state, holds) != (notes.state, notes.holds) {
            self.tell.tell(What::Moved(Moved { device: self.index, state, holds }));
        }
        *notes = Notes { state, holds, resets };
    }
}

/// The test device that a description means.
pub(super) fn plan(index: usize, spec: &DeviceSpec) -> io::Result<Plan> {
    Ok(Plan {
        index: index as u8,
        capabilities: Capabilities { p2p: spec.p2p, precopy: spec.precopy },
        conduit: if spec.is_file { Conduit::File } else { Conduit::Pipe },
        content: crate::data::Content::new(&spec.data)?,
        initial_bytes: spec.initial_bytes,
        rest_bytes: spec.rest_bytes,
        stalls_at: spec.stalls_at,
        expects_bytes: spec.initial_bytes + spec.rest_bytes,
        ..Plan::default()
    })
}

impl MigrationDevice for Told {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.faulty.capabilities()
    }

    fn state(&self) -> io::Result<DeviceState> {
        self.faulty.state()
    }

    fn set_state(&self, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        self.tell.tell(What::Asked { device: self.index, state: to });
        let from = self.notes().state;
        let result = self.faulty.set_state(to);
        let holds = match (from, to) {
            _ if result.is_err() || from == to => None,
            (_, DeviceState::Resuming) => Some(Holds::Partial),
            (DeviceState::Resuming, _) => Some(Holds::Loaded),
            _ => None,
        };
        self.note(holds);
        result
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        let result = self.faulty.precopy_info(data_fd);
        self.note(None);
        result
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        self.faulty.stop_copy_length()
    }

    fn reset(&self) -> io::Result<()> {
        let result = self.faulty.reset();
        self.note(None);
        result
    }

    fn interrupt(&self) {
        self.faulty.interrupt();
    }

    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        let result = self.faulty.observe(data_fd, result);
        self.note(None);
        result
    }
}
