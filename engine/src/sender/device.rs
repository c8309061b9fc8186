//! One device as the sender sees it.

use super::epoch::{Epoch, Length};
use super::pace::Pace;
use super::stage::{Stage, View};
use crate::ids::{DeviceId, Epoch as Number};
use crate::machine::{Core, DeviceReport, Goal, Owed, Turn, Way};
use crate::outcome::{DeviceAnswer, DeviceOptions, Operation, Verdict, classify};
use crate::vfio::state::{Capabilities, DeviceState};
use crate::wire::{DataPhase, Frame};

/// Consecutive harmless failures (EINTR, EAGAIN) tolerated between two chunks.
const HARMLESS_MAX: u32 = 1000;

/// A device as the embedder gave it to the source.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The name that the target must know it by.
    pub name: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The embedder's choices.
    pub options: DeviceOptions,
    /// It was found in STOP, because its VM is paused: it is not moved before the switchover, and
    /// comes back to STOP.
    pub paused: bool,
    /// Its VMM moves it, and brings it back.
    pub embedded: bool,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) core: Core<Stage>,
    pub(super) config: DeviceConfig,
    pub(super) epoch: Epoch,
    /// Its epochs from here on have STOP_COPY data only.
    pub(super) stop_copy_only: bool,
    pub(super) restarts: u32,
    /// Bytes sent over weight: the device with the least sends next.
    pub(super) served: u64,
    /// Chunks in a row that did not shrink.
    pub(super) incompressible: u32,
    /// Something went wrong in PRE_COPY, and its VMM has taken it further: see [`is_ahead`].
    pub(super) ahead: bool,
    pub(super) pace: Pace,
}

/// Whether an embedded device that was saving in PRE_COPY was found further on the way to STOP_COPY
/// than it was asked to go. Then an operation that failed may have met a reset: the VMM, who did
/// not know of it, has stopped a device that was in RUNNING, and the kernel has given a new data fd on
/// the way. GET_STATE cannot tell; the answer to STOP_COPY can.
pub(super) fn is_ahead(answer: &DeviceAnswer) -> bool {
    let uses_fd = matches!(
        answer.operation,
        Operation::Read { .. } | Operation::Poll | Operation::PrecopyInfo
    );
    let further = [DeviceState::PreCopyP2p, DeviceState::Stop, DeviceState::StopCopy];
    uses_fd
        && answer.expected == DeviceState::PreCopy
        && answer.found.is_some_and(|found| further.contains(&found))
}

impl Device {
    pub(super) fn new(id: DeviceId, config: DeviceConfig, precopy_poll_ns: u64) -> Device {
        let home = if config.paused { DeviceState::Stop } else { DeviceState::Running };
        let goal = match config.embedded {
            true => Goal::LetGo,
            false => Goal::KeepState { home, reset: config.options.reset_to_return },
        };
        Device {
            core: Core::new(id, goal),
            pace: Pace::new(config.options.latencies),
            config,
            epoch: Epoch::new(Number(0), precopy_poll_ns),
            stop_copy_only: false,
            restarts: 0,
            served: 0,
            incompressible: 0,
            ahead: false,
        }
    }

    pub(super) fn report(&self) -> DeviceReport {
        let latencies = self.pace.measured();
        DeviceReport { latencies, ..self.core.report(&self.epoch.state) }
    }

    pub(super) fn saves_in_precopy(&self) -> bool {
        let DeviceConfig { capabilities, options, paused, .. } = &self.config;
        capabilities.precopy && options.precopy && !paused && !self.stop_copy_only
    }

    /// Whether it may still start DMA to other devices, or nobody knows.
    pub(super) fn is_loud(&self) -> bool {
        !self.config.paused && (self.core.stage.is_loud() || !self.core.line.is_well())
    }

    /// Whether it has states in which it starts no DMA to other devices.
    pub(super) fn has_p2p(&self) -> bool {
        self.config.capabilities.p2p
    }

    /// How it goes back to RUNNING among several devices, some of which may be stopped.
    pub(super) fn way_back(&self) -> Way {
        match (self.config.paused || self.core.stage.is_loud(), self.has_p2p()) {
            (true, _) => Way::Straight,
            (false, true) => Way::Quiet,
            (false, false) => Way::Released,
        }
    }

