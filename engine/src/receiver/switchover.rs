//! The handover: from here on the devices run here or nowhere. With several, all those that have
//! RUNNING_P2P reach it before any runs fully, so that none is written to while it is still stopped.

use super::stage::Stage as DeviceStage;
use super::{Receiver, Stage};
use crate::machine::{Notice, On, Turn, Wait};
use crate::outcome::{Breach, EpochEnding, Fault, Phase};
use crate::wire::{Frame, Kind};

impl Receiver {
    pub(super) fn handover(&mut self, turn: &mut Turn) -> Result<(), Fault> {
        if self.devices.iter().any(|device| device.core.stage != DeviceStage::Loaded) {
            let what = "not every device is loaded";
            return Err(Fault::breach(Breach::Unexpected { kind: Kind::HANDOVER, what }));
        }
        // Nothing depends on the source any more.
        self.stage = Stage::Resuming;
        self.peer.unwatch();
        turn.tell(Notice::HandedOver);
        for device in &mut self.devices {
            device.core.enter_phase(turn, Phase::Resume);
            device.core.go(On::Handover);
        }
        Ok(())
    }

    /// The P2P barrier: whether every device that has the P2P states is in them.
    pub(super) fn none_stopped(&self) -> bool {
        !self.devices.iter().any(|device| device.is_stopped())
    }

    pub(super) fn tell_if_all_run(&mut self, turn: &mut Turn) {
        if self.devices.iter().any(|device| device.core.stage != DeviceStage::Running) {
            return;
        }
        self.stage = Stage::Telling;
        self.waits.set(Wait::Farewell, turn.now_ns + self.config.limits.cancel_ns);
        self.peer.queue(Frame::Running);
        for device in &mut self.devices {
            device.core.ends(turn, &device.epoch.state, EpochEnding::Complete, None);
        }
    }
}
