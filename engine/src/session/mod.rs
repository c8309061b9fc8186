//! The public API: everything that an embedder names, in one place. The crate's root has it all
//! again, and says how it is used.

#[cfg(feature = "tokio-uring")]
mod aio;
mod channel;
mod embedded;
mod engine;
mod handle;
mod inbox;
mod lore;
mod options;
mod pacing;
mod ready;
mod refuse;
mod side;
mod source;
mod start;
mod target;

pub use crate::compress::policy::Policy;
pub use crate::door::{
    Acceptor, Canceller, ConnectOptions, Credentials, DoorOptions, Protection, Reason, Stranger,
    StreamProtection, Streams, Tls, TlsRecords, Trust, TurnedAway, accept, connect, connect_with,
    connect_within,
};
pub use crate::error::{Error, TlsFault, UsageError};
pub use crate::ids::{DeviceId, Epoch, StreamId};
pub use crate::limits;
pub use crate::machine::{DeviceReport, Estimate, Notice};
pub use crate::metrics::{DeviceMetrics, Metrics, Step, StreamMetrics};
pub use crate::outcome::{
    Breach, Cause, Completion, DeviceOptions, EpochEnding, Fallback, Fault, Host, Latencies,
    Observation, OnReset, Phase, SourceEnding, TargetEnding,
};
pub use crate::ring::{Backend, BackendChoice};
pub use crate::threads::{SystemCall, ThreadHook, ThreadKind, ThreadStart};
pub use crate::vfio::VfioDevice;
pub use crate::vfio::device::{MigrationDevice, PrecopyInfo};
pub use crate::vfio::state::{Capabilities, DeviceState};
#[cfg(feature = "open")]
pub use crate::vfio::{Container, OpenError};
pub use crate::wire::{
    Begin, Digest, Total, VERSION_MAX as WIRE_VERSION_MAX, VERSION_MIN as WIRE_VERSION_MIN,
    WireFault,
};

pub use crate::drive::{Report, SessionEvent, SourceReport, TargetReport, Timeline};
#[cfg(feature = "tokio-uring")]
pub use aio::AsyncSession;
pub use channel::Channel;
pub use embedded::{Answer, EmbeddedConfig, EmbeddedDevice, Wanted};
pub use engine::{Engine, EngineOptions};
pub use handle::Session;
pub use inbox::{FrameError, FrameFault, Moved, Passed};
pub use options::{Options, SourceDevice, TargetDevice};
pub use ready::{Readiness, is_ready};
pub use side::{ReportOf, Side, Source, Target};

/// A migration of devices away from this host. At its end it has a [`SourceReport`].
pub type SourceSession = Session<Source>;

/// A migration of devices to this host. At its end it has a [`TargetReport`].
pub type TargetSession = Session<Target>;
