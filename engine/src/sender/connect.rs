//! The handshake, and the first frame of every device.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::compress::policy::{Controller, Policy};
use crate::ids::StreamId;
use crate::machine::{Action, Links, Notice, Outgoing};
use crate::outcome::Phase;
use crate::wire::{Accept, Begin, Features, Frame, Kind};

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
        if std::mem::replace(&mut self.accepted[stream.index()], true) {
            self.unexpected(now_ns, Kind::ACCEPT, "this stream was accepted before", actions);
            return;
        }
        if *self.accept.get_or_insert(accept) != accept {
            let what = "another stream was accepted on other terms";
            self.unexpected(now_ns, Kind::ACCEPT, what, actions);
            return;
        }
        self.chunk_bytes = accept.chunk_bytes;
        if !accept.features.contains(Features::ZSTD) {
            self.controller = Controller::new(Policy::Raw, 0, self.chunk_bytes);
        }
        if self.accepted.iter().all(|accepted| *accepted) {
            self.stage = Stage::Active;
            let chunk_bytes = self.chunk_bytes;
            actions
                .push(Action::Notify(Notice::Connected { version: accept.version, chunk_bytes }));
            self.begin_devices(actions);
        }
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
            device.enqueue(place.sequence, Outgoing::Frame(Frame::Begin(place, begin)));
            let id = device.id;
            self.enter_phase(id, Phase::Start, actions);
            self.devices[index].stage = DeviceStage::Held;
        }
    }
}
