//! Device states, capabilities and arcs of VFIO migration v2 as tables.

use std::fmt;

/// `enum vfio_device_mig_state`; the numbers are the UAPI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DeviceState {
    /// The device has failed and must be reset.
    Error = 0,
    /// Stopped; the internal state does not change.
    Stop = 1,
    /// Running normally.
    Running = 2,
    /// Stopped, and its state can be read from the data fd.
    StopCopy = 3,
    /// Stopped, and its state can be written to the data fd.
    Resuming = 4,
    /// Running, except that it starts no DMA to other devices.
    RunningP2p = 5,
    /// Running, and its state can be read while it changes.
    PreCopy = 6,
    /// PRE_COPY without DMA to other devices.
    PreCopyP2p = 7,
}

/// What VFIO_DEVICE_FEATURE_MIGRATION says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capabilities {
    /// VFIO_MIGRATION_P2P: RUNNING_P2P exists.
    pub p2p: bool,
    /// VFIO_MIGRATION_PRE_COPY: PRE_COPY exists.
    pub precopy: bool,
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceState::Error => "ERROR",
            DeviceState::Stop => "STOP",
            DeviceState::Running => "RUNNING",
            DeviceState::StopCopy => "STOP_COPY",
            DeviceState::Resuming => "RESUMING",
            DeviceState::RunningP2p => "RUNNING_P2P",
            DeviceState::PreCopy => "PRE_COPY",
            DeviceState::PreCopyP2p => "PRE_COPY_P2P",
        })
    }
}
