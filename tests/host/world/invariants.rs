//! What must hold after every step, when a session finishes, and when nothing is left to happen.

use vfio_ferry::ids::{DeviceId, Epoch};
use vfio_ferry::outcome::{Cause, Completion, EpochEnding};
use vfio_ferry::vfio::state::DeviceState;

use super::check::{Check, ensure};
use super::late::is_home;
use super::schedule::{HostId, SOURCE, TARGET};
use super::side::{Ended, Place, SideDevice};
use super::world::World;

impl World {
    /// After every step of a host.
    pub(crate) fn check_step(&mut self, h: HostId) -> Check {
        let side = &self.sides[h];
        let (away, out, all) = (side.slots_away(), side.real.look().slots_out(), side.slots.len());
        ensure!(
            away <= out && out <= all,
            "slots that are away are counted as out",
            "host {h}: {away} are away, {out} of {all} are out"
        );
        let share = self.plan.slots_per_device + 2 * self.plan.workers;
        for index in 0..side.devices.len() {
            let id = DeviceId(index as u32);
            let held = side.slots.iter().filter(|slot| match slot.place {
                Place::Fd(owner) | Place::Worker(owner) | Place::Receiving(_, owner) => owner == id,
                Place::Machine | Place::Sending(_) => false,
            });
            let held = held.count();
            ensure!(
                held <= share,
                "a device holds no more than its share",
                "host {h} {id}: {held}"
            );
        }
        self.check_one_runs()
    }

    /// A device never runs on both hosts with its state.
    fn check_one_runs(&self) -> Check {
        if self.is_tampered() {
            return Ok(());
        }
        let devices = self.sides[SOURCE].devices.iter().zip(&self.sides[TARGET].devices);
        for (index, (source, target)) in devices.enumerate() {
            let runs = target.sim.loaded.is_some() && target.sim.state.is_running();
            // One that was reset in STOP_COPY runs blank until it is let go.
            let both = runs && source.sim.state.is_running() && source.sim.resets == 0;
            ensure!(!both, "a device runs on one host", "device {index}");
        }
        Ok(())
    }

    /// A target asks its device to leave RESUMING for STOP.
    pub(crate) fn check_leaves_resuming(&self, id: DeviceId) -> Check {
        let target = &self.sides[TARGET].devices[id.index()].sim;
        ensure!(
            target.state == DeviceState::Resuming,
            "RESUMING is left only when GET_STATE has said RESUMING",
            "{id} is in {}",
            target.state
        );
        let resume = target.resumes.last();
        let whole = resume.is_some_and(|resume| self.is_whole(id, resume.epoch, &resume.bytes));
        ensure!(whole, "RESUMING is left with the whole state", "{id}");
        Ok(())
    }

    /// The target says that it has loaded a device's initial data. How much that is at the moment
    /// only a device that never has more of it tells.
    pub(crate) fn check_initial(&self, id: DeviceId, epoch: Epoch) -> Check {
        if self.is_tampered() || self.plan.devices[id.index()].reinit {
            return Ok(());
        }
        let [source, target] = self.sides.each_ref().map(|side| &side.devices[id.index()]);
        let session = source.epochs.get(&epoch).map(|session| &source.sim.sessions[*session]);
        // Not the last one: the frame may have waited for a stream until after a discard.
        let fd = target.fds.iter().find(|fd| fd.epoch == epoch);
        let (Some(session), Some(fd)) = (session, fd) else { return Ok(()) };
        let (loaded, initial) = (target.sim.resumes[fd.session].bytes.len(), session.initial_end);
        ensure!(
            loaded >= initial,
            "initial data is loaded when it is said to be",
            "{id}: {loaded} of {initial} bytes"
        );
        Ok(())
    }

    /// Whether these bytes are all that the source's session of this epoch had at STOP_COPY. A
    /// device without state has had nothing written.
    fn is_whole(&self, id: DeviceId, epoch: Option<Epoch>, bytes: &[u8]) -> bool {
        let source = &self.sides[SOURCE].devices[id.index()];
        let epoch = epoch.or(source.epochs.last_key_value().map(|(epoch, _)| *epoch));
        epoch
            .and_then(|epoch| source.epochs.get(&epoch))
            .map(|session| &source.sim.sessions[*session])
            .is_some_and(|session| session.whole && session.bytes == bytes)
    }

