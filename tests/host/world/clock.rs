//! Time is exact here: no session goes on for longer than its limits say, none is given up before
//! they are over, and no guest stands still for longer than its embedder allowed.

use std::time::Duration;

use vfio_ferry::ids::DeviceId;
use vfio_ferry::limits::PROGRESS_BYTES_MIN;
use vfio_ferry::machine::{Event, NO_LIMIT_NS, ReadResult};
use vfio_ferry::outcome::{Cause, EpochEnding, Fault, Observation};
use vfio_ferry::wire::{DataPhase, Frame};

use super::check::{Check, ensure};
use super::schedule::{HostId, SOURCE, TARGET};
use super::side::Ended;
use super::world::{TICK_LATE_NS, World};

/// Several deadlines may be over at once, and each is looked at a little late.
const LATE_NS: u64 = 8 * TICK_LATE_NS;

/// So many times the stall limit is what the peer owes waited for.
const PEER_STEPS: u64 = 5;
/// How often a device is asked whether a failure was a reset, at least.
const SETTLE_AGAIN_NS: u64 = 20_000_000;
/// How long a last word is waited for at most.
const LAST_WORD_NS: u64 = 1_000_000_000;

/// When what happened on a host.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    pub(crate) started_ns: u64,
    /// Its embedder has said that the vCPUs are stopped.
    pub(crate) switchover_ns: Option<u64>,
    /// The source has decided to hand over: the frame may wait for a stream.
    pub(crate) decided_ns: Option<u64>,
    /// The handover was given out (source), or has come (target).
    pub(crate) handover_ns: Option<u64>,
    /// The target's word that it runs has come (source).
    pub(crate) confirmed_ns: Option<u64>,
    pub(crate) gave_up_ns: Option<u64>,
    /// Anything of the peer, part of a frame included.
    heard_ns: u64,
    /// A frame that speaks of the state, or part of one.
    state_ns: u64,
    /// Anything but the peer's pings, the embedder's messages and the clock's ticks.
    moved_ns: u64,
    /// A device is stopped at the source (target).
    stopped: bool,
}

impl Clock {
    /// The host takes an event.
    pub(crate) fn takes(&mut self, now_ns: u64, event: &Event) {
        let part = |bytes: u32| u64::from(bytes) >= PROGRESS_BYTES_MIN;
        match event {
            Event::Start => {
                (self.started_ns, self.heard_ns, self.state_ns) = (now_ns, now_ns, now_ns);
                self.moved_ns = now_ns;
            }
            // That a ping is out moves nothing.
            Event::Tick | Event::Command(_) | Event::Sent { slot: None, .. } => {}
            Event::Frame { frame, .. } => {
                self.heard_ns = now_ns;
                if frame.place().is_some() {
                    self.state_ns = now_ns;
                }
                if !matches!(frame, Frame::Ping(_) | Frame::Pong(_) | Frame::Message(_)) {
                    self.moved_ns = now_ns;
                }
                self.stopped |= matches!(frame, Frame::Phase(_, DataPhase::StopCopy));
                if matches!(frame, Frame::Running) && self.handover_ns.is_some() {
                    self.confirmed_ns.get_or_insert(now_ns);
                }
            }
            Event::Data { .. } | Event::Body { .. } => {
                (self.heard_ns, self.state_ns, self.moved_ns) = (now_ns, now_ns, now_ns);
            }
            Event::Part { sent, bytes, .. } => {
                if !sent {
                    self.heard_ns = now_ns;
                }
                if part(*bytes) {
                    self.moved_ns = now_ns;
                }
            }
            _ => self.moved_ns = now_ns,
        }
    }
}

/// The device of which the peer says something that moves it on.
fn paid_by_peer(event: &Event) -> Option<DeviceId> {
    match event {
        Event::Decoded { header, .. } => Some(header.place.device),
        Event::Frame { frame, .. } => match frame {
            Frame::Credit { device, .. }
            | Frame::InitialDataLoaded { device, .. }
            | Frame::Loaded { device, .. } => Some(*device),
            frame => frame.place().map(|place| place.device),
        },
        _ => None,
    }
}

fn ms(ns: u64) -> Duration {
    Duration::from_nanos(ns)
}

