//! Stopping the devices, and letting go of them.
//!
//! With several devices, those that have the P2P states all go there before any goes to STOP_COPY:
//! until then another device may still write to one that has stopped.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Finish, Notice};
use crate::outcome::{Ending, Phase};

impl Sender {
    pub(super) fn switchover(&mut self, _now_ns: u64, actions: &mut Vec<Action>) {
        if self.switchover {
            return;
        }
        self.switchover = true;
        for index in 0..self.devices.len() {
            let id = DeviceId(index as u32);
            self.enter_phase(id, Phase::Stop, actions);
        }
    }

    /// The data fd is closed, then the device goes to STOP: it does not run here again.
    pub(super) fn let_go(&mut self, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        device.stage = DeviceStage::LettingGo;
        device.detach(actions);
    }

    pub(super) fn target_runs(&mut self, now_ns: u64) {
        self.target_runs = true;
        self.wait_to_let_go(now_ns);
    }

    /// How the session ends is known; the devices may take until then to stop here.
    pub(super) fn wait_to_let_go(&mut self, now_ns: u64) {
        self.let_go_until_ns = Some(now_ns + self.config.abort_bound_ns);
    }

    pub(super) fn handed_over_if_done(&mut self, actions: &mut Vec<Action>) {
        let gone = self.devices.iter().all(|device| device.stage == DeviceStage::Gone);
        if self.let_go_until_ns.is_some() && gone {
            self.handed_over(actions);
        }
    }

    /// The end after a handover, confirmed or not.
    pub(super) fn handed_over(&mut self, actions: &mut Vec<Action>) {
        let ending = if self.target_runs { Ending::Complete } else { Ending::Unconfirmed };
        let fault = self.fault.clone();
        for device in &mut self.devices {
            let gone = device.stage == DeviceStage::Gone;
            device.report.ending = Some(ending);
            device.report.state_after = gone.then_some(device.expected);
            device.report.stuck |= !gone;
            let completion = device.completion(ending, fault.clone());
            actions.push(Action::Notify(Notice::Completion(completion)));
        }
        self.end(Finish { ending, fault }, actions);
    }

    pub(super) fn end(&mut self, finish: Finish, actions: &mut Vec<Action>) {
        self.stage = Stage::Finished;
        self.finish = Some(finish.clone());
        actions.push(Action::Finish(finish));
    }
}
