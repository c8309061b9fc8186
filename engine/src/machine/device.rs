//! A device as both hosts see it.

use super::report::DeviceReport;
use super::{Action, Goal, Line, Next, Notice, On, Progress, Stages, Turn, Wait, Waits, over};
use crate::ids::{DeviceId, Epoch};
use crate::outcome::{
    Completion, DeviceAnswer, EpochEnding, Fault, Latencies, Operation, Phase, classify,
};
use crate::vfio::state::DeviceState;
use crate::wire::{DataHeader, Encoding, StateDigest, Total};

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

/// A call that failed as if the device were gone may have met a reset that GET_STATE does not show
/// yet: a function-level reset takes 100 ms. The state is asked for so long, so often.
const SETTLE_NS: u64 = 300_000_000;
const SETTLE_AGAIN_NS: u64 = 20_000_000;

/// What GET_STATE has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// The device is where its stage wants it, and has moved on.
    There,
    /// It says nothing yet, and is asked again.
    Later,
    /// It is elsewhere, or something that failed was to be looked into.
    Elsewhere(DeviceAnswer),
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
    /// What it is owed.
    pub(crate) progress: Progress,
    waits: Waits,
    settle_by_ns: Option<u64>,
    /// The session ended without it: when it is at rest the embedder hears of it.
    late: bool,
}

impl<S: Stages> Core<S> {
    /// A device that nobody has touched.
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
            progress: Progress::default(),
            waits: Waits::default(),
            settle_by_ns: None,
            late: false,
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
    pub(crate) fn found(&mut self, turn: &Turn, found: Option<DeviceState>) -> Found {
        if let Some(answer) = self.line.take_suspicion(found) {
            if self.settles(turn, answer) {
                self.line.suspect_again(answer);
                return Found::Later;
            }
            return Found::Elsewhere(answer);
        }
        if found.is_some_and(|state| self.goes(On::Found(state))) {
            return Found::There;
        }
        Found::Elsewhere(self.line.answer(Operation::StateCheck, None, found))
    }

    /// Whether a later GET_STATE may show that it was a reset, and there is time for that.
    fn settles(&mut self, turn: &Turn, answer: DeviceAnswer) -> bool {
        let by_ns = self.settle_by_ns.take().unwrap_or(turn.after(SETTLE_NS));
        if !classify(answer).settles || turn.now_ns >= by_ns {
            return false;
        }
        self.settle_by_ns = Some(by_ns);
        self.waits.set(Wait::Settle, by_ns.min(turn.after(SETTLE_AGAIN_NS)));
        true
    }

    /// What failed is not to be told from the state yet: it is asked for again.
    pub(crate) fn looks_again(&mut self, turn: &Turn, answer: DeviceAnswer) {
        self.line.suspect_again(answer);
        self.waits.set(Wait::Settle, turn.after(SETTLE_AGAIN_NS));
    }

    /// Asks for the state where a failure is to be looked into, or waits until it may be asked
    /// again. False if there is none.
    pub(crate) fn looks_into(&mut self, turn: &mut Turn) -> bool {
        match self.waits.get(Wait::Settle) {
            Some(at_ns) if at_ns > turn.now_ns && !self.line.is_well() => true,
            _ => {
                self.waits.stop(Wait::Settle);
                self.line.looks_into(turn)
            }
        }
    }

    /// When it has something to do: to be asked again, or to be given up as stalled.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        let looks = self.line.is_free() && !self.line.is_well();
        let settles = self.waits.deadline_ns().filter(|_| looks);
        settles.into_iter().chain(self.progress.deadline_ns()).min()
    }

    /// A fault if what it is owed has made no progress for too long.
    pub(crate) fn check_progress(&mut self, turn: &Turn, stall_ns: u64) -> Result<(), Fault> {
        match self.progress.over(turn) {
            Some(owed) => Err(over("stall_limit", stall_ns, Some(self.id()), owed.overdue())),
            None => Ok(()),
        }
    }

    /// The session is given up: nothing is owed any more, and nothing looked into.
    pub(crate) fn given_up(&mut self) {
        self.waits = Waits::default();
        self.progress = Progress::default();
    }

    /// The session ends without it where it is `late`.
    pub(crate) fn left_behind(&mut self, late: bool) {
        self.given_up();
        self.line.take_suspicion(None);
        self.late = late;
    }

    /// Tells the embedder of a device that was late and has come to rest.
    pub(crate) fn tell_if_back(&mut self, turn: &mut Turn, last: &State) {
        if self.late && self.line.is_at_rest() {
            self.late = false;
            turn.tell(Notice::CameBack(self.report(last)));
        }
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
            was_reset: self.line.was_reset(),
            state: self.line.known(),
            latencies: Latencies::default(),
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
        self.settle_by_ns = None;
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
