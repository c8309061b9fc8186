//! Stopping the devices, and letting go of them.
//!
//! With several devices, those that have the P2P states all go there before any goes to STOP_COPY:
//! until then another device may still write to one that has stopped.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Finish};
use crate::outcome::{EpochEnding, Fault, Phase};

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
        device.line.detach(actions);
    }

    /// The target's word: nothing can undo the migration any more, neither the streams, which the
    /// target now closes, nor a driver that is slow to let go.
    pub(super) fn target_runs(&mut self, now_ns: u64) {
        self.stage = Stage::Leaving { until_ns: now_ns + self.config.abort_bound_ns };
    }

    /// The target's word will not come. The devices are still let go of: they do not run here.
    pub(super) fn unconfirmed(&mut self, now_ns: u64, fault: Fault) {
        self.stage = Stage::Leaving { until_ns: now_ns + self.config.abort_bound_ns };
        self.fault = Some(fault);
    }

    pub(super) fn complete_if_gone(&mut self, actions: &mut Vec<Action>) {
        if self.devices.iter().all(|device| device.stage == DeviceStage::Gone) {
            self.complete(actions);
        }
    }

    /// The devices are let go, or the bound is over: whoever is in a driver is left there.
    pub(super) fn complete(&mut self, actions: &mut Vec<Action>) {
        let fault = self.fault.clone();
        let ending = if fault.is_none() { EpochEnding::Complete } else { EpochEnding::Unconfirmed };
        for device in &mut self.devices {
            device.report.state = Some(device.line.expected());
            actions.push(device.ends(ending, fault.clone()));
        }
        self.end(Finish { ending, fault }, actions);
    }

    pub(super) fn end(&mut self, finish: Finish, actions: &mut Vec<Action>) {
        self.stage = Stage::Finished;
        self.finish = Some(finish.clone());
        actions.push(Action::Finish(finish));
    }
}
