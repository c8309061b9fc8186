//! The handshake, and the first frame of every device.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::compress::policy::{Controller, Policy};
use crate::ids::{DeviceId, StreamId};
use crate::machine::{Action, Links, Notice};
use crate::outcome::{Breach, Phase};
use crate::wire::{Accept, Begin, Features, Frame, Kind};

/// The stream of the frames that open an epoch, begin and discard. They are the only frames of a
/// device that need no credit, so only the stream's own order keeps the discard of one epoch from
/// overtaking the opener of the epoch before.
pub(super) const OPENERS: StreamId = StreamId(0);

impl Sender {
    pub(super) fn start(&mut self, now_ns: u64, _actions: &mut Vec<Action>) {
        self.links = Links::new(self.config.links, now_ns);
        for stream in 0..self.config.links.streams {
            let hello = self.offer.hello(self.config.session, StreamId(stream));
            self.links.queue_on(StreamId(stream), Frame::Hello(hello));
        }
    }

    pub(super) fn accepted(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        accept: Accept,
        actions: &mut Vec<Action>,
    ) {
        let hello = self.offer.hello(self.config.session, stream);
        if let Err(fault) = hello.check(&accept) {
            self.abort(now_ns, fault.into(), actions);
            return;
        }
        let same = self.accepts.iter().flatten().all(|other| *other == accept);
        if !same || self.accepts[stream.index()].replace(accept).is_some() {
            let what = "one accept is expected on each stream, the same on all";
            let breach = Breach::Unexpected { kind: Kind::ACCEPT, what };
            self.misbehaved(now_ns, breach, actions);
            return;
        }
        if self.accepts.iter().any(Option::is_none) {
            return;
        }
        self.chunk_bytes = accept.chunk_bytes;
        if !accept.features.contains(Features::ZSTD) {
            self.controller = Controller::new(Policy::Raw, 0, self.chunk_bytes);
        }
        self.stage = Stage::Active;
        self.links.open();
        let chunk_bytes = self.chunk_bytes;
        actions.push(Action::Notify(Notice::Connected { version: accept.version, chunk_bytes }));
        self.begin_devices(actions);
    }

    fn begin_devices(&mut self, actions: &mut Vec<Action>) {
        for index in 0..self.devices.len() {
            let device = &mut self.devices[index];
            let begin = Begin {
                name: device.config.name.clone(),
                precopy: device.saves_in_precopy(),
                p2p: device.config.capabilities.p2p,
                opaque: device.config.options.opaque.clone(),
            };
            let place = device.place();
            self.links.queue_on(OPENERS, Frame::Begin(place, begin));
            let id = DeviceId(index as u32);
            let phase = if self.switchover { Phase::Stop } else { Phase::Start };
            self.enter_phase(id, phase, actions);
            self.devices[index].stage = DeviceStage::Held;
        }
    }
}
