//! Which frame goes out next, and on which stream.
//!
//! Any idle stream takes the next frame. Among the devices that have a frame within their credit,
//! the one that was served least for its weight sends: bytes sent over weight, kept level with the
//! others while a device has nothing to send. Within a device the lowest sequence goes first, but a
//! frame never waits for one that is still being compressed: the receiver puts them in order.

use super::device::Device;
use super::epoch::UnderWay;
use super::stage::Stage as DeviceStage;
use super::train::Path;
use super::{Sender, Stage};
use crate::ids::{DeviceId, Sequence, StreamId};
use crate::machine::{Notice, Outgoing, Turn};
use crate::wire::Encoding;

/// Resolution of bytes over weight.
const SERVICE_UNIT: u64 = 256;

impl Sender {
    /// Gives the devices' frames to the streams that have nothing else to send.
    pub(super) fn send_data(&mut self, turn: &mut Turn) {
        if self.stage != Stage::Active {
            return;
        }
        while let Some(stream) = self.peer.idle() {
            let Some(next) = self.next_device() else { break };
            self.send_from(turn, next, stream);
        }
    }

    /// The device that sends next, and where its service starts: start-time fair queueing.
    fn next_device(&self) -> Option<(u64, DeviceId)> {
        self.devices
            .iter()
            .filter(|device| device.epoch.queue.is_sendable())
            .map(|device| (device.served.max(self.service), device.core.id()))
            .min()
    }

    fn send_from(&mut self, turn: &mut Turn, (start, id): (u64, DeviceId), stream: StreamId) {
        let device = &mut self.devices[id.index()];
        let Some(what) = device.epoch.queue.take() else { return };
        let mut sent_bytes = 0;
        if let Outgoing::Data { header, .. } = &what {
            device.core.count_chunk(header);
            let wire_bytes = header.wire_bytes();
            self.controller.sending(header.encoding == Encoding::Zstd);
            let raw_bytes = u64::from(header.raw_bytes);
            let frame = UnderWay { wire_bytes, raw_bytes };
            device.epoch.queue.sending(header.place.sequence, frame);
            sent_bytes = wire_bytes;
        }
        let weight = u64::from(device.config.options.weight.max(1));
        device.served = start + sent_bytes * SERVICE_UNIT / weight;
        self.service = start;
        if let Outgoing::Data { header, .. } = &what {
            self.leaves(header.encoding);
        }
        self.peer.send(turn, stream, what);
    }

    /// Where nothing else is to be sent, or under way, padding finds out how fast the path is.
    pub(super) fn try_path(&mut self, turn: &mut Turn) {
        let busy = |device: &Device| {
            let queue = &device.epoch.queue;
            queue.is_waiting() || queue.under_way_bytes() > 0
        };
        if self.stage != Stage::Active || self.switchover {
            return;
        }
        if self.devices.iter().any(busy) {
            return self.train.spoil();
        }
        // All on one stream, so that the pong comes when all of it has.
        while self.peer.idle() == Some(StreamId(0))
            && let Some(what) = self.train.next(turn)
        {
            self.peer.send(turn, StreamId(0), what);
        }
    }

    /// A pong has come, perhaps the train's.
    pub(super) fn path_tried(&mut self, turn: &mut Turn, number: u64) {
        if let Some(Path { bytes_per_s, round_trip_ns }) = self.train.pong(turn, number) {
            self.round_trip_ns = round_trip_ns;
            self.controller.link_known(bytes_per_s);
            turn.tell(Notice::Path { bytes_per_s, round_trip_ns });
        }
    }

    /// The target takes frames of a device up to here, and says thereby which it is done with.
    pub(super) fn credited(&mut self, turn: &Turn, id: DeviceId, up_to: Sequence) {
        if self.devices[id.index()].epoch.queue.gains(up_to) {
            self.peer_moved();
        }
        let device = &mut self.devices[id.index()];
        let done = device.epoch.queue.credited(up_to);
        self.done_with(turn, id, done);
    }

    /// The target is done with these frames of a device.
    pub(super) fn done_with(&mut self, turn: &Turn, id: DeviceId, done: UnderWay) {
        let device = &mut self.devices[id.index()];
        if device.core.stage == DeviceStage::Sent {
            device.pace.moved(turn);
        }
        self.controller.sent(turn.now_ns, done.raw_bytes, done.wire_bytes);
    }
}
