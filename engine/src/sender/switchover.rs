//! Stopping the devices, and handing them over.
//!
//! With several devices, those that have the P2P states all go there before any goes to STOP_COPY,
//! and those that have not stop before these do: until then another device may still write to one
//! that has stopped. The way back is the other way round.

use super::device::Device;
use super::stage::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::machine::{On, Turn, Wait, over};
use crate::outcome::{Fault, Phase};
use crate::wire::Frame;

impl Sender {
    pub(super) fn switchover(&mut self, turn: &mut Turn) {
        if std::mem::replace(&mut self.switchover, true) {
            return;
        }
        self.waits.set(Wait::Budget, turn.after(self.config.limits.budget_ns));
        for device in &mut self.devices {
            device.core.enter_phase(turn, Phase::Stop);
            device.pace.stops(turn);
        }
    }

    /// The P2P barrier: whether a device without the P2P states may be stopped, and whether one that
    /// has them may.
    pub(super) fn may_stop(&self) -> (bool, bool) {
        let loud = |p2p| self.devices.iter().any(|d| d.has_p2p() == p2p && d.is_loud());
        let alone = self.devices.len() == 1;
        (alone || !loud(true), alone || !(loud(true) || loud(false)))
    }

    /// The same barrier on the way back, where devices may be stopped: those that have the P2P states
    /// are all quiet before others run, and run last.
    pub(super) fn release(&mut self, turn: &mut Turn) {
        let behind = |device: &Device| device.has_p2p() && device.core.line.is_behind();
        let runs_not = |device: &Device| !device.has_p2p() && !device.core.line.is_at_rest();
        let quiet = !self.devices.iter().any(behind);
        let all_run = quiet && !self.devices.iter().any(runs_not);
        for device in &mut self.devices {
            if if device.has_p2p() { all_run } else { quiet } {
                device.core.line.release(turn);
            }
        }
    }

    /// The barrier has held for as long as it may.
    pub(super) fn release_all(&mut self, turn: &mut Turn) {
        for device in &mut self.devices {
            device.core.line.release(turn);
        }
    }

    /// The guest has stood still for as long as it may: why.
    pub(super) fn budget_over(&self) -> Fault {
        let missing = |d: &&Device| d.core.stage != DeviceStage::Loaded;
        let device = self.devices.iter().find(missing);
        let owed = match device.map(|device| device.core.progress.owed()) {
            Some(Some(owed)) => owed.to_string(),
            Some(None) => "the state is still on its way to the target".to_owned(),
            None => "the streams do not take the handover".to_owned(),
        };
        let id: Option<DeviceId> = device.map(|device| device.core.id());
        over("switchover_budget", self.config.limits.budget_ns, id, owed)
    }

    pub(super) fn hand_over_if_all_loaded(&mut self, turn: &mut Turn) {
        let loaded = self
            .devices
            .iter()
            .all(|device| device.core.stage == DeviceStage::Loaded && device.core.line.is_well());
        if self.stage != Stage::Active || !loaded || self.peer.broken().is_some() {
            return;
        }
        // From here on the target may run: this host must not let its devices run again unless
        // the target says that it will not.
        self.stage = Stage::Handover;
        self.peer.part();
        self.waits.set(Wait::Stall, turn.after(self.config.limits.stall_ns));
        self.peer.queue(Frame::Handover);
        self.peer.pump(turn);
        self.confirm_if_out(turn);
        for device in &mut self.devices {
            device.core.enter_phase(turn, Phase::Handover);
            device.pace.handed_over(turn);
            // The data fd is closed, then the device goes to STOP: it does not run here again.
            device.core.go(On::Handover);
            device.core.line.detach(turn);
        }
    }

    /// From when the handover is out the target's word is waited for. Before that no stream takes it,
    /// and it can be taken back.
    pub(super) fn confirm_if_out(&mut self, turn: &Turn) {
        if self.stage == Stage::Handover
            && self.waits.get(Wait::Confirm).is_none()
            && !self.peer.holds(&Frame::Handover)
        {
            self.waits.stop(Wait::Stall);
            self.waits.stop(Wait::Budget);
            self.waits.set(Wait::Confirm, turn.after(self.config.limits.confirm_ns));
        }
    }

    /// Nothing can undo the migration any more, neither the streams, which the target now closes,
    /// nor a driver that is slow to let go: the target runs, or its word will not come, and there
    /// is a fault that says why. The devices do not run here either way.
    pub(super) fn leave(&mut self, turn: &Turn, fault: Option<Fault>) {
        self.stage = Stage::Leaving;
        self.fault = fault;
        self.peer.unwatch();
        self.waits.set_earlier(Wait::LettingGo, turn.after(self.config.limits.cancel_ns));
        self.waits.stop(Wait::Confirm);
    }
}
