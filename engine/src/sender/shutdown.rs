//! The end of a session that does not complete.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Finish};
use crate::outcome::{Cause, EpochEnding, Fault, Observation};
use crate::wire::Frame;

impl Sender {
    /// Gives the session up: the peer is told, every device is brought back to RUNNING. The first
    /// fault is the one that counts.
    pub(super) fn abort(&mut self, now_ns: u64, fault: Fault, actions: &mut Vec<Action>) {
        match self.stage {
            Stage::Leaving { .. } | Stage::Aborting { .. } | Stage::Finished => return,
            // The target was not told yet: it cannot run.
            Stage::Handover if self.links.take_back(&Frame::Handover) => {}
            // After the handover only the target's own word that it does not run lets the source
            // run again; a cancel comes too late.
            Stage::Handover
                if fault.observed == Observation::Peer && fault.cause == Cause::PeerAbort => {}
            Stage::Handover if fault.cause == Cause::Cancelled => return,
            Stage::Handover => {
                self.unconfirmed(now_ns, fault);
                return;
            }
            Stage::Connect | Stage::Active => {}
        }
        self.stage = Stage::Aborting { until_ns: now_ns + self.config.abort_bound_ns };
        if fault.cause != Cause::PeerAbort {
            self.links.queue_last(Frame::Abort(fault.clone()));
        }
        self.drop_unencoded();
        for index in 0..self.devices.len() {
            self.drop_waiting(DeviceId(index as u32));
            let device = &mut self.devices[index];
            if device.stage == DeviceStage::Idle {
                device.stage = DeviceStage::Gone;
            } else {
                device.stage = DeviceStage::Recovering;
                let id = device.line.id();
                self.recover(now_ns, id, actions);
            }
        }
        self.fault = Some(fault);
    }

    pub(super) fn finish_if_done(&mut self, actions: &mut Vec<Action>) {
        match self.stage {
            Stage::Leaving { .. } => self.complete_if_gone(actions),
            Stage::Aborting { .. } => {
                self.tell_gone(actions);
                let back = self.devices.iter().all(|device| device.stage == DeviceStage::Gone);
                let told = self.links.all_lost()
                    || (self.links.control_is_out() && !self.links.any_sending());
                if back && told {
                    self.aborted(actions);
                }
            }
            _ => {}
        }
    }

    /// All devices are back, or the bound is over: whoever still holds an operation is left with
    /// it.
    pub(super) fn aborted(&mut self, actions: &mut Vec<Action>) {
        let fault = self.fault.clone();
        if let Some(fault) = &fault {
            for index in 0..self.devices.len() {
                self.tell_aborted(DeviceId(index as u32), fault, actions);
            }
        }
        self.end(Finish { ending: EpochEnding::Aborted, fault }, actions);
    }

    /// The devices that are back are told of; nothing that others are waited for changes for them.
    fn tell_gone(&mut self, actions: &mut Vec<Action>) {
        let Some(fault) = self.fault.clone() else { return };
        for index in 0..self.devices.len() {
            if self.devices[index].stage == DeviceStage::Gone {
                self.tell_aborted(DeviceId(index as u32), &fault, actions);
            }
        }
    }

    /// The device's completion, once.
    pub(super) fn tell_aborted(&mut self, id: DeviceId, fault: &Fault, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        if device.report.ending.is_none() {
            actions.push(device.ends(EpochEnding::Aborted, Some(fault.clone())));
        }
    }
}
