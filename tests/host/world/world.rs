//! The loop: the next occurrence, the machine that it reaches, what the machine wants, and the
//! invariants after every step.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use vfio_ferry::compress::policy::Hosts;
use vfio_ferry::ids::{DeviceId, StreamId};
use vfio_ferry::limits::MESSAGES_WAITING_MAX;
use vfio_ferry::machine::{Command, Event};
use vfio_ferry::outcome::{Cause, Fault, Observation, Phase};
use vfio_ferry::wire::Frame;

use super::check::{Check, ensure};
use super::coverage::Coverage;
use super::net::Stream;
use super::plan::{
    DeviceFault, Happening, Muted, PATIENCE_NS, Plan, STEPS_MAX, Trigger, When, Wrong,
};
use super::rng::Rng;
use super::schedule::{HostId, Occurrence, SOURCE, Schedule, TARGET};
use super::side::Side;
use super::trace::{is_on, trace};

/// Ticks in a row, with nothing between them, that leave a deadline over: a livelock.
const TICKS_MAX: u32 = 200;
/// A deadline after this is none.
const NEVER_NS: u64 = 1000 * PATIENCE_NS;
/// Sets the stream of numbers that time is drawn from apart from the others.
pub(crate) const TIME: u64 = 0x7469_6d65_0000_0000;
/// How late a deadline may be looked at, in nanoseconds.
pub(crate) const TICK_LATE_NS: u64 = 20_000;

/// What was done to a run, and may therefore be seen in how it ends.
#[derive(Debug, Default)]
pub(crate) struct Allowed {
    pub(crate) reset: [bool; 2],
    pub(crate) failure: [bool; 2],
    pub(crate) error: [bool; 2],
    pub(crate) cancel: [bool; 2],
    pub(crate) local: [bool; 2],
    pub(crate) slow: bool,
    pub(crate) discard: bool,
    pub(crate) network: bool,
    pub(crate) damage: bool,
    /// Frames of this host were lost.
    pub(crate) lost: [bool; 2],
    /// A driver of this host has held a call.
    pub(crate) late: [bool; 2],
}

impl Allowed {
    /// Whether a host's devices may refuse to be put right in time.
    pub(crate) fn troubled(&self, h: HostId) -> bool {
        self.failure[h] || self.error[h] || self.slow || self.late[h]
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) schedule: Schedule,
    pub(crate) sides: [Side; 2],
    pub(crate) net: Vec<Stream>,
    /// What simulated compression made of which chunk.
    pub(crate) bodies: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) caused: VecDeque<(HostId, Event)>,
    pub(crate) damage: [Option<bool>; 2],
    /// The next frame is lost, and whether that is seen.
    pub(crate) losing: [Option<bool>; 2],
    pub(crate) muted: [Option<Muted>; 2],
    /// No thread for the next data fd.
    pub(crate) attach_fails: [bool; 2],
    pub(crate) allowed: Allowed,
    pub(crate) coverage: Coverage,
    pub(crate) steps: u64,
    sent_messages: [u64; 2],
    /// What comes before which step, the next one last.
    by_step: Vec<(u64, Planned)>,
    /// What comes so many steps after a host has entered a phase.
    by_phase: Vec<(HostId, Phase, u64, Planned)>,
}

#[derive(Debug, Clone)]
enum Planned {
    Switchover,
    Fault(DeviceFault),
    Happening(Happening),
}

impl World {
    pub(crate) fn new(seed: u64, hostile: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::draw(&mut rng, hostile);
        plan.draw_time(&mut Rng::new(seed ^ TIME));
        World::of(plan, rng)
    }

