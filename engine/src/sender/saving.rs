//! Reading a device's state: slots out to its data fd, chunks back, each of them zero, raw or off
//! to a compression worker.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::compress::policy::{Choice, QueueView};
use crate::ids::{DeviceId, Epoch, SlotId};
use crate::limits::HEADER_BYTES;
use crate::machine::{Action, ChunkKey, EncodeResult, Outgoing, ReadResult};
use crate::outcome::Operation;
use crate::wire::{DataHeader, DataPhase, Encoding};

/// Reads that wait in a device's thread, so that it never waits for the machine: the one in flight
/// and those behind it.
const READ_AHEAD: usize = 4;

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
    /// Gives slots to the devices that have something to read.
    pub(super) fn ask_for_reads(&mut self, actions: &mut Vec<Action>) {
        if self.stage != Stage::Active {
            return;
        }
        for device in &mut self.devices {
            let phase = match device.stage {
                DeviceStage::PreCopy
                | DeviceStage::ToP2p
                | DeviceStage::AtP2p
                | DeviceStage::Stopping => DataPhase::PreCopy,
                DeviceStage::StopCopy => DataPhase::StopCopy,
                _ => continue,
            };
            let readable = device.line.is_attached()
                && device.line.is_well()
                && !device.drained
                && !device.ended;
            while readable && device.reads < READ_AHEAD {
                let Some(slot) = self.slots.take_for_device(device.held) else { break };
                device.held += 1;
                device.reads += 1;
                actions.push(Action::Read { device: device.line.id(), slot, phase });
            }
        }
    }

    pub(super) fn read(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        epoch: Epoch,
        slot: SlotId,
        result: ReadResult,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        device.reads -= 1;
        let dead = epoch != device.epoch || !device.line.is_well() || self.stage != Stage::Active;
        match result {
            ReadResult::Chunk { bytes, zero, hash } if !dead => {
                device.fd_bytes += u64::from(bytes);
                device.promised = false;
                device.harmless = 0;
                if !device.drained {
                    self.flows(now_ns, id);
                }
                self.chunk(now_ns, id, slot, bytes, zero, hash, actions);
                self.devices[id.index()].initial_read_back();
                return;
            }
            ReadResult::Empty if !dead => {
                if device.stage == DeviceStage::PreCopy && !device.drained {
                    device.drained = true;
                    if !device.promised {
                        device.ask_at_ns = Some(now_ns);
                    } else {
                        let at = now_ns + self.config.precopy_poll_ns / 4;
                        device.ask_at_ns = Some(device.ask_at_ns.map_or(at, |t| t.min(at)));
                    }
                } else if device.stage != DeviceStage::StopCopy {
                    device.drained = true;
                }
            }
            ReadResult::End if !dead => device.ended = true,
            ReadResult::Failed(errno) if !dead => {
                device.read_failed(errno);
            }
            _ => {}
        }
        if epoch == device.epoch {
            device.initial_read_back();
        }
        device.held -= 1;
        self.slots.put(slot);
    }

    /// The data fd of a drained device is dead: why, the device's state tells.
    pub(super) fn hung_up(&mut self, id: DeviceId, epoch: Epoch) {
        let device = &mut self.devices[id.index()];
        if epoch == device.epoch && device.line.is_attached() && self.stage == Stage::Active {
            device.line.suspect(Operation::Poll, None);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a read's result, spread out")]
    fn chunk(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        slot: SlotId,
        bytes: u32,
        zero: bool,
        hash: u64,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        let offset = device.digest.bytes();
        device.digest.chunk(hash, bytes);
        let mut header = DataHeader {
            place: device.place(),
            offset,
            encoding: Encoding::Raw,
            raw_bytes: bytes,
            body_bytes: bytes,
            body_hash: hash,
            raw_hash: hash,
        };
        if zero {
            header.encoding = Encoding::Zero;
            header.body_bytes = 0;
            header.body_hash = crate::wire::chunk_hash(&[]);
            device.held -= 1;
            self.slots.put(slot);
            self.chunk_ready(id, header, None);
            return;
        }
        let view = QueueView {
            queued_wire_bytes: self.queued_wire_bytes + self.under_way_wire_bytes,
            streams_idle: self.links.idle().is_some(),
            encoding_now: self.encoding,
            incompressible_streak: self.devices[id.index()].incompressible,
        };
        match self.controller.choose(now_ns, &view) {
            Choice::Raw => self.chunk_ready(id, header, Some(slot)),
            Choice::Zstd { level, probe } => {
                self.encoding += 1;
                self.devices[id.index()].encoding.insert(header.place.sequence, (header, level));
                let chunk = ChunkKey {
                    device: id,
                    epoch: header.place.epoch,
                    sequence: header.place.sequence,
                };
                self.unencoded.push_back(Unencoded { chunk, slot, bytes, level, probe });
                self.encode_next(actions);
            }
        }
    }

    /// Gives waiting chunks to the workers, as far as there are slots for what they make of them.
    fn encode_next(&mut self, actions: &mut Vec<Action>) {
        while let Some(Unencoded { chunk, slot, bytes, level, probe }) = self.unencoded.pop_front()
        {
            let device = &mut self.devices[chunk.device.index()];
            if device.epoch != chunk.epoch {
                self.encoding -= 1;
                device.held -= 1;
                self.slots.put(slot);
                continue;
            }
            let Some(into) = self.slots.take_spare() else {
                self.unencoded.push_front(Unencoded { chunk, slot, bytes, level, probe });
                return;
            };
            actions.push(Action::Encode { chunk, slot, into, bytes, level, probe });
        }
    }

    /// Gives back the slots of chunks that no worker has taken: the session is aborted.
    pub(super) fn drop_unencoded(&mut self) {
        for unencoded in std::mem::take(&mut self.unencoded) {
            self.encoding -= 1;
            self.devices[unencoded.chunk.device.index()].held -= 1;
            self.slots.put(unencoded.slot);
        }
    }

    pub(super) fn encoded(
        &mut self,
        now_ns: u64,
        chunk: ChunkKey,
        slot: SlotId,
        into: SlotId,
        result: EncodeResult,
        actions: &mut Vec<Action>,
    ) {
        self.take_encoded(now_ns, chunk, slot, into, result);
        self.encode_next(actions);
    }

    fn take_encoded(
        &mut self,
        now_ns: u64,
        chunk: ChunkKey,
        slot: SlotId,
        into: SlotId,
        result: EncodeResult,
    ) {
        self.encoding -= 1;
        let device = &mut self.devices[chunk.device.index()];
        let header = (chunk.epoch == device.epoch)
            .then(|| device.encoding.remove(&chunk.sequence))
            .flatten();
        let Some((mut header, level)) = header else {
            device.held -= 1;
            self.slots.put_spare(into);
            self.slots.put(slot);
            return;
        };
        let raw_bytes = u64::from(header.raw_bytes);
        match result {
            EncodeResult::Compressed { body_bytes, body_hash, worker_ns } => {
                device.incompressible = 0;
                header.encoding = Encoding::Zstd;
                header.body_bytes = body_bytes;
                header.body_hash = body_hash;
                let wire_bytes = u64::from(body_bytes);
                self.controller.encoded(now_ns, level, raw_bytes, wire_bytes, worker_ns);
                self.slots.put_spare(slot);
                self.chunk_ready(chunk.device, header, Some(into));
            }
            EncodeResult::Incompressible { worker_ns } => {
                device.incompressible = device.incompressible.saturating_add(1);
                self.controller.encoded(now_ns, level, raw_bytes, raw_bytes, worker_ns);
                self.slots.put_spare(into);
                self.chunk_ready(chunk.device, header, Some(slot));
            }
        }
    }

    fn chunk_ready(&mut self, id: DeviceId, header: DataHeader, slot: Option<SlotId>) {
        self.queued_wire_bytes += u64::from(header.body_bytes) + HEADER_BYTES as u64;
        self.devices[id.index()].enqueue(header.place.sequence, Outgoing::Data { header, slot });
    }
}
