//! Which frame goes out next, and on which stream.
//!
//! Any idle stream takes the next frame. Among the devices that have a frame within their credit,
//! the one that was served least for its weight sends: bytes sent over weight, kept level with the
//! others while a device has nothing to send. Within a device the lowest sequence goes first, but a
//! frame never waits for one that is still being compressed: the receiver puts them in order.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::compress::policy::Departure;
use crate::ids::{DeviceId, Sequence, SlotId, StreamId};
use crate::limits::HEADER_BYTES;
use crate::machine::{Action, Outgoing};
use crate::wire::Encoding;

/// Resolution of bytes over weight.
const SERVICE_UNIT: u64 = 256;

/// What a frame takes on the wire, as far as the queues reckon it: only data counts.
pub(super) fn wire_bytes(what: &Outgoing) -> u64 {
    match what {
        Outgoing::Data { header, .. } => u64::from(header.body_bytes) + HEADER_BYTES as u64,
        Outgoing::Frame(_) => 0,
    }
}

/// A data frame until the target has said that it is done with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnderWay {
    departure: Departure,
    wire_bytes: u64,
    raw_bytes: u64,
}

impl Sender {
    /// Everything that can be started now is started.
    pub(super) fn pump(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        self.advance(now_ns, actions);
        self.ask_for_reads(actions);
        self.links.pump(actions);
        // What is still idle now has no other frame to send.
        if self.stage == Stage::Active {
            while let Some(stream) = self.links.idle() {
                let Some(next) = self.next_device() else { break };
                self.send_from(now_ns, next, stream, actions);
            }
            for device in &mut self.devices {
                if device.ready.is_empty() {
                    device.waits_since_ns = None;
                } else {
                    device.waits_since_ns.get_or_insert(now_ns);
                }
            }
        }
        self.finish_if_done(actions);
    }

    /// The device that sends next, and where its service starts: start-time fair queueing.
    fn next_device(&self) -> Option<(u64, DeviceId)> {
        self.devices
            .iter()
            .filter(|device| device.sendable().is_some())
            .map(|device| (device.served.max(self.service), device.line.id()))
            .min()
    }

    fn send_from(
        &mut self,
        now_ns: u64,
        (start, id): (u64, DeviceId),
        stream: StreamId,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        let Some(what) = device.sendable().and_then(|first| device.ready.remove(&first)) else {
            return;
        };
        let wire_bytes = wire_bytes(&what);
        self.queued_wire_bytes -= wire_bytes;
        if let Outgoing::Data { header, .. } = &what {
            let kind = match header.encoding {
                Encoding::Zero => 0,
                Encoding::Raw => 1,
                Encoding::Zstd => 2,
            };
            device.report.chunks[kind] += 1;
            let departure = self.controller.sending(
                now_ns,
                wire_bytes,
                header.encoding == Encoding::Raw,
                device.waited(now_ns),
            );
            let raw_bytes = u64::from(header.raw_bytes);
            let under_way = UnderWay { departure, wire_bytes, raw_bytes };
            device.under_way.insert(header.place.sequence, under_way);
            self.under_way_wire_bytes += wire_bytes;
        }
        device.report.wire_bytes += wire_bytes;
        let weight = u64::from(device.config.options.weight.max(1));
        device.served = start + wire_bytes * SERVICE_UNIT / weight;
        self.service = start;
        self.stream_owner[stream.index()] = Some(id);
        self.links.send(stream, what, actions);
    }

    /// The kernel has all of a frame: the stream and the slot are free again.
    pub(super) fn sent(&mut self, stream: StreamId, slot: Option<SlotId>) {
        self.links.sent(stream);
        if let (Some(owner), Some(slot)) = (self.stream_owner[stream.index()].take(), slot) {
            self.devices[owner.index()].held -= 1;
            self.slots.put(slot);
        }
    }

    /// The target is done with the frames of a device below `done`. Only this tells how fast the
    /// path is: a send ends when the socket's buffer has the frame, and that buffer can hold more
    /// than the target's whole window.
    pub(super) fn acknowledged(&mut self, now_ns: u64, id: DeviceId, done: Sequence) {
        let device = &mut self.devices[id.index()];
        let later = device.under_way.split_off(&done);
        let done = std::mem::replace(&mut device.under_way, later);
        self.under_way_wire_bytes -= done.values().map(|frame| frame.wire_bytes).sum::<u64>();
        let chunks = done.into_values().map(|frame| (frame.departure, frame.raw_bytes));
        self.controller.sent(now_ns, chunks);
    }

    /// Nobody will say that these frames are done: their epoch is discarded.
    pub(super) fn forget_under_way(&mut self, id: DeviceId) {
        for frame in std::mem::take(&mut self.devices[id.index()].under_way).into_values() {
            self.under_way_wire_bytes -= frame.wire_bytes;
            self.controller.dropped(&frame.departure);
        }
    }

    /// Whether no device has still to reach its P2P state before others may stop.
    pub(super) fn p2p_barrier_open(&self) -> bool {
        self.devices.iter().all(|device| {
            !device.config.capabilities.p2p
                || !matches!(
                    device.stage,
                    DeviceStage::Idle
                        | DeviceStage::Held
                        | DeviceStage::Entering
                        | DeviceStage::PreCopy
                        | DeviceStage::ToP2p
                        | DeviceStage::Classifying
                        | DeviceStage::Restarting
                )
        })
    }
}