    /// What is planned, and chance for the rest.
    pub(crate) fn of(plan: Plan, rng: Rng) -> World {
        trace!("{plan:#?}");
        let mut schedule = Schedule::new(rng);
        let mut planned = vec![(plan.switchover, Planned::Switchover)];
        // Sooner or later every embedder stops its vCPUs.
        let at_ns = schedule.now_ns + PATIENCE_NS / 10;
        schedule.at(at_ns, Occurrence::Asks(SOURCE, Command::Switchover));
        for fault in &plan.faults {
            if let Trigger::At(when) = fault.when {
                planned.push((when, Planned::Fault(*fault)));
            }
        }
        let mut losing = [None; 2];
        for (when, happening) in &plan.happenings {
            if let (When::Step(0), Happening::Lose { host, seen }) = (when, happening) {
                losing[*host] = Some(*seen);
                continue;
            }
            planned.push((*when, Planned::Happening(happening.clone())));
        }
        schedule.at(PATIENCE_NS, Occurrence::Patience);
        let (mut by_step, mut by_phase) = (Vec::new(), Vec::new());
        for (when, what) in planned {
            match when {
                When::Step(step) => by_step.push((step, what)),
                When::After(h, phase, steps) => by_phase.push((h, phase, steps, what)),
                When::Ns(ns) => {
                    let at_ns = schedule.now_ns + ns;
                    schedule.at(at_ns, Occurrence::Asks(SOURCE, Command::Switchover));
                }
            }
        }
        by_step.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
        World {
            sides: [Side::new(SOURCE, &plan), Side::new(TARGET, &plan)],
            net: (0..plan.streams).map(|_| Stream::default()).collect(),
            plan,
            schedule,
            bodies: BTreeMap::new(),
            caused: VecDeque::new(),
            damage: [None; 2],
            losing,
            muted: [None; 2],
            attach_fails: [false; 2],
            allowed: Allowed::default(),
            coverage: Coverage::default(),
            steps: 0,
            sent_messages: [0; 2],
            by_step,
            by_phase,
        }
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) -> Check {
        let first = self.schedule.rng.below(2) as usize;
        self.feed(first, Event::Start)?;
        self.feed(1 - first, Event::Start)?;
        if self.plan.tries_path {
            let hosts = Hosts { cores: self.plan.workers as u32, shared: false };
            let path = Event::Path { hosts, bytes_per_s: None, may_try: true };
            self.feed(SOURCE, path)?;
        }
        loop {
            self.planned()?;
            let Some(occurrence) = self.schedule.next() else { break };
            self.occurs(occurrence)?;
        }
        ensure!(self.is_over(), "every run ends", "nothing is left to happen");
        self.coverage.steps = self.steps;
        self.check_end()
    }

    fn is_over(&self) -> bool {
        self.sides.iter().all(|side| side.ended.is_some())
    }

    /// Only what never ends in a driver may try an embedder's patience.
    fn lose_patience(&mut self) -> Check {
        ensure!(
            self.plan.may_hang() || self.is_tampered(),
            "every run ends",
            "nothing moved for {} ms: the source is {:?}, the target {:?}",
            PATIENCE_NS / 1_000_000,
            self.sides[SOURCE].devices.iter().map(|d| d.phase.name()).collect::<Vec<_>>(),
            self.sides[TARGET].devices.iter().map(|d| d.phase.name()).collect::<Vec<_>>()
        );
        for h in [SOURCE, TARGET] {
            self.command(h, Command::Cancel)?;
        }
        Ok(())
    }

    /// A device has entered a phase: what was to come soon after it gets its step.
    pub(crate) fn entered(&mut self, h: HostId, phase: Phase) {
        let (now, rest) = std::mem::take(&mut self.by_phase)
            .into_iter()
            .partition(|(host, after, ..)| (*host, *after) == (h, phase));
        self.by_phase = rest;
        let now: Vec<_> = now;
        self.by_step.extend(now.into_iter().map(|(_, _, steps, what)| (self.steps + steps, what)));
        self.by_step.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    }

    fn planned(&mut self) -> Check {
        while self.by_step.last().is_some_and(|(step, _)| *step <= self.steps) {
            match self.by_step.pop() {
                Some((_, Planned::Switchover)) => self.command(SOURCE, Command::Switchover)?,
                Some((_, Planned::Fault(fault))) => {
                    let id = DeviceId(fault.device);
                    match fault.what {
                        Wrong::Error => self.device_error(fault.host, id),
                        _ => self.device_reset(fault.host, id),
                    }
                }
                Some((_, Planned::Happening(happening))) => self.happens(happening)?,
                None => {}
            }
        }
        Ok(())
    }

