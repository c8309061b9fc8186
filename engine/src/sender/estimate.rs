//! What the downtime would be if the VM stopped now.

use std::time::Duration;

use super::Sender;
use super::device::Device;
use super::epoch::Length;
use crate::machine::{Estimate, NO_LIMIT_NS, Notice, Turn};
use crate::outcome::Latencies;

/// Where no rate was measured, this part of a chunk at most is taken to be there within a round trip.
const LITTLE: u64 = 4;

impl Sender {
    /// Tells the embedder what the downtime would be, once every device has been asked.
    pub(super) fn estimate(&self, turn: &mut Turn) {
        let asked = self.devices.iter().all(|d| d.epoch.stop_copy != Length::Unasked);
        if self.switchover || !asked {
            return;
        }
        let pending_bytes =
            self.devices.iter().map(|d| d.epoch.pending_bytes()).fold(0, u64::saturating_add);
        let lengths = self.devices.iter().map(|d| match d.epoch.stop_copy {
            Length::Bytes(bytes) => Some(bytes),
            Length::Unasked | Length::Unknown => None,
        });
        let stop_copy_bytes =
            lengths.reduce(|sum, bytes| Some(sum?.saturating_add(bytes?))).unwrap_or_default();
        let latency_ns = self.latency_ns();
        let path_ns = self.path_ns(pending_bytes, stop_copy_bytes);
        let budget_ns = self.config.limits.budget_ns;
        let initial_data_loaded = self
            .devices
            .iter()
            .all(|d| d.epoch.precopy.is_initial_loaded() || !d.saves_in_precopy());
        turn.tell(Notice::Estimate(Estimate {
            initial_data_loaded,
            pending_bytes,
            stop_copy_bytes,
            state_bytes_per_s: self.controller.raw_bytes_per_s().map_or(0, |rate| rate as u64),
            ratio: self.controller.ratio(),
            downtime_ns: path_ns.map(|ns| ns.saturating_add(latency_ns)),
            latency_ns,
            converged: initial_data_loaded && self.devices.iter().all(Device::is_drained),
            switchover_budget_ns: Some(budget_ns).filter(|ns| *ns != NO_LIMIT_NS),
        }));
    }

    /// How long the bytes take; none if nobody knows.
    fn path_ns(&self, pending_bytes: u64, stop_copy_bytes: Option<u64>) -> Option<u64> {
        let bytes = pending_bytes.saturating_add(stop_copy_bytes.unwrap_or(0));
        if self.controller.raw_bytes_per_s().is_some() {
            return Some(self.controller.path_ns(bytes));
        }
        let little = u64::from(self.config.chunk_bytes) / LITTLE;
        (stop_copy_bytes.is_some() && bytes <= little).then_some(0)
    }

    /// What the devices' transitions take, which each of them makes beside the others: the longest of
    /// each kind. The target's words take a round trip at least.
    fn latency_ns(&self) -> u64 {
        let longest = |part: fn(Latencies) -> Option<Duration>, unknown_ns| {
            let known = self.devices.iter().map(|device| part(device.pace.latencies()));
            known.map(|part| part.map_or(unknown_ns, in_ns)).max().unwrap_or(0)
        };
        let round_trip_ns = self.round_trip_ns;
        [
            longest(|known| known.stop, 0),
            longest(|known| known.load, round_trip_ns),
            longest(|known| known.run, round_trip_ns),
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

fn in_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
