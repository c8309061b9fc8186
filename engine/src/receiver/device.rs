//! One device as the receiver sees it.

use super::epoch::Epoch;
use super::stage::{Stage, View};
use crate::ids::{DeviceId, Epoch as Number};
use crate::machine::{Core, Goal, Owed};
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
    pub(super) core: Core<Stage>,
    pub(super) config: DeviceConfig,
    pub(super) epoch: Epoch,
}

impl Device {
    pub(super) fn new(id: DeviceId, config: DeviceConfig, slots: u64) -> Device {
        Device { core: Core::new(id, Goal::Blank), config, epoch: Epoch::new(Number(0), slots) }
    }

    /// Whether another device that ran could write to it while it is stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.core.stage.is_stopped()
    }

    /// Whether it has states in which it starts no DMA to other devices.
    pub(super) fn has_p2p(&self) -> bool {
        self.config.capabilities.p2p
    }

    /// What it waits for, by whom the session would be held up; `held` slots are with it, `stopped`
    /// says whether the VM is, and `all` whether every device is loaded.
    pub(super) fn owed(&self, held: usize, stopped: bool, all: bool) -> Option<Owed> {
        if let Some(request) = self.core.line.asked() {
            return Some(Owed::Answer(request));
        }
        match self.core.stage {
            Stage::Discarding if held > 0 => Some(Owed::Missing),
            Stage::Loading if self.epoch.writes > 0 => Some(Owed::Write),
            Stage::Loading if self.epoch.window.is_coming() => Some(Owed::Body),
            Stage::Loading if !self.epoch.window.is_empty() => Some(Owed::Missing),
            Stage::Expected => stopped.then_some(Owed::State),
            Stage::Loading if stopped && !self.epoch.is_ended() => Some(Owed::State),
            Stage::Loaded if all => Some(Owed::Handover),
            _ => None,
        }
    }

    /// What decides over its next request; the session's part of it is in `session`.
    pub(super) fn view(&self, session: View, held: usize) -> View {
        View {
            whole: self.epoch.is_whole(),
            empty: held == 0,
            p2p: session.p2p && self.has_p2p(),
            ..session
        }
    }

    /// Whether its state is being taken in.
    pub(super) fn is_loading(&self) -> bool {
        self.core.stage == Stage::Loading && self.core.line.is_well()
    }
}
