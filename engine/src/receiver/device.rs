//! One device as the receiver sees it.

use super::epoch::Epoch;
use super::stage::{Stage, View};
use crate::ids::{DeviceId, Epoch as Number};
use crate::machine::{Core, DeviceReport, Goal, On, Turn};
use crate::outcome::{EpochEnding, Fault};
use crate::vfio::state::Capabilities;

/// A device as the embedder gave it to the target.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The name that the source must know it by.
    pub name: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) core: Core,
    pub(super) config: DeviceConfig,
    pub(super) stage: Stage,
    pub(super) epoch: Epoch,
}

impl Device {
    pub(super) fn new(id: DeviceId, config: DeviceConfig, slots: u64) -> Device {
        Device {
            core: Core::new(id, Goal::Blank),
            config,
            stage: Stage::Expected,
            epoch: Epoch::new(Number(0), slots),
        }
    }

    pub(super) fn report(&self) -> DeviceReport {
        self.core.report(self.epoch.number, &self.epoch.digest)
    }

    /// Moves to where this leads.
    pub(super) fn go(&mut self, on: On) {
        match self.stage.after(on) {
            Some(stage) => self.stage = stage,
            None => debug_assert!(false, "{}: {on} in {:?}", self.core.id(), self.stage),
        }
    }

    /// Whether another device that ran could write to it while it is stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.config.capabilities.p2p && self.stage.is_stopped()
    }

    /// What decides over its next request; the session's part of it is in `session`.
    pub(super) fn view(&self, session: View, held: usize) -> View {
        View {
            whole: self.epoch.is_whole(),
            empty: held == 0,
            p2p: session.p2p && self.config.capabilities.p2p,
            ..session
        }
    }

    /// Whether its state is being taken in.
    pub(super) fn is_loading(&self) -> bool {
        self.stage == Stage::Loading && self.core.line.is_well()
    }

    /// Its epoch was discarded: the embedder is told.
    pub(super) fn restarts_with(&self, turn: &mut Turn, fault: Fault) {
        let (number, bytes) = (self.epoch.number, self.epoch.digest.bytes());
        self.core.epoch_ends(turn, number, bytes, EpochEnding::Restarted, Some(fault));
    }

    /// Its migration ends here; the embedder is told once.
    pub(super) fn ends(&mut self, turn: &mut Turn, ending: EpochEnding, fault: Option<Fault>) {
        let (number, bytes) = (self.epoch.number, self.epoch.digest.bytes());
        self.core.ends(turn, number, bytes, ending, fault);
    }
}
