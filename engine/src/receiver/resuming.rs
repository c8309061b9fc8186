//! After the handover: the devices go to RUNNING. With several, all those that have RUNNING_P2P
//! reach it before any runs fully, so that none is written to while it is still stopped.

use super::device::Stage as DeviceStage;
use super::{Receiver, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Finish, Notice, Request};
use crate::outcome::{Breach, EpochEnding, Fault, Phase};
use crate::vfio::state::DeviceState;
use crate::wire::{Frame, Kind};

impl Receiver {
    pub(super) fn handover(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.devices.iter().any(|device| device.stage != DeviceStage::Loaded) {
            let what = "not every device is loaded";
            let breach = Breach::Unexpected { kind: Kind::HANDOVER, what };
            self.abort(now_ns, Fault::breach(breach), actions);
            return;
        }
        self.stage = Stage::Resuming;
        actions.push(Action::Notify(Notice::HandedOver));
        for index in 0..self.devices.len() {
            let id = DeviceId(index as u32);
            self.enter_phase(id, Phase::Resume, actions);
            let device = &mut self.devices[index];
            // A reset since the state was loaded has left the device running and blank.
            device.stage = DeviceStage::Rechecking;
            device.line.ask(Request::GetState, actions);
        }
    }

    pub(super) fn leave_stop(&mut self, id: DeviceId, actions: &mut Vec<Action>) {
        let several = self.devices.len() > 1;
        let device = &mut self.devices[id.index()];
        if several && device.config.capabilities.p2p {
            device.stage = DeviceStage::ToP2p;
            device.line.ask(Request::SetState(DeviceState::RunningP2p), actions);
        } else {
            device.stage = DeviceStage::ToRunning;
            device.line.ask(Request::SetState(DeviceState::Running), actions);
        }
    }

    pub(super) fn p2p_barrier_open(&self) -> bool {
        self.devices.iter().all(|device| {
            !device.config.capabilities.p2p
                || !matches!(device.stage, DeviceStage::Rechecking | DeviceStage::ToP2p)
        })
    }

    pub(super) fn running(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        if self.devices.iter().any(|device| device.stage != DeviceStage::Running) {
            return;
        }
        self.stage = Stage::Telling { until_ns: now_ns + self.config.abort_bound_ns };
        self.links.queue(Frame::Running);
        for device in &mut self.devices {
            device.report.state = Some(DeviceState::Running);
            actions.push(device.ends(EpochEnding::Complete, None));
        }
    }

    pub(super) fn complete(&mut self, actions: &mut Vec<Action>) {
        self.end(Finish { ending: EpochEnding::Complete, fault: None }, actions);
    }

    pub(super) fn end(&mut self, finish: Finish, actions: &mut Vec<Action>) {
        self.stage = Stage::Finished;
        self.finish = Some(finish.clone());
        actions.push(Action::Finish(finish));
    }
}
