//! The end of a session that does not complete.

use super::device::Stage as DeviceStage;
use super::{Receiver, Stage};
use crate::ids::DeviceId;
use crate::machine::{Action, Finish};
use crate::outcome::{Cause, EpochEnding, Fault};
use crate::wire::Frame;

impl Receiver {
    /// The session cannot go on because of the peer, a stream, or the embedder. After the handover
    /// none of these counts any more: the source has let go, the state is whole, the device runs.
    pub(super) fn abort(&mut self, now_ns: u64, fault: Fault, actions: &mut Vec<Action>) {
        match self.stage {
            Stage::Connect | Stage::Active => self.lost(now_ns, fault, actions),
            Stage::Resuming | Stage::Telling { .. } => {
                tracing::warn!(%fault, "after the handover; the devices go on to RUNNING");
            }
            Stage::Aborting { .. } | Stage::Finished => {}
        }
    }

    /// The session cannot go on, whatever the stage: a device has lost its state, or worse.
    pub(super) fn lost(&mut self, now_ns: u64, fault: Fault, actions: &mut Vec<Action>) {
        if matches!(self.stage, Stage::Aborting { .. } | Stage::Telling { .. } | Stage::Finished) {
            return;
        }
        let handed_over = self.stage == Stage::Resuming;
        self.stage = Stage::Aborting { until_ns: now_ns + self.config.abort_bound_ns };
        if handed_over {
            // The source runs again as soon as it hears of the abort: not while a device here may
            // be running with its state.
            self.word = Some(fault.clone());
        } else if fault.cause != Cause::PeerAbort {
            self.links.queue_last(Frame::Abort(fault.clone()));
        }
        self.fault = Some(fault);
        for index in 0..self.devices.len() {
            let slots = self.devices[index].window.clear();
            self.devices[index].held -= slots.len();
            for slot in slots {
                self.slots.put(slot);
            }
            let device = &mut self.devices[index];
            if device.stage == DeviceStage::Expected {
                device.stage = DeviceStage::Gone;
            } else {
                device.stage = DeviceStage::Recovering;
                device.line.recover(actions);
                self.recovered(now_ns, DeviceId(index as u32), actions);
            }
        }
        self.decode_next(actions);
    }

    pub(super) fn finish_if_done(&mut self, actions: &mut Vec<Action>) {
        let gone = self.devices.iter().all(|device| device.stage == DeviceStage::Gone);
        if gone {
            self.give_word(actions);
        }
        let told =
            self.links.all_lost() || (self.links.control_is_out() && !self.links.any_sending());
        match self.stage {
            Stage::Telling { .. } if told => self.complete(actions),
            Stage::Aborting { .. } if told && gone => self.aborted(actions),
            _ => {}
        }
    }

    /// All devices are blank: the source may run again. If one could not be reset the source is
    /// told nothing, and will see that the session is over without a word.
    fn give_word(&mut self, actions: &mut Vec<Action>) {
        if let Some(fault) = self.word.take()
            && self.devices.iter().all(|device| device.blank)
        {
            self.links.queue_last(Frame::Abort(fault));
            self.links.pump(actions);
        }
    }

    pub(super) fn aborted(&mut self, actions: &mut Vec<Action>) {
        let fault = self.fault.clone();
        for device in self.devices.iter_mut().filter(|device| device.report.ending.is_none()) {
            actions.push(device.ends(EpochEnding::Aborted, fault.clone()));
        }
        self.end(Finish { ending: EpochEnding::Aborted, fault }, actions);
    }
}
