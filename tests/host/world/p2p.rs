//! Devices of one VM may write to each other: none is stopped before those that can be quiet are,
//! none runs while another is stopped still, on the way there and on both ways back.

use vfio_ferry::ids::DeviceId;
use vfio_ferry::machine::Request;
use vfio_ferry::outcome::EpochEnding;
use vfio_ferry::vfio::state::DeviceState;

use super::check::{Check, ensure};
use super::schedule::{HostId, SOURCE};
use super::side::SideDevice;
use super::world::World;

/// Which way a device of several goes with this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To STOP_COPY, on the source.
    Stops,
    /// Back to RUNNING, on the source.
    Returns,
    /// To RUNNING after the handover, on the target.
    Runs,
}

impl World {
    /// The barriers, each time that a device is to pass one. One that was reset or has failed may
    /// be anywhere.
    pub(crate) fn check_p2p(&self, h: HostId, id: DeviceId, request: Request) -> Check {
        let Some(way) = self.way(h, id, request) else { return Ok(()) };
        let with = |index: usize| {
            let plan = &self.plan.devices[index];
            if h == SOURCE { plan.source.p2p } else { plan.target.p2p }
        };
        for (index, other) in self.sides[h].devices.iter().enumerate() {
            // Those that have the P2P states are quiet before any passes; those that have not pass
            // before these do.
            let there = match (way, with(index), with(id.index())) {
                _ if index == id.index() || astray(other) => true,
                (Way::Stops, true, _) => !is_loud(other),
                (Way::Stops, false, true) => is_stopped(other),
                (Way::Returns | Way::Runs, true, _) => !is_stopped(other),
                (Way::Returns | Way::Runs, false, true) => other.sim.state.is_running(),
                (_, false, false) => true,
            };
            ensure!(
                there,
                "devices with P2P states wait for each other",
                "host {h}: {id} is asked for {request:?}, and device {index} is in {}",
                other.sim.state
            );
        }
        Ok(())
    }

    fn way(&self, h: HostId, id: DeviceId, request: Request) -> Option<Way> {
        let side = &self.sides[h];
        let device = &side.devices[id.index()];
        if side.devices.len() < 2 || self.is_tampered() || side.ended.is_some() {
            return None;
        }
        let now_ns = self.schedule.now_ns;
        // The way back does not wait for ever.
        let held = |from_ns: u64| now_ns < from_ns + self.plan.limits[h].cancel_ns / 4;
        match request {
            Request::SetState(DeviceState::StopCopy) if h == SOURCE => Some(Way::Stops),
            Request::SetState(DeviceState::Running) if h == SOURCE => {
                let stood = side.clock.switchover_ns.is_some() && !is_loud(device);
                let back = side.clock.gave_up_ns.map_or(side.real.look().is_ending(), held);
                // One that begins anew runs in any case.
                let anew = side.completions.iter().any(|completion| {
                    completion.device == id && completion.ending == EpochEnding::Restarted
                });
                (stood && back && !anew && !device.sim.state.eq(&DeviceState::Error))
                    .then_some(Way::Returns)
            }
            Request::SetState(DeviceState::Running) if side.handed_over => Some(Way::Runs),
            _ => None,
        }
    }
}

fn is_loud(device: &SideDevice) -> bool {
    matches!(device.sim.state, DeviceState::Running | DeviceState::PreCopy)
}

fn is_stopped(device: &SideDevice) -> bool {
    matches!(device.sim.state, DeviceState::Stop | DeviceState::StopCopy)
}

fn astray(device: &SideDevice) -> bool {
    let paused = device.home == DeviceState::Stop;
    paused || device.sim.resets > 0 || device.errored || device.failed > 0
}
