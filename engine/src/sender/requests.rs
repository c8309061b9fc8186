//! Requests to the devices and their answers: what each device is asked next, and what follows.

use super::device::is_ahead;
use super::epoch::Length;
use super::stage::{Stage as DeviceStage, View, want};
use super::{Sender, Stage};
use crate::errno;
use crate::ids::DeviceId;
use crate::machine::{Action, Found, Next, On, Reply, Request, Turn, state_of};
use crate::outcome::{DeviceAnswer, Fault, Operation, Phase};
use crate::vfio::state::DeviceState;
use crate::wire::{DataPhase, Frame};

impl Sender {
    /// Asks every device that is not busy for what its stage wants next.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        if matches!(self.stage, Stage::Connect | Stage::Aborting) {
            return;
        }
        let session =
            View { switchover: self.switchover, p2p: self.devices.len() > 1, ..View::default() };
        let (plain_may_stop, p2p_may_stop) = self.may_stop();
        for device in &mut self.devices {
            if !device.core.line.is_free() {
                continue;
            }
            let may_stop = if device.has_p2p() { p2p_may_stop } else { plain_may_stop };
            if device.ahead && self.switchover && may_stop {
                // The answer decides what it was that failed.
                device.core.line.ask(turn, Request::SetState(DeviceState::StopCopy));
                continue;
            }
            if device.core.looks_into(turn) {
                continue;
            }
            let view = device.view(turn.now_ns, View { may_stop, ..session });
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
            return self.brought_back(turn, id);
        }
        match (request, result) {
            (Request::SetState(state), Ok(Reply::Set { fd })) => {
                return self.state_set(turn, id, state, fd);
            }
            // The target has the state; that this device would not stop changes nothing.
            (Request::SetState(state), Err(_)) if device.core.stage == DeviceStage::Leaving => {
                device.core.go(On::Set(state));
            }
            (Request::SetState(_), Err(errno)) => {
                if std::mem::take(&mut device.ahead) {
                    device.core.line.take_suspicion(None);
                }
                device.core.line.suspect(Operation::SetState, Some(errno));
            }
            (Request::GetState, answer) => return self.state_found(turn, id, state_of(answer)),
            (Request::PrecopyInfo, Ok(Reply::Info(info))) => {
                device.epoch.informed(turn.now_ns, id, info);
                if device.core.stage == DeviceStage::PreCopy && device.core.line.is_well() {
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
        let was_ahead = std::mem::take(&mut device.ahead);
        let next = device.core.set(turn, state, fd);
        if was_ahead && !fd {
            self.nothing_was_reset(id)?;
        }
        let device = &mut self.devices[id.index()];
        match next {
            Next::UnexpectedFd => return self.unexpected_fd(turn, id, state),
            Next::To(DeviceStage::PreCopy) => {
                device.attach(turn);
                device.epoch.precopy.flows_from(turn.now_ns);
                device.core.enter_phase(turn, Phase::PreCopy);
                device.mark_phase(DataPhase::PreCopy);
            }
            Next::To(DeviceStage::StopCopy) => {
                if fd {
                    device.attach(turn);
                }
                device.epoch.reading.drained = false;
                self.stop_copy(turn, id);
            }
            Next::To(_) if fd => turn.act(Action::DropFd { device: id }),
            Next::To(_) | Next::None => {}
        }
        Ok(())
    }

    /// A device that its VMM had taken ahead gave no new data fd: what failed before was a failure.
    /// But that the precopy info was refused (EINVAL) says nothing of a device that had been stopped.
    fn nothing_was_reset(&mut self, id: DeviceId) -> Result<(), Fault> {
        let line = &mut self.devices[id.index()].core.line;
        let Some(answer) = line.take_suspicion(None) else { return Ok(()) };
        if answer.operation == Operation::PrecopyInfo && answer.errno == Some(errno::EINVAL) {
            return Ok(());
        }
        Err(line.fault(DeviceAnswer { found: Some(answer.expected), ..answer }))
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
        match device.core.found(turn, found) {
            Found::There => {}
            Found::Later => return Ok(()),
            Found::Elsewhere(answer) if device.config.embedded && is_ahead(&answer) => {
                device.ahead = true;
                device.core.looks_again(turn, answer);
                return Ok(());
            }
            Found::Elsewhere(answer) => {
                device.ahead = false;
                return self.classified(turn, id, answer);
            }
        }
        // The fd's end was read, and the device has not been reset since.
        let total = device.epoch.state.total();
        device.epoch.frame(id, |place| Frame::End(place, total));
        device.pace.moved(turn);
        device.core.enter_phase(turn, Phase::Load);
        Ok(())
    }
}
