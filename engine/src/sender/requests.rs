//! Requests to the devices and their answers: what each device is asked next, and what follows.

use super::epoch::Length;
use super::stage::{Stage as DeviceStage, View, want};
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Next, On, Reply, Request, Turn, state_of};
use crate::outcome::{Fault, Operation, Phase};
use crate::vfio::state::DeviceState;
use crate::wire::{DataPhase, Frame};

impl Sender {
    /// Asks every device that is not busy for what its stage wants next.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        if !matches!(self.stage, Stage::Active | Stage::Handover | Stage::Leaving) {
            return;
        }
        let session = View {
            switchover: self.switchover,
            p2p: self.devices.len() > 1,
            all_quiet: self.all_quiet(),
            ..View::default()
        };
        for device in &mut self.devices {
            if !device.core.line.is_free() || device.core.line.looks_into(turn) {
                continue;
            }
            if let Some(request) = want(device.stage, device.view(turn.now_ns, session)) {
                if request == Request::PrecopyInfo {
                    device.epoch.precopy.asked();
                }
                device.core.line.ask(turn, request);
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        request: Request,
        result: Result<Reply, i32>,
    ) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        if device.core.line.answered(turn, request, result) {
            return self.brought_back(turn, id);
        }
        match (request, result) {
            (Request::SetState(state), Ok(Reply::Set { fd })) => {
                return self.state_set(turn, id, state, fd);
            }
            // The target has the state; that this device would not stop changes nothing.
            (Request::SetState(state), Err(_)) if device.stage == DeviceStage::Leaving => {
                device.go(On::Set(state));
            }
            (Request::SetState(_), Err(errno)) => {
                device.core.line.suspect(Operation::SetState, Some(errno));
            }
            (Request::GetState, answer) => return self.state_found(turn, id, state_of(answer)),
            (Request::PrecopyInfo, Ok(Reply::Info(info))) => {
                device.epoch.informed(turn.now_ns, id, info);
                if device.stage == DeviceStage::PreCopy && device.core.line.is_well() {
                    device.core.line.ask(turn, Request::StopCopyLength);
                }
            }
            (Request::PrecopyInfo, Err(errno)) => device.info_failed(turn.now_ns, errno),
            (Request::StopCopyLength, answer) => {
                device.epoch.stop_copy = match answer {
                    Ok(Reply::Length(bytes)) => Length::Bytes(bytes),
                    _ => Length::Unknown,
                };
                self.estimate(turn);
            }
            (request, result) => {
                debug_assert!(false, "{id}: {request:?} answered with {result:?}");
            }
        }
        Ok(())
    }

    fn state_set(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        state: DeviceState,
        fd: bool,
    ) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        match device.stage.after_set(state, fd, device.core.line.is_attached()) {
            Next::To(stage) => {
                device.stage = stage;
                self.entered(turn, id, fd);
            }
            Next::UnexpectedFd => return self.unexpected_fd(turn, id, state),
            Next::None => {
                if fd {
                    turn.act(Action::DropFd { device: id });
                }
                // A saving state without a data fd: nothing can be read from it.
                device.core.line.suspect(Operation::SetState, None);
            }
        }
        Ok(())
    }

    /// A device has come to its stage by SET_STATE.
    fn entered(&mut self, turn: &mut Turn, id: DeviceId, fd: bool) {
        let device = &mut self.devices[id.index()];
        match device.stage {
            DeviceStage::PreCopy => {
                device.attach(turn);
                device.epoch.precopy.flows_from(turn.now_ns);
                device.core.enter_phase(turn, Phase::PreCopy);
                device.mark_phase(DataPhase::PreCopy);
            }
            DeviceStage::StopCopy => {
                if fd {
                    device.attach(turn);
                }
                device.epoch.reading.drained = false;
                self.stop_copy(turn, id);
            }
            _ if fd => turn.act(Action::DropFd { device: id }),
            _ => {}
        }
    }

    /// STOP_COPY data is read from here on.
    pub(super) fn stop_copy(&mut self, turn: &mut Turn, id: DeviceId) {
        let device = &mut self.devices[id.index()];
        device.core.enter_phase(turn, Phase::StopCopy);
        device.mark_phase(DataPhase::StopCopy);
    }

    fn state_found(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        found: Option<DeviceState>,
    ) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        if let Some(answer) = device.core.line.take_suspicion(found) {
            return self.classified(turn, id, answer);
        }
        let next = found.and_then(|state| device.stage.after(On::Found(state)));
        let Some(stage) = next else {
            let answer = device.core.line.answer(Operation::StateCheck, None, found);
            return self.classified(turn, id, answer);
        };
        // The fd's end was read, and the device has not been reset since.
        device.stage = stage;
        let total = device.total();
        device.epoch.frame(id, |place| Frame::End(place, total));
        device.core.enter_phase(turn, Phase::Load);
        Ok(())
    }
}
