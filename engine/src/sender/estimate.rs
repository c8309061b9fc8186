//! What the downtime would be if the VM stopped now.

use super::Sender;
use super::epoch::Length;
use crate::machine::{Estimate, Notice, Turn};

impl Sender {
    /// Tells the embedder what the downtime would be, once every device has been asked.
    pub(super) fn estimate(&self, turn: &mut Turn) {
        let asked = self.devices.iter().all(|d| d.epoch.stop_copy != Length::Unasked);
        if self.switchover || !asked {
            return;
        }
        let pending_bytes = self.devices.iter().map(|d| d.epoch.pending_bytes()).sum::<u64>();
        let lengths = self.devices.iter().map(|d| match d.epoch.stop_copy {
            Length::Bytes(bytes) => Some(bytes),
            Length::Unasked | Length::Unknown => None,
        });
        let stop_copy_bytes = lengths.sum::<Option<u64>>();
        let state_bytes_per_s = self.controller.raw_bytes_per_s().map_or(0, |rate| rate as u64);
        let bytes = u128::from(pending_bytes) + u128::from(stop_copy_bytes.unwrap_or(0));
        let downtime_ns = (bytes * 1_000_000_000)
            .checked_div(u128::from(state_bytes_per_s))
            .map(|ns| u64::try_from(ns).unwrap_or(u64::MAX));
        turn.tell(Notice::Estimate(Estimate {
            initial_data_loaded: self
                .devices
                .iter()
                .all(|d| d.epoch.precopy.is_initial_loaded() || !d.saves_in_precopy()),
            pending_bytes,
            stop_copy_bytes,
            state_bytes_per_s,
            ratio: self.controller.ratio(),
            downtime_ns,
            converged: false,
            switchover_budget_ns: None,
        }));
    }
}
