//! What the receiver says to the sender.

use super::device::{Device, Stage as DeviceStage};
use super::{Sender, Stage};
use crate::ids::{DeviceId, Epoch, Sequence, SlotId, StreamId};
use crate::machine::{Action, Notice};
use crate::outcome::{Breach, Cause, Fault, Observation, Phase};
use crate::wire::{Frame, Kind, Total};

impl Sender {
    pub(super) fn frame(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        frame: Frame,
        actions: &mut Vec<Action>,
    ) {
        self.links.heard(now_ns);
        if matches!(self.stage, Stage::Aborting { .. } | Stage::Finished)
            || self.let_go_until_ns.is_some()
        {
            return;
        }
        let kind = frame.kind();
        match (self.stage, frame) {
            (_, Frame::Abort(fault)) => {
                let fault = Fault {
                    cause: Cause::PeerAbort,
                    observed: Observation::Peer,
                    message: format!("the target gave up: {fault}"),
                    ..fault
                };
                self.abort(now_ns, fault, actions);
            }
            (_, Frame::Ping(number)) => self.links.answer(number),
            (_, Frame::Pong(_)) => {}
            (Stage::Connect, Frame::Accept(accept)) => {
                self.accepted(now_ns, stream, accept, actions);
            }
            // Streams have no order among each other: a message may overtake another's accept.
            (_, Frame::Message(bytes)) => actions.push(Action::Notify(Notice::Message(bytes))),
            (Stage::Active | Stage::Handover, Frame::Credit { device, epoch, up_to }) => {
                self.credit(now_ns, device, epoch, up_to, actions);
            }
            (Stage::Active, Frame::InitialDataLoaded { device, epoch }) => {
                self.initial_data_loaded(now_ns, device, epoch, actions);
            }
            // Overtaken by the last device's loaded.
            (Stage::Handover, Frame::InitialDataLoaded { .. }) => {}
            (Stage::Active, Frame::Loaded { device, epoch, total }) => {
                self.loaded(now_ns, device, epoch, total, actions);
            }
            (Stage::Handover, Frame::Running) => self.target_runs(now_ns),
            _ => self.unexpected(now_ns, kind, "the session is not at that point", actions),
        }
    }

    fn credit(
        &mut self,
        now_ns: u64,
        device: DeviceId,
        epoch: Epoch,
        up_to: Sequence,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.named(now_ns, Kind::CREDIT, device, epoch, actions) else { return };
        if epoch == entry.epoch {
            // The first credit of an epoch comes when only its first frame is done.
            let window = *entry.window.get_or_insert(up_to.0.saturating_sub(1));
            entry.credit = entry.credit.max(up_to);
            self.acknowledged(now_ns, device, Sequence(up_to.0.saturating_sub(window)));
        }
    }

    fn initial_data_loaded(
        &mut self,
        now_ns: u64,
        device: DeviceId,
        epoch: Epoch,
        actions: &mut Vec<Action>,
    ) {
        let kind = Kind::INITIAL_DATA_LOADED;
        let Some(entry) = self.named(now_ns, kind, device, epoch, actions) else { return };
        if epoch < entry.epoch {
            return;
        }
        if entry.initial_unconfirmed == 0 {
            self.unexpected(now_ns, kind, "no initial data was marked as sent", actions);
            return;
        }
        entry.initial_unconfirmed -= 1;
        // After a REINIT only the answer to the newest mark counts.
        if entry.initial_sent && entry.initial_unconfirmed == 0 {
            entry.initial_loaded = true;
            actions.push(Action::Notify(Notice::InitialDataLoaded { device }));
            self.estimate(actions);
        }
    }

    fn loaded(
        &mut self,
        now_ns: u64,
        device: DeviceId,
        epoch: Epoch,
        total: Total,
        actions: &mut Vec<Action>,
    ) {
        let Some(entry) = self.named(now_ns, Kind::LOADED, device, epoch, actions) else { return };
        if epoch < entry.epoch {
            return;
        }
        let expected = entry.total();
        if entry.stage != DeviceStage::Sent {
            let what = "the device's end was not sent, or it was loaded before";
            self.unexpected(now_ns, Kind::LOADED, what, actions);
        } else if total != expected {
            let breach = Breach::Total { device, found: total, expected };
            self.abort(now_ns, Fault::breach(breach), actions);
        } else {
            entry.stage = DeviceStage::Loaded;
            self.hand_over_if_all_loaded(actions);
        }
    }

    fn hand_over_if_all_loaded(&mut self, actions: &mut Vec<Action>) {
        if self.devices.iter().any(|device| device.stage != DeviceStage::Loaded) {
            return;
        }
        // From here on the target may run: this host must not let its devices run again unless
        // the target says that it will not.
        self.stage = Stage::Handover;
        self.links.queue(Frame::Handover);
        self.links.pump(actions);
        for index in 0..self.devices.len() {
            let id = self.devices[index].id;
            self.enter_phase(id, Phase::Handover, actions);
            self.let_go(id, actions);
        }
    }

    /// The device that a frame of the target is about, unless it or its epoch does not exist.
    fn named(
        &mut self,
        now_ns: u64,
        kind: Kind,
        device: DeviceId,
        epoch: Epoch,
        actions: &mut Vec<Action>,
    ) -> Option<&mut Device> {
        let breach = match self.devices.get(device.index()) {
            None => Breach::UnknownDevice { kind, device },
            Some(entry) if epoch > entry.epoch => {
                Breach::Epoch { kind, device, found: epoch, current: entry.epoch }
            }
            Some(_) => return self.devices.get_mut(device.index()),
        };
        self.abort(now_ns, Fault::breach(breach), actions);
        None
    }

    pub(super) fn unexpected(
        &mut self,
        now_ns: u64,
        kind: Kind,
        what: &'static str,
        actions: &mut Vec<Action>,
    ) {
        self.abort(now_ns, Fault::breach(Breach::Unexpected { kind, what }), actions);
    }

    pub(super) fn stream_lost(
        &mut self,
        now_ns: u64,
        stream: StreamId,
        slots: Vec<SlotId>,
        fault: Fault,
        actions: &mut Vec<Action>,
    ) {
        self.links.lost(stream);
        if let Some(owner) = self.stream_owner[stream.index()].take() {
            for slot in slots {
                self.devices[owner.index()].held -= 1;
                self.slots.put(slot);
            }
        }
        // After the handover the target closes its streams one after another; that it runs may
        // still be said on one that is open.
        if self.stage != Stage::Handover || self.links.all_lost() {
            self.abort(now_ns, fault, actions);
        }
    }
}
