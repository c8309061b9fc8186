//! What became of a device.

use crate::ids::{DeviceId, Epoch};
use crate::outcome::{EpochEnding, Latencies};
use crate::vfio::state::DeviceState;
use crate::wire::Total;

/// What became of a device on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Its last epoch.
    pub epoch: Epoch,
    /// How its last epoch ended; none while it goes on.
    pub ending: Option<EpochEnding>,
    /// Bytes of state and digest of the last epoch: read on the source, written on the target.
    pub total: Total,
    /// Bytes of state of its discarded epochs.
    pub discarded_bytes: u64,
    /// Bytes that its data frames took on the wire, headers included, all epochs.
    pub wire_bytes: u64,
    /// Data frames that travelled as zero, raw and zstd, all epochs.
    pub chunks: [u64; 3],
    /// Frames of discarded epochs that came late and were dropped (target).
    pub late_frames: u64,
    /// The driver has not given back an operation: its slots and its fd stay with a thread that
    /// still waits for it.
    pub stuck: bool,
    /// The device is where the migration found it: RUNNING, or STOP under a paused VM (target:
    /// RUNNING, and without any of the state).
    /// False where a way back could not bring it there, was not finished, or was not needed because
    /// the device was handed over.
    pub home: bool,
    /// It was reset on its way back, as its embedder had allowed: the guest finds a reset device
    /// (source).
    pub was_reset: bool,
    /// The device's state: what the kernel said last (GET_STATE, or a SET_STATE that succeeded
    /// since), or the VMM. None: nobody knows, because nobody asked, or a call failed or has not
    /// returned.
    pub state: Option<DeviceState>,
    /// What its transitions took, the target's as seen from here: for the next migration's
    /// [`DeviceOptions`](crate::DeviceOptions) (source).
    pub latencies: Latencies,
}
