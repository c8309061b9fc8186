//! Who carries the state: the engine, or what other programs do today.

use serde::{Deserialize, Serialize};

use crate::engine::{self, Inputs, SideOutcome};
use crate::peers;

/// A way to carry a device's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Contender {
    /// vfio-ferry.
    Engine,
    /// QEMU's main channel: 1 MiB reads, 32 KiB copies and writes.
    QemuMain,
    /// QEMU's multifd device state: 1 MiB packets.
    QemuMultifd,
    /// Cloud Hypervisor: everything in memory, base64, JSON, one write.
    Snapshot,
}

/// One of the two processes of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Side {
    /// The host that the device leaves.
    Source,
    /// The host that it goes to.
    Target,
}

impl Contender {
    /// All, in the order of a round.
    pub(crate) const ALL: [Contender; 4] =
        [Contender::Engine, Contender::QemuMain, Contender::QemuMultifd, Contender::Snapshot];

    /// The name in tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Engine => "vfio-ferry",
            Contender::QemuMain => "qemu-main-channel",
            Contender::QemuMultifd => "qemu-multifd",
            Contender::Snapshot => "cloud-hypervisor",
        }
    }

    /// Runs one side.
    pub(crate) fn run(self, side: Side, inputs: Inputs) -> Result<SideOutcome, String> {
        match (self, side) {
            (Contender::Engine, Side::Source) => engine::run_source(inputs),
            (Contender::Engine, Side::Target) => engine::run_target(inputs),
            (Contender::QemuMain, side) => peers::run(&peers::QemuMain, side, inputs),
            (Contender::QemuMultifd, side) => peers::run(&peers::QemuMultifd, side, inputs),
            (Contender::Snapshot, side) => peers::run(&peers::Snapshot, side, inputs),
        }
    }
}

impl Side {
    /// The name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}
