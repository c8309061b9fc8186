//! The handover: from here on the devices run here or nowhere. With several, all those that have
//! RUNNING_P2P reach it before any runs fully, and those that have not run first, so that none is
//! written to while it is still stopped.

use super::device::Device;
use super::ending::unexplained;
use super::stage::Stage as DeviceStage;
use super::{Receiver, Stage};
use crate::machine::{Notice, On, Turn, Wait, Waits};
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
        self.waits = Waits::default();
        self.peer.unwatch();
        turn.tell(Notice::HandedOver);
        for device in &mut self.devices {
            device.core.enter_phase(turn, Phase::Resume);
            device.core.go(On::Handover);
        }
        Ok(())
    }

    /// The P2P barrier: whether a device without the P2P states may run, and whether one that has
    /// them may.
    pub(super) fn may_run(&self) -> (bool, bool) {
        let stopped = |p2p| self.devices.iter().any(|d| d.has_p2p() == p2p && d.is_stopped());
        let alone = self.devices.len() == 1;
        (alone || !stopped(true), alone || !(stopped(true) || stopped(false)))
    }

    /// A cancel after the handover: the source has let go, and nothing here is undone. It bounds how
    /// long that may stay unfinished.
    pub(super) fn cancel_late(&mut self, turn: &Turn, fault: Fault) {
        if self.stage == Stage::Resuming {
            self.waits.set_earlier(Wait::Resume, turn.after(self.config.limits.cancel_ns));
            self.fault.get_or_insert(fault);
        }
    }

    /// Some device does not run, and nobody waits for it any longer. Each is reset when its driver
    /// answers: the VMM has given the guest up here.
    pub(super) fn end_unfinished(&mut self, turn: &mut Turn) {
        let fault = self.fault.take().unwrap_or_else(unexplained);
        self.give_up(turn, fault);
        self.end_aborted(turn);
    }

    pub(super) fn tell_if_all_run(&mut self, turn: &mut Turn) {
        let runs_not = |device: &Device| device.core.stage != DeviceStage::Running;
        if self.stage != Stage::Resuming || self.devices.iter().any(runs_not) {
            return;
        }
        self.stage = Stage::Telling;
        // A cancel that came after the handover has begun the bound already.
        let cancelled = self.waits.get(Wait::Resume);
        self.waits = Waits::default();
        cancelled.into_iter().for_each(|by_ns| self.waits.set(Wait::Farewell, by_ns));
        self.waits.set_earlier(Wait::Farewell, turn.after(self.config.limits.cancel_ns));
        self.peer.queue(Frame::Running);
        for device in &mut self.devices {
            device.core.ends(turn, &device.epoch.state, EpochEnding::Complete, None);
        }
    }
}