    /// A host has said that it is at its end.
    pub(crate) fn check_finished(&mut self, h: HostId) -> Check {
        let Some(ended) = self.sides[h].ended.clone() else { return Ok(()) };
        let ended = &ended;
        self.check_reports(h)?;
        self.check_word(h, ended)?;
        self.check_ended_in_time(h, ended)?;
        let side = &self.sides[h];
        ensure!(
            side.ends_by_ns.is_none_or(|ends_by_ns| side.finished_ns <= ends_by_ns),
            "a cancel ends within its bound",
            "host {h}: {} ns too late",
            side.finished_ns - side.ends_by_ns.unwrap_or(0)
        );
        for report in side.real.look().reports() {
            let index = report.device.index();
            let of = side.completions.iter().filter(|c| c.device == report.device);
            let (restarts, finals): (Vec<_>, Vec<_>) =
                of.partition(|completion| completion.ending == EpochEnding::Restarted);
            let endings: Vec<EpochEnding> = finals.iter().map(|c| c.ending).collect();
            ensure!(
                endings == [ended.epochs()] && report.ending == Some(ended.epochs()),
                "each device has one final completion, the session's",
                "host {h} device {index}: {endings:?}, and the session {ended:?}"
            );
            let discarded: u64 = restarts.iter().map(|c| c.bytes).sum();
            // Data that was still being written when this was told counts in the report.
            let bytes = finals.iter().map(|c| c.bytes).sum::<u64>();
            let epochs = restarts.iter().chain(&finals).map(|c| c.epoch.0);
            ensure!(
                bytes <= report.total.bytes
                    && (bytes == report.total.bytes || ended.epochs() == EpochEnding::Aborted)
                    && discarded == report.discarded_bytes
                    && epochs.eq(0..=report.epoch.0),
                "completions and reports say the same of each epoch",
                "host {h}: {report:?}, {restarts:?}, {finals:?}"
            );
            // What a driver still holds at the bound cannot have been put right.
            let device = &side.devices[index];
            if device.asked.is_none() && !device.late && !device.has_stuck_fd() {
                self.check_condition(h, index)?;
            }
        }
        self.check_home(h, ended)
    }

    /// A session that was given up says that its devices are where they were found when that is so,
    /// and only then.
    fn check_home(&self, h: HostId, ended: &Ended) -> Check {
        if ended.epochs() != EpochEnding::Aborted {
            return Ok(());
        }
        let side = &self.sides[h];
        let home = |device: &SideDevice| is_home(h, device);
        // After a reset on the way back a device that is home may not be known to be.
        let trouble = |device: &SideDevice| {
            let unanswered = device.asked.is_some() || device.told.moved;
            unanswered || device.failed > 0 || device.errored || device.sim.resets > 0
        };
        // One that failed by itself since nobody looked may be anywhere, and a paused VM's is in
        // RUNNING after a reset.
        let paused = |d: &SideDevice| d.home == DeviceState::Stop && d.sim.resets > 0;
        ensure!(
            !ended.says_home() || side.devices.iter().all(|d| home(d) || d.errored || paused(d)),
            "a device that is said to be where it was found is there",
            "host {h}: {ended:?}"
        );
        ensure!(
            ended.says_home() || side.devices.iter().any(|d| !home(d) || trouble(d)),
            "a device that is where it was found is said to be there",
            "host {h}: {ended:?}"
        );
        Ok(())
    }

    /// Who gives up says so on every stream, so that the peer reads why before it sees any of them
    /// end; and the target may run only where the handover was sent.
    fn check_word(&self, h: HostId, ended: &Ended) -> Check {
        let own = ended.fault().is_some_and(|fault| fault.cause != Cause::PeerAbort);
        let given_up = ended.epochs() == EpochEnding::Aborted;
        // A target that was to run, and cannot be reset, does not give its word.
        ensure!(
            !given_up || !own || self.sides[h].handed_over || self.told_everywhere(h),
            "who gives up says so on every stream",
            "host {h}: {ended:?}"
        );
        ensure!(
            h != SOURCE || given_up || self.sides[h].handover_sent,
            "nothing is let go of before the handover is sent",
            "{ended:?}"
        );
        Ok(())
    }

    /// A completion says of a device's state what the kernel said last, or nothing.
    pub(crate) fn check_told(&self, h: HostId, completion: &Completion) -> Check {
        self.check_state(h, completion.device, completion.state, "completion")
    }

