//! What a run is asked to be, in values that every other module knows: sizes, rates, times, limits,
//! choices, who carries the state, and over what.

mod choices;
mod entrant;
mod limits;
mod units;

pub(crate) use choices::{
    ArcTime, BackendChoice, DataFdChoice, DataKind, OnResetChoice, Policy, ResetAt, Shaper,
    ShaperChoice,
};
pub(crate) use entrant::Entrant;
pub(crate) use limits::Limits;
pub use units::{Rate, Size, Time, UnitError};

use serde::{Deserialize, Serialize};

/// A way to carry a device's state: the engine, or what other programs do today.
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
    /// `zstd -T0` and `zstd -d` with a socket between them.
    Pipeline,
    /// A loop on tokio-uring: 1 MiB reads, sent as they are.
    TokioUring,
}

impl Contender {
    /// All, in the order of a round.
    pub(crate) const ALL: [Contender; 6] = [
        Contender::Engine,
        Contender::QemuMain,
        Contender::QemuMultifd,
        Contender::Snapshot,
        Contender::Pipeline,
        Contender::TokioUring,
    ];

    /// The name in tables and JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Engine => "vfio-ferry",
            Contender::QemuMain => "qemu-main-channel",
            Contender::QemuMultifd => "qemu-multifd",
            Contender::Snapshot => "cloud-hypervisor",
            Contender::Pipeline => "zstd-pipeline",
            Contender::TokioUring => "tokio-uring",
        }
    }
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

impl Side {
    /// The name in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

/// What every connection of a run gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// Most bytes per second, all connections together.
    pub(crate) rate: Option<Rate>,
    /// The name of the congestion control; without one the sockets keep the host's default.
    pub(crate) congestion: Option<String>,
    /// What holds the rate.
    pub(crate) shaper: Shaper,
}
