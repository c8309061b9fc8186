//! What a session's end says, made from what its machine says and what the drive has seen.

use crate::machine::Finish;
use crate::metrics::Metrics;
use crate::outcome::{Cause, EpochEnding, Fault, Observation, SourceEnding, TargetEnding};
use crate::receiver::DeviceReport as TargetDeviceReport;
use crate::ring::Backend;
use crate::sender::DeviceReport as SourceDeviceReport;
use crate::vfio::state::DeviceState;

use super::Timeline;

/// Everything about a session that has ended; on the source a [`SourceReport`], on the target a
/// [`TargetReport`].
#[must_use = "it says what became of the devices"]
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report<E, D> {
    /// How it ended, and why.
    pub ending: E,
    /// What became of each device, by number.
    pub devices: Vec<D>,
    /// What was measured.
    pub metrics: Metrics,
    /// When what happened.
    pub timeline: Timeline,
    /// What the streams ran on.
    pub backend: Backend,
    /// Why io_uring was not used, where it was asked for first and refused.
    pub fallback: Option<String>,
}

/// Everything about a session of the source that has ended.
pub type SourceReport = Report<SourceEnding, SourceDeviceReport>;

/// Everything about a session of the target that has ended.
pub type TargetReport = Report<TargetEnding, TargetDeviceReport>;

/// The report of either host's session.
#[derive(Debug)]
pub enum Ended {
    Source(SourceReport),
    Target(TargetReport),
}

impl Ended {
    /// What was measured.
    pub fn metrics(&self) -> &Metrics {
        match self {
            Ended::Source(report) => &report.metrics,
            Ended::Target(report) => &report.metrics,
        }
    }
}

/// What the drive knows of a device besides what its machine reports.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// Something was asked of it.
    pub(super) touched: bool,
    /// A call has not returned, so that what was heard of its state is out of date.
    pub(super) unanswered: bool,
}

impl Seen {
    /// Corrects what its machine says of its state. Whether it is in RUNNING, where it was found.
    fn is_back(self, state: &mut Option<DeviceState>) -> bool {
        if self.unanswered {
            *state = None;
        }
        !self.touched || *state == Some(DeviceState::Running)
    }
}

pub(super) fn source_ending(
    finish: Finish,
    devices: &mut [SourceDeviceReport],
    seen: &[Seen],
) -> SourceEnding {
    let mut back = true;
    for (device, seen) in devices.iter_mut().zip(seen) {
        back &= seen.is_back(&mut device.state);
    }
    match finish.ending {
        EpochEnding::Complete => SourceEnding::HandedOver,
        EpochEnding::Unconfirmed => SourceEnding::Unconfirmed(reason(finish)),
        _ if back => SourceEnding::Returned(reason(finish)),
        _ => SourceEnding::NotReturned(reason(finish)),
    }
}

pub(super) fn target_ending(
    finish: Finish,
    devices: &mut [TargetDeviceReport],
    seen: &[Seen],
) -> TargetEnding {
    let mut blank = true;
    for (device, seen) in devices.iter_mut().zip(seen) {
        // The way back on this host is a reset: RUNNING is what follows it.
        blank &= seen.is_back(&mut device.state);
    }
    match finish.ending {
        EpochEnding::Complete => TargetEnding::Running,
        _ if blank => TargetEnding::Blank(reason(finish)),
        _ => TargetEnding::NotBlank(reason(finish)),
    }
}

fn reason(finish: Finish) -> Fault {
    finish.fault.unwrap_or_else(|| {
        let message = "the session ended without a reason; this is a defect of the engine";
        Fault::session(Cause::Local, Observation::Engine, message)
    })
}
