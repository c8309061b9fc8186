//! What the downtime would be if the VM stopped now.

use super::Sender;
use super::device::Device;
use super::epoch::Length;
use crate::machine::{Estimate, NO_LIMIT_NS, Notice, Turn};

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
        let state_bytes_per_s = self.controller.raw_bytes_per_s().map_or(0, |rate| rate as u64);
        let bytes = u128::from(pending_bytes) + u128::from(stop_copy_bytes.unwrap_or(0));
        let downtime_ns = (bytes * 1_000_000_000)
            .checked_div(u128::from(state_bytes_per_s))
            .map(|ns| u64::try_from(ns).unwrap_or(u64::MAX));
        let budget_ns = self.config.limits.budget_ns;
        let initial_data_loaded = self
            .devices
            .iter()
            .all(|d| d.epoch.precopy.is_initial_loaded() || !d.saves_in_precopy());
        turn.tell(Notice::Estimate(Estimate {
            initial_data_loaded,
            pending_bytes,
            stop_copy_bytes,
            state_bytes_per_s,
            ratio: self.controller.ratio(),
            downtime_ns,
            converged: initial_data_loaded && self.devices.iter().all(Device::is_drained),
            switchover_budget_ns: Some(budget_ns).filter(|ns| *ns != NO_LIMIT_NS),
        }));
    }
}
