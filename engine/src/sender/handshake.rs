//! The handshake, and the first frame of every device.

use super::{Sender, Stage};
use crate::compress::policy::{Controller, Policy};
use crate::ids::StreamId;
use crate::machine::{Notice, On, Turn, Wait};
use crate::outcome::{Breach, Fault, Phase};
use crate::wire::{Accept, Begin, Features, Frame, Kind};

/// The stream of the frames that open an epoch, begin and discard. They are the only frames of a
/// device that need no credit, so only the stream's own order keeps the discard of one epoch from
/// overtaking the opener of the epoch before.
pub(super) const OPENERS: StreamId = StreamId(0);

impl Sender {
    pub(super) fn start(&mut self, turn: &Turn) {
        self.peer.watch(turn);
        self.waits.set(Wait::Handshake, turn.after(self.config.limits.handshake_ns));
        for stream in (0..self.config.peer.streams).map(StreamId) {
            let hello = self.offer.hello(self.config.session, stream);
            self.peer.queue_on(stream, Frame::Hello(hello));
        }
    }

    pub(super) fn accepted(
        &mut self,
        turn: &mut Turn,
        stream: StreamId,
        accept: Accept,
    ) -> Result<(), Fault> {
        self.offer.hello(self.config.session, stream).check(&accept)?;
        let same = self.accepts.iter().flatten().all(|other| *other == accept);
        if !same || self.accepts[stream.index()].replace(accept).is_some() {
            let what = "one accept is expected on each stream, the same on all";
            return Err(Fault::breach(Breach::Unexpected { kind: Kind::ACCEPT, what }));
        }
        if self.accepts.iter().any(Option::is_none) {
            return Ok(());
        }
        let Accept { version, chunk_bytes, features, .. } = accept;
        if !features.contains(Features::ZSTD) {
            self.controller = Controller::new(Policy::Raw, 0, chunk_bytes);
        }
        self.stage = Stage::Active;
        self.waits.stop(Wait::Handshake);
        self.peer.open(turn);
        turn.tell(Notice::Connected { version, chunk_bytes });
        self.begin_devices(turn);
        Ok(())
    }

    fn begin_devices(&mut self, turn: &mut Turn) {
        let phase = self.phase_before_saving();
        for device in &mut self.devices {
            let begin = Begin {
                name: device.config.name.clone(),
                precopy: device.saves_in_precopy(),
                p2p: device.config.capabilities.p2p,
                opaque: device.config.options.opaque.clone(),
            };
            let place = device.epoch.opener(device.core.id());
            self.peer.queue_on(OPENERS, Frame::Begin(place, begin));
            device.core.enter_phase(turn, phase);
            device.core.go(On::Begin);
        }
    }

    pub(super) fn phase_before_saving(&self) -> Phase {
        if self.switchover { Phase::Stop } else { Phase::Start }
    }
}