    fn happens(&mut self, happening: Happening) -> Check {
        trace!("      {happening:?}");
        match happening {
            Happening::Cut(stream) => {
                self.allowed.network = true;
                self.cut(StreamId(stream));
            }
            Happening::CutAll => {
                self.allowed.network = true;
                self.streams().for_each(|stream| self.cut(stream));
            }
            Happening::Stall(stream, length_ns) => {
                self.allowed.network |= length_ns > self.plan.silence_ns / 2;
                self.stall(StreamId(stream), length_ns);
            }
            Happening::StallAll(length_ns) => {
                self.allowed.network |= length_ns > self.plan.silence_ns / 2;
                self.streams().for_each(|stream| self.stall(stream, length_ns));
            }
            Happening::Crawl(stream, length_ns, bytes) => {
                self.allowed.network |= length_ns > self.plan.silence_ns / 2;
                self.crawl(stream.map(StreamId), length_ns, bytes);
            }
            Happening::Lose { host, seen } => self.losing[host] = Some(seen),
            Happening::Mute(host, what) => self.muted[host] = Some(what),
            Happening::Damage(host, in_body) => self.damage[host] = Some(in_body),
            Happening::Cancel(host) => self.command(host, Command::Cancel)?,
            Happening::Discard(device) => {
                let id = DeviceId(device);
                let message = "the embedder saw a reset";
                let (cause, seen) = (Cause::DeviceReset, Observation::Embedder);
                let fault = Fault::device(id, cause, seen, None, message);
                self.allowed.discard = true;
                self.command(SOURCE, Command::Discard(id, fault))?;
            }
            Happening::Message(host) => {
                // Now and then more than may wait.
                let burst = self.steps.is_multiple_of(8);
                self.allowed.local[host] |= burst;
                for _ in 0..if burst { 2 * MESSAGES_WAITING_MAX as u64 } else { 1 } {
                    self.sent_messages[host] += 1;
                    self.command(host, Command::Message(Bytes::from_static(b"message")))?;
                }
            }
            Happening::Local(host) => {
                self.allowed.local[host] = true;
                let fault = Fault::session(Cause::Local, Observation::Engine, "simulated");
                self.feed(host, Event::Local(fault))?;
            }
            Happening::AttachFails(host) => self.attach_fails[host] = true,
            Happening::EarlyTick(host) => self.feed(host, Event::Tick)?,
        }
        Ok(())
    }

    fn command(&mut self, h: HostId, command: Command) -> Check {
        if matches!(command, Command::Cancel) {
            self.allowed.cancel[h] = true;
            let bound_ns = self.schedule.now_ns + self.plan.bound_ns + 4 * TICK_LATE_NS;
            let side = &mut self.sides[h];
            if side.ended.is_none() {
                side.ends_by_ns.get_or_insert(bound_ns);
            }
        }
        if matches!(command, Command::Switchover) {
            self.sides[h].clock.switchover_ns.get_or_insert(self.schedule.now_ns);
        }
        self.feed(h, Event::Command(command))
    }

    fn occurs(&mut self, occurrence: Occurrence) -> Check {
        match occurrence {
            Occurrence::Feed(h, event) => self.feed(h, *event),
            Occurrence::Tick(h) => self.tick(h),
            Occurrence::ControlEnds(h, id) => {
                self.control_ends(h, id);
                Ok(())
            }
            Occurrence::DataEnds(h, id, index) => self.data_ends(h, id, index),
            Occurrence::DetachBound(h, id, index) => self.detach_bound(h, id, index),
            Occurrence::Reset(h, id) => {
                self.device_reset(h, id);
                Ok(())
            }
            Occurrence::Error(h, id) => {
                self.device_error(h, id);
                Ok(())
            }
            Occurrence::DataThere(id, session) => {
                self.sides[SOURCE].device(id).sim.data_there(session);
                self.wake(SOURCE, id);
                Ok(())
            }
            Occurrence::Encoded { chunk, slot, into, bytes } => {
                self.encoded(chunk, slot, into, bytes)
            }
            Occurrence::Decoded { header, slot, into } => self.decoded(TARGET, header, slot, into),
            Occurrence::SendEnds(h, stream) => self.send_ends(h, stream),
            Occurrence::Arrives(h, stream) => self.arrives(h, stream),
            Occurrence::BodyEnds(h, stream) => self.body_ends(h, stream),
            Occurrence::LostSeen(h, stream) => self.lost_seen(h, stream),
            Occurrence::Crawls { stream, until_ns, every_ns, bytes } => {
                self.crawls(stream, until_ns, every_ns, bytes)
            }
            Occurrence::Asks(h, command) => self.command(h, command),
            Occurrence::Patience if self.is_over() => Ok(()),
            Occurrence::Patience => self.lose_patience(),
        }
    }

    /// Someone resets a device, unless nothing at all could tell: see [`may_reset`](Self::may_reset).
    fn device_reset(&mut self, h: HostId, id: DeviceId) {
        if !self.may_reset(h, id) {
            return;
        }
        self.allowed.reset[h] = true;
        let now = self.sides[h].device(id).sim.reset();
        trace!("      {h} {id} is reset{}", if now { "" } else { ", deferred" });
        if now {
            self.wake(h, id);
        }
    }

    fn device_error(&mut self, h: HostId, id: DeviceId) {
        if !self.may_reset(h, id) {
            return;
        }
        self.allowed.error[h] = true;
        let device = self.sides[h].device(id);
        device.sim.fail();
        device.errored = true;
        trace!("      {h} {id} falls into ERROR");
        self.wake(h, id);
    }

