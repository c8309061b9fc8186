//! Requests to the devices and their answers.

use super::device::Stage as DeviceStage;
use super::{Receiver, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Reply, Request};
use crate::outcome::{DeviceAnswer, Fault, Operation, Phase, classify};
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
            if device.asked.is_some() || device.recovery.is_some() {
                continue;
            }
            if device.suspicion.is_some() {
                device.stage = DeviceStage::Classifying;
                device.ask(Request::GetState, actions);
                continue;
            }
            match device.stage {
                DeviceStage::Loading if device.ended.is_some() && device.writes == 0 => {
                    device.stage = DeviceStage::Checking;
                    device.ask(Request::GetState, actions);
                }
                DeviceStage::AtP2p if barrier => {
                    device.stage = DeviceStage::ToRunning;
                    device.ask(Request::SetState(DeviceState::Running), actions);
                }
                _ => {}
            }
        }
    }

    /// SET_STATE(RESUMING): the device begins to take state in.
    pub(super) fn enter_resuming(&mut self, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        device.stage = DeviceStage::Entering;
        device.ask(Request::SetState(DeviceState::Resuming), actions);
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
        debug_assert_eq!(device.asked, Some(request));
        device.asked = None;
        if device.recovery.is_some() {
            if let Ok(Reply::Set { fd: true }) = result {
                actions.push(Action::DropFd { device: id });
            }
            // None before the recovery has begun: then this answers what was asked before it.
            if let Some(request) = device.recovery.as_mut().and_then(|r| r.answered(result)) {
                device.ask(request, actions);
            }
            device.recovery_goes_on(actions);
            self.recovery_done(now_ns, id, actions);
            return;
        }
        match (request, result) {
            (Request::SetState(state), Ok(Reply::Set { fd })) => {
                self.state_set(now_ns, id, state, fd, actions);
            }
            (Request::SetState(_), Err(errno)) => device.suspect(Operation::SetState, Some(errno)),
            (Request::GetState, answer) => {
                let found = match answer {
                    Ok(Reply::State(state)) => Some(state),
                    _ => None,
                };
                self.state_found(now_ns, id, found, actions);
            }
            (request, result) => {
                debug_assert!(false, "{id}: {request:?} answered with {result:?}");
            }
        }
    }

    fn state_set(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        state: DeviceState,
        fd: bool,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        device.expected = state;
        match (device.stage, fd) {
            (DeviceStage::Entering, true) => {
                device.stage = DeviceStage::Loading;
                device.attached = true;
                actions.push(Action::Attach { device: id, epoch: device.epoch });
                self.enter_phase(id, Phase::PreCopy, actions);
                self.grant(id);
                self.take_in_order(now_ns, id, actions);
            }
            (DeviceStage::Stopping, false) => {
                device.stage = DeviceStage::Confirming;
                device.ask(Request::GetState, actions);
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
                device.suspect(Operation::SetState, None);
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
        if let Some(answer) = device.suspicion.take() {
            self.classified(now_ns, id, DeviceAnswer { found, ..answer }, actions);
            return;
        }
        match device.stage {
            // A reset in RESUMING is silent: only this tells, before the arc hides it for good.
            DeviceStage::Checking if found == Some(DeviceState::Resuming) => {
                device.stage = DeviceStage::Stopping;
                device.ask(Request::SetState(DeviceState::Stop), actions);
            }
            DeviceStage::Confirming if found == Some(DeviceState::Stop) => {
                device.stage = DeviceStage::Loaded;
                let total = device.total();
                let epoch = device.epoch;
                self.links.queue(Frame::Loaded { device: id, epoch, total });
                device.detach(actions);
            }
            DeviceStage::Rechecking if found == Some(DeviceState::Stop) => {
                self.leave_stop(id, actions);
            }
            _ => {
                let answer = DeviceAnswer {
                    operation: Operation::StateCheck,
                    errno: None,
                    cancelled: false,
                    expected: device.expected,
                    found,
                };
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
        let finding = classify(answer);
        let message = finding.message;
        self.devices[id.index()].report.state_after = answer.found;
        let fault = Fault::device(id, finding.cause, finding.observed, answer.errno, message);
        self.lost(now_ns, fault, actions);
    }
}
