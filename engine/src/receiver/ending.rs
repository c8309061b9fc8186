//! How a session ends on the target.

use super::stage::Stage as DeviceStage;
use super::{Receiver, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, On, Turn, Wait, Waits, Way};
use crate::outcome::{Cause, EpochEnding, Fault, Observation, TargetEnding};
use crate::wire::Frame;

impl Receiver {
    /// The session cannot go on because of the peer, a stream, or the embedder. After the handover
    /// none of these counts any more: the source has let go, the state is whole, the device runs.
    pub(super) fn abort(&mut self, turn: &mut Turn, fault: Fault) {
        match self.stage {
            Stage::Connect | Stage::Active => self.give_up(turn, fault),
            Stage::Resuming if fault.cause == Cause::Cancelled => self.cancel_late(turn, fault),
            // If a device fails next, this is why.
            Stage::Resuming if fault.cause == Cause::Local => self.fault = Some(fault),
            Stage::Resuming | Stage::Telling => {
                tracing::warn!(%fault, "after the handover; the devices go on to RUNNING");
            }
            Stage::Aborting | Stage::Finished => {}
        }
    }

    /// Gives the session up: every device is reset, the peer told. The first fault is the one that
    /// counts.
    pub(super) fn give_up(&mut self, turn: &mut Turn, fault: Fault) {
        if matches!(self.stage, Stage::Aborting | Stage::Telling | Stage::Finished) {
            return;
        }
        let local = self.fault.take().filter(|fault| fault.cause == Cause::Local);
        let fault = local.unwrap_or(fault);
        if self.stage == Stage::Resuming {
            // The source runs again as soon as it hears of the abort: not while a device here may
            // be running with its state.
            self.held_abort = Some(fault.clone());
        } else if fault.cause != Cause::PeerAbort {
            self.peer.queue_last(Frame::Abort((&fault).into()));
        }
        self.stage = Stage::Aborting;
        self.peer.unwatch();
        // A cancel that came after the handover has begun the bound already.
        let cancelled = self.waits.get(Wait::Resume);
        self.waits = Waits::default();
        cancelled.into_iter().for_each(|by_ns| self.waits.set(Wait::WayBack, by_ns));
        self.waits.set_earlier(Wait::WayBack, turn.after(self.config.limits.cancel_ns));
        self.fault = Some(fault);
        for id in (0..self.devices.len() as u32).map(DeviceId) {
            self.drop_undecoded(id);
            let device = &mut self.devices[id.index()];
            for slot in device.epoch.window.clear() {
                self.slots.put(slot);
            }
            device.core.given_up();
            let touched = device.core.stage != DeviceStage::Expected;
            device.core.go(On::Abort);
            if touched {
                device.core.line.recover(turn, Way::Straight);
                // It cannot fail: the session is given up already.
                let _ = self.brought_back(id);
            }
        }
    }

    /// Ends the session once nothing is left to wait for.
    pub(super) fn end_if_done(&mut self, turn: &mut Turn) {
        let gone = self.devices.iter().all(|device| device.core.stage == DeviceStage::Gone);
        if gone {
            self.release_abort(turn);
        }
        match self.stage {
            Stage::Telling if self.peer.is_told() => self.end(turn, TargetEnding::Running),
            Stage::Aborting if gone => self.end_aborted(turn),
            Stage::Finished => {
                for device in &mut self.devices {
                    device.core.tell_if_back(turn, &device.epoch.state);
                }
            }
            _ => {}
        }
    }

    /// All devices are blank: the source may run again. If one could not be reset the source is
    /// told nothing, and will see that the session is over without a word.
    fn release_abort(&mut self, turn: &mut Turn) {
        if let Some(fault) = self.held_abort.take()
            && self.is_blank()
        {
            self.peer.queue_last(Frame::Abort((&fault).into()));
            self.peer.pump(turn);
        }
    }

    /// All devices are blank, or the bound is over: a thread that is in a driver is left there.
    pub(super) fn end_aborted(&mut self, turn: &mut Turn) {
        let fault = self.fault.clone().unwrap_or_else(unexplained);
        for device in &mut self.devices {
            let (ending, fault) = (EpochEnding::Aborted, Some(fault.clone()));
            device.core.ends(turn, &device.epoch.state, ending, fault);
        }
        self.end(turn, self.not_running(fault));
    }

    pub(super) fn end(&mut self, turn: &mut Turn, ending: TargetEnding) {
        self.stage = Stage::Finished;
        self.waits = Waits::default();
        for device in &mut self.devices {
            // Of one that runs only the data fd may still be open, for a moment.
            let late = ending != TargetEnding::Running && !device.core.line.is_at_rest();
            device.core.left_behind(late);
        }
        self.ending = Some(ending);
        turn.act(Action::Finish);
    }

    fn is_blank(&self) -> bool {
        self.devices.iter().all(|device| device.core.line.is_home())
    }

    /// How a session ends whose devices do not run, as they are now.
    fn not_running(&self, fault: Fault) -> TargetEnding {
        if self.is_blank() { TargetEnding::Blank(fault) } else { TargetEnding::NotBlank(fault) }
    }

    /// How a session ends whose thread is lost at this moment: what cannot be known any more is not
    /// claimed.
    pub fn ending_if_lost(&self, fault: Fault) -> TargetEnding {
        match (self.stage, &self.ending) {
            (_, Some(ending)) => ending.clone(),
            (Stage::Telling, None) => TargetEnding::Running,
            _ => self.not_running(fault),
        }
    }
}

/// The fault of a session that is given up is set with its stage.
pub(super) fn unexplained() -> Fault {
    debug_assert!(false, "a session was given up without a fault");
    Fault::session(Cause::Local, Observation::Engine, "the session was given up without a reason")
}
