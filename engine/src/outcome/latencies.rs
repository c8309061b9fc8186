//! What a device's way over takes beside its bytes.

use std::time::Duration;

/// What a device takes for its transitions at the switchover, however little its state is: firmware
/// quiesces, makes an image ready, judges one. The source measures it while a migration runs, the
/// target's part included, and has it in [`DeviceReport`](crate::DeviceReport); who gives it to the
/// next migration of the same device, or of another of its kind, gets a forecast that knows it. None:
/// not known, and the forecast takes it for one round trip (`load`, `run`) or for nothing (`stop`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latencies {
    /// From the switchover until the first byte of STOP_COPY has been read.
    pub stop: Option<Duration>,
    /// From when the target has done with the last byte until its word that the state is loaded:
    /// RESUMING to STOP.
    pub load: Option<Duration>,
    /// From the handover until the target's word that the device runs: STOP to RUNNING.
    pub run: Option<Duration>,
}

impl Latencies {
    /// These, and where they are not known the other's.
    pub(crate) fn or(self, other: Latencies) -> Latencies {
        Latencies {
            stop: self.stop.or(other.stop),
            load: self.load.or(other.load),
            run: self.run.or(other.run),
        }
    }
}
