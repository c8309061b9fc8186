//! What the receiver says to the sender.

use super::stage::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::ids::{DeviceId, Epoch, StreamId};
use crate::machine::{Machine, Notice, On, Turn};
use crate::outcome::{Breach, Fault, Host};
use crate::wire::{Frame, Kind, Total};

impl Sender {
    pub(super) fn frame(
        &mut self,
        turn: &mut Turn,
        stream: StreamId,
        frame: Frame,
    ) -> Result<(), Fault> {
        if self.is_ending() {
            return Ok(());
        }
        self.peer.check_flood().map_err(Fault::breach)?;
        let kind = frame.kind();
        match (self.stage, frame) {
            (_, Frame::Abort(said)) => return Err(Fault::peer_gave_up(Host::Target, said)),
            (_, Frame::Ping(number)) => self.peer.pong(stream, number),
            (_, Frame::Pong(number)) => self.path_tried(turn, number),
            (Stage::Connect, Frame::Accept(accept)) => self.accepted(turn, stream, accept)?,
            (Stage::Active | Stage::Handover | Stage::Leaving, Frame::Message(bytes)) => {
                turn.tell(Notice::Message(bytes));
            }
            (Stage::Active | Stage::Handover, Frame::Credit { device, epoch, up_to }) => {
                if self.is_current(kind, device, epoch)? {
                    self.credited(turn, device, up_to);
                }
            }
            // Also those that another stream has held up until the handover.
            (Stage::Active | Stage::Handover, Frame::InitialDataLoaded { device, epoch }) => {
                if self.is_current(kind, device, epoch)? {
                    self.initial_data_loaded(turn, device)?;
                }
            }
            (Stage::Active | Stage::Handover, Frame::Loaded { device, epoch, total }) => {
                if self.is_current(kind, device, epoch)? {
                    self.loaded(turn, device, total)?;
                }
            }
            (Stage::Handover, Frame::Running) => {
                self.devices.iter_mut().for_each(|device| device.pace.runs(turn));
                self.leave(turn, None);
            }
            // Nobody waited for it any longer, and a driver has kept the session until it came: what
            // was not known is known now.
            (Stage::Leaving, Frame::Running) if self.fault.is_some() => self.fault = None,
            _ => {
                let what = "the session is not at that point";
                return Err(Fault::breach(Breach::Unexpected { kind, what }));
            }
        }
        Ok(())
    }

    /// Whether a frame speaks of a device's current epoch, and not of one that was discarded.
    fn is_current(&self, kind: Kind, device: DeviceId, found: Epoch) -> Result<bool, Breach> {
        let Some(entry) = self.devices.get(device.index()) else {
            return Err(Breach::UnknownDevice { kind, device });
        };
        let current = entry.epoch.state.number;
        if found > current {
            return Err(Breach::Epoch { kind, device, found, current });
        }
        Ok(found == current)
    }

    fn initial_data_loaded(&mut self, turn: &mut Turn, device: DeviceId) -> Result<(), Breach> {
        match self.devices[device.index()].epoch.precopy.initial_loaded() {
            Some(true) => {
                self.peer_moved();
                let done = self.devices[device.index()].epoch.initial_data_done();
                self.done_with(turn, device, done);
                turn.tell(Notice::InitialDataLoaded { device });
                self.estimate(turn);
            }
            Some(false) => {}
            None => {
                let what = "no initial data of this epoch waits to be loaded";
                return Err(Breach::Unexpected { kind: Kind::INITIAL_DATA_LOADED, what });
            }
        }
        Ok(())
    }

    fn loaded(&mut self, turn: &mut Turn, id: DeviceId, found: Total) -> Result<(), Breach> {
        let device = &mut self.devices[id.index()];
        if device.core.stage != DeviceStage::Sent {
            let what = "the device's end was not sent";
            return Err(Breach::Unexpected { kind: Kind::LOADED, what });
        }
        let expected = device.epoch.state.total();
        if found != expected {
            return Err(Breach::Total { device: id, found, expected });
        }
        device.core.go(On::Confirmed);
        let left_bytes = device.epoch.queue.under_way_bytes();
        device.pace.loaded(turn, self.controller.path_ns(left_bytes));
        self.peer_moved();
        self.hand_over_if_all_loaded(turn);
        Ok(())
    }
}
