//! What the sender says to the receiver, data aside.

use super::stage::Stage as DeviceStage;
use super::window::{Age, Entry, age};
use super::{Receiver, Stage};
use crate::ids::StreamId;
use crate::machine::{Machine, Notice, On, Turn};
use crate::outcome::{Breach, Fault, Host, Phase};
use crate::wire::{Begin, DevicePlace, Frame, Kind};

impl Receiver {
    pub(super) fn frame(
        &mut self,
        turn: &mut Turn,
        stream: StreamId,
        frame: Frame,
    ) -> Result<(), Fault> {
        if self.is_ending() {
            return Ok(());
        }
        let kind = frame.kind();
        self.open_peer(turn, kind);
        self.peer.check_flood()?;
        match (self.stage, frame) {
            (_, Frame::Abort(said)) => Err(Fault::peer_gave_up(Host::Source, said)),
            (_, Frame::Ping(number)) => {
                self.peer.pong(stream, number);
                Ok(())
            }
            (_, Frame::Pong(_)) => Ok(()),
            (Stage::Connect, Frame::Hello(hello)) => self.hello(turn, stream, hello),
            (Stage::Active | Stage::Resuming | Stage::Telling, Frame::Message(bytes)) => {
                turn.tell(Notice::Message(bytes));
                Ok(())
            }
            (Stage::Active, Frame::Handover) => self.handover(turn),
            (Stage::Active, frame) if frame.place().is_some() => self.device_frame(turn, frame),
            _ => {
                let what = "the session is not at that point";
                Err(Fault::breach(Breach::Unexpected { kind, what }))
            }
        }
    }

    /// The source speaks of more than the handshake only once every accept has reached it. Before
    /// that, a frame on one stream could overtake the accept on another.
    pub(super) fn open_peer(&mut self, turn: &Turn, kind: Kind) {
        if self.stage != Stage::Connect && kind != Kind::HELLO {
            self.peer.open(turn);
        }
    }

    fn device_frame(&mut self, turn: &mut Turn, frame: Frame) -> Result<(), Fault> {
        let Some(place) = frame.place() else { return Ok(()) };
        let id = place.device;
        self.moved(turn);
        match (self.admit(place, frame.kind())?, frame) {
            (Age::Late, _) => self.devices[id.index()].core.late_frames += 1,
            (Age::Next, Frame::Discard(_, discard)) => return self.discard(turn, place, discard),
            (Age::Next | Age::TooNew, _) => {}
            (Age::Current, frame) => {
                self.devices[id.index()].epoch.window.insert(place, Entry::Frame(frame))?;
                return self.take_in_order(turn, id);
            }
        }
        Ok(())
    }

    /// Whether a frame of this device and epoch may come now.
    pub(super) fn admit(&self, place: DevicePlace, kind: Kind) -> Result<Age, Breach> {
        let Some(device) = self.devices.get(place.device.index()) else {
            return Err(Breach::UnknownDevice { kind, device: place.device });
        };
        if device.core.stage == DeviceStage::Expected && kind != Kind::BEGIN {
            return Err(Breach::Unexpected { kind, what: "the device has not begun" });
        }
        let (found, current) = (place.epoch, device.epoch.state.number);
        let opens = kind == Kind::DISCARD && place.sequence.0 == 0;
        match age(found, current) {
            Age::Next if opens => Ok(Age::Next),
            Age::Next | Age::TooNew => {
                Err(Breach::Epoch { kind, device: place.device, found, current })
            }
            known => Ok(known),
        }
    }

    /// The first frame of a device: who it is.
    pub(super) fn begin(
        &mut self,
        turn: &mut Turn,
        place: DevicePlace,
        begin: Begin,
    ) -> Result<(), Breach> {
        let device = &mut self.devices[place.device.index()];
        if device.core.stage != DeviceStage::Expected {
            return Err(Breach::Unexpected { kind: Kind::BEGIN, what: "the device has begun" });
        }
        if begin.name != device.config.name {
            let (found, expected) = (begin.name, device.config.name.clone());
            return Err(Breach::Name { device: place.device, found, expected });
        }
        turn.tell(Notice::Begin { device: place.device, begin });
        device.core.enter_phase(turn, Phase::Start);
        device.core.go(On::Begin);
        Ok(())
    }
}
