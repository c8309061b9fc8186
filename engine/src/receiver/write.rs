//! What has arrived, in the device's order: chunks to the resume fd, frames acted on.

use super::stage::Stage as DeviceStage;
use super::window::Entry;
use super::{Receiver, Stage};
use crate::ids::{DeviceId, SlotId};
use crate::machine::{Action, Turn, WriteResult};
use crate::outcome::{Breach, Fault, Operation, Phase};
use crate::wire::{DataHeader, DataPhase, Frame};

impl Receiver {
    /// Hands on what is next in the device's order, as far as it has arrived.
    pub(super) fn take_in_order(&mut self, turn: &mut Turn, id: DeviceId) -> Result<(), Fault> {
        while self.stage == Stage::Active {
            let device = &mut self.devices[id.index()];
            let ready = match device.epoch.window.peek() {
                Some(Entry::Chunk(..)) => device.is_loading(),
                // A frame speaks of all data before it.
                Some(Entry::Frame(_)) => device.epoch.writes == 0 && device.core.line.is_well(),
                Some(Entry::Coming(_)) | None => false,
            };
            if !ready {
                return Ok(());
            }
            match device.epoch.window.take() {
                Some(Entry::Chunk(header, slot)) => self.write(turn, header, slot)?,
                Some(Entry::Frame(frame)) => {
                    device.epoch.window.finish_one();
                    self.act_on(turn, id, frame)?;
                    self.grant(turn, id);
                }
                Some(Entry::Coming(_)) | None => return Ok(()),
            }
        }
        Ok(())
    }

    fn write(
        &mut self,
        turn: &mut Turn,
        header: DataHeader,
        slot: Option<SlotId>,
    ) -> Result<(), Breach> {
        let id = header.place.device;
        if let Err(breach) = self.devices[id.index()].epoch.writing(&header) {
            slot.into_iter().for_each(|slot| self.slots.put(slot));
            return Err(breach);
        }
        turn.act(Action::Write { device: id, header, slot });
        Ok(())
    }

    /// A write of the current epoch ended.
    pub(super) fn written(
        &mut self,
        turn: &mut Turn,
        id: DeviceId,
        raw_bytes: u32,
        slot: Option<SlotId>,
        result: WriteResult,
    ) -> Result<(), Fault> {
        slot.into_iter().for_each(|slot| self.slots.put(slot));
        let device = &mut self.devices[id.index()];
        device.epoch.writes -= 1;
        device.core.progress.moved();
        match result {
            WriteResult::Written { hash } => {
                device.epoch.state.digest.chunk(hash, raw_bytes);
                device.epoch.window.finish_one();
                self.grant(turn, id);
                return self.take_in_order(turn, id);
            }
            WriteResult::Corrupt(fault) => return Err(fault),
            WriteResult::Failed(errno) => {
                device.core.line.suspect(Operation::Write, Some(errno));
            }
            WriteResult::Cancelled => {}
        }
        Ok(())
    }

    /// A frame that is not data is next in the device's order.
    fn act_on(&mut self, turn: &mut Turn, id: DeviceId, frame: Frame) -> Result<(), Fault> {
        let device = &mut self.devices[id.index()];
        let kind = frame.kind();
        let loading = device.core.stage == DeviceStage::Loading && !device.epoch.is_ended();
        match frame {
            Frame::Begin(place, begin) => self.begin(turn, place, begin)?,
            Frame::Phase(_, phase) if loading && device.epoch.enter(phase) => {
                self.vm_stopped |= phase == DataPhase::StopCopy;
                let phase = match phase {
                    DataPhase::PreCopy => Phase::PreCopy,
                    DataPhase::StopCopy => Phase::StopCopy,
                };
                device.core.enter_phase(turn, phase);
            }
            Frame::InitialDataSent(place) if loading => {
                let frame = Frame::InitialDataLoaded { device: id, epoch: place.epoch };
                self.peer.queue(frame);
            }
            Frame::End(_, total) if loading => {
                device.epoch.end(id, total)?;
                device.core.enter_phase(turn, Phase::Load);
            }
            _ => {
                let what = "the device is not at that point";
                return Err(Fault::breach(Breach::Unexpected { kind, what }));
            }
        }
        Ok(())
    }

    /// Lets the source go on as far as the device's slots reach.
    pub(super) fn grant(&mut self, turn: &Turn, id: DeviceId) {
        let device = &mut self.devices[id.index()];
        if device.core.stage == DeviceStage::Loading
            && let Some(up_to) = device.epoch.window.grant(turn.now_ns)
        {
            let epoch = device.epoch.state.number;
            self.peer.queue(Frame::Credit { device: id, epoch, up_to });
        }
    }
}
