//! Reading a device's state: slots out to its data fd, chunks back.

use super::stage::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::{DeviceId, SlotId};
use crate::limits::ENCODED_CHUNK_BYTES;
use crate::machine::{Action, ReadResult, Turn};
use crate::outcome::Operation;
use crate::wire::{DataHeader, Encoding, chunk_hash};

/// Reads that were asked for: the one in flight, and one that follows it at once.
const READ_AHEAD: usize = 2;

/// The first reads of a data fd are short, so that the other stages begin early.
const FIRST_BYTES: u64 = 128 << 10;

/// So many raw chunks in a row make it likely that the next one goes raw, too.
const RAW_IN_A_ROW: u32 = 8;

/// A chunk that a read has put into its slot.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    slot: SlotId,
    bytes: u32,
    zero: bool,
    hash: u64,
}

impl Sender {
    /// Gives slots to the devices that have something to read.
    pub(super) fn ask_for_reads(&mut self, turn: &mut Turn) {
        if self.stage != Stage::Active {
            return;
        }
        let most = self.read_bytes_max();
        for device in &mut self.devices {
            let id = device.core.id();
            let bytes = most.min(device.epoch.reading.fd_bytes.max(FIRST_BYTES)) as u32;
            let Some(phase) = device.readable() else { continue };
            while device.epoch.reading.reads < READ_AHEAD {
                let Some(slot) = self.slots.take(id) else { break };
                device.epoch.reading.reads += 1;
                turn.act(Action::Read { device: id, slot, bytes, phase });
            }
        }
    }

    /// How long a read may be. What goes raw is read in large chunks, which cost least; what is to be
    /// compressed in smaller ones, which stay in a core's cache.
    fn read_bytes_max(&self) -> u64 {
        let whole = u64::from(self.config.chunk_bytes);
        let raw = self.controller.is_raw() || self.raw_in_a_row >= RAW_IN_A_ROW;
        if raw { whole } else { whole.min((whole / 4).max(ENCODED_CHUNK_BYTES as u64)) }
    }

    /// A data frame leaves: what that tells of the next chunks.
    pub(super) fn leaves(&mut self, encoding: Encoding) {
        match encoding {
            Encoding::Raw => self.raw_in_a_row = self.raw_in_a_row.saturating_add(1),
            Encoding::Zstd => self.raw_in_a_row = 0,
            Encoding::Zero => {}
        }
    }

    /// A read of the current epoch ended.
    pub(super) fn read(&mut self, turn: &mut Turn, id: DeviceId, slot: SlotId, result: ReadResult) {
        let device = &mut self.devices[id.index()];
        device.epoch.reading.reads -= 1;
        if matches!(result, ReadResult::Chunk { .. } | ReadResult::End) {
            device.core.progress.moved();
            if device.core.stage == DeviceStage::StopCopy {
                device.pace.read(turn);
            }
        }
        let mut spent = Some(slot);
        // Where something is wrong with the device, the epoch will be discarded or given up.
        if device.core.line.is_well() {
            match result {
                ReadResult::Chunk { bytes, zero, hash } => {
                    device.epoch.chunk_read(turn.now_ns, bytes);
                    spent = self.chunk(turn, id, Chunk { slot, bytes, zero, hash });
                }
                // In STOP_COPY the end is yet to come.
                ReadResult::Empty if device.core.stage != DeviceStage::StopCopy => {
                    device.epoch.found_empty(turn.now_ns);
                }
                ReadResult::End => device.epoch.reading.ended = true,
                ReadResult::Failed(errno) => device.read_failed(errno),
                ReadResult::Empty | ReadResult::Cancelled => {}
            }
        }
        self.devices[id.index()].epoch.read_back(id);
        if let Some(slot) = spent {
            self.slots.put(slot);
        }
    }

    /// The data fd of a drained device is dead: why, the device's state tells.
    pub(super) fn hung_up(&mut self, id: DeviceId) {
        let line = &mut self.devices[id.index()].core.line;
        if line.is_attached() {
            line.suspect(Operation::Poll, None);
        }
    }

    /// Gives a chunk its place, from where it is sent or goes to a worker. Gives its slot back where
    /// that needs none.
    fn chunk(&mut self, turn: &mut Turn, id: DeviceId, chunk: Chunk) -> Option<SlotId> {
        let Chunk { slot, bytes, zero, hash } = chunk;
        let epoch = &mut self.devices[id.index()].epoch;
        let offset = epoch.state.digest.bytes();
        epoch.state.digest.chunk(hash, bytes);
        self.controller.read(turn.now_ns, u64::from(bytes));
        let mut header = DataHeader {
            place: epoch.place(id),
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
            header.body_hash = chunk_hash(&[]);
            epoch.queue.data(header, None);
            return Some(slot);
        }
        epoch.queue.open(header, slot);
        None
    }
}
