//! Requests to the devices and their answers.

use super::device::Stage as DeviceStage;
use super::{Receiver, Stage};
use crate::abort::state_of;
use crate::ids::DeviceId;
use crate::machine::{Action, Reply, Request};
use crate::outcome::{DeviceAnswer, Operation, Phase};
use crate::vfio::state::DeviceState;
use crate::wire::Frame;

impl Receiver {
    /// Asks every device that is not busy for what its stage wants next.
    pub(super) fn advance(&mut self, _now_ns: u64, actions: &mut Vec<Action>) {
        if !matches!(self.stage, Stage::Active | Stage::Resuming) {
            return;
        }
        let barrier = self.p2p_barrier_open();
        for device in &mut self.devices {
            if !device.line.is_free() {
                continue;
            }
            if device.line.looks_into(actions) {
                device.stage = DeviceStage::Classifying;
                continue;
            }
            match device.stage {
                DeviceStage::Loading if device.ended.is_some() && device.writes == 0 => {
                    device.stage = DeviceStage::Checking;
                    device.line.ask(Request::GetState, actions);
                }
                DeviceStage::AtP2p if barrier => {
                    device.stage = DeviceStage::ToRunning;
                    device.line.ask(Request::SetState(DeviceState::Running), actions);
                }
                _ => {}
            }
        }
    }

    /// SET_STATE(RESUMING): the device begins to take state in.
    pub(super) fn enter_resuming(&mut self, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        device.stage = DeviceStage::Entering;
        device.line.ask(Request::SetState(DeviceState::Resuming), actions);
    }

    pub(super) fn answered(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        request: Request,
        result: Result<Reply, i32>,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        if device.line.answered(request, result, actions) {
            self.recovered(now_ns, id, actions);
            return;
        }
        match (request, result) {
            (Request::SetState(_), Ok(Reply::Set { fd })) => {
                self.state_set(now_ns, id, fd, actions);
            }
            (Request::SetState(_), Err(errno)) => {
                device.line.suspect(Operation::SetState, Some(errno))
            }
            (Request::GetState, answer) => {
                self.state_found(now_ns, id, state_of(answer), actions);
            }
            (request, result) => {
                debug_assert!(false, "{id}: {request:?} answered with {result:?}");
            }
        }
    }

    fn state_set(&mut self, now_ns: u64, id: DeviceId, fd: bool, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        match (device.stage, fd) {
            (DeviceStage::Entering, true) => {
                device.stage = DeviceStage::Loading;
                device.line.attach(device.epoch, actions);
                self.enter_phase(id, Phase::PreCopy, actions);
                self.grant(id);
                self.take_in_order(now_ns, id, actions);
            }
            (DeviceStage::Stopping, false) => {
                device.stage = DeviceStage::Confirming;
                device.line.ask(Request::GetState, actions);
            }
            (DeviceStage::ToP2p, false) => device.stage = DeviceStage::AtP2p,
            (DeviceStage::ToRunning, false) => {
                device.stage = DeviceStage::Running;
                self.running(now_ns, actions);
            }
            (_, fd) => {
                if fd {
                    actions.push(Action::DropFd { device: id });
                }
                device.line.suspect(Operation::SetState, None);
            }
        }
    }

    fn state_found(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        found: Option<DeviceState>,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        if let Some(answer) = device.line.take_suspicion(found) {
            self.classified(now_ns, id, answer, actions);
            return;
        }
        match device.stage {
            // A reset in RESUMING is silent: only this tells, before the arc hides it for good.
            DeviceStage::Checking if found == Some(DeviceState::Resuming) => {
                device.stage = DeviceStage::Stopping;
                device.line.ask(Request::SetState(DeviceState::Stop), actions);
            }
            DeviceStage::Confirming if found == Some(DeviceState::Stop) => {
                device.stage = DeviceStage::Loaded;
                let total = device.total();
                let epoch = device.epoch;
                self.links.queue(Frame::Loaded { device: id, epoch, total });
                device.line.detach(actions);
            }
            DeviceStage::Rechecking if found == Some(DeviceState::Stop) => {
                self.leave_stop(id, actions);
            }
            _ => {
                let answer = device.line.answer(Operation::StateCheck, None, found);
                self.classified(now_ns, id, answer, actions);
            }
        }
    }

    fn classified(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        answer: DeviceAnswer,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        device.report.state = answer.found;
        let fault = device.line.fault(answer);
        self.lost(now_ns, fault, actions);
    }
}
