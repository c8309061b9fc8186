//! How one side of a migration went, with the engine or with a peer of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How one side of a migration went.
#[derive(Debug, Clone, Default)]
pub(crate) struct SideOutcome {
    /// The phases that this side went through, by the engine's names, in order.
    pub(crate) phases: Vec<(&'static str, Duration)>,
    /// Bytes that this side put on (source) or took from (target) the streams.
    pub(crate) wire_bytes: u64,
    /// What made the system calls: `io_uring` or `syscalls`.
    pub(crate) backend: &'static str,
    /// What guarded the streams, and who sealed and opened: `none`, `tls_kernel`, `tls_user_space`.
    pub(crate) protection: &'static str,
    /// Why the migration did not complete; none if it did.
    pub(crate) fault: Option<String>,
    /// What the engine told of epochs and migrations that ended early, in order.
    pub(crate) told: Vec<Told>,
    /// Bytes of state that were handed over, all devices together, by the engine's own count.
    pub(crate) state_bytes: u64,
    /// Bytes of state that were sent in discarded epochs, all devices together (source).
    pub(crate) discarded_bytes: u64,
    /// The last forecast of the downtime that the engine made before the switchover, if it made any.
    pub(crate) forecast_ns: Option<u64>,
    /// What each device's transitions took (source).
    pub(crate) latencies: Vec<Latencies>,
    /// When this side knew that it was over, on CLOCK_MONOTONIC.
    pub(crate) ended_ns: u64,
}

/// What a device's transitions took, as far as they were measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latencies {
    /// From the switchover to the first byte.
    pub(crate) stop: Option<Duration>,
    /// The target's, from the last byte until the state is loaded.
    pub(crate) load: Option<Duration>,
    /// The target's, from the handover until the device runs.
    pub(crate) run: Option<Duration>,
}

/// A completion that is not one of success, as the engine's embedder got it. The words are the
/// engine's names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// When it was fetched, on CLOCK_MONOTONIC.
    pub(crate) at_ns: u64,
    /// The device's number.
    pub(crate) device: u32,
    /// `restarted` or `aborted`.
    pub(crate) ending: String,
    /// Where the device was.
    pub(crate) phase: String,
    /// Why.
    pub(crate) cause: String,
    /// How it was seen.
    pub(crate) observed: String,
    /// The kernel's answer, if it gave one.
    pub(crate) errno: Option<i32>,
    /// The sentence for a person.
    pub(crate) message: String,
}
