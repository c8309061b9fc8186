//! Chunks on their way through a compression worker.

use super::{Sender, Stage};
use crate::compress::policy::{Choice, Sample};
use crate::ids::{DeviceId, SlotId};
use crate::machine::{Action, ChunkKey, EncodeResult, Turn};
use crate::wire::Encoding;

impl Sender {
    /// Offers the chunks that wait for a stream to the workers that have nothing to do.
    pub(super) fn offer_chunks(&mut self, turn: &mut Turn) {
        if self.stage != Stage::Active {
            return;
        }
        self.hold_chunks();
        while self.slots.with_workers() < self.encoding_max()
            && let Some((id, ahead)) = self.next_offer()
        {
            let device = &mut self.devices[id.index()];
            let Some((sequence, _)) = device.epoch.queue.offered() else { return };
            match self.controller.offer(ahead, device.incompressible) {
                Choice::Wait => return,
                Choice::Raw => device.epoch.queue.leave_raw(sequence),
                Choice::Zstd { level, probe, sample } => {
                    let Some(into) = self.slots.take_spare() else { return };
                    let Some((header, slot)) = device.epoch.queue.encode(sequence, level) else {
                        return;
                    };
                    let chunk = ChunkKey { device: id, epoch: header.place.epoch, sequence };
                    let bytes = header.raw_bytes;
                    turn.act(Action::Encode { chunk, slot, into, bytes, level, probe, sample });
                }
            }
        }
    }

    fn hold_chunks(&mut self) {
        let held = self.controller.holds();
        for device in &mut self.devices {
            device.epoch.queue.hold(held);
        }
    }

    /// How many chunks may be with the workers. Where chunks wait for a worker each has its next one
    /// with it. Else that would bind it too early.
    fn encoding_max(&self) -> usize {
        let queued = if self.controller.holds() { 2 } else { 1 };
        self.config.workers * queued
    }

    /// The device of the chunk that is offered next, and how many frames go out before it: where
    /// chunks wait for a worker the device that sends next, else the one that has most waiting.
    fn next_offer(&self) -> Option<(DeviceId, usize)> {
        let offers = self.devices.iter().filter_map(|device| {
            let (_, ahead) = device.epoch.queue.offered()?;
            Some((device, ahead))
        });
        let others = self.devices.iter().filter(|device| device.epoch.queue.is_waiting()).count();
        let next = match self.controller.holds() {
            true => offers.min_by_key(|(device, _)| (device.served, device.core.id()))?,
            false => offers.max_by_key(|(device, ahead)| (*ahead, device.core.id()))?,
        };
        let (device, ahead) = next;
        let sending = usize::from(self.peer.idle().is_none());
        Some((device.core.id(), (ahead + sending) * others.max(1)))
    }

    /// A worker is through with a chunk of the current epoch.
    pub(super) fn encoded(
        &mut self,
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
        let raw_bytes = header.raw_bytes;
        let (worker_ns, cpu_ns, wire_bytes) = match result {
            EncodeResult::Compressed { body_bytes, body_hash, worker_ns, cpu_ns } => {
                device.incompressible = 0;
                header.encoding = Encoding::Zstd;
                header.body_bytes = body_bytes;
                header.body_hash = body_hash;
                device.epoch.queue.data(header, Some(into));
                self.slots.trade(slot, into);
                (worker_ns, cpu_ns, body_bytes)
            }
            EncodeResult::Incompressible { worker_ns, cpu_ns } => {
                device.incompressible = device.incompressible.saturating_add(1);
                device.epoch.queue.data(header, Some(slot));
                self.slots.put(into);
                (worker_ns, cpu_ns, raw_bytes)
            }
        };
        self.controller.encoded(level, Sample { raw_bytes, wire_bytes, cpu_ns }, worker_ns);
    }
}
