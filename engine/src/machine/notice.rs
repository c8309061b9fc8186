//! Notices: what a machine tells the embedder.

use bytes::Bytes;

use super::report::DeviceReport;
use crate::ids::DeviceId;
use crate::outcome::{Completion, Phase};
use crate::wire::Begin;

/// What the embedder is told while a session runs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Notice {
    /// The streams are agreed on.
    Connected {
        /// Version of the wire.
        version: u8,
        /// Agreed chunk size in bytes.
        chunk_bytes: u32,
    },
    /// A device entered a phase.
    Phase {
        /// The device.
        device: DeviceId,
        /// The phase.
        phase: Phase,
    },
    /// A device was announced (target): its name was checked, these are the embedder's bytes.
    Begin {
        /// The device.
        device: DeviceId,
        /// What the source said of it.
        begin: Begin,
    },
    /// The target has written a device's initial PRE_COPY data.
    InitialDataLoaded {
        /// The device.
        device: DeviceId,
    },
    /// How fast the path is, found out with padding while there was nothing else to send: before that
    /// the engine knows little of it (source). Not told of streams that the VMM carries or whose
    /// TLS records the engine seals, nor where there was always something to send.
    Path {
        /// What one stream takes, in bytes per second.
        bytes_per_s: u64,
        /// To the target's engine and back, in nanoseconds.
        round_trip_ns: u64,
    },
    /// What the downtime would be if the VM stopped now (source, in PRE_COPY).
    Estimate(Estimate),
    /// The epoch of a device, or its migration, ended.
    Completion(Completion),
    /// The source has let go, all devices are loaded; RUNNING follows (target).
    HandedOver,
    /// Bytes of the peer's embedder.
    Message(Bytes),
    /// A device that was late when the session ended: its driver has answered since, and this is
    /// where it is now.
    CameBack(DeviceReport),
}

/// What the downtime would be, and from what that was reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub struct Estimate {
    /// All devices' initial data is loaded at the target.
    pub initial_data_loaded: bool,
    /// Bytes of PRE_COPY data that devices report as still to be read, and those that were read and
    /// have not been sent.
    pub pending_bytes: u64,
    /// Bytes that the devices expect to give out in STOP_COPY; none where a driver does not say.
    pub stop_copy_bytes: Option<u64>,
    /// Measured: bytes of state per second through the whole path; 0 before the first chunk.
    pub state_bytes_per_s: u64,
    /// Measured: state bytes over wire bytes.
    pub ratio: f64,
    /// Pending and STOP_COPY bytes over the measured rate, and what the devices' transitions take,
    /// in nanoseconds. None before there is a rate, unless it is about less than a quarter of a chunk,
    /// which takes no longer than a round trip.
    pub downtime_ns: Option<u64>,
    /// What of that are the devices' transitions and the way there and back: see
    /// [`Latencies`](crate::Latencies).
    pub latency_ns: u64,
    /// Waiting cannot make it better: every device is drained, and its initial data loaded.
    pub converged: bool,
    /// The budget of the switchover, in nanoseconds; none without one.
    pub switchover_budget_ns: Option<u64>,
}
