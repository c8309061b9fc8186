//! Who or what ends a migration, and how that is seen: names that the wire carries and the embedder
//! is told.

use std::fmt;

/// Who or what ended an epoch or a migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// The device was reset (guest FLR, hot reset, VFIO_DEVICE_RESET): it is in RUNNING again and
    /// the state saved or loaded so far is worthless.
    DeviceReset,
    /// The device or its firmware failed to save or load; its state did not change.
    DeviceFailure,
    /// The device is in ERROR and needs a reset.
    DeviceError,
    /// The peer aborted, and said why.
    PeerAbort,
    /// The peer sent what the protocol does not allow.
    PeerMisbehaviour,
    /// A stream broke, ended early or stayed silent too long.
    Network,
    /// The embedder cancelled.
    Cancelled,
    /// This host could not go on: memory, threads, ring.
    Local,
    /// A limit of the session's options was over, which the message names.
    TimeLimit,
}

impl Cause {
    /// All causes; the number on the wire is the place in this list, counted from 1.
    pub const ALL: [Cause; 9] = [
        Cause::DeviceReset,
        Cause::DeviceFailure,
        Cause::DeviceError,
        Cause::PeerAbort,
        Cause::PeerMisbehaviour,
        Cause::Network,
        Cause::Cancelled,
        Cause::Local,
        Cause::TimeLimit,
    ];

    /// The name used in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Cause::DeviceReset => "device_reset",
            Cause::DeviceFailure => "device_failure",
            Cause::DeviceError => "device_error",
            Cause::PeerAbort => "peer_abort",
            Cause::PeerMisbehaviour => "peer_misbehaviour",
            Cause::Network => "network",
            Cause::Cancelled => "cancelled",
            Cause::Local => "local",
            Cause::TimeLimit => "time_limit",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the cause was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Observation {
    /// A read of the data fd failed.
    Read,
    /// A poll of the data fd reported RDHUP or an error.
    Poll,
    /// VFIO_MIG_GET_PRECOPY_INFO failed.
    PrecopyInfo,
    /// PRE_COPY -> STOP_COPY gave a new data fd: the old session had died.
    UnexpectedFd,
    /// SET_STATE succeeded, but the fd that it gave, or the first read of it, was already dead.
    DeadOnArrival,
    /// The device's state was not what the migration had left it in.
    StateCheck,
    /// A write to the resume fd failed.
    Write,
    /// SET_STATE itself failed.
    SetState,
    /// The peer said so.
    Peer,
    /// A stream of the session showed it.
    Stream,
    /// The embedder asked for it.
    Embedder,
    /// This host's own mechanism reported it.
    Engine,
    /// The clock showed it.
    Clock,
}

impl Observation {
    /// All observations, in declaration order.
    pub const ALL: [Observation; 13] = [
        Observation::Read,
        Observation::Poll,
        Observation::PrecopyInfo,
        Observation::UnexpectedFd,
        Observation::DeadOnArrival,
        Observation::StateCheck,
        Observation::Write,
        Observation::SetState,
        Observation::Peer,
        Observation::Stream,
        Observation::Embedder,
        Observation::Engine,
        Observation::Clock,
    ];

    /// The name used in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Observation::Read => "read",
            Observation::Poll => "poll",
            Observation::PrecopyInfo => "precopy_info",
            Observation::UnexpectedFd => "unexpected_fd",
            Observation::DeadOnArrival => "dead_on_arrival",
            Observation::StateCheck => "state_check",
            Observation::Write => "write",
            Observation::SetState => "set_state",
            Observation::Peer => "peer",
            Observation::Stream => "stream",
            Observation::Embedder => "embedder",
            Observation::Engine => "engine",
            Observation::Clock => "clock",
        }
    }
}

impl fmt::Display for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
