//! What the runner and a host's process say to each other, one JSON object a line.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::device::{DriverFault, state_name};
use crate::engine::DeviceState;
use crate::spec::{BackendChoice, DataKind, Limits, Side};

/// One host: the runner's first line to its process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostSpec {
    /// Which one.
    pub(crate) side: Side,
    /// Where to connect (source).
    pub(crate) connect: Option<SocketAddr>,
    /// TCP connections.
    pub(crate) streams: u16,
    /// How much of what the other host does not take its sockets hold; none: what the system wants.
    pub(crate) socket_bytes: Option<usize>,
    /// Its devices.
    pub(crate) devices: Vec<DeviceSpec>,
    /// How the engine and the VMM behave.
    pub(crate) choices: Choices,
}

/// What is chosen for a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Choices {
    /// The engine's system calls.
    pub(crate) backend: BackendChoice,
    /// The engine's limits.
    pub(crate) limits: Limits,
    /// Save in PRE_COPY first (source).
    pub(crate) precopy: bool,
    /// What follows a reset (source).
    pub(crate) on_reset: OnResetSpec,
    /// A device that does not come back may be reset (source).
    pub(crate) reset_to_return: bool,
    /// The VMM stops its guest in the end (source).
    pub(crate) switches_over: bool,
    /// The process may open only so many more fds once it is connected.
    pub(crate) spare_fds: Option<u64>,
    /// The kernel refuses io_uring, as container runtimes have it.
    pub(crate) no_io_uring: bool,
}

/// What follows a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OnResetSpec {
    /// The migration is given up.
    Abort,
    /// PRE_COPY again, so many times.
    Restart(u32),
    /// All of it in STOP_COPY.
    StopCopy,
}

/// A test device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DeviceSpec {
    /// It has the P2P states.
    pub(crate) p2p: bool,
    /// It has PRE_COPY.
    pub(crate) precopy: bool,
    /// Its data fd has no poll; else it is a pipe.
    pub(crate) is_file: bool,
    /// What its state looks like.
    pub(crate) data: DataKind,
    /// Bytes of initial PRE_COPY data.
    pub(crate) initial_bytes: u64,
    /// Bytes that only STOP_COPY gives.
    pub(crate) rest_bytes: u64,
    /// The data fd neither gives nor takes anything after so many bytes; a cancel gets out of it.
    pub(crate) stalls_at: Option<u64>,
    /// The state in which the migration finds it.
    #[serde(with = "state_name")]
    pub(crate) found: DeviceState,
    /// How its driver misbehaves.
    pub(crate) faults: Vec<DriverFault>,
}

/// The runner's later lines. Closing the process's standard input ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    /// Cancel the session.
    Cancel,
    /// Drop the session.
    Drop,
    /// Drivers that hold something answer.
    Release,
    /// All has been seen: say what the devices look like, and end.
    End,
}

/// A line of a host's process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostEvent {
    /// When, on CLOCK_MONOTONIC.
    pub(crate) at_ns: u64,
    /// What.
    pub(crate) what: What,
}

/// What happened at a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum What {
    /// The target waits for connections.
    Listening(SocketAddr),
    /// The session could not be started.
    Refused(String),
    /// The session runs.
    Started,
    /// The streams are agreed on.
    Connected,
    /// Device 0 has entered this phase.
    Phase(String),
    /// The source's guest is stopped.
    Switchover,
    /// A driver was asked for this state.
    Asked {
        /// The device's number.
        device: usize,
        /// The state.
        #[serde(with = "state_name")]
        state: DeviceState,
    },
    /// A device is in another state, or has another host's state.
    Moved(Moved),
    /// A driver's fault has come.
    Struck,
    /// A command was carried out.
    Done(Command),
    /// The session has ended.
    Finished(Box<End>),
    /// A late device has come back.
    CameBack(DeviceSaid),
    /// The process is through with the session: what the devices and it look like.
    Left(Left),
}

/// Where a device is, and whose state it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moved {
    /// Its number.
    pub(crate) device: usize,
    /// The state that it is in.
    #[serde(with = "state_name")]
    pub(crate) state: DeviceState,
    /// Whose state it has.
    pub(crate) holds: Holds,
}

/// Whose state a device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Holds {
    /// Its own, from before the migration.
    Own,
    /// None: it was reset.
    Blank,
    /// Part of another one's.
    Partial,
    /// All of another one's.
    Loaded,
}

/// How a session ended, as the VMM is told; the words are the engine's names.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct End {
    /// The ending.
    pub(crate) ending: String,
    /// Why.
    pub(crate) cause: Option<String>,
    /// How that was seen.
    pub(crate) observed: Option<String>,
    /// The sentence for a person.
    pub(crate) message: String,
    /// What made the system calls.
    pub(crate) backend: String,
    /// What is said of the devices.
    pub(crate) devices: Vec<DeviceSaid>,
}

/// What a report says of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceSaid {
    /// Its number.
    pub(crate) device: usize,
    /// It is where it was found (target: and blank).
    pub(crate) home: bool,
    /// The state that it is said to be in; none if nobody knows.
    pub(crate) state: Option<String>,
    /// Its driver holds an operation.
    pub(crate) stuck: bool,
    /// It was reset on its way back.
    pub(crate) was_reset: bool,
}

/// What is left of a session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Left {
    /// XXH3-128 over each device's whole state, in hexadecimal, taken at the devices; none where a
    /// device has not given or taken one.
    pub(crate) digests: Vec<Option<String>>,
    /// How often each device was reset.
    pub(crate) resets: Vec<u32>,
    /// How often a data fd had two users.
    pub(crate) strangers: u32,
    /// The most memory that the process ever had.
    pub(crate) peak_rss_bytes: u64,
    /// How long the session's destructor took.
    pub(crate) drop_ns: u64,
}
