//! One device as the receiver sees it.

use super::window::Window;
use crate::abort::{Goal, Line};
use crate::ids::{DeviceId, Epoch};
use crate::machine::{Action, Notice};
use crate::outcome::{Completion, EpochEnding, Fault, Phase};
use crate::vfio::state::{Capabilities, DeviceState};
use crate::wire::{DataPhase, Digest, StateDigest, Total};

/// A device as the embedder gave it to the target.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The name that the source must know it by.
    pub name: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// What became of a device on the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Its last epoch.
    pub epoch: Epoch,
    /// How its migration ended; none while it goes on.
    pub ending: Option<EpochEnding>,
    /// Bytes of state and digest of what was written in the last epoch.
    pub total: Total,
    /// Bytes of state that were written in discarded epochs.
    pub discarded_bytes: u64,
    /// Frames of discarded epochs that came late and were dropped.
    pub late_frames: u64,
    /// The driver never gave back an operation: its slots and fd stay with a lingering thread.
    pub stuck: bool,
    /// The device's state at the end, if it was asked for.
    pub state: Option<DeviceState>,
}

/// Where a device is on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its begin has not come.
    Expected,
    /// SET_STATE(RESUMING) is in flight.
    Entering,
    /// Chunks are written to the resume fd.
    Loading,
    /// All is written; GET_STATE must still say RESUMING.
    Checking,
    /// SET_STATE(STOP) is in flight: the driver takes the state in.
    Stopping,
    /// GET_STATE must say STOP.
    Confirming,
    /// The source was told that the state is loaded.
    Loaded,
    /// The session was handed over: GET_STATE must still say STOP.
    Rechecking,
    /// SET_STATE(RUNNING_P2P) is in flight.
    ToP2p,
    /// Waits until the other devices are as far.
    AtP2p,
    /// SET_STATE(RUNNING) is in flight.
    ToRunning,
    /// It runs.
    Running,
    /// An error is being looked into: GET_STATE.
    Classifying,
    /// The epoch was discarded: the device is being reset, stale slots are awaited.
    Discarding,
    /// The device is reset because the session is aborted.
    Recovering,
    /// Nothing more to do.
    Gone,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) line: Line,
    pub(super) config: DeviceConfig,
    pub(super) stage: Stage,
    pub(super) phase: Phase,
    /// The last way back has left it so.
    pub(super) blank: bool,

    pub(super) epoch: Epoch,
    window_size: u64,
    pub(super) window: Window,
    /// The last phase frame.
    pub(super) data_phase: Option<DataPhase>,
    /// The end's sums, once it was reached.
    pub(super) ended: Option<Total>,
    /// Bytes handed to the writer.
    pub(super) offset: u64,
    pub(super) digest: StateDigest,
    pub(super) writes: usize,
    /// Slots that are out for this device, those of old epochs included.
    pub(super) held: usize,
    pub(super) report: DeviceReport,
}

impl Device {
    pub(super) fn new(id: DeviceId, config: DeviceConfig, window_size: u64) -> Device {
        Device {
            line: Line::new(id, Goal::Blank),
            config,
            stage: Stage::Expected,
            phase: Phase::Connect,
            blank: false,
            epoch: Epoch(0),
            window_size,
            window: Window::new(window_size),
            data_phase: None,
            ended: None,
            offset: 0,
            digest: StateDigest::new(),
            writes: 0,
            held: 0,
            report: DeviceReport {
                device: id,
                epoch: Epoch(0),
                ending: None,
                total: Total { bytes: 0, digest: Digest(0) },
                discarded_bytes: 0,
                late_frames: 0,
                stuck: false,
                state: None,
            },
        }
    }

    pub(super) fn report(&self) -> DeviceReport {
        DeviceReport { epoch: self.epoch, total: self.total(), ..self.report.clone() }
    }

    /// What was written in this epoch.
    pub(super) fn total(&self) -> Total {
        Total { bytes: self.digest.bytes(), digest: self.digest.finish() }
    }

    /// Starts an epoch's books afresh.
    pub(super) fn start_epoch(&mut self, epoch: Epoch) {
        self.report.discarded_bytes += self.digest.bytes();
        self.epoch = epoch;
        self.window = Window::new(self.window_size);
        self.data_phase = None;
        self.ended = None;
        self.offset = 0;
        self.digest = StateDigest::new();
        self.line.take_suspicion(None);
    }

    /// Its migration ends here.
    pub(super) fn ends(&mut self, ending: EpochEnding, fault: Option<Fault>) -> Action {
        self.report.ending = Some(ending);
        self.completion(ending, fault)
    }

    pub(super) fn completion(&self, ending: EpochEnding, fault: Option<Fault>) -> Action {
        Action::Notify(Notice::Completion(Completion {
            device: self.line.id(),
            epoch: self.epoch,
            phase: self.phase,
            ending,
            fault,
            state: self.report.state,
            bytes: self.digest.bytes(),
        }))
    }
}
