//! How a session ends on the source.

use super::stage::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, On, Turn, Wait, Waits, Way, over};
use crate::outcome::{Cause, EpochEnding, Fault, Observation, SourceEnding};
use crate::wire::Frame;

impl Sender {
    /// Gives the session up: the peer is told, every device is brought back to RUNNING. The first
    /// fault is the one that counts.
    pub(super) fn abort(&mut self, turn: &mut Turn, fault: Fault) {
        match self.stage {
            Stage::Leaving | Stage::Aborting | Stage::Finished => return,
            // The target was not told yet: it cannot run.
            Stage::Handover if self.peer.take_back(&Frame::Handover) => {}
            // After the handover only the target's own word that it does not run lets the source
            // run again; a cancel comes too late.
            Stage::Handover if fault.cause == Cause::PeerAbort => {}
            Stage::Handover if fault.cause == Cause::Cancelled => {
                // It changes nothing of what is true; it bounds how long that may stay unknown.
                let cancel_ns = self.config.limits.cancel_ns;
                self.waits.set_earlier(Wait::Confirm, turn.after(cancel_ns / 2));
                self.waits.set_earlier(Wait::LettingGo, turn.after(cancel_ns));
                self.fault.get_or_insert(fault);
                return;
            }
            Stage::Handover => {
                self.leave(turn, Some(fault));
                return;
            }
            Stage::Connect | Stage::Active => {}
        }
        self.stage = Stage::Aborting;
        self.peer.unwatch();
        let cancel_ns = self.config.limits.cancel_ns;
        // A cancel that came after the handover has begun the bound already.
        let cancelled = self.waits.get(Wait::LettingGo);
        self.waits = Waits::default();
        self.waits.set(Wait::WayBack, turn.after(cancel_ns));
        cancelled.into_iter().for_each(|by_ns| self.waits.set_earlier(Wait::WayBack, by_ns));
        let barrier = self.switchover && self.devices.len() > 1;
        if barrier {
            self.waits.set(Wait::Barrier, turn.after(cancel_ns / 4));
        }
        if fault.cause != Cause::PeerAbort {
            self.peer.queue_last(Frame::Abort((&fault).into()));
        }
        self.fault = Some(fault);
        for id in (0..self.devices.len() as u32).map(DeviceId) {
            let device = &mut self.devices[id.index()];
            for slot in device.epoch.queue.drop_waiting() {
                self.slots.put(slot);
            }
            device.core.given_up();
            let way = if barrier { device.way_back() } else { Way::Straight };
            if device.core.stage == DeviceStage::Idle {
                device.core.go(On::Abort);
            } else {
                // It cannot fail: the session is given up already.
                let _ = self.bring_back(turn, id, On::Abort, way);
            }
        }
    }

    /// Ends the session once nothing is left to wait for.
    pub(super) fn end_if_done(&mut self, turn: &mut Turn) {
        let gone = self.devices.iter().all(|device| device.core.stage == DeviceStage::Gone);
        match self.stage {
            Stage::Leaving if gone => self.end_left(turn),
            Stage::Aborting => {
                self.release(turn);
                self.tell_gone(turn);
                // The guest waits for its devices alone: the abort frame follows when a stream takes it.
                if gone {
                    self.end_aborted(turn);
                }
            }
            Stage::Finished => {
                for device in &mut self.devices {
                    device.core.tell_if_back(turn, &device.epoch.state);
                }
            }
            _ => {}
        }
    }

    /// The target's word did not come in time: why nobody waits for it any longer.
    pub(super) fn unconfirmed(&mut self) -> Fault {
        self.fault.take().unwrap_or_else(|| {
            let owed = "the target was told to run and has not said whether it does";
            over("confirm_limit", self.config.limits.confirm_ns, None, owed)
        })
    }

    /// The devices that are back are told of; nothing that others are waited for changes for them.
    fn tell_gone(&mut self, turn: &mut Turn) {
        let Some(fault) = self.fault.clone() else { return };
        for index in 0..self.devices.len() {
            if self.devices[index].core.stage == DeviceStage::Gone {
                self.tell_aborted(turn, DeviceId(index as u32), &fault);
            }
        }
    }

    pub(super) fn tell_aborted(&mut self, turn: &mut Turn, id: DeviceId, fault: &Fault) {
        let device = &mut self.devices[id.index()];
        let (ending, fault) = (EpochEnding::Aborted, Some(fault.clone()));
        device.core.ends(turn, &device.epoch.state, ending, fault);
    }

    /// All devices are back, or the bound is over: a thread that is in a driver is left there.
    pub(super) fn end_aborted(&mut self, turn: &mut Turn) {
        let fault = self.fault.clone().unwrap_or_else(unexplained);
        for index in 0..self.devices.len() {
            self.tell_aborted(turn, DeviceId(index as u32), &fault);
        }
        self.end(turn, self.not_handed_over(fault));
    }

    /// The devices are let go, or the bound is over: a thread that is in a driver is left there.
    pub(super) fn end_left(&mut self, turn: &mut Turn) {
        let fault = self.fault.clone();
        let (epoch, session) = match fault.clone() {
            None => (EpochEnding::Complete, SourceEnding::HandedOver),
            Some(fault) => (EpochEnding::Unconfirmed, SourceEnding::Unconfirmed(fault)),
        };
        for device in &mut self.devices {
            device.core.ends(turn, &device.epoch.state, epoch, fault.clone());
        }
        self.end(turn, session);
    }

    fn end(&mut self, turn: &mut Turn, ending: SourceEnding) {
        self.stage = Stage::Finished;
        self.waits = Waits::default();
        for device in &mut self.devices {
            let late = device.core.stage != DeviceStage::Gone;
            device.core.left_behind(late);
        }
        self.ending = Some(ending);
        turn.act(Action::Finish);
    }

    /// How a session ends that did not hand over, as the devices are now.
    fn not_handed_over(&self, fault: Fault) -> SourceEnding {
        if self.devices.iter().all(|device| device.core.line.is_home()) {
            SourceEnding::Returned(fault)
        } else {
            SourceEnding::NotReturned(fault)
        }
    }

    /// How a session ends whose thread is lost at this moment: what cannot be known any more is not
    /// claimed.
    pub fn ending_if_lost(&self, fault: Fault) -> SourceEnding {
        match (self.stage, &self.ending, &self.fault) {
            (_, Some(ending), _) => ending.clone(),
            (Stage::Leaving, None, None) => SourceEnding::HandedOver,
            (Stage::Handover | Stage::Leaving, None, _) => SourceEnding::Unconfirmed(fault),
            _ => self.not_handed_over(fault),
        }
    }
}

/// The fault of a session that is given up is set with its stage.
fn unexplained() -> Fault {
    debug_assert!(false, "a session was given up without a fault");
    Fault::session(Cause::Local, Observation::Engine, "the session was given up without a reason")
}
