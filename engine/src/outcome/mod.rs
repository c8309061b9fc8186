//! What the engine tells the embedder: completions, why something was aborted, how that was
//! observed, and what the embedder chose to do about resets.
//!
//! Every value here is plain data: no fd, no clock, no thread.

mod breach;
mod classify;
mod ending;
mod latencies;
mod policy;

pub use crate::cause::{Cause, Observation};
pub use breach::Breach;
pub use classify::{DeviceAnswer, Finding, Operation, Verdict, classify};
pub use ending::{EpochEnding, SourceEnding, TargetEnding};
pub use latencies::Latencies;
pub use policy::{DeviceOptions, Fallback, OnReset};

use std::fmt;

use crate::ids::{DeviceId, Epoch};
use crate::vfio::state::DeviceState;
use crate::wire::{Abort, WireFault};

/// Which host of the migration this side is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Host {
    /// The host that the device leaves.
    Source,
    /// The host that the device goes to.
    Target,
}

/// Where in its migration a device was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Streams are being agreed on; the device has not been touched.
    Connect,
    /// The device is entering its first saving state (source) or RESUMING (target).
    Start,
    /// The guest runs and the device saves in PRE_COPY (source) or loads (target).
    PreCopy,
    /// From the call that stops the device until it is in STOP_COPY.
    Stop,
    /// The stopped device's last state is read and sent (source) or received and written (target).
    StopCopy,
    /// The source has sent everything; the target verifies and leaves RESUMING.
    Load,
    /// The target has confirmed; the source lets go.
    Handover,
    /// The target's device goes to RUNNING.
    Resume,
}

impl Phase {
    /// All phases, in the order in which a migration goes through them.
    pub const ALL: [Phase; 8] = [
        Phase::Connect,
        Phase::Start,
        Phase::PreCopy,
        Phase::Stop,
        Phase::StopCopy,
        Phase::Load,
        Phase::Handover,
        Phase::Resume,
    ];

    /// The name used in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Start => "start",
            Phase::PreCopy => "pre_copy",
            Phase::Stop => "stop",
            Phase::StopCopy => "stop_copy",
            Phase::Load => "load",
            Phase::Handover => "handover",
            Phase::Resume => "resume",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an epoch or a migration ended early: the typed part of a completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who or what ended it.
    pub cause: Cause,
    /// How that was seen.
    pub observed: Observation,
    /// The kernel's answer as it gave it (a positive errno; 512 is the leaked ERESTARTSYS).
    pub errno: Option<i32>,
    /// The device that it concerns; none if it concerns the whole session.
    pub device: Option<DeviceId>,
    /// One sentence for a person: what happened, and what to do about it where there is something.
    pub message: String,
    /// How the peer broke the protocol, where it did and this side saw it.
    pub breach: Option<Breach>,
}

impl Fault {
    /// A fault that concerns the whole session.
    pub fn session(cause: Cause, observed: Observation, message: impl Into<String>) -> Fault {
        Fault { cause, observed, errno: None, device: None, message: message.into(), breach: None }
    }

    /// A fault of one device.
    pub fn device(
        device: DeviceId,
        cause: Cause,
        observed: Observation,
        errno: Option<i32>,
        message: impl Into<String>,
    ) -> Fault {
        let device = Some(device);
        Fault { cause, observed, errno, device, message: message.into(), breach: None }
    }

    /// The peer has given up, and said why.
    pub fn peer_gave_up(peer: Host, said: Abort) -> Fault {
        let Abort { cause, observed, errno, device, message } = said;
        let said = Fault { cause, observed, errno, device, message, breach: None };
        let peer = match peer {
            Host::Source => "source",
            Host::Target => "target",
        };
        let message = format!("the {peer} gave up: {said}");
        Fault { cause: Cause::PeerAbort, observed: Observation::Peer, message, ..said }
    }

    /// The peer broke the protocol, or the network what the peer said.
    pub fn breach(breach: impl Into<Breach>) -> Fault {
        let breach = breach.into();
        Fault {
            cause: breach.cause(),
            observed: breach.observation(),
            errno: None,
            device: None,
            message: breach.to_string(),
            breach: Some(breach),
        }
    }
}

impl From<WireFault> for Fault {
    /// The fault of a session whose stream gave these bytes.
    fn from(fault: WireFault) -> Fault {
        Fault::breach(fault)
    }
}

impl From<&Fault> for Abort {
    fn from(fault: &Fault) -> Abort {
        let Fault { cause, observed, errno, device, message, .. } = fault.clone();
        Abort { cause, observed, errno, device, message }
    }
}

impl From<Breach> for Fault {
    fn from(breach: Breach) -> Fault {
        Fault::breach(breach)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (seen by {}", self.cause, self.observed)?;
        if let Some(device) = self.device {
            write!(f, " on {device}")?;
        }
        if let Some(errno) = self.errno {
            write!(f, ", errno {errno}")?;
        }
        write!(f, "): {}", self.message)
    }
}

/// One completion: a device's epoch has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completion {
    /// The device.
    pub device: DeviceId,
    /// The epoch that ended.
    pub epoch: Epoch,
    /// Where it was when it ended.
    pub phase: Phase,
    /// How it ended.
    pub ending: EpochEnding,
    /// Why, unless it is [`EpochEnding::Complete`].
    pub fault: Option<Fault>,
    /// The device's state: what the kernel said last (GET_STATE, or a SET_STATE that succeeded
    /// since), or the VMM. None: nobody knows, because a call failed or has not returned.
    pub state: Option<DeviceState>,
    /// Bytes of device state read (source) or written (target) in this epoch.
    pub bytes: u64,
}
