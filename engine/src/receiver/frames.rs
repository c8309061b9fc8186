//! What the sender says to the receiver, data bodies aside.

use super::device::Stage as DeviceStage;
use super::window::{Age, Entry, age};
use super::{Receiver, Stage};
use crate::ids::{SlotId, StreamId};
use crate::machine::{Action, Notice};
use crate::outcome::{Breach, Cause, Fault, Observation, Phase};
use crate::wire::{DevicePlace, Frame, Kind};

impl Receiver {
    pub(super) fn frame(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        frame: Frame,
        actions: &mut Vec<Action>,
    ) {
        self.links.heard(now_ns);
        if matches!(self.stage, Stage::Aborting { .. } | Stage::Finished) {
            return;
        }
        self.open_links(frame.kind());
        if let Some(breach) = self.links.flooded() {
            self.abort(now_ns, Fault::breach(breach), actions);
            return;
        }
        match (self.stage, frame) {
            (_, Frame::Abort(fault)) => {
                let fault = Fault {
                    cause: Cause::PeerAbort,
                    observed: Observation::Peer,
                    message: format!("the source gave up: {fault}"),
                    ..fault
                };
                self.abort(now_ns, fault, actions);
            }
            (_, Frame::Ping(number)) => self.links.queue(Frame::Pong(number)),
            (_, Frame::Pong(_)) => {}
            (Stage::Connect, Frame::Hello(hello)) => self.hello(now_ns, stream, hello, actions),
            (Stage::Active | Stage::Resuming | Stage::Telling { .. }, Frame::Message(bytes)) => {
                actions.push(Action::Notify(Notice::Message(bytes)));
            }
            (Stage::Active, Frame::Handover) => self.handover(now_ns, actions),
            (Stage::Active, frame) => match frame.place() {
                Some(place) => self.device_frame(now_ns, place, frame, actions),
                None => self.unexpected(now_ns, frame.kind(), actions),
            },
            (_, frame) => self.unexpected(now_ns, frame.kind(), actions),
        }
    }

    /// The source speaks of more than the handshake only once every accept has reached it. Before
    /// that, a frame on one stream could overtake the accept on another.
    pub(super) fn open_links(&mut self, kind: Kind) {
        if self.stage != Stage::Connect && kind != Kind::HELLO {
            self.links.open();
        }
    }

    fn unexpected(&mut self, now_ns: u64, kind: Kind, actions: &mut Vec<Action>) {
        let breach = Breach::Unexpected { kind, what: "the session is not at that point" };
        self.abort(now_ns, Fault::breach(breach), actions);
    }

    fn device_frame(
        &mut self,
        now_ns: u64,
        place: DevicePlace,
        frame: Frame,
        actions: &mut Vec<Action>,
    ) {
        match self.admit(place, frame.kind()) {
            Err(breach) => self.abort(now_ns, Fault::breach(breach), actions),
            Ok(Age::Late) => {
                self.devices[place.device.index()].report.late_frames += 1;
            }
            Ok(Age::Next) => {
                if let Frame::Discard(_, discard) = frame {
                    self.discard(now_ns, place, discard, actions);
                }
            }
            Ok(_) => {
                let device = &mut self.devices[place.device.index()];
                match device.window.insert(place, Entry::Frame(frame)) {
                    Ok(()) => self.take_in_order(now_ns, place.device, actions),
                    Err(breach) => self.abort(now_ns, Fault::breach(breach), actions),
                }
            }
        }
    }

    /// Whether a frame of this device and epoch may come now.
    pub(super) fn admit(&self, place: DevicePlace, kind: Kind) -> Result<Age, Breach> {
        let Some(device) = self.devices.get(place.device.index()) else {
            return Err(Breach::UnknownDevice { kind, device: place.device });
        };
        let age = age(place.epoch, device.epoch);
        if device.stage == DeviceStage::Expected && kind != Kind::BEGIN {
            return Err(Breach::Unexpected { kind, what: "the device has not begun" });
        }
        let opens = kind == Kind::DISCARD && place.sequence.0 == 0;
        match age {
            Age::Next if opens => Ok(age),
            Age::Next | Age::TooNew => Err(Breach::Epoch {
                kind,
                device: place.device,
                found: place.epoch,
                current: device.epoch,
            }),
            Age::Late | Age::Current => Ok(age),
        }
    }

    /// The first frame of a device: who it is.
    pub(super) fn begin(
        &mut self,
        now_ns: u64,
        place: DevicePlace,
        begin: crate::wire::Begin,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[place.device.index()];
        let fault = if device.stage != DeviceStage::Expected || place.sequence.0 != 0 {
            Some(Breach::Unexpected { kind: Kind::BEGIN, what: "the device has begun" })
        } else if begin.name != device.config.name {
            Some(Breach::Name {
                device: place.device,
                found: begin.name.clone(),
                expected: device.config.name.clone(),
            })
        } else {
            None
        };
        if let Some(breach) = fault {
            self.abort(now_ns, Fault::breach(breach), actions);
            return;
        }
        actions.push(Action::Notify(Notice::Begin { device: place.device, begin }));
        self.enter_phase(place.device, Phase::Start, actions);
        self.enter_resuming(place.device, actions);
    }

    pub(super) fn stream_lost(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        slots: Vec<SlotId>,
        fault: Fault,
        actions: &mut Vec<Action>,
    ) {
        let over = self.links.lost(now_ns, stream, fault);
        if let Some(owner) = self.receiving[stream.index()].take() {
            for slot in slots {
                self.devices[owner.index()].held -= 1;
                self.slots.put(slot);
            }
        }
        if let Some(fault) = over {
            self.abort(now_ns, fault, actions);
        }
    }
}
