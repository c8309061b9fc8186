//! Requests to the devices and their answers: what each device is asked next, and what follows.

use super::stage::{Stage as DeviceStage, View, want};
use super::{Receiver, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Found, Next, Reply, Request, Turn, state_of};
use crate::outcome::{Fault, Operation, Phase};
use crate::vfio::state::DeviceState;
use crate::wire::Frame;

impl Receiver {
    /// Asks every device that is not busy for what its stage wants next.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        if !matches!(self.stage, Stage::Active | Stage::Resuming) {
            return;
        }
        let (plain_may_run, p2p_may_run) = self.may_run();
        let session = View { p2p: self.devices.len() > 1, ..View::default() };
        for device in &mut self.devices {
            if !device.core.line.is_free() || device.core.looks_into(turn) {
                continue;
            }
            let held = self.slots.held(device.core.id());
            let may_run = if device.has_p2p() { p2p_may_run } else { plain_may_run };
            let view = device.view(View { may_run, ..session }, held);
            if let Some(request) = want(device.core.stage, view) {
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
        device.core.progress.moved();
        if device.core.line.answered(turn, request, result) {
            return self.brought_back(id);
        }
        match (request, result) {
            (Request::SetState(state), Ok(Reply::Set { fd })) => {
                return self.state_set(turn, id, state, fd);
            }
            (Request::SetState(_), Err(errno)) => {
                device.core.line.suspect(Operation::SetState, Some(errno));
            }
            (Request::GetState, answer) => self.state_found(turn, id, state_of(answer)),
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
        match device.core.set(turn, state, fd) {
            Next::To(DeviceStage::Loading) => {
                device.core.line.attach(turn, device.epoch.state.number);
                device.core.enter_phase(turn, Phase::PreCopy);
                self.grant(turn, id);
                return self.take_in_order(turn, id);
            }
            Next::To(DeviceStage::Running) => self.tell_if_all_run(turn),
            // A resume fd has no business in another SET_STATE: the device is looked at.
            Next::UnexpectedFd => {
                turn.act(Action::DropFd { device: id });
                device.core.line.suspect(Operation::SetState, None);
            }
            Next::To(_) | Next::None => {}
        }
        Ok(())
    }

    fn state_found(&mut self, turn: &mut Turn, id: DeviceId, found: Option<DeviceState>) {
        let device = &mut self.devices[id.index()];
        match device.core.found(turn, found) {
            Found::There if device.core.stage == DeviceStage::Loaded => {
                let (epoch, total) = (device.epoch.state.number, device.epoch.state.total());
                self.peer.queue(Frame::Loaded { device: id, epoch, total });
                device.core.line.detach(turn);
            }
            Found::There | Found::Later => {}
            Found::Elsewhere(answer) => {
                // A device has lost its state, or worse: the session cannot go on, whatever its
                // stage.
                let fault = device.core.line.fault(answer);
                self.give_up(turn, fault);
            }
        }
    }
}
