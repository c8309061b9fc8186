//! A device as both hosts see it.

use super::{Goal, Line, Notice, Turn};
use crate::ids::{DeviceId, Epoch};
use crate::outcome::{Completion, EpochEnding, Fault, Phase};
use crate::vfio::state::DeviceState;
use crate::wire::{DataHeader, Encoding, StateDigest, Total};

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
    /// The device is where the migration found it: RUNNING (target: and without any of the state).
    /// False where a way back could not bring it there, was not finished, or was not needed because
    /// the device was handed over.
    pub home: bool,
    /// The device's state: what the kernel said last (GET_STATE, or a SET_STATE that succeeded
    /// since), or the VMM. None: nobody knows, because nobody asked, or a call failed or has not
    /// returned.
    pub state: Option<DeviceState>,
}

/// What both hosts' machines keep of a device beside its stage and its epoch.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) line: Line,
    phase: Phase,
    ending: Option<EpochEnding>,
    /// Sums over the epochs that were discarded, or over all.
    pub(crate) discarded_bytes: u64,
    pub(crate) late_frames: u64,
    wire_bytes: u64,
    chunks: [u64; 3],
    stuck: bool,
}

impl Core {
    /// A device in RUNNING that nobody has touched.
    pub(crate) fn new(id: DeviceId, goal: Goal) -> Core {
        Core {
            line: Line::new(id, goal),
            phase: Phase::Connect,
            ending: None,
            discarded_bytes: 0,
            late_frames: 0,
            wire_bytes: 0,
            chunks: [0; 3],
            stuck: false,
        }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.line.id()
    }

    /// What became of it so far; of its current epoch's books these two are said.
    pub(crate) fn report(&self, epoch: Epoch, digest: &StateDigest) -> DeviceReport {
        DeviceReport {
            device: self.id(),
            epoch,
            ending: self.ending,
            total: Total { bytes: digest.bytes(), digest: digest.finish() },
            discarded_bytes: self.discarded_bytes,
            wire_bytes: self.wire_bytes,
            chunks: self.chunks,
            late_frames: self.late_frames,
            stuck: self.stuck,
            home: self.line.is_home(),
            state: self.line.known(),
        }
    }

    pub(crate) fn enter_phase(&mut self, turn: &mut Turn, phase: Phase) {
        if self.phase != phase {
            self.phase = phase;
            turn.tell(Notice::Phase { device: self.id(), phase });
        }
    }

    /// A data frame travels; the bytes that it takes on the wire are counted.
    pub(crate) fn count_chunk(&mut self, header: &DataHeader) {
        let kind = match header.encoding {
            Encoding::Zero => 0,
            Encoding::Raw => 1,
            Encoding::Zstd => 2,
        };
        self.chunks[kind] += 1;
        self.wire_bytes += header.wire_bytes();
    }

    /// The data fd's thread has ended, or the driver holds it.
    pub(crate) fn detached(&mut self, turn: &mut Turn, stuck: bool) {
        self.stuck |= stuck;
        self.line.detached(turn);
    }

    /// An epoch ends, and the embedder is told.
    pub(crate) fn epoch_ends(
        &self,
        turn: &mut Turn,
        epoch: Epoch,
        bytes: u64,
        ending: EpochEnding,
        fault: Option<Fault>,
    ) {
        turn.tell(Notice::Completion(Completion {
            device: self.id(),
            epoch,
            phase: self.phase,
            ending,
            fault,
            state: self.line.known(),
            bytes,
        }));
    }

    /// The last epoch ends. The embedder is told once.
    pub(crate) fn ends(
        &mut self,
        turn: &mut Turn,
        epoch: Epoch,
        bytes: u64,
        ending: EpochEnding,
        fault: Option<Fault>,
    ) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            self.epoch_ends(turn, epoch, bytes, ending, fault);
        }
    }
}
