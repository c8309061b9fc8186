//! Data on its way into a device: body into a slot, through a worker if compressed, in order to
//! the resume fd.

use super::device::Stage as DeviceStage;
use super::window::{Age, Entry};
use super::{Receiver, Stage};
use crate::ids::{DeviceId, Epoch, SlotId, StreamId};
use crate::machine::{Action, WriteResult};
use crate::outcome::{Breach, Fault, Operation, Phase};
use crate::wire::{DataHeader, DataPhase, Encoding, Features, Frame, Kind, WireFault};

/// Nothing of an epoch comes after its end.
const AFTER_END: Breach =
    Breach::Unexpected { kind: Kind::DATA, what: "the device's end was sent before it" };

/// A body that waits for a slot to be decompressed into.
pub(super) type Undecoded = (DataHeader, SlotId);

impl Receiver {
    /// A data frame is announced.
    pub(super) fn data(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        header: DataHeader,
        actions: &mut Vec<Action>,
    ) {
        self.links.heard(now_ns);
        let skip = |actions: &mut Vec<Action>| {
            if header.body_bytes > 0 {
                actions.push(Action::SkipBody { stream });
            }
        };
        if self.stage != Stage::Active {
            skip(actions);
            if matches!(self.stage, Stage::Connect | Stage::Resuming | Stage::Telling { .. }) {
                let what = "the session is not at that point";
                let breach = Breach::Unexpected { kind: Kind::DATA, what };
                self.abort(now_ns, Fault::breach(breach), actions);
            }
            return;
        }
        let admitted = self.agreed(&header).and_then(|()| self.admit(header.place, Kind::DATA));
        let admitted = admitted.and_then(|age| {
            if age == Age::Current {
                if self.devices[header.place.device.index()].ended.is_some() {
                    return Err(AFTER_END);
                }
                let entry = if header.encoding == Encoding::Zero {
                    Entry::Chunk(header, None)
                } else {
                    Entry::Coming(header)
                };
                self.devices[header.place.device.index()].window.insert(header.place, entry)?;
            }
            Ok(age)
        });
        let id = header.place.device;
        match admitted {
            Err(breach) => {
                skip(actions);
                self.abort(now_ns, Fault::breach(breach), actions);
            }
            Ok(Age::Current) if header.encoding == Encoding::Zero => {
                self.take_in_order(now_ns, id, actions);
            }
            Ok(Age::Current) => {
                let device = &mut self.devices[id.index()];
                // The window's credit is no larger than the device's share of slots.
                let Some(slot) = self.slots.take_for_device(device.held) else {
                    debug_assert!(false, "{id}: credit was granted beyond its slots");
                    skip(actions);
                    return;
                };
                device.held += 1;
                self.receiving[stream.index()] = Some(id);
                actions.push(Action::ReceiveBody { stream, header, slot });
            }
            Ok(_) => {
                self.devices[id.index()].report.late_frames += 1;
                skip(actions);
            }
        }
    }

