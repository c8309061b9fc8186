//! A discarded epoch on the target: its frames and slots are dropped, the device is reset and goes
//! to RESUMING anew. Only then, and only when every slot of the old epoch has come back, may the
//! source send more than the discard frame itself: so bytes of two epochs never meet.

use super::Receiver;
use super::epoch::Epoch;
use super::stage::Stage as DeviceStage;
use crate::ids::DeviceId;
use crate::limits::DISCARDS_MAX;
use crate::machine::{On, Turn, Way};
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::wire::{DevicePlace, Discard};

impl Receiver {
    pub(super) fn discard(
        &mut self,
        turn: &mut Turn,
        place: DevicePlace,
        discard: Discard,
    ) -> Result<(), Fault> {
        let (id, max) = (place.device, DISCARDS_MAX);
        if place.epoch.0 > max {
            return Err(Fault::breach(Breach::Discards { device: id, max }));
        }
        self.drop_undecoded(id);
        let device = &mut self.devices[id.index()];
        let message = format!(
            "the source discarded {} of the device after {} bytes",
            device.epoch.state.number, discard.discarded_bytes
        );
        let fault = Fault::device(id, Cause::DeviceReset, Observation::Peer, None, message);
        let next = Epoch::after_discard(place.epoch, device.epoch.window.size());
        let closed = std::mem::replace(&mut device.epoch, next).close();
        device.core.discarded(turn, &closed.state, fault);
        closed.slots.into_iter().for_each(|slot| self.slots.put(slot));
        device.core.go(On::Discard);
        device.core.line.recover(turn, Way::Straight);
        self.brought_back(id)
    }

    /// Does what was to follow once a device's way back is at its end.
    pub(super) fn brought_back(&mut self, id: DeviceId) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        let Some(arrival) = device.core.line.arrived() else { return Ok(()) };
        if device.core.stage == DeviceStage::Recovering {
            device.core.go(On::Back);
        } else if !arrival.reached {
            return Err(Fault::device(
                id,
                Cause::DeviceError,
                Observation::StateCheck,
                None,
                "the target's device could not be reset after a discard",
            ));
        }
        Ok(())
    }

    pub(super) fn detached(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        stuck: bool,
    ) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        device.core.detached(turn, stuck);
        if stuck && device.core.stage == DeviceStage::Discarding {
            // Its slots do not come back, and without them no byte of the new epoch may be taken.
            return Err(Fault::device(
                id,
                Cause::DeviceFailure,
                Observation::Write,
                None,
                "the driver did not give back a write of the discarded epoch within the bound, so \
                 that the device could not be loaded anew",
            ));
        }
        self.brought_back(id)
    }
}
