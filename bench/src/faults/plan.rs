//! What one run of a fault is: both hosts, the network between them, and what is done when.

use std::time::Duration;

use super::message::{Choices, Command, DeviceSpec, OnResetSpec};
use super::proxy::Net;
use crate::device::{Deed, DriverFault};
use crate::engine::DeviceState;
use crate::spec::{BackendChoice, DataKind, Limits, Side, Time};

/// A run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The host that the devices leave.
    pub(crate) source: HostPlan,
    /// The host that they go to.
    pub(crate) target: HostPlan,
    /// What is between the two.
    pub(crate) net: Net,
    /// What is done when.
    pub(crate) reactions: Vec<Reaction>,
    /// What drivers hold goes on once their host's session has ended.
    pub(crate) releases: bool,
}

/// A host.
#[derive(Debug, Clone)]
pub(crate) struct HostPlan {
    /// How the engine and the VMM behave.
    pub(crate) choices: Choices,
    /// Its devices.
    pub(crate) devices: Vec<DeviceSpec>,
}

/// Something that is done once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reaction {
    /// When.
    pub(crate) on: Trigger,
    /// What.
    pub(crate) does: Does,
}

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A rule of the network has struck, by its place.
    Net(usize),
    /// A driver's fault has come at this host.
    Struck(Side),
    /// This host's session has ended, or its process has.
    Ended(Side),
}

/// What the runner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// kill -9.
    Kill(Side),
    /// SIGSTOP.
    Freeze(Side),
    /// SIGCONT.
    Thaw(Side),
    /// Has the host do this.
    Tell(Side, Command),
    /// Lets pass what the network's gate holds.
    OpenGate,
}

/// Bytes of each device's initial PRE_COPY data, and of the rest.
pub(crate) const INITIAL_BYTES: u64 = 2 << 20;
pub(crate) const REST_BYTES: u64 = 4 << 20;
/// Half-way through the initial data, and through the rest.
pub(crate) const IN_PRECOPY: u64 = INITIAL_BYTES / 2;
pub(crate) const IN_STOP_COPY: u64 = INITIAL_BYTES + REST_BYTES / 2;

/// A limit that is not to strike on a machine that is busy with other things.
const FAR: Option<Time> = Some(Time(Duration::from_secs(30)));

impl Plan {
    /// One device in PRE_COPY and STOP_COPY over two connections, and nothing goes wrong. No limit
    /// is near, and so none strikes that the fault is not about.
    pub(crate) fn new() -> Plan {
        let host = HostPlan {
            choices: Choices {
                backend: BackendChoice::Auto,
                limits: Limits {
                    switchover_budget: None,
                    handshake_limit: FAR,
                    stall_limit: FAR,
                    confirm_limit: FAR,
                    cancel_bound: Some(Time(Duration::from_secs(10))),
                    idle_limit: FAR,
                    peer_silence: FAR,
                },
                precopy: true,
                on_reset: OnResetSpec::Abort,
                reset_to_return: false,
                switches_over: true,
                spare_fds: None,
                no_io_uring: false,
            },
            devices: vec![DeviceSpec {
                p2p: true,
                precopy: true,
                is_file: false,
                data: DataKind::Random,
                initial_bytes: INITIAL_BYTES,
                rest_bytes: REST_BYTES,
                stalls_at: None,
                found: DeviceState::Running,
                faults: Vec::new(),
            }],
        };
        Plan {
            source: host.clone(),
            target: host,
            net: Net { streams: 2, ..Net::default() },
            reactions: Vec::new(),
            releases: true,
        }
    }

    /// A host.
    pub(crate) fn host(&self, side: Side) -> &HostPlan {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// A host, to be changed.
    pub(crate) fn host_mut(&mut self, side: Side) -> &mut HostPlan {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }
}

impl HostPlan {
    /// Its drivers' faults.
    fn faults(&self) -> impl Iterator<Item = &DriverFault> {
        self.devices.iter().flat_map(|device| &device.faults)
    }

    /// Whether a driver holds something until it is released.
    pub(crate) fn holds(&self) -> bool {
        self.faults().any(|fault| fault.deed == Deed::Held)
    }

    /// Whether something that is planned resets a device.
    pub(crate) fn resets(&self) -> bool {
        let resets = [Deed::ResetFirst, Deed::ResetAfter, Deed::Error];
        self.faults().any(|fault| resets.contains(&fault.deed))
    }

    /// How long the drivers themselves take.
    pub(crate) fn late_ms(&self) -> u64 {
        let late = |fault: &DriverFault| match fault.deed {
            Deed::Late(ms) => ms,
            _ => 0,
        };
        self.faults().map(late).max().unwrap_or(0)
    }
}