    /// Every device's report at the end, as [`check_told`](Self::check_told).
    fn check_reports(&mut self, h: HostId) -> Check {
        for report in self.sides[h].real.look().reports() {
            self.check_way_back(h, &report)?;
            self.check_state(h, report.device, report.state, "report")?;
        }
        Ok(())
    }

    pub(crate) fn check_state(
        &self,
        h: HostId,
        id: DeviceId,
        said: Option<DeviceState>,
        place: &str,
    ) -> Check {
        let told = self.sides[h].devices[id.index()].told;
        let known = if told.moved { None } else { told.last };
        ensure!(
            said == known,
            "a device's state is what the kernel said last",
            "host {h} {id}: the {place} says {said:?}, and the kernel said {told:?}"
        );
        Ok(())
    }

    /// The condition in which a finished session leaves a device.
    fn check_condition(&self, h: HostId, index: usize) -> Check {
        let side = &self.sides[h];
        let device = &side.devices[index];
        let (state, ending) = (device.sim.state, side.ended.as_ref().map(Ended::epochs));
        // Out of STOP a reset takes a paused VM's device to RUNNING, and nobody may have looked.
        let paused = device.home == DeviceState::Stop && device.sim.resets > 0;
        if device.errored || device.failed > 2 || paused {
            return Ok(());
        }
        match (h, ending) {
            (SOURCE, Some(EpochEnding::Aborted)) => ensure!(
                state == device.home,
                "a source device ends where it was found unless the target confirmed",
                "device {index} is in {state}"
            ),
            (SOURCE, _) => ensure!(
                !state.is_running() || device.failed > 0,
                "a device that was handed over does not run on the source",
                "device {index} is in {state}"
            ),
            (_, Some(EpochEnding::Complete)) => {
                let id = DeviceId(index as u32);
                let whole = device.sim.loaded.as_ref().is_some_and(|loaded| {
                    self.is_tampered() || self.is_whole(id, loaded.epoch, &loaded.bytes)
                });
                ensure!(
                    whole && state == DeviceState::Running,
                    "complete means that the target runs with what the source had at STOP_COPY",
                    "device {index} is in {state}, loaded: {}",
                    device.sim.loaded.is_some()
                );
            }
            (_, _) => ensure!(
                state == DeviceState::Running && device.sim.loaded.is_none(),
                "a target that aborts leaves its device RUNNING and blank",
                "device {index} is in {state}, loaded: {}",
                device.sim.loaded.is_some()
            ),
        }
        Ok(())
    }

    /// Nothing is left to happen.
    pub(crate) fn check_end(&mut self) -> Check {
        for h in [SOURCE, TARGET] {
            self.check_nothing_left(h)?;
            if let Some(ended) = &self.sides[h].ended {
                self.coverage.session(h, ended, &self.sides[h]);
            }
            for completion in &self.sides[h].completions {
                self.coverage.completed(h, completion);
            }
        }
        let reports = self.sides[TARGET].real.look().reports();
        self.coverage.late_frames += reports.iter().map(|report| report.late_frames).sum::<u64>();
        if self.is_tampered() { self.check_victim() } else { self.check_both() }
    }

    fn check_nothing_left(&self, h: HostId) -> Check {
        let side = &self.sides[h];
        let with_drivers = side.slots_away();
        let stuck = side.devices.iter().any(|device| device.has_stuck_fd());
        ensure!(
            with_drivers == 0 || stuck,
            "every slot comes back",
            "host {h}: {:?}",
            side.slots.iter().map(|slot| slot.place).collect::<Vec<_>>()
        );
        ensure!(
            side.real.look().slots_out() == with_drivers,
            "every slot that came back is free",
            "host {h}: {} are out, {with_drivers} are with drivers",
            side.real.look().slots_out()
        );
        for (index, device) in side.devices.iter().enumerate() {
            self.check_late(h, DeviceId(index as u32))?;
            if device.asked.is_some() {
                // A driver that never answers.
                continue;
            }
            let open = device.fds.iter().any(|fd| !fd.ended && !fd.is_stuck());
            ensure!(
                device.fresh.is_none() && !open,
                "no fd is left open",
                "host {h} device {index}"
            );
            self.check_condition(h, index)?;
        }
        Ok(())
    }
}
