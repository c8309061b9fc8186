//! Requests to the devices and their answers: what each device is asked next, and what follows.

use super::device::Stage as DeviceStage;
use super::{Sender, Stage};
use crate::abort::state_of;
use crate::ids::DeviceId;
use crate::machine::{Action, Estimate, Notice, Outgoing, Reply, Request};
use crate::outcome::{Operation, Phase};
use crate::vfio::device::PrecopyInfo;
use crate::vfio::state::DeviceState;
use crate::wire::{DataPhase, Frame};

/// How much sooner a drained device is asked again when it promised data that has not come, and how
/// much later at most while data flows: in parts and multiples of the configured interval.
const PROMISED_PART: u64 = 4;
const FLOWING_TIMES: u64 = 5;

impl Sender {
    /// Asks every device that is not busy for what its stage wants next.
    pub(super) fn advance(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        for index in 0..self.devices.len() {
            self.advance_device(now_ns, DeviceId(index as u32), actions);
        }
    }

    fn advance_device(&mut self, now_ns: u64, id: DeviceId, actions: &mut Vec<Action>) {
        if !matches!(self.stage, Stage::Active | Stage::Handover | Stage::Leaving { .. }) {
            return;
        }
        let barrier = self.p2p_barrier_open();
        let several = self.devices.len() > 1;
        let switchover = self.switchover;
        let device = &mut self.devices[id.index()];
        if !device.line.is_free() {
            return;
        }
        if device.line.looks_into(actions) {
            device.stage = DeviceStage::Classifying;
            return;
        }
        let p2p = device.config.capabilities.p2p && several;
        match device.stage {
            DeviceStage::Held if switchover && p2p => {
                device.stage = DeviceStage::ToP2p;
                device.line.ask(Request::SetState(DeviceState::RunningP2p), actions);
            }
            DeviceStage::PreCopy if switchover && p2p => {
                device.stage = DeviceStage::ToP2p;
                device.line.ask(Request::SetState(DeviceState::PreCopyP2p), actions);
            }
            DeviceStage::Held | DeviceStage::PreCopy if switchover => {
                device.stage = DeviceStage::Stopping;
                device.line.ask(Request::SetState(DeviceState::StopCopy), actions);
            }
            DeviceStage::AtP2p if barrier => {
                device.stage = DeviceStage::Stopping;
                device.line.ask(Request::SetState(DeviceState::StopCopy), actions);
            }
            DeviceStage::Held if device.saves_in_precopy() => {
                device.stage = DeviceStage::Entering;
                device.line.ask(Request::SetState(DeviceState::PreCopy), actions);
            }
            DeviceStage::Held if !device.length_known => {
                device.line.ask(Request::StopCopyLength, actions);
            }
            DeviceStage::PreCopy if device.ask_at_ns.is_some_and(|at| at <= now_ns) => {
                device.ask_at_ns = None;
                device.line.ask(Request::PrecopyInfo, actions);
            }
            DeviceStage::StopCopy if device.ended && device.reads == 0 => {
                device.stage = DeviceStage::Verifying;
                device.line.ask(Request::GetState, actions);
            }
            DeviceStage::LettingGo if !device.line.is_attached() => {
                device.line.ask(Request::SetState(DeviceState::Stop), actions);
            }
            _ => {}
        }
    }

    pub(super) fn answered(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        request: Request,
        result: Result<Reply, i32>,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        if device.line.answered(request, result, actions) {
            self.recovered(now_ns, id, actions);
            return;
        }
        match (request, result) {
            (Request::SetState(state), Ok(Reply::Set { fd })) => {
                self.state_set(now_ns, id, state, fd, actions);
            }
            (Request::SetState(DeviceState::Stop), Err(_))
                if device.stage == DeviceStage::LettingGo =>
            {
                // The target has the state; that this device would not stop changes nothing.
                device.stage = DeviceStage::Gone;
            }
            (Request::SetState(_), Err(errno)) => {
                device.line.suspect(Operation::SetState, Some(errno))
            }
            (Request::GetState, answer) => {
                self.state_found(now_ns, id, state_of(answer), actions);
            }
            (Request::PrecopyInfo, Ok(Reply::Info(info))) => {
                self.precopy_info(now_ns, id, info, actions);
            }
            (Request::PrecopyInfo, Err(errno)) => {
                if device.stage == DeviceStage::PreCopy {
                    device.info_failed(errno, now_ns + self.config.precopy_poll_ns);
                }
            }
            (Request::StopCopyLength, answer) => {
                device.length_known = true;
                device.stop_copy_bytes = match answer {
                    Ok(Reply::Length(bytes)) => Some(bytes),
                    _ => None,
                };
                self.estimate(actions);
            }
            (request, result) => {
                debug_assert!(false, "{id}: {request:?} answered with {result:?}");
            }
        }
    }

