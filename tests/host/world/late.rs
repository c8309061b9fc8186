//! Devices whose drivers had not answered when the session ended: each is brought back once it can
//! be, and its embedder is told once.

use vfio_ferry::ids::DeviceId;
use vfio_ferry::machine::{DeviceReport, Request};
use vfio_ferry::outcome::{EpochEnding, TargetEnding};
use vfio_ferry::vfio::state::DeviceState;

use super::check::{Check, ensure};
use super::schedule::{HostId, SOURCE, TARGET};
use super::side::{Ended, SideDevice};
use super::world::World;

impl World {
    /// A session has ended: which of its devices are late.
    pub(crate) fn note_late(&mut self, h: HostId) {
        let runs = matches!(self.sides[h].real.ended(), Some(Ended::Target(TargetEnding::Running)));
        for device in &mut self.sides[h].devices {
            // Of a device that runs only the data fd may still be open, for a moment.
            device.late = device.asked.is_some() || (device.attached && !runs);
            self.coverage.late[h] += u64::from(device.late);
        }
    }

    /// What may be asked of a device at all.
    pub(crate) fn check_asked(&self, h: HostId, id: DeviceId, request: Request) -> Check {
        let side = &self.sides[h];
        let device = &side.devices[id.index()];
        ensure!(
            side.ended.is_none() || device.late,
            "after the end only a late device is asked for anything",
            "host {h} {id}: {request}"
        );
        let to_run = matches!(request, Request::SetState(state) if state.is_running());
        ensure!(
            device.home == DeviceState::Running || !to_run,
            "the device of a paused VM is not asked to run",
            "host {h} {id}: {request}"
        );
        let failed = device.told.last == Some(DeviceState::Error);
        let allowed = self.plan.devices[id.index()].options.reset_to_return;
        ensure!(
            h == TARGET || request != Request::Reset || failed || allowed,
            "a source's device is reset only out of ERROR, or where that is allowed",
            "{id} is in {}, and was in {:?}",
            device.sim.state,
            device.told
        );
        Ok(())
    }

    /// A session has ended, and says of each device whether that is back and was reset.
    pub(crate) fn check_way_back(&mut self, h: HostId, report: &DeviceReport) -> Check {
        let device = &self.sides[h].devices[report.device.index()];
        ensure!(
            !report.home || !device.told.moved,
            "a device that is on its way is not said to be where it was found",
            "host {h}: {report:?}"
        );
        let reset = h == SOURCE && report.home && device.resets_done > 0;
        ensure!(
            report.was_reset == reset || !report.home,
            "a device that was reset to return is said to have been",
            "host {h}: {report:?}, reset {} times",
            device.resets_done
        );
        self.coverage.was_reset += u64::from(report.was_reset && !device.errored);
        let paused = device.home == DeviceState::Stop && device.told.last.is_some();
        self.coverage.paused += u64::from(report.home && paused);
        Ok(())
    }

    /// A host says that a device which was late has come.
    pub(crate) fn came_back(&mut self, h: HostId, report: DeviceReport) -> Check {
        let id = report.device;
        self.check_state(h, id, report.state, "word that it came back")?;
        let side = &self.sides[h];
        let device = &side.devices[id.index()];
        ensure!(
            side.ended.is_some() && device.late && device.came_back.is_none(),
            "a device comes back once, after the end, and only if it was late",
            "host {h} {id}: {:?}, late {}, told {:?}",
            side.ended,
            device.late,
            device.came_back
        );
        ensure!(
            device.asked.is_none() && device.is_quiet(),
            "a device comes back when nothing of it is under way",
            "host {h} {id}: {:?}",
            device.asked
        );
        ensure!(
            !report.home || device.errored || is_home(h, device),
            "a device that is said to be where it was found is there",
            "host {h} {id} is in {}: {report:?}",
            device.sim.state
        );
        self.coverage.came_back[h] += 1;
        self.sides[h].device(id).came_back = Some(report);
        Ok(())
    }

    /// Nothing is left to happen: who could come has come.
    pub(crate) fn check_late(&self, h: HostId, id: DeviceId) -> Check {
        let side = &self.sides[h];
        let device = &side.devices[id.index()];
        let answered = device.asked.is_none() && device.is_quiet();
        ensure!(
            device.late == device.came_back.is_some() || !answered,
            "a late device whose driver has answered is told of",
            "host {h} {id}: late {}, told {:?}",
            device.late,
            device.came_back
        );
        let Some(report) = device.came_back.as_ref().filter(|_| device.late) else {
            return Ok(());
        };
        let given_up = side.ended.as_ref().map(Ended::epochs) == Some(EpochEnding::Aborted);
        let trouble = device.failed > 0 || device.errored || device.sim.resets > 0;
        ensure!(
            !given_up || report.home || trouble,
            "a late device is brought back",
            "host {h} {id} is in {}: {report:?}",
            device.sim.state
        );
        Ok(())
    }
}

/// Whether a device is where it was found.
pub(crate) fn is_home(h: HostId, device: &SideDevice) -> bool {
    let blank = h == SOURCE || device.sim.loaded.is_none();
    device.sim.state == device.home && blank
}
