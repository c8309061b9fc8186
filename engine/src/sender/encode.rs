//! Chunks on their way through a compression worker.

use super::Sender;
use crate::ids::{DeviceId, SlotId};
use crate::machine::{Action, ChunkKey, EncodeResult, Turn};
use crate::wire::{DataHeader, Encoding};

/// A chunk that waits for a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unencoded {
    chunk: ChunkKey,
    slot: SlotId,
    bytes: u32,
    level: i32,
    probe: bool,
}

impl Sender {
    /// Chunks that are with a worker or wait for one.
    pub(super) fn encoding_now(&self) -> u32 {
        (self.unencoded.len() + self.slots.with_workers()) as u32
    }

    pub(super) fn encode(
        &mut self,
        turn: &mut Turn,
        header: DataHeader,
        slot: SlotId,
        level: i32,
        probe: bool,
    ) {
        let (place, bytes) = (header.place, header.raw_bytes);
        self.devices[place.device.index()].epoch.queue.encode(header, level);
        let chunk = ChunkKey { device: place.device, epoch: place.epoch, sequence: place.sequence };
        self.unencoded.push_back(Unencoded { chunk, slot, bytes, level, probe });
        self.encode_next(turn);
    }

    /// Gives waiting chunks to the workers, as far as there are slots for what they make of them.
    pub(super) fn encode_next(&mut self, turn: &mut Turn) {
        while !self.unencoded.is_empty()
            && let Some(into) = self.slots.take_spare()
            && let Some(next) = self.unencoded.pop_front()
        {
            let Unencoded { chunk, slot, bytes, level, probe } = next;
            turn.act(Action::Encode { chunk, slot, into, bytes, level, probe });
        }
    }

    /// Gives back the slots of a device's chunks that no worker has taken.
    pub(super) fn drop_unencoded(&mut self, id: DeviceId) {
        self.unencoded.retain(|waiting| {
            let stays = waiting.chunk.device != id;
            if !stays {
                self.slots.put(waiting.slot);
            }
            stays
        });
    }

    /// A worker is through with a chunk of the current epoch.
    pub(super) fn encoded(
        &mut self,
        turn: &mut Turn,
        chunk: ChunkKey,
        slot: SlotId,
        into: SlotId,
        result: EncodeResult,
    ) {
        let device = &mut self.devices[chunk.device.index()];
        let Some((mut header, level)) = device.epoch.queue.encoded(chunk.sequence) else {
            debug_assert!(false, "{chunk:?} was not with a worker");
            return;
        };
        let raw_bytes = u64::from(header.raw_bytes);
        let (worker_ns, wire_bytes) = match result {
            EncodeResult::Compressed { body_bytes, body_hash, worker_ns } => {
                device.incompressible = 0;
                header.encoding = Encoding::Zstd;
                header.body_bytes = body_bytes;
                header.body_hash = body_hash;
                device.epoch.queue.data(header, Some(into));
                self.slots.trade(slot, into);
                (worker_ns, u64::from(body_bytes))
            }
            EncodeResult::Incompressible { worker_ns } => {
                device.incompressible = device.incompressible.saturating_add(1);
                device.epoch.queue.data(header, Some(slot));
                self.slots.put(into);
                (worker_ns, raw_bytes)
            }
        };
        self.controller.encoded(turn.now_ns, level, raw_bytes, wire_bytes, worker_ns);
    }
}