    fn state_set(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        state: DeviceState,
        fd: bool,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        let saving = device.line.is_attached();
        match (device.stage, fd) {
            (DeviceStage::Entering, true) => {
                device.stage = DeviceStage::PreCopy;
                self.attach(id, actions);
                self.flows_from(now_ns, id);
                self.enter_phase(id, Phase::PreCopy, actions);
                self.mark_phase(id, DataPhase::PreCopy);
            }
            (DeviceStage::ToP2p, false) => device.stage = DeviceStage::AtP2p,
            (DeviceStage::Stopping, fd) if fd != saving => {
                device.stage = DeviceStage::StopCopy;
                device.drained = false;
                if fd {
                    self.attach(id, actions);
                }
                self.enter_phase(id, Phase::StopCopy, actions);
                self.mark_phase(id, DataPhase::StopCopy);
            }
            (DeviceStage::ToP2p | DeviceStage::Stopping, true) => {
                self.unexpected_fd(now_ns, id, state, actions);
            }
            (DeviceStage::LettingGo, fd) => {
                if fd {
                    actions.push(Action::DropFd { device: id });
                }
                self.devices[id.index()].stage = DeviceStage::Gone;
            }
            (_, fd) => {
                if fd {
                    actions.push(Action::DropFd { device: id });
                }
                // A saving state without a data fd: nothing can be read from it.
                device.line.suspect(Operation::SetState, None);
            }
        }
    }

    fn attach(&mut self, id: DeviceId, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        device.fresh = false;
        device.fd_bytes = 0;
        device.line.attach(device.epoch, actions);
    }

    /// The new session's fd is read in place of the old one's.
    pub(super) fn attach_stop_copy(&mut self, id: DeviceId, actions: &mut Vec<Action>) {
        self.devices[id.index()].stage = DeviceStage::StopCopy;
        self.attach(id, actions);
        self.mark_phase(id, DataPhase::StopCopy);
    }

    /// Tells the target where the data that follows comes from.
    fn mark_phase(&mut self, id: DeviceId, phase: DataPhase) {
        let device = &mut self.devices[id.index()];
        let place = device.place();
        let frame = Frame::Phase(place, phase);
        device.enqueue(place.sequence, Outgoing::Frame(frame));
    }

    fn state_found(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        found: Option<DeviceState>,
        actions: &mut Vec<Action>,
    ) {
        let device = &mut self.devices[id.index()];
        if let Some(answer) = device.line.take_suspicion(found) {
            self.classified(now_ns, id, answer, actions);
        } else if device.stage == DeviceStage::Verifying {
            if found == Some(DeviceState::StopCopy) {
                device.stage = DeviceStage::Sent;
                let total = device.total();
                let place = device.place();
                device.enqueue(place.sequence, Outgoing::Frame(Frame::End(place, total)));
                self.enter_phase(id, Phase::Load, actions);
            } else {
                let answer = device.line.answer(Operation::StateCheck, None, found);
                self.classified(now_ns, id, answer, actions);
            }
        }
    }

    fn precopy_info(
        &mut self,
        now_ns: u64,
        id: DeviceId,
        info: PrecopyInfo,
        actions: &mut Vec<Action>,
    ) {
        let poll_ns = self.config.precopy_poll_ns;
        self.flows_from(now_ns, id);
        let device = &mut self.devices[id.index()];
        device.pending_bytes = info.initial_bytes.saturating_add(info.dirty_bytes);
        if info.reinit {
            device.initial_sent = false;
            device.initial_reads = None;
            device.initial_loaded = false;
        }
        if info.initial_bytes == 0 {
            device.initial_read();
        }
        if device.pending_bytes == 0 {
            device.promised = false;
        } else if device.drained && device.promised {
            // Promised and not there yet: the driver is still saving.
            device.drained = false;
            device.ask_at_ns = Some(now_ns + poll_ns / PROMISED_PART);
        } else {
            device.drained = false;
            device.promised = true;
        }
        if device.stage == DeviceStage::PreCopy && device.line.is_well() {
            device.line.ask(Request::StopCopyLength, actions);
        }
    }

    /// Data may come from now on. A device that is drained is asked at once; one whose read waits
    /// for more than it has, instead of saying so, when nothing has come for an interval.
    fn flows_from(&mut self, now_ns: u64, id: DeviceId) {
        let device = &mut self.devices[id.index()];
        device.ask_by_ns = now_ns + self.config.precopy_poll_ns * FLOWING_TIMES;
        self.flows(now_ns, id);
    }

    /// Data came.
    pub(super) fn flows(&mut self, now_ns: u64, id: DeviceId) {
        let device = &mut self.devices[id.index()];
        device.ask_at_ns = Some(device.ask_by_ns.min(now_ns + self.config.precopy_poll_ns));
    }

    /// Tells the embedder what the downtime would be, once every device has been asked.
    pub(super) fn estimate(&mut self, actions: &mut Vec<Action>) {
        if self.switchover || !self.devices.iter().all(|device| device.length_known) {
            return;
        }
        let pending_bytes: u64 =
            self.devices.iter().map(|d| d.pending_bytes + d.unsent_bytes()).sum();
        let stop_copy_bytes = self.devices.iter().map(|d| d.stop_copy_bytes).sum::<Option<u64>>();
        let rate = self.controller.raw_bytes_per_s().map_or(0, |rate| rate as u64);
        let bytes = u128::from(pending_bytes) + u128::from(stop_copy_bytes.unwrap_or(0));
        let downtime_ns = (rate > 0)
            .then(|| u64::try_from(bytes * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX));
        actions.push(Action::Notify(Notice::Estimate(Estimate {
            initial_data_loaded: self
                .devices
                .iter()
                .all(|device| device.initial_loaded || !device.saves_in_precopy()),
            pending_bytes,
            stop_copy_bytes,
            state_bytes_per_s: rate,
            ratio: self.controller.ratio(),
            downtime_ns,
        })));
    }
}