impl World {
    /// Notes when an event came that moves something on.
    pub(crate) fn note_time(&mut self, h: HostId, event: &Event) {
        let now_ns = self.schedule.now_ns;
        let side = &mut self.sides[h];
        // What comes afterwards is of no account.
        if side.clock.gave_up_ns.is_some() {
            return;
        }
        side.clock.takes(now_ns, event);
        match event {
            Event::Control { device, .. }
            | Event::Read { device, result: ReadResult::Chunk { .. } | ReadResult::End, .. }
            | Event::Written { device, .. } => side.device(*device).driver_ns = now_ns,
            event => {
                if let Some(device) = paid_by_peer(event)
                    && let Some(device) = side.devices.get_mut(device.index())
                    && device.gains(event)
                {
                    device.peer_ns = now_ns;
                }
            }
        }
        for device in &mut side.devices {
            // Another request is another debt.
            let asked_ns = if device.asked.is_some() { device.asked_ns } else { 0 };
            device.owed_ns = [device.driver_ns.max(asked_ns), device.peer_ns];
        }
    }

    /// After every step: what is over has ended.
    pub(crate) fn check_time(&mut self, h: HostId) -> Check {
        let now_ns = self.schedule.now_ns;
        let side = &mut self.sides[h];
        if side.ended.is_some() {
            return Ok(());
        }
        if side.real.look().is_ending() {
            side.clock.gave_up_ns.get_or_insert(now_ns);
        }
        let (side, limits) = (&self.sides[h], self.plan.limits[h]);
        let over = |from_ns: Option<u64>, limit_ns: u64| {
            from_ns
                .is_some_and(|from| now_ns > from.saturating_add(limit_ns).saturating_add(LATE_NS))
        };
        let Clock { started_ns, handover_ns, confirmed_ns, gave_up_ns, .. } = side.clock;
        ensure!(
            !over(gave_up_ns, limits.cancel_ns)
                && (h == TARGET || !over(confirmed_ns, limits.cancel_ns)),
            "a session that is given up, or is done, ends within its bound",
            "host {h}: {:?}",
            side.clock
        );
        if gave_up_ns.is_some() {
            return Ok(());
        }
        ensure!(
            side.connected || started_ns == 0 || !over(Some(started_ns), limits.handshake_ns),
            "a handshake ends within its limit",
            "host {h}: {:?}",
            ms(limits.handshake_ns)
        );
        if h == SOURCE {
            let out = side.handover_sent;
            ensure!(
                out || !over(side.clock.switchover_ns, limits.budget_ns),
                "a guest stands still for its budget at most",
                "{:?}",
                ms(limits.budget_ns)
            );
            let limit_ns = limits.confirm_ns.saturating_add(limits.cancel_ns);
            ensure!(
                !over(handover_ns, limit_ns),
                "after the handover the source does not wait for longer than its limit",
                "{:?}",
                ms(limits.confirm_ns)
            );
        }
        self.check_stall(h)
    }

    /// What a driver or the peer owes.
    fn check_stall(&self, h: HostId) -> Check {
        let (side, limits) = (&self.sides[h], self.plan.limits[h]);
        let now_ns = self.schedule.now_ns;
        let stall_ns = limits.stall_ns.saturating_add(LATE_NS);
        if h == SOURCE && side.handover_sent {
            return Ok(());
        }
        for (index, device) in side.devices.iter().enumerate() {
            let since_ns = device.asked_ns.max(device.driver_ns).saturating_add(stall_ns);
            ensure!(
                device.asked.is_none() || now_ns <= since_ns,
                "no driver holds a call for longer than the stall limit",
                "host {h} device {index}: {:?} since {:?}",
                device.asked,
                ms(now_ns - device.asked_ns)
            );
        }
        if h == TARGET && side.handed_over {
            return Ok(());
        }
        // The closing of a data fd has a bound of its own, and so have a failure that may yet turn
        // out to be a reset and a stream that broke without a word.
        let word_ns = (self.plan.silence_ns / 32).min(LAST_WORD_NS);
        let own_ns = self.plan.detach_bound_ns + SETTLE_AGAIN_NS.max(word_ns);
        let by_peer_ns =
            limits.stall_ns.saturating_mul(PEER_STEPS).saturating_add(LATE_NS + own_ns);
        let quiet_ns = match h {
            SOURCE if side.clock.switchover_ns.is_some() => by_peer_ns,
            TARGET if side.clock.stopped => by_peer_ns,
            TARGET => limits.idle_ns.max(limits.stall_ns).saturating_add(by_peer_ns),
            _ => NO_LIMIT_NS,
        };
        let moved_ns = side.clock.moved_ns.max(side.clock.switchover_ns.unwrap_or(0));
        ensure!(
            !side.connected || now_ns <= moved_ns.saturating_add(quiet_ns),
            "nobody waits for what does not move",
            "host {h}: for {:?}; {:?}",
            ms(now_ns - moved_ns),
            side.devices
                .iter()
                .map(|device| (device.phase, device.sim.state, device.asked, device.attached))
                .collect::<Vec<_>>()
        );
        Ok(())
    }

