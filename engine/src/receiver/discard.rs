//! A discarded epoch on the target: its frames and slots are dropped, the device is reset and goes
//! to RESUMING anew. Only then, and only when every slot of the old epoch has come back, may the
//! source send more than the discard frame itself: so bytes of two epochs never meet.

use super::Receiver;
use super::device::Stage as DeviceStage;
use super::window::Entry;
use crate::ids::DeviceId;
use crate::machine::Action;
use crate::outcome::{Cause, EpochEnding, Fault, Observation};
use crate::wire::{DevicePlace, Discard, Frame};

impl Receiver {
    pub(super) fn discard(
        &mut self,
        now_ns: u64,
        place: DevicePlace,
        discard: Discard,
        actions: &mut Vec<Action>,
    ) {
        let id = place.device;
        let device = &mut self.devices[id.index()];
        let fault = Fault::device(
            id,
            Cause::DeviceReset,
            Observation::Peer,
            None,
            format!(
                "the source discarded {} of the device after {} bytes",
                device.epoch, discard.discarded_bytes
            ),
        );
        actions.push(device.completion(EpochEnding::Restarted, Some(fault)));
        let slots = device.window.clear();
        device.held -= slots.len();
        for slot in slots {
            self.slots.put(slot);
        }
        device.start_epoch(place.epoch);
        // The discard frame is the new epoch's first: taken, and done with.
        let frame = Frame::Discard(place, discard);
        if let Err(breach) = device.window.insert(place, Entry::Frame(frame)) {
            self.abort(now_ns, Fault::breach(breach), actions);
            return;
        }
        device.window.take();
        device.window.finish_one();
        device.stage = DeviceStage::Discarding;
        device.line.recover(actions);
        self.recovered(now_ns, id, actions);
    }

    /// Goes to RESUMING once the device is reset and its old slots are back.
    pub(super) fn discard_goes_on(&mut self, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &self.devices[id.index()];
        let ready =
            device.stage == DeviceStage::Discarding && device.line.is_free() && device.held == 0;
        if ready {
            self.enter_resuming(id, actions);
        }
    }

    /// Does what was to follow once a device's way back is at its end.
    pub(super) fn recovered(&mut self, now_ns: u64, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        let Some(arrival) = device.line.arrived() else { return };
        device.blank = arrival.reached;
        device.report.state = arrival.state;
        if device.stage != DeviceStage::Discarding {
            device.stage = DeviceStage::Gone;
        } else if arrival.reached {
            self.discard_goes_on(id, actions);
        } else {
            let fault = Fault::device(
                id,
                Cause::DeviceError,
                Observation::StateCheck,
                None,
                "the target's device could not be reset after a discard",
            );
            self.abort(now_ns, fault, actions);
        }
    }

    pub(super) fn detached(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        stuck: bool,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        device.line.detached(actions);
        device.report.stuck |= stuck;
        if stuck && device.stage == DeviceStage::Discarding {
            // Its slots do not come back, and without them no byte of the new epoch may be taken.
            let fault = Fault::device(
                id,
                Cause::DeviceFailure,
                Observation::Write,
                None,
                "the driver did not give back a write of the discarded epoch within the bound, so \
                 that the device could not be loaded anew",
            );
            self.lost(now_ns, fault, actions);
        }
        self.recovered(now_ns, id, actions);
    }
}
