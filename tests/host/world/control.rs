//! The control thread of a device, simulated: one call at a time, which takes effect when it ends
//! and is answered a little later.

use vfio_ferry::ids::DeviceId;
use vfio_ferry::machine::{Event, Reply, Request};
use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::vfio::state::{DeviceState, forbidden};

use super::check::{Check, ensure};
use super::plan::{Trigger, Wrong};
use super::schedule::{HostId, Occurrence, SOURCE, TARGET};
use super::trace::trace;
use super::world::World;

const EIO: i32 = 5;
const EAGAIN: i32 = 11;
const EBADF: i32 = 9;

impl World {
    pub(crate) fn ask(&mut self, h: HostId, id: DeviceId, request: Request) -> Check {
        let tampered = self.is_tampered();
        let device = self.sides[h].device(id);
        ensure!(
            device.asked.is_none(),
            "one request of a device at a time",
            "{h} {id}: {request:?} while {:?} is in flight",
            device.asked
        );
        ensure!(
            device.fresh.is_none(),
            "an fd is taken or dropped before the next request",
            "{h} {id}: {request:?}"
        );
        let quiet = device.is_quiet();
        if let Request::SetState(to) = request {
            let state = device.sim.state;
            ensure!(
                !forbidden(state, to),
                "STOP_COPY -> PRE_COPY is never asked for",
                "{id}: {state} -> {to}"
            );
            if h == SOURCE && matches!(to, DeviceState::Running | DeviceState::Stop) {
                ensure!(
                    quiet,
                    "a data fd is closed before the saving states are left",
                    "{id} -> {to}"
                );
            }
        }
        self.check_p2p(h, id, request)?;
        self.check_asked(h, id, request)?;
        let device = self.sides[h].device(id);
        if request == Request::Reset {
            ensure!(quiet, "a data fd is closed before a reset", "{h} {id}");
        }
        device.asked = Some(request);
        device.asked_ns = self.schedule.now_ns;
        device.told.asked(request);
        device.checked = match request {
            Request::SetState(DeviceState::Stop) => h == SOURCE,
            Request::Reset => false,
            _ => device.checked,
        };
        if request == Request::SetState(DeviceState::Stop) && h == TARGET && !tampered {
            self.check_leaves_resuming(id)?;
        }
        self.start_call(h, id, request);
        Ok(())
    }

    fn start_call(&mut self, h: HostId, id: DeviceId, request: Request) {
        let device = self.sides[h].device(id);
        let number = device.controls;
        device.controls += 1;
        device.fails = None;
        device.panics = false;
        let asked = device.count(request);
        if request != Request::Reset {
            device.sim.enter_mutex();
        }
        let mut duration_ns = Some(self.schedule.delay(self.plan.control_ns));
        let mut sudden = Vec::new();
        let mut faults = self.faults_of(h, id, Trigger::Control(number));
        faults.extend(self.faults_of(h, id, Trigger::Asked(request, asked)));
        if request == Request::Reset {
            let device = self.sides[h].device(id);
            let number = device.resets_asked;
            device.resets_asked += 1;
            faults.extend(self.faults_of(h, id, Trigger::Resetting(number)));
        }
        for fault in faults {
            self.allow(h, fault);
            match fault.what {
                Wrong::Reset => sudden.push(Occurrence::Reset(h, id)),
                Wrong::Error => sudden.push(Occurrence::Error(h, id)),
                Wrong::Fails(errno) => {
                    let device = self.sides[h].device(id);
                    device.fails = Some(errno);
                    device.failed += 1;
                }
                Wrong::Slow(times) => duration_ns = Some(self.plan.control_ns * times),
                Wrong::Late(ns) => duration_ns = Some(ns),
                Wrong::Never => duration_ns = None,
                Wrong::Panics => {
                    let device = self.sides[h].device(id);
                    device.panics = true;
                    device.fails = Some(EIO);
                    device.failed += 1;
                }
                // Of the calls only this one may simply be made again.
                Wrong::Harmless(errno) if request == Request::PrecopyInfo => {
                    self.sides[h].device(id).fails = Some(errno);
                }
                Wrong::Stuck(_) | Wrong::Harmless(_) => {}
            }
        }
        let now_ns = self.schedule.now_ns;
        for occurrence in sudden {
            let within_ns = duration_ns.unwrap_or(self.plan.control_ns);
            let at_ns = now_ns + self.schedule.rng.below(within_ns + 1);
            self.schedule.at(at_ns, occurrence);
        }
        if let Some(duration_ns) = duration_ns {
            self.schedule.at(now_ns + duration_ns, Occurrence::ControlEnds(h, id));
        }
    }

