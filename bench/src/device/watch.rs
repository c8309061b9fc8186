//! When what happened to a device, taken at the device: the clock of the report.
//!
//! They are taken in the same place for the engine and its peers, for test devices and real ones, and
//! do not depend on what either reports. They are CLOCK_MONOTONIC, which all processes of a host share,
//! so that a time of the source's process can be subtracted from one of the target's.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::slices::Slices;
use crate::clock::monotonic_ns;
use crate::engine::{Capabilities, DeviceState, MigrationDevice, PrecopyInfo};

/// Times and counts of one device. A time of 0 has not come.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The first call that changed the state.
    pub(crate) started_ns: AtomicU64,
    /// The first call that stopped a running device. A device that is reset in STOP_COPY is stopped
    /// twice; its guest stands still from the first time on.
    pub(crate) stop_called_ns: AtomicU64,
    /// The return of the last call that put the device into STOP_COPY: from here on the stopped
    /// device's data can be read.
    pub(crate) stop_copy_ns: AtomicU64,
    /// The last completed read or write of the data fd.
    pub(crate) last_transfer_ns: AtomicU64,
    /// The return of the last call that put the device into RUNNING.
    pub(crate) running_ns: AtomicU64,
    /// Bytes read or written, all sessions together.
    pub(crate) bytes: AtomicU64,
    /// What happened when, where it is to be shown: only then anything is recorded.
    pub(crate) record: Option<Mutex<Record>>,
}

/// What happened to a device when.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// SET_STATE calls that succeeded.
    pub(crate) calls: Vec<CallSpan>,
    /// Completed reads or writes of the data fd.
    pub(crate) bytes: Slices,
}

/// A call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallSpan {
    /// The state that it asked for.
    pub(crate) state: String,
    /// When it was made, on CLOCK_MONOTONIC.
    pub(crate) from_ns: u64,
    /// When it returned.
    pub(crate) to_ns: u64,
}

/// Nobody makes as many; a device that is reset again and again might.
const CALLS_MAX: usize = 4096;

impl Watch {
    /// One that records, or not.
    pub(crate) fn new(records: bool) -> Watch {
        Watch { record: records.then(Mutex::default), ..Watch::default() }
    }

    fn note(&self, what: impl FnOnce(&mut Record)) {
        if let Some(record) = &self.record {
            what(&mut record.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// A device that is watched.
pub(crate) struct Watched {
    device: Arc<dyn MigrationDevice>,
    watch: Arc<Watch>,
}

impl Watched {
    /// Watches a device.
    pub(crate) fn new(device: Arc<dyn MigrationDevice>, watch: Arc<Watch>) -> Watched {
        Watched { device, watch }
    }
}

/// Whether the guest's device works in this state.
fn runs(state: DeviceState) -> bool {
    matches!(state, DeviceState::Running | DeviceState::PreCopy)
}

/// Keeps the first time.
fn first(time: &AtomicU64, now_ns: u64) {
    let _ = time.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
}

impl MigrationDevice for Watched {
    fn capabilities(&self) -> io::Result<Capabilities> {
        self.device.capabilities()
    }

    fn state(&self) -> io::Result<DeviceState> {
        self.device.state()
    }

    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        let watch = &self.watch;
        let called = monotonic_ns();
        first(&watch.started_ns, called);
        let stops = !runs(state) && self.device.state().is_ok_and(runs);
        if stops {
            first(&watch.stop_called_ns, called);
        }
        let result = self.device.set_state(state);
        if result.is_ok() {
            let (state, from_ns, to_ns) = (state.to_string(), called, monotonic_ns());
            watch.note(|record| {
                if record.calls.len() < CALLS_MAX {
                    record.calls.push(CallSpan { state, from_ns, to_ns });
                }
            });
        }
        if result.is_ok() {
            match state {
                DeviceState::StopCopy => {
                    watch.stop_copy_ns.store(monotonic_ns(), Ordering::Relaxed)
                }
                DeviceState::Running => watch.running_ns.store(monotonic_ns(), Ordering::Relaxed),
                _ => {}
            }
        }
        result
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        self.device.precopy_info(data_fd)
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        self.device.stop_copy_length()
    }

    fn reset(&self) -> io::Result<()> {
        self.device.reset()
    }

    fn observe(&self, data_fd: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        let result = self.device.observe(data_fd, result);
        if let Ok(bytes) = result {
            self.watch.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            let now = monotonic_ns();
            self.watch.last_transfer_ns.store(now, Ordering::Relaxed);
            self.watch.note(|record| record.bytes.add(now, bytes as u64));
        }
        result
    }
}
