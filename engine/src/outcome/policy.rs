//! What the embedder chose for a device.

use bytes::Bytes;

use super::Latencies;
use crate::limits;

/// What follows when a device is reset while its state is being saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnReset {
    /// The whole migration is aborted: the devices back in RUNNING, the target told.
    Abort,
    /// The device's epoch is discarded on both hosts and its saving starts again in PRE_COPY; the
    /// other devices go on.
    Restart {
        /// How many restarts this device may have in one session.
        attempts: u32,
        /// What follows when they are used up.
        then: Fallback,
    },
    /// The device's epoch is discarded and its whole state is sent from STOP_COPY at switchover.
    StopCopy,
}

/// What follows when the restarts of [`OnReset::Restart`] are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fallback {
    /// As [`OnReset::Abort`].
    Abort,
    /// As [`OnReset::StopCopy`].
    StopCopy,
}

impl OnReset {
    /// Restart with the default number of attempts, then abort.
    pub fn restart() -> OnReset {
        OnReset::Restart { attempts: limits::RESTARTS_DEFAULT, then: Fallback::Abort }
    }
}

/// The embedder's choices for one device on the source.
#[derive(Debug, Clone)]
pub struct DeviceOptions {
    /// Save in PRE_COPY while the guest runs, where the device can.
    pub precopy: bool,
    /// What follows a reset while the state is being saved.
    pub on_reset: OnReset,
    /// Share of the link against the other devices of the session; 1 is the default, 0 counts as 1.
    pub weight: u32,
    /// Where the device does not come back to where it was found after three tries of SET_STATE, it
    /// may be reset: the guest then finds a reset device, and the report says so.
    pub reset_to_return: bool,
    /// What its transitions took before, or those of another of its kind: for the forecast.
    pub latencies: Latencies,
    /// Bytes that the target's embedder gets with the device's begin, at most
    /// [`limits::MESSAGE_BYTES_MAX`]. The engine does not look at them.
    pub opaque: Bytes,
}

impl Default for DeviceOptions {
    fn default() -> Self {
        DeviceOptions {
            precopy: true,
            on_reset: OnReset::Abort,
            weight: 1,
            reset_to_return: false,
            latencies: Latencies::default(),
            opaque: Bytes::new(),
        }
    }
}
