//! What follows when a device's epoch is lost: classification, then abort, or a discard and a new
//! epoch of just that device, as its embedder chose.

use super::connect::OPENERS;
use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::machine::Action;
use crate::outcome::{
    Cause, DeviceAnswer, EpochEnding, Fallback, Fault, Observation, OnReset, Operation, Phase,
};
use crate::vfio::state::DeviceState;
use crate::wire::{Discard, Frame};

/// What the embedder's choice comes to for a device at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Abort,
    PreCopy,
    StopCopyOnly,
}

impl Sender {
    pub(super) fn classified(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        answer: DeviceAnswer,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        device.report.state = answer.found;
        let fault = device.line.fault(answer);
        let runs = fault.cause == Cause::DeviceReset && answer.found == Some(DeviceState::Running);
        if self.stage == Stage::Active && runs && self.choose_next(id, &fault) == Next::Abort {
            // It is where an abort would bring it: who waits for the news need not wait for that.
            self.tell_aborted(id, &fault, actions);
        }
        self.epoch_lost(now_ns, id, fault, actions);
    }

    /// SET_STATE inside the saving states gave a new fd: the session that was being read had died,
    /// and what was sent of it is worthless.
    pub(super) fn unexpected_fd(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        state: DeviceState,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        // A read may have failed before: then that is how it was first seen.
        let found = Some(DeviceState::Running);
        let earlier = device.line.take_suspicion(found);
        let answer =
            earlier.unwrap_or_else(|| device.line.answer(Operation::UnexpectedFd, None, found));
        let message = format!(
            "SET_STATE({state}) gave a new data fd: the device was reset and the PRE_COPY state \
             that was sent is worthless"
        );
        let fault = Fault { cause: Cause::DeviceReset, message, ..device.line.fault(answer) };
        device.report.state = Some(state);
        let next = self.choose_next(id, &fault);
        if state == DeviceState::StopCopy && next != Next::Abort {
            // The new session holds the whole state: read that.
            self.begin_again(id, fault, actions);
            let device = &mut self.devices[id.index()];
            device.stage = DeviceStage::Reusing;
            device.fresh = true;
            device.line.detach(actions);
        } else {
            actions.push(Action::DropFd { device: id });
            self.epoch_lost(now_ns, id, fault, actions);
        }
    }

    /// The epoch is worthless; `fault` says why.
    pub(super) fn epoch_lost(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        fault: Fault,
        actions: &mut Vec<Action>,
    ) {
        if self.stage != Stage::Active {
            return;
        }
        match self.choose_next(id, &fault) {
            Next::Abort => self.abort(now_ns, fault, actions),
            next => {
                self.begin_again(id, fault, actions);
                let device = &mut self.devices[id.index()];
                device.stop_copy_only |= next == Next::StopCopyOnly;
                device.stage = DeviceStage::Restarting;
                self.recover(now_ns, id, actions);
            }
        }
    }

    fn choose_next(&self, id: DeviceId, fault: &Fault) -> Next {
        let device = &self.devices[id.index()];
        let asked_for = fault.observed == Observation::Embedder;
        if fault.cause != Cause::DeviceReset && !asked_for {
            return Next::Abort;
        }
        match device.config.options.on_reset {
            OnReset::Abort => Next::Abort,
            OnReset::Restart { attempts, then } if device.restarts >= attempts => match then {
                Fallback::StopCopy if device.restarts == attempts => Next::StopCopyOnly,
                Fallback::Abort | Fallback::StopCopy => Next::Abort,
            },
            OnReset::Restart { .. } if self.switchover => Next::StopCopyOnly,
            OnReset::Restart { .. } => Next::PreCopy,
            OnReset::StopCopy if device.restarts >= crate::limits::RESTARTS_DEFAULT => Next::Abort,
            OnReset::StopCopy => Next::StopCopyOnly,
        }
    }

    /// Closes the epoch's books and opens the next one's with its discard frame.
    fn begin_again(&mut self, id: DeviceId, fault: Fault, actions: &mut Vec<Action>) {
        let switchover = self.switchover;
        self.forget_under_way(id);
        let device = &mut self.devices[id.index()];
        actions.push(device.completion(EpochEnding::Restarted, Some(fault)));
        device.restarts += 1;
        device.line.take_suspicion(None);
        let discarded_bytes = device.digest.bytes();
        self.drop_waiting(id);
        let device = &mut self.devices[id.index()];
        device.drop_epoch();
        let stop_copy_only = switchover || device.stop_copy_only;
        let place = device.place();
        let frame = Frame::Discard(place, Discard { discarded_bytes, stop_copy_only });
        self.links.queue_on(OPENERS, frame);
    }

    /// What waits to be sent will not be: its slots are free again.
    pub(super) fn drop_waiting(&mut self, id: DeviceId) {
        let device = &mut self.devices[id.index()];
        let queued: u64 = device.ready.values().map(super::sending::wire_bytes).sum();
        self.queued_wire_bytes -= queued;
        for slot in device.drop_waiting() {
            device.held -= 1;
            self.slots.put(slot);
        }
    }

    pub(super) fn detached(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        stuck: bool,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        device.line.detached(actions);
        device.report.stuck |= stuck;
        if stuck && matches!(device.stage, DeviceStage::Restarting | DeviceStage::Reusing) {
            // Its slots are not there for a new epoch, nor does its end in this one.
            let fault = Fault::device(
                id,
                Cause::DeviceFailure,
                Observation::Read,
                None,
                "the driver did not give back a read of the discarded epoch within the bound, so \
                 that the device could not be saved anew",
            );
            self.abort(now_ns, fault, actions);
        }
        if self.devices[id.index()].stage == DeviceStage::Reusing {
            self.attach_stop_copy(id, actions);
            self.enter_phase(id, Phase::StopCopy, actions);
        } else {
            self.recovered(now_ns, id, actions);
        }
    }

    /// Sets a device on its way back to RUNNING.
    pub(super) fn recover(&mut self, now_ns: u64, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        if std::mem::take(&mut device.fresh) {
            actions.push(Action::DropFd { device: id });
        }
        device.line.recover(actions);
        self.recovered(now_ns, id, actions);
    }

    /// Does what was to follow once a device's way back is at its end.
    pub(super) fn recovered(&mut self, now_ns: u64, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        let Some(arrival) = device.line.arrived() else { return };
        device.report.state = arrival.state;
        if device.stage == DeviceStage::Restarting && arrival.reached {
            device.stage = DeviceStage::Held;
            let phase = if self.switchover { Phase::Stop } else { Phase::Start };
            self.enter_phase(id, phase, actions);
        } else if device.stage == DeviceStage::Restarting {
            let fault = Fault::device(
                id,
                Cause::DeviceError,
                Observation::StateCheck,
                None,
                "the device did not come back to RUNNING after its reset",
            );
            self.abort(now_ns, fault, actions);
        } else {
            device.stage = DeviceStage::Gone;
        }
    }
}
