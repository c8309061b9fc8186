//! What parent and agents say to each other, one JSON object a line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::identity::Identity;
use super::room::Place;
use crate::device::{Record, Slices};
use crate::outcome::{Latencies, Told};
use crate::spec::{
    ArcTime, BackendChoice, Contender, DataFdChoice, DataKind, Limits, Link, OnResetChoice, Policy,
    Rate, ResetAt, Size, Time,
};

/// One run, as both sides must know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunSpec {
    /// Who migrates.
    pub(crate) contender: Contender,
    /// Bytes of each device's state.
    pub(crate) state: Size,
    /// Its content.
    pub(crate) data: DataKind,
    /// How many devices.
    pub(crate) devices: u16,
    /// How many TCP connections.
    pub(crate) streams: u16,
    /// How fast the devices are.
    pub(crate) device_rate: Option<Rate>,
    /// What their data fds are.
    pub(crate) data_fd: DataFdChoice,
    /// How long each takes for a save.
    pub(crate) save_latency: Option<Time>,
    /// How long SET_STATE takes.
    pub(crate) set_state_latency: Vec<ArcTime>,
    /// How fast they change in PRE_COPY.
    pub(crate) dirty_rate: Option<Rate>,
    /// When the first one resets itself.
    pub(crate) reset_at: Option<ResetAt>,
    /// The connections.
    pub(crate) link: Link,
    /// The engine's policy.
    pub(crate) policy: Policy,
    /// The engine's backend.
    pub(crate) backend: BackendChoice,
    /// The engine's chunk.
    pub(crate) chunk: Size,
    /// Whether PRE_COPY comes first.
    pub(crate) precopy: bool,
    /// What follows a reset.
    pub(crate) on_reset: OnResetChoice,
    /// The engine's limits of time.
    pub(crate) limits: Limits,
    /// What happens when is recorded, to be shown.
    pub(crate) timeline: bool,
    /// The streams are guarded by TLS.
    #[serde(default)]
    pub(crate) tls: bool,
    /// What the run before has measured of each device's transitions.
    #[serde(default)]
    pub(crate) latencies: Vec<Latencies>,
    /// The engine seals and opens TLS's records, whatever the kernel could do.
    #[serde(default)]
    pub(crate) tls_user_space: bool,
}

/// The parent's one line to an agent. Closing the agent's standard input ends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The run.
    pub(crate) spec: RunSpec,
    /// Where this side runs, if not with the parent.
    pub(crate) place: Option<Place>,
    /// Where the target listens; none for the target itself.
    pub(crate) connect: Option<SocketAddr>,
    /// What this side shows of itself, where TLS guards the streams.
    pub(crate) identity: Option<Identity>,
}

/// An agent's lines to the parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Event {
    /// The target waits for connections.
    Listening(SocketAddr),
    /// So many bytes of state have been read or written.
    Progress(u64),
    /// The side is through, well or not.
    Done(Box<SideReport>),
    /// The side could not even begin.
    Refused(String),
}

/// What an agent reports about its side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SideReport {
    /// Why the migration did not complete; none if it did.
    pub(crate) fault: Option<String>,
    /// What the engine told of devices whose epoch or migration ended early, in order.
    pub(crate) told: Vec<Told>,
    /// Bytes of state that were sent in vain, in epochs that were discarded.
    pub(crate) discarded_bytes: u64,
    /// When the side knew that it was over.
    pub(crate) ended_ns: u64,
    /// The engine's phases on this side.
    pub(crate) phases_ns: Vec<(String, u64)>,
    /// Bytes on the wire.
    pub(crate) wire_bytes: u64,
    /// What made the system calls.
    pub(crate) backend: String,
    /// What guarded them.
    #[serde(default)]
    pub(crate) protection: String,
    /// The congestion control that the connections used.
    pub(crate) tcp_congestion: String,
    /// CPU of the process from before it connected until it was through.
    pub(crate) cpu_ns: u64,
    /// The part of it that the test devices' threads used.
    pub(crate) device_cpu_ns: u64,
    /// The most memory that the process had.
    pub(crate) peak_rss_bytes: u64,
    /// The last forecast of the downtime before the switchover (source).
    pub(crate) forecast_ns: Option<u64>,
    /// What each device's transitions took (source).
    #[serde(default)]
    pub(crate) latencies: Vec<Latencies>,
    /// What each connection sent when, if that was recorded (source).
    pub(crate) streams: Vec<Slices>,
    /// The devices, in order.
    pub(crate) devices: Vec<DeviceReport>,
}

/// What an agent reports about one device; times are CLOCK_MONOTONIC, 0 if they never came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeviceReport {
    /// The first call that changed its state.
    pub(crate) started_ns: u64,
    /// The call that stopped it.
    pub(crate) stop_called_ns: u64,
    /// The return of the call that put it into STOP_COPY.
    pub(crate) stop_copy_ns: u64,
    /// The last completed read or write of its data fd.
    pub(crate) last_transfer_ns: u64,
    /// The return of the call that put it into RUNNING.
    pub(crate) running_ns: u64,
    /// Bytes of the last session, by the device's own count.
    pub(crate) bytes: u64,
    /// XXH3-128 over them in hexadecimal; none if the session did not reach its end.
    pub(crate) digest: Option<String>,
    /// Bytes read or written, all sessions together.
    pub(crate) all_bytes: u64,
    /// How often it was reset.
    pub(crate) resets: u32,
    /// When it reset itself as planned.
    pub(crate) reset_ns: u64,
    /// The state that it ended in.
    pub(crate) state: String,
    /// What happened when, if it was recorded.
    pub(crate) record: Option<Record>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Some run.
    pub(crate) fn spec() -> RunSpec {
        RunSpec {
            contender: Contender::Engine,
            state: Size(1),
            data: DataKind::Zero,
            devices: 1,
            streams: 1,
            device_rate: None,
            data_fd: DataFdChoice::Pipe,
            save_latency: None,
            set_state_latency: Vec::new(),
            dirty_rate: None,
            reset_at: None,
            link: Link::default(),
            policy: Policy::Raw,
            backend: BackendChoice::Auto,
            chunk: Size(1 << 18),
            precopy: false,
            on_reset: OnResetChoice::Abort,
            limits: Limits::default(),
            timeline: false,
            tls: false,
            latencies: Vec::new(),
            tls_user_space: false,
        }
    }
}
