//! A data frame on its way in: its header checked, its body into a slot, and through a worker if it
//! is compressed.

use super::epoch::AFTER_END;
use super::window::{Age, Entry};
use super::{Receiver, Stage};
use crate::ids::{DeviceId, SlotId, StreamId};
use crate::machine::{Action, Turn};
use crate::outcome::{Breach, Fault};
use crate::wire::{DataHeader, Encoding, Features, Kind, WireFault};

/// A body that waits for a slot to be decompressed into.
pub(super) type Undecoded = (DataHeader, SlotId);

impl Receiver {
    /// A data frame is announced.
    pub(super) fn data(
        &mut self,
        turn: &mut Turn,
        stream: StreamId,
        header: DataHeader,
    ) -> Result<(), Fault> {
        let admitted = self.admit_data(&header);
        let wanted = matches!(admitted, Ok(Some(Age::Current)));
        let id = header.place.device;
        if header.body_bytes == 0 {
            if wanted {
                self.moved(turn);
                self.take_in_order(turn, id)?;
            }
        } else if wanted && let Some(slot) = self.slots.take(id) {
            turn.act(Action::ReceiveBody { stream, header, slot });
        } else {
            // The window's credit is no larger than the device's share of slots.
            debug_assert!(!wanted, "{id}: credit was granted beyond its slots");
            turn.act(Action::SkipBody { stream });
        }
        match admitted? {
            Some(Age::Current) => self.devices[id.index()].core.count_chunk(&header),
            Some(_) => self.devices[id.index()].core.late_frames += 1,
            None => {}
        }
        Ok(())
    }

    /// Gives an announced data frame its place. None where the session is over.
    fn admit_data(&mut self, header: &DataHeader) -> Result<Option<Age>, Breach> {
        match self.stage {
            Stage::Active => {}
            Stage::Aborting | Stage::Finished => return Ok(None),
            Stage::Connect | Stage::Resuming | Stage::Telling => {
                let what = "the session is not at that point";
                return Err(Breach::Unexpected { kind: Kind::DATA, what });
            }
        }
        self.check_agreed(header)?;
        let age = self.admit(header.place, Kind::DATA)?;
        if age == Age::Current {
            let epoch = &mut self.devices[header.place.device.index()].epoch;
            if epoch.is_ended() {
                return Err(AFTER_END);
            }
            let entry = match header.encoding {
                Encoding::Zero => Entry::Chunk(*header, None),
                Encoding::Raw | Encoding::Zstd => Entry::Coming(*header),
            };
            epoch.window.insert(header.place, entry)?;
        }
        Ok(Some(age))
    }

    /// Whether a data frame is within what was agreed on in the handshake, which may be less than
    /// this side could take.
    fn check_agreed(&self, header: &DataHeader) -> Result<(), Breach> {
        let Some(accept) = &self.accept else { return Ok(()) };
        let (found, max) = (header.raw_bytes, accept.chunk_bytes);
        if found > max {
            return Err(WireFault::RawLength { found, max }.into());
        }
        if header.encoding == Encoding::Zstd && !accept.features.contains(Features::ZSTD) {
            return Err(WireFault::EncodingNotAgreed.into());
        }
        Ok(())
    }

    /// A body of the current epoch is in its slot.
    pub(super) fn body(
        &mut self,
        turn: &mut Turn,
        header: DataHeader,
        slot: SlotId,
    ) -> Result<(), Fault> {
        if header.encoding == Encoding::Zstd {
            self.undecoded.push_back((header, slot));
            self.decode_next(turn);
            return Ok(());
        }
        self.arrived(turn, header, slot)
    }

    /// A chunk is ready to be written, from this slot.
    fn arrived(&mut self, turn: &mut Turn, header: DataHeader, slot: SlotId) -> Result<(), Fault> {
        let id = header.place.device;
        self.moved(turn);
        self.devices[id.index()].epoch.window.arrived(header, slot);
        self.take_in_order(turn, id)
    }

    /// Gives waiting bodies to the workers, as far as there are slots to decompress into.
    pub(super) fn decode_next(&mut self, turn: &mut Turn) {
        while !self.undecoded.is_empty()
            && let Some(into) = self.slots.take_spare()
            && let Some((header, slot)) = self.undecoded.pop_front()
        {
            turn.act(Action::Decode { header, slot, into });
        }
    }

    /// Gives back the slots of a device's bodies that no worker has taken.
    pub(super) fn drop_undecoded(&mut self, id: DeviceId) {
        self.undecoded.retain(|(header, slot)| {
            let stays = header.place.device != id;
            if !stays {
                self.slots.put(*slot);
            }
            stays
        });
    }

    /// A worker is through with a body of the current epoch.
    pub(super) fn decoded(
        &mut self,
        turn: &mut Turn,
        header: DataHeader,
        slot: SlotId,
        into: SlotId,
        result: Result<(), Fault>,
    ) -> Result<(), Fault> {
        if let Err(fault) = result {
            self.slots.put(slot);
            self.slots.put(into);
            return Err(fault);
        }
        self.slots.trade(slot, into);
        self.arrived(turn, header, into)
    }
}
