//! Stopping the devices, and handing them over.
//!
//! With several devices, those that have the P2P states all go there before any goes to STOP_COPY:
//! until then another device may still write to one that has stopped.

use super::stage::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::machine::{On, Turn, Wait};
use crate::outcome::{Fault, Phase};
use crate::wire::Frame;

impl Sender {
    pub(super) fn switchover(&mut self, turn: &mut Turn) {
        if std::mem::replace(&mut self.switchover, true) {
            return;
        }
        for device in &mut self.devices {
            device.core.enter_phase(turn, Phase::Stop);
        }
    }

    /// The P2P barrier: whether no device is left that may still start DMA to others.
    pub(super) fn all_quiet(&self) -> bool {
        !self.devices.iter().any(|device| device.is_loud())
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
        self.peer.queue(Frame::Handover);
        self.peer.pump(turn);
        for device in &mut self.devices {
            device.core.enter_phase(turn, Phase::Handover);
            // The data fd is closed, then the device goes to STOP: it does not run here again.
            device.core.go(On::Handover);
            device.core.line.detach(turn);
        }
    }

    /// Nothing can undo the migration any more, neither the streams, which the target now closes,
    /// nor a driver that is slow to let go: the target runs, or its word will not come, and there
    /// is a fault that says why. The devices do not run here either way.
    pub(super) fn leave(&mut self, turn: &Turn, fault: Option<Fault>) {
        self.stage = Stage::Leaving;
        self.fault = fault;
        self.peer.unwatch();
        self.waits.set(Wait::LettingGo, turn.now_ns + self.config.limits.cancel_ns);
    }
}