    /// Whether a data frame is within what was agreed on in the handshake, which may be less than
    /// this side could take.
    fn agreed(&self, header: &DataHeader) -> Result<(), Breach> {
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

    /// A body is in its slot.
    pub(super) fn body(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        header: DataHeader,
        slot: SlotId,
        actions: &mut Vec<Action>,
    ) {
        self.links.heard(now_ns);
        self.receiving[stream.index()] = None;
        let id = header.place.device;
        if self.is_stale(header.place.device, header.place.epoch) {
            self.give_back(id, slot, actions);
        } else if header.encoding == Encoding::Zstd {
            self.undecoded.push_back((header, slot));
            self.decode_next(actions);
        } else {
            self.devices[id.index()].window.arrived(header, Some(slot));
            self.take_in_order(now_ns, id, actions);
        }
    }

    pub(super) fn decode_next(&mut self, actions: &mut Vec<Action>) {
        while let Some((header, slot)) = self.undecoded.pop_front() {
            if self.is_stale(header.place.device, header.place.epoch) {
                self.give_back(header.place.device, slot, actions);
                continue;
            }
            let Some(into) = self.slots.take_spare() else {
                self.undecoded.push_front((header, slot));
                return;
            };
            actions.push(Action::Decode { header, slot, into });
        }
    }

    pub(super) fn decoded(
        &mut self,
        now_ns: u64,
        header: DataHeader,
        slot: SlotId,
        into: SlotId,
        result: Result<(), Fault>,
        actions: &mut Vec<Action>,
    ) {
        let id = header.place.device;
        self.slots.put_spare(slot);
        if self.is_stale(id, header.place.epoch) {
            self.give_back(id, into, actions);
        } else if let Err(fault) = result {
            self.give_back(id, into, actions);
            self.abort(now_ns, fault, actions);
        } else {
            self.devices[id.index()].window.arrived(header, Some(into));
            self.take_in_order(now_ns, id, actions);
        }
        self.decode_next(actions);
    }

    /// Hands on what is next in the device's order, as far as it has arrived.
    pub(super) fn take_in_order(&mut self, now_ns: u64, id: DeviceId, actions: &mut Vec<Action>) {
        while self.stage == Stage::Active {
            let device = &mut self.devices[id.index()];
            let ready = match device.window.peek() {
                Some(Entry::Chunk(..)) if device.ended.is_some() => {
                    let what = "the device has ended";
                    let breach = Breach::Unexpected { kind: Kind::DATA, what };
                    self.abort(now_ns, Fault::breach(breach), actions);
                    return;
                }
                Some(Entry::Chunk(..)) => {
                    device.stage == DeviceStage::Loading && device.line.is_well()
                }
                // A frame speaks of all data before it.
                Some(Entry::Frame(_)) => device.writes == 0 && device.line.is_well(),
                Some(Entry::Coming(_)) | None => false,
            };
            if !ready {
                return;
            }
            match device.window.take() {
                Some(Entry::Chunk(header, slot)) => self.write(now_ns, header, slot, actions),
                Some(Entry::Frame(frame)) => {
                    device.window.finish_one();
                    self.act_on(now_ns, id, frame, actions);
                    self.grant(id);
                }
                Some(Entry::Coming(_)) | None => return,
            }
        }
    }

    fn write(
        &mut self,
        now_ns: u64,
        header: DataHeader,
        slot: Option<SlotId>,
        actions: &mut Vec<Action>,
    ) {
        let id = header.place.device;
        let device = &mut self.devices[id.index()];
        let (found, expected) = (header.offset, device.offset);
        let refused = if found != expected {
            Some(Breach::Offset { place: header.place, found, expected })
        } else if device.data_phase.is_none() {
            let what = "nobody said which phase it comes from";
            Some(Breach::Unexpected { kind: Kind::DATA, what })
        } else {
            None
        };
        if let Some(breach) = refused {
            if let Some(slot) = slot {
                self.give_back(id, slot, actions);
            }
            self.abort(now_ns, Fault::breach(breach), actions);
            return;
        }
        device.offset += u64::from(header.raw_bytes);
        device.writes += 1;
        actions.push(Action::Write { device: id, header, slot });
    }

    #[expect(clippy::too_many_arguments, reason = "a write's result, spread out")]
    pub(super) fn written(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        epoch: Epoch,
        raw_bytes: u32,
        slot: Option<SlotId>,
        result: WriteResult,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        device.writes -= 1;
        if let Some(slot) = slot {
            self.give_back(id, slot, actions);
        }
        if self.is_stale(id, epoch) {
            return;
        }
        let device = &mut self.devices[id.index()];
        match result {
            WriteResult::Written { hash } => {
                device.digest.chunk(hash, raw_bytes);
                device.window.finish_one();
                self.grant(id);
                self.take_in_order(now_ns, id, actions);
            }
            WriteResult::Corrupt(fault) => self.abort(now_ns, fault, actions),
            WriteResult::Failed(errno) => device.line.suspect(Operation::Write, Some(errno)),
            WriteResult::Cancelled => {}
        }
    }

    /// A frame that is not data is next in the device's order.
    fn act_on(&mut self, now_ns: u64, id: DeviceId, frame: Frame, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        let kind = frame.kind();
        let loading = device.stage == DeviceStage::Loading && device.ended.is_none();
        match frame {
            Frame::Begin(place, begin) => self.begin(now_ns, place, begin, actions),
            // Once each, and never back: a device that was stopped does not start to run again.
            Frame::Phase(_, phase)
                if loading
                    && device.data_phase != Some(DataPhase::StopCopy)
                    && device.data_phase != Some(phase) =>
            {
                device.data_phase = Some(phase);
                let phase = match phase {
                    DataPhase::PreCopy => Phase::PreCopy,
                    DataPhase::StopCopy => Phase::StopCopy,
                };
                self.enter_phase(id, phase, actions);
            }
            Frame::InitialDataSent(place) if loading => {
                let frame = Frame::InitialDataLoaded { device: id, epoch: place.epoch };
                self.links.queue(frame);
            }
            Frame::End(_, total) if loading => {
                let expected = device.total();
                if total != expected {
                    let breach = Breach::Total { device: id, found: total, expected };
                    self.abort(now_ns, Fault::breach(breach), actions);
                    return;
                }
                if !device.window.is_empty() {
                    self.abort(now_ns, Fault::breach(AFTER_END), actions);
                    return;
                }
                device.ended = Some(total);
                self.enter_phase(id, Phase::Load, actions);
            }
            _ => {
                let what = "the device is not at that point";
                let breach = Breach::Unexpected { kind, what };
                self.abort(now_ns, Fault::breach(breach), actions);
            }
        }
    }

    /// Lets the source go on as far as the device's slots reach.
    pub(super) fn grant(&mut self, id: DeviceId) {
        let device = &mut self.devices[id.index()];
        if device.stage != DeviceStage::Loading {
            return;
        }
        if let Some(up_to) = device.window.grant() {
            self.links.queue(Frame::Credit { device: id, epoch: device.epoch, up_to });
        }
    }

    /// Whether events of this epoch are only still coming back.
    fn is_stale(&self, id: DeviceId, epoch: Epoch) -> bool {
        self.stage != Stage::Active || self.devices[id.index()].epoch != epoch
    }

    /// A slot of this device is free again.
    pub(super) fn give_back(&mut self, id: DeviceId, slot: SlotId, actions: &mut Vec<Action>) {
        self.devices[id.index()].held -= 1;
        self.slots.put(slot);
        self.discard_goes_on(id, actions);
    }
}