    /// At the end of a session: it took no longer than it may, and what it says of a limit is so.
    pub(crate) fn check_ended_in_time(&self, h: HostId, ended: &Ended) -> Check {
        let (side, limits) = (&self.sides[h], self.plan.limits[h]);
        let clock = &side.clock;
        if h == SOURCE
            && ended.epochs() == EpochEnding::Aborted
            && !side.handover_sent
            && let Some(from_ns) = clock.switchover_ns
        {
            let budget_ns = limits.budget_ns.saturating_add(limits.cancel_ns);
            let bound_ns = from_ns.saturating_add(budget_ns).saturating_add(2 * LATE_NS);
            ensure!(
                side.finished_ns <= bound_ns,
                "a guest that runs on stood still for its budget and the way back at most",
                "{:?}",
                ms(side.finished_ns - from_ns)
            );
        }
        match ended.fault() {
            Some(fault) if fault.cause == Cause::TimeLimit => self.check_limit(h, fault),
            Some(fault) if fault.message.contains("silent for") => {
                let at_ns = clock.gave_up_ns.unwrap_or(side.finished_ns);
                ensure!(
                    at_ns >= clock.heard_ns.saturating_add(self.plan.silence_ns)
                        || fault.observed == Observation::Peer,
                    "a peer that is heard is not silent",
                    "host {h}: {fault}"
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_limit(&self, h: HostId, fault: &Fault) -> Check {
        let (side, limits) = (&self.sides[h], self.plan.limits[h]);
        let clock = &side.clock;
        let at_ns = clock.gave_up_ns.unwrap_or(side.finished_ns);
        let after = |from_ns: Option<u64>, limit_ns: u64| {
            from_ns.is_some_and(|from_ns| at_ns >= from_ns.saturating_add(limit_ns))
        };
        let limit = fault.message.split(' ').next().unwrap_or_default();
        let true_ = match limit {
            "handshake_limit" => {
                !side.connected && after(Some(clock.started_ns), limits.handshake_ns)
            }
            "idle_limit" => after(Some(clock.state_ns), limits.idle_ns),
            "switchover_budget" => {
                h == SOURCE && !side.handover_sent && after(clock.switchover_ns, limits.budget_ns)
            }
            "confirm_limit" => h == SOURCE && after(clock.decided_ns, limits.confirm_ns),
            // What a peer that lies says is worth nothing.
            "stall_limit" if self.is_tampered() => true,
            "stall_limit" => {
                let device = fault.device.and_then(|id| side.devices.get(id.index()));
                let by_peer = !fault.message.contains("the driver");
                let by = usize::from(by_peer);
                let steps = if by_peer { PEER_STEPS } else { 1 };
                let since_ns = device.map(|device| device.owed_ns[by].max(clock.started_ns));
                after(since_ns, limits.stall_ns.saturating_mul(steps))
            }
            _ => false,
        };
        ensure!(
            true_,
            "a limit strikes when it is over, and names itself",
            "host {h} at {at_ns}: {fault}; owed since {:?}",
            side.devices.iter().map(|device| device.owed_ns).collect::<Vec<_>>()
        );
        ensure!(
            fault.observed == Observation::Clock && fault.message.contains(") is over: "),
            "a limit strikes when it is over, and names itself",
            "host {h}: {fault}"
        );
        Ok(())
    }
}
