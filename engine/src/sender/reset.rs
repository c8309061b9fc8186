//! What follows when a device's epoch is lost: classification, then abort, or a discard and a new
//! epoch of just that device, as its embedder chose.

use super::handshake::OPENERS;
use super::stage::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::limits::RESTARTS_DEFAULT;
use crate::machine::{Action, On, Turn, Way};
use crate::outcome::{Cause, DeviceAnswer, Fallback, Fault, Observation, OnReset, Operation};
use crate::vfio::state::DeviceState;
use crate::wire::{Discard, Frame};

/// What the embedder's choice means for a device at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Abort,
    PreCopy,
    StopCopyOnly,
}

impl Sender {
    pub(super) fn classified(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        answer: DeviceAnswer,
    ) -> Result<(), Fault> {
        let fault = self.devices[id.index()].core.line.fault(answer);
        let runs = fault.cause == Cause::DeviceReset && answer.found == Some(DeviceState::Running);
        if self.stage == Stage::Active && runs && self.choose(id, &fault) == Choice::Abort {
            // It is where an abort would bring it: who waits for the news need not wait for that.
            self.tell_aborted(turn, id, &fault);
        }
        self.epoch_lost(turn, id, fault)
    }

    /// SET_STATE inside the saving states gave a new fd: the session that was being read had died,
    /// and what was sent of it is worthless.
    pub(super) fn unexpected_fd(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        state: DeviceState,
    ) -> Result<(), Fault> {
        let line = &mut self.devices[id.index()].core.line;
        // A read may have failed before: then that is how it was first seen.
        let found = Some(DeviceState::Running);
        let earlier = line.take_suspicion(found);
        let answer = earlier.unwrap_or_else(|| line.answer(Operation::UnexpectedFd, None, found));
        let message = format!(
            "SET_STATE({state}) gave a new data fd: the device was reset and the PRE_COPY state \
             that was sent is worthless"
        );
        let fault = Fault { cause: Cause::DeviceReset, message, ..line.fault(answer) };
        let choice = self.choose(id, &fault);
        if state == DeviceState::StopCopy && choice != Choice::Abort && self.stage == Stage::Active
        {
            // The new session holds the whole state: read that.
            self.discard(turn, id, fault, choice);
            let device = &mut self.devices[id.index()];
            device.core.go(On::Reuse);
            device.core.line.detach(turn);
            return Ok(());
        }
        turn.act(Action::DropFd { device: id });
        self.epoch_lost(turn, id, fault)
    }

    /// The epoch is worthless; `fault` says why. It comes back where the session ends with it.
    pub(super) fn epoch_lost(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        fault: Fault,
    ) -> Result<(), Fault> {
        if self.stage != Stage::Active {
            return Ok(());
        }
        match self.choose(id, &fault) {
            Choice::Abort => Err(fault),
            choice => {
                self.discard(turn, id, fault, choice);
                self.bring_back(turn, id, On::Discard, Way::Straight)
            }
        }
    }

    fn choose(&self, id: DeviceId, fault: &Fault) -> Choice {
        let device = &self.devices[id.index()];
        let asked_for = fault.observed == Observation::Embedder;
        if fault.cause != Cause::DeviceReset && !asked_for {
            return Choice::Abort;
        }
        match device.config.options.on_reset {
            OnReset::Abort => Choice::Abort,
            OnReset::Restart { attempts, then } if device.restarts >= attempts => match then {
                Fallback::StopCopy if device.restarts == attempts => Choice::StopCopyOnly,
                Fallback::Abort | Fallback::StopCopy => Choice::Abort,
            },
            OnReset::Restart { .. } => Choice::PreCopy,
            OnReset::StopCopy if device.restarts >= RESTARTS_DEFAULT => Choice::Abort,
            OnReset::StopCopy => Choice::StopCopyOnly,
        }
    }

    /// Replaces a device's epoch, and opens the next one with its discard frame.
    fn discard(&mut self, turn: &mut Turn, id: DeviceId, fault: Fault, choice: Choice) {
        let device = &mut self.devices[id.index()];
        device.restarts += 1;
        device.ahead = false;
        device.pace.discarded();
        device.stop_copy_only |= choice == Choice::StopCopyOnly;
        let next = device.epoch.after();
        let closed = std::mem::replace(&mut device.epoch, next).close();
        device.core.discarded(turn, &closed.state, fault);
        let discard = Discard {
            discarded_bytes: closed.state.bytes(),
            stop_copy_only: self.switchover || device.stop_copy_only,
        };
        self.peer.queue_on(OPENERS, Frame::Discard(device.epoch.opener(id), discard));
        closed.slots.into_iter().for_each(|slot| self.slots.put(slot));
        self.controller.dropped(closed.bytes);
    }

    pub(super) fn detached(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        stuck: bool,
    ) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        device.core.detached(turn, stuck);
        let awaited = matches!(device.core.stage, DeviceStage::Restarting | DeviceStage::Reusing);
        if stuck && awaited {
            // Its slots are not there for a new epoch, nor does its end in this one.
            return Err(Fault::device(
                id,
                Cause::DeviceFailure,
                Observation::Read,
                None,
                "the driver did not give back a read of the discarded epoch within the bound, so \
                 that the device could not be saved anew",
            ));
        }
        if device.core.stage == DeviceStage::Reusing {
            device.core.go(On::Closed);
            device.attach(turn);
            self.stop_copy(turn, id);
            return Ok(());
        }
        self.brought_back(turn, id)
    }

    /// Sets a device on its way back to where it was found, because of a discard or an abort.
    pub(super) fn bring_back(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        why: On,
        way: Way,
    ) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        if device.core.stage == DeviceStage::Reusing {
            turn.act(Action::DropFd { device: id });
        }
        device.core.go(why);
        device.core.line.recover(turn, way);
        self.brought_back(turn, id)
    }

    /// Does what was to follow once a device's way back is at its end.
    pub(super) fn brought_back(&mut self, turn: &mut Turn, id: DeviceId) -> Result<(), Fault> {
        let phase = self.phase_before_saving();
        let device = &mut self.devices[id.index()];
        let Some(arrival) = device.core.line.arrived() else { return Ok(()) };
        if device.core.stage == DeviceStage::Restarting {
            if !arrival.reached {
                return Err(Fault::device(
                    id,
                    Cause::DeviceError,
                    Observation::StateCheck,
                    None,
                    "the device did not come back after its reset",
                ));
            }
            device.core.enter_phase(turn, phase);
        }
        device.core.go(On::Back);
        Ok(())
    }
}