    /// What it waits for, by whom the session would be held up while that is active.
    pub(super) fn owed(&self) -> Option<Owed> {
        let Epoch { reading, precopy, queue, .. } = &self.epoch;
        if let Some(request) = self.core.line.asked() {
            return Some(Owed::Answer(request));
        }
        match self.core.stage {
            _ if queue.is_sendable() => Some(Owed::Path),
            _ if queue.is_waiting() => Some(Owed::Credit),
            Stage::StopCopy if reading.reads > 0 => Some(Owed::Read),
            Stage::Sent => Some(Owed::Loaded),
            Stage::PreCopy | Stage::Quiet if precopy.is_initial_awaited() => {
                Some(Owed::InitialData)
            }
            _ => None,
        }
    }

    /// What decides over its next request; the session's part of it is in `session`.
    pub(super) fn view(&self, now_ns: u64, session: View) -> View {
        let Epoch { reading, precopy, stop_copy, .. } = &self.epoch;
        View {
            p2p: session.p2p && self.has_p2p() && !self.config.paused,
            precopy: self.saves_in_precopy(),
            length_asked: *stop_copy != Length::Unasked,
            info_due: precopy.ask_at_ns().is_some_and(|at_ns| at_ns <= now_ns),
            read_out: reading.ended && reading.reads == 0,
            open: self.core.line.is_attached(),
            ..session
        }
    }

    /// When it has something to do by the clock. After the switchover its sizes are not asked.
    pub(super) fn deadline_ns(&self, switchover: bool) -> Option<u64> {
        let line = &self.core.line;
        let asks = self.core.stage == Stage::PreCopy && line.is_free() && line.is_well();
        let ask_at_ns = self.epoch.precopy.ask_at_ns().filter(|_| asks && !switchover);
        ask_at_ns.into_iter().chain(self.core.deadline_ns()).min()
    }

    /// What its reads give now; none if it is not to be read.
    pub(super) fn readable(&self) -> Option<DataPhase> {
        let line = &self.core.line;
        let reading = &self.epoch.reading;
        let full = self.epoch.queue.is_full();
        if !line.is_attached() || !line.is_well() || reading.drained || reading.ended || full {
            return None;
        }
        match self.core.stage {
            Stage::PreCopy | Stage::Quiet => Some(DataPhase::PreCopy),
            Stage::StopCopy => Some(DataPhase::StopCopy),
            _ => None,
        }
    }

    /// Whether it has given out all that it has before it is stopped, and that was sent.
    pub(super) fn is_drained(&self) -> bool {
        !self.saves_in_precopy() || (self.epoch.reading.drained && self.epoch.pending_bytes() == 0)
    }

    /// Takes the fd that the last SET_STATE gave.
    pub(super) fn attach(&mut self, turn: &mut Turn) {
        self.core.line.attach(turn, self.epoch.state.number);
    }

    /// Tells the target which saving state the data that follows comes from.
    pub(super) fn mark_phase(&mut self, phase: DataPhase) {
        self.epoch.frame(self.core.id(), |place| Frame::Phase(place, phase));
    }

    /// A read failed. An interrupted one, or one that found nothing, has lost nothing and is made
    /// again; a driver that never has another answer is looked into.
    pub(super) fn read_failed(&mut self, errno: i32) {
        let operation = Operation::Read { first: self.epoch.reading.fd_bytes == 0 };
        if !self.forgives(operation, errno) {
            self.core.line.suspect(operation, Some(errno));
        }
    }

    /// PRECOPY_INFO failed: it is asked again later, unless something is wrong.
    pub(super) fn info_failed(&mut self, now_ns: u64, errno: i32) {
        if self.forgives(Operation::PrecopyInfo, errno) {
            self.epoch.precopy.ask_again(now_ns);
        } else {
            self.core.line.suspect(Operation::PrecopyInfo, Some(errno));
        }
    }

    /// Counts a failure; false if it is one too many, or says that something is wrong.
    fn forgives(&mut self, operation: Operation, errno: i32) -> bool {
        let answer = self.core.line.answer(operation, Some(errno), None);
        self.epoch.reading.harmless += 1;
        self.epoch.reading.harmless <= HARMLESS_MAX && classify(answer).verdict != Verdict::Fault
    }
}