    /// The call takes effect and returns.
    pub(crate) fn control_ends(&mut self, h: HostId, id: DeviceId) {
        let handed_over = self.sides[h].handed_over;
        let device = &mut self.sides[h].devices[id.index()];
        let Some(request) = device.asked else { return };
        // A reset is only noted meanwhile, and succeeds.
        if request != Request::Reset && device.fds.iter().any(|fd| fd.holds_mutex()) {
            device.waits_for_mutex = true;
            return;
        }
        let fails = device.fails.take();
        let rng = &mut self.schedule.rng;
        let before = device.sim.state;
        let mut deferred = false;
        // GET_STATE is asked twice: what was deferred is applied in between.
        if request == Request::GetState {
            deferred = device.sim.leave_mutex();
        }
        let mut promised = None;
        let result = match (request, fails) {
            (Request::SetState(to), fails) => match device.sim.set_state(to, fails, rng) {
                Ok(fd) => {
                    device.fresh = fd;
                    Ok(Reply::Set { fd: fd.is_some() })
                }
                Err(errno) => Err(errno),
            },
            (Request::Reset, Some(_)) => Err(EAGAIN),
            (_, Some(errno)) => Err(errno),
            (Request::GetState, None) => {
                if device.sim.state == DeviceState::Stop {
                    device.confirmed = device.fds.last().map(|fd| fd.epoch);
                }
                Ok(Reply::State(device.sim.state))
            }
            (Request::PrecopyInfo, None) => match device.active {
                None => Err(EBADF),
                Some(index) => {
                    let session = device.fds[index].session;
                    promised = Some(session);
                    device.sim.precopy_info(session, rng).map(Reply::Info)
                }
            },
            (Request::StopCopyLength, None) => device.sim.length().map(Reply::Length),
            (Request::Reset, None) => {
                device.sim.reset();
                device.resets_done += 1;
                Ok(Reply::Reset)
            }
        };
        if !matches!(request, Request::GetState | Request::Reset) {
            deferred = device.sim.leave_mutex();
        }
        if request == Request::GetState && h == TARGET {
            let state = device.sim.state;
            device.checked |=
                state == DeviceState::Resuming || (handed_over && state == DeviceState::Stop);
        }
        trace!(
            "      {h} {id} {request:?} in {before} -> {result:?}, now {}{}",
            device.sim.state,
            if deferred { ", a deferred reset is applied" } else { "" }
        );
        let mut events = vec![Event::Control { device: id, request, result }];
        if std::mem::take(&mut device.panics) {
            let message = format!("{request} of device {} panicked: simulated", id.0);
            let fault = Fault::session(Cause::Local, Observation::Engine, message);
            events.insert(rng.below(2) as usize, Event::Local(fault));
            self.coverage.panics += 1;
        }
        let high_ns = self.plan.control_ns / 4;
        for event in events {
            let feed = Occurrence::Feed(h, Box::new(event));
            self.schedule.through(&mut device.answers, high_ns, feed);
        }
        if let Some(session) = promised {
            self.schedule.after(self.plan.data_ns * 4, Occurrence::DataThere(id, session));
        }
        self.wake(h, id);
    }
}