    /// Between a check of the state and the arc that relies on it no user space can see a reset:
    /// GET_STATE said RESUMING (or, after the handover, STOP) and SET_STATE follows. A device that
    /// was let go, or whose session is over, is nobody's business here.
    fn may_reset(&self, h: HostId, id: DeviceId) -> bool {
        !self.sides[h].devices[id.index()].checked && self.sides[h].ended.is_none()
    }

    /// Notes what a planned fault may lead to.
    pub(crate) fn allow(&mut self, h: HostId, fault: DeviceFault) {
        match fault.what {
            Wrong::Fails(_) => self.allowed.failure[h] = true,
            Wrong::Stuck(_) => {
                self.allowed.failure[h] = true;
            }
            Wrong::Slow(_) => self.allowed.slow = true,
            Wrong::Late(_) | Wrong::Never => {
                self.allowed.late[h] = true;
                self.allowed.failure[h] |= matches!(fault.when, Trigger::Data(_));
            }
            Wrong::Panics => {
                self.allowed.local[h] = true;
                self.allowed.failure[h] = true;
            }
            Wrong::Reset | Wrong::Error | Wrong::Harmless(_) => {}
        }
    }

    /// A machine takes an event, and what it causes.
    pub(crate) fn feed(&mut self, h: HostId, event: Event) -> Check {
        self.step(h, event)?;
        while let Some((h, event)) = self.caused.pop_front() {
            self.step(h, event)?;
        }
        Ok(())
    }

    fn step(&mut self, h: HostId, event: Event) -> Check {
        self.steps += 1;
        ensure!(self.steps < STEPS_MAX, "a run has a bound of steps", "{event:?}");
        if is_on() {
            let (steps, us) = (self.steps, self.schedule.now_ns / 1000);
            trace!("{steps:5} {us:8} us  {} <- {event:?}", ["source", "target"][h]);
        }
        self.coverage.fed(h, &event, &self.sides[h]);
        self.note_time(h, &event);
        self.note_chunk(h, &event)?;
        let side = &mut self.sides[h];
        side.take_back(&event);
        match &event {
            Event::Control { device, request, result } => {
                let device = side.device(*device);
                device.asked = None;
                device.told.answered(*request, *result);
            }
            Event::Frame { frame: Frame::InitialDataLoaded { device, epoch }, .. } => {
                let (of, _, heard) = &mut side.device(*device).initial;
                *heard += u32::from(of == epoch);
            }
            Event::Detached { device, .. } => side.device(*device).attached = false,
            _ => {}
        }
        let (ticked, now_ns) = (matches!(event, Event::Tick), self.schedule.now_ns);
        let mut actions = std::mem::take(&mut side.actions);
        side.real.machine().handle(now_ns, event, &mut actions);
        // What waits for ever by its own limits may look as often as the shortest of them is over.
        let is_over = side.real.look().deadline_ns().is_some_and(|at_ns| at_ns <= now_ns);
        side.ticks = if ticked && is_over { side.ticks + 1 } else { 0 };
        ensure!(side.ticks < TICKS_MAX, "a deadline that is over moves on", "host {h}");
        for action in actions.drain(..) {
            trace!("                      {} -> {action:?}", ["source", "target"][h]);
            self.act(h, action)?;
        }
        self.sides[h].actions = actions;
        if self.sides[h].ended.is_some() && self.sides[h].real.look().has_told() {
            self.close_sending(h);
        }
        self.schedule_tick(h);
        self.check_time(1 - h)?;
        self.check_time(h)?;
        self.check_step(h)
    }

    fn schedule_tick(&mut self, h: HostId) {
        let side = &mut self.sides[h];
        let deadline_ns = side.real.look().deadline_ns().filter(|at_ns| *at_ns < NEVER_NS);
        let Some(at_ns) = deadline_ns else { return };
        if side.tick_at_ns.is_none_or(|tick_ns| at_ns < tick_ns) {
            let late_ns = self.schedule.delay(TICK_LATE_NS);
            let at_ns = at_ns.max(self.schedule.now_ns) + late_ns;
            side.tick_at_ns = Some(at_ns);
            self.schedule.at(at_ns, Occurrence::Tick(h));
        }
    }

    fn tick(&mut self, h: HostId) -> Check {
        let now_ns = self.schedule.now_ns;
        let side = &mut self.sides[h];
        if side.tick_at_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            side.tick_at_ns = None;
        }
        if side.real.look().deadline_ns().is_some_and(|at_ns| at_ns <= now_ns) {
            return self.feed(h, Event::Tick);
        }
        self.schedule_tick(h);
        Ok(())
    }

    pub(crate) fn is_tampered(&self) -> bool {
        self.plan.hostile.is_some()
    }

    pub(crate) fn sent_messages(&self, h: HostId) -> u64 {
        self.sent_messages[h]
    }
}
