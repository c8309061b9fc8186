//! What the receiver says to the sender.

use super::device::Stage as DeviceStage;
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
        if matches!(self.stage, Stage::Aborting { .. } | Stage::Finished) {
            return;
        }
        if let Some(breach) = self.links.flooded() {
            self.misbehaved(now_ns, breach, actions);
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
            (_, Frame::Ping(number)) => self.links.queue(Frame::Pong(number)),
            (_, Frame::Pong(_)) => {}
            (Stage::Connect, Frame::Accept(accept)) => {
                self.accepted(now_ns, stream, accept, actions);
            }
            (Stage::Active | Stage::Handover | Stage::Leaving { .. }, Frame::Message(bytes)) => {
                actions.push(Action::Notify(Notice::Message(bytes)));
            }
            (Stage::Leaving { .. }, _) => {}
            (Stage::Active | Stage::Handover, Frame::Credit { device, epoch, up_to }) => {
                self.credit(now_ns, device, epoch, up_to, actions);
            }
            // Also those that another stream has held up until the handover.
            (Stage::Active | Stage::Handover, Frame::InitialDataLoaded { device, epoch }) => {
                self.initial_data_loaded(now_ns, device, epoch, actions);
            }
            (Stage::Active | Stage::Handover, Frame::Loaded { device, epoch, total }) => {
                self.loaded(now_ns, device, epoch, total, actions);
            }
            (Stage::Handover, Frame::Running) => self.target_runs(now_ns),
            _ => {
                let what = "the session is not at that point";
                self.misbehaved(now_ns, Breach::Unexpected { kind, what }, actions);
            }
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
        let Some(entry) = self.devices.get_mut(device.index()) else {
            let breach = Breach::UnknownDevice { kind: Kind::CREDIT, device };
            self.misbehaved(now_ns, breach, actions);
            return;
        };
        if epoch > entry.epoch {
            let current = entry.epoch;
            let breach = Breach::Epoch { kind: Kind::CREDIT, device, found: epoch, current };
            self.misbehaved(now_ns, breach, actions);
        } else if epoch == entry.epoch {
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
        match self.devices.get_mut(device.index()) {
            Some(entry) if epoch < entry.epoch => {}
            Some(entry) if epoch == entry.epoch && entry.initial_unanswered > 0 => {
                entry.initial_unanswered -= 1;
                if entry.initial_sent && entry.initial_unanswered == 0 {
                    entry.initial_loaded = true;
                    actions.push(Action::Notify(Notice::InitialDataLoaded { device }));
                    self.estimate(actions);
                }
            }
            _ => {
                let what = "no initial data of this epoch waits to be loaded";
                let breach = Breach::Unexpected { kind: Kind::INITIAL_DATA_LOADED, what };
                self.misbehaved(now_ns, breach, actions);
            }
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
        match self.devices.get_mut(device.index()) {
            Some(entry) if epoch < entry.epoch => {}
            Some(entry) if epoch == entry.epoch && entry.stage == DeviceStage::Sent => {
                let expected = entry.total();
                if total == expected {
                    entry.stage = DeviceStage::Loaded;
                    self.hand_over_if_all_loaded(actions);
                } else {
                    let breach = Breach::Total { device, found: total, expected };
                    self.misbehaved(now_ns, breach, actions);
                }
            }
            _ => {
                let what = "the device's end was not sent";
                let breach = Breach::Unexpected { kind: Kind::LOADED, what };
                self.misbehaved(now_ns, breach, actions);
            }
        }
    }

    fn hand_over_if_all_loaded(&mut self, actions: &mut Vec<Action>) {
        let loaded = self.devices.iter().all(|device| device.stage == DeviceStage::Loaded);
        if !loaded || self.links.doubt().is_some() {
            return;
        }
        // From here on the target may run: this host must not let its devices run again unless
        // the target says that it will not.
        self.stage = Stage::Handover;
        self.links.part();
        self.links.queue(Frame::Handover);
        self.links.pump(actions);
        for index in 0..self.devices.len() {
            let id = self.devices[index].line.id();
            self.enter_phase(id, Phase::Handover, actions);
            self.let_go(id, actions);
        }
    }

    pub(super) fn misbehaved(&mut self, now_ns: u64, breach: Breach, actions: &mut Vec<Action>) {
        self.abort(now_ns, Fault::breach(breach), actions);
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
        if let Some(owner) = self.stream_owner[stream.index()].take() {
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
