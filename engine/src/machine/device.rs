//! A device as both hosts see it.

use super::{Action, Goal, Line, Next, Notice, On, Stages, Turn};
use crate::ids::{DeviceId, Epoch};
use crate::outcome::{Completion, DeviceAnswer, EpochEnding, Fault, Operation, Phase};
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
    /// It was reset on its way back, as its embedder had allowed: the guest finds a reset device
    /// (source).
    pub was_reset: bool,
    /// The device's state: what the kernel said last (GET_STATE, or a SET_STATE that succeeded
    /// since), or the VMM. None: nobody knows, because nobody asked, or a call failed or has not
    /// returned.
    pub state: Option<DeviceState>,
}

/// An epoch's state as far as it was read (source) or written (target).
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) number: Epoch,
    pub(crate) digest: StateDigest,
}

impl State {
    /// Nothing yet.
    pub(crate) fn new(number: Epoch) -> State {
        State { number, digest: StateDigest::new() }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.digest.bytes()
    }

    pub(crate) fn total(&self) -> Total {
        Total { bytes: self.digest.bytes(), digest: self.digest.finish() }
    }
}

/// What both hosts' machines keep of a device beside its epoch.
#[derive(Debug)]
pub(crate) struct Core<S> {
    pub(crate) line: Line,
    pub(crate) stage: S,
    phase: Phase,
    ending: Option<EpochEnding>,
    pub(crate) discarded_bytes: u64,
    pub(crate) late_frames: u64,
    wire_bytes: u64,
    chunks: [u64; 3],
    stuck: bool,
}

impl<S: Stages> Core<S> {
    /// A device in RUNNING that nobody has touched.
    pub(crate) fn new(id: DeviceId, goal: Goal) -> Core<S> {
        Core {
            line: Line::new(id, goal),
            stage: S::FIRST,
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

    /// Moves to where this leads. False if it may not happen here.
    fn goes(&mut self, on: On) -> bool {
        let next = self.stage.next(on, false, false);
        if let Next::To(stage) = next {
            self.stage = stage;
        }
        next != Next::None
    }

    /// Moves to where this leads, which it must.
    pub(crate) fn go(&mut self, on: On) {
        let goes = self.goes(on);
        debug_assert!(goes, "{}: {on} in {:?}", self.id(), self.stage);
    }

    /// SET_STATE(`state`) succeeded, and gave a data fd or none: moves to where that leads. What may
    /// not happen here is looked into; its fd is closed.
    pub(crate) fn set(&mut self, turn: &mut Turn, state: DeviceState, given: bool) -> Next<S> {
        let next = self.stage.next(On::Set(state), given, self.line.is_attached());
        match next {
            Next::To(stage) => self.stage = stage,
            Next::UnexpectedFd => {}
            Next::None => {
                if given {
                    turn.act(Action::DropFd { device: self.id() });
                }
                self.line.suspect(Operation::SetState, None);
            }
        }
        next
    }

    /// GET_STATE was answered: moves to where that leads, or gives what is to be classified.
    pub(crate) fn found(&mut self, found: Option<DeviceState>) -> Result<(), DeviceAnswer> {
        if let Some(answer) = self.line.take_suspicion(found) {
            return Err(answer);
        }
        if found.is_some_and(|state| self.goes(On::Found(state))) {
            return Ok(());
        }
        Err(self.line.answer(Operation::StateCheck, None, found))
    }

    /// What became of it so far.
    pub(crate) fn report(&self, last: &State) -> DeviceReport {
        DeviceReport {
            device: self.id(),
            epoch: last.number,
            ending: self.ending,
            total: last.total(),
            discarded_bytes: self.discarded_bytes,
            wire_bytes: self.wire_bytes,
            chunks: self.chunks,
            late_frames: self.late_frames,
            stuck: self.stuck,
            home: self.line.is_home(),
            was_reset: false,
            state: self.line.known(),
        }
    }

    pub(crate) fn enter_phase(&mut self, turn: &mut Turn, phase: Phase) {
        if std::mem::replace(&mut self.phase, phase) != phase {
            turn.tell(Notice::Phase { device: self.id(), phase });
        }
    }

    /// A data frame travels.
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

    /// An epoch was discarded, and the embedder is told. Whatever was to be looked into is settled
    /// with it.
    pub(crate) fn discarded(&mut self, turn: &mut Turn, epoch: &State, fault: Fault) {
        self.discarded_bytes += epoch.bytes();
        self.tell(turn, epoch, EpochEnding::Restarted, Some(fault));
        self.line.take_suspicion(None);
    }

    /// The last epoch ends. The embedder is told once.
    pub(crate) fn ends(
        &mut self,
        turn: &mut Turn,
        epoch: &State,
        ending: EpochEnding,
        fault: Option<Fault>,
    ) {
        if self.ending.is_none() {
            self.ending = Some(ending);
            self.tell(turn, epoch, ending, fault);
        }
    }

    fn tell(&self, turn: &mut Turn, epoch: &State, ending: EpochEnding, fault: Option<Fault>) {
        turn.tell(Notice::Completion(Completion {
            device: self.id(),
            epoch: epoch.number,
            phase: self.phase,
            ending,
            fault,
            state: self.line.known(),
            bytes: epoch.bytes(),
        }));
    }
}
