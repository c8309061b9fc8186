//! What the drive measures as it goes: steps, phases, and the times of a migration that matter.

use crate::ids::DeviceId;
use crate::machine::{Notice, Request};
use crate::metrics::Metrics;
use crate::outcome::Phase;
use crate::vfio::state::DeviceState;

/// When what happened, in nanoseconds of CLOCK_MONOTONIC: comparable between processes of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timeline {
    /// The session's thread began.
    pub started_ns: u64,
    /// The streams were agreed on.
    pub connected_ns: Option<u64>,
    /// The first call that stops a device was made (source).
    pub stop_called_ns: Option<u64>,
    /// The last device was in RUNNING (target).
    pub running_ns: Option<u64>,
    /// The machine ended.
    pub finished_ns: Option<u64>,
}

pub(in crate::drive) struct Measured {
    pub(in crate::drive) metrics: Metrics,
    pub(in crate::drive) timeline: Timeline,
    phases: Vec<Option<(Phase, u64)>>,
}

impl Measured {
    pub(in crate::drive) fn new(devices: usize, streams: usize, now_ns: u64) -> Measured {
        Measured {
            metrics: Metrics::new(devices, streams),
            timeline: Timeline { started_ns: now_ns, ..Timeline::default() },
            phases: vec![Some((Phase::Connect, now_ns)); devices],
        }
    }

    pub(in crate::drive) fn noticed(&mut self, notice: &Notice, now_ns: u64) {
        match notice {
            Notice::Connected { .. } => self.timeline.connected_ns = Some(now_ns),
            Notice::Phase { device, phase } => self.enter(*device, Some(*phase), now_ns),
            _ => {}
        }
    }

    /// A request is about to be made of a device.
    pub(in crate::drive) fn asking(&mut self, request: Request, switchover: bool, now_ns: u64) {
        let stops = matches!(
            request,
            Request::SetState(
                DeviceState::StopCopy | DeviceState::RunningP2p | DeviceState::PreCopyP2p
            )
        );
        if stops && switchover {
            self.timeline.stop_called_ns.get_or_insert(now_ns);
        }
    }

    /// A device was put to RUNNING.
    pub(in crate::drive) fn running(&mut self, now_ns: u64) {
        self.timeline.running_ns = Some(now_ns);
    }

    pub(in crate::drive) fn finished(&mut self, now_ns: u64) {
        self.timeline.finished_ns = Some(now_ns);
        for index in 0..self.phases.len() {
            self.enter(DeviceId(index as u32), None, now_ns);
        }
    }

    fn enter(&mut self, device: DeviceId, phase: Option<Phase>, now_ns: u64) {
        let next = phase.map(|phase| (phase, now_ns));
        if let Some((before, since)) = std::mem::replace(&mut self.phases[device.index()], next) {
            self.metrics.record_phase(before, now_ns.saturating_sub(since));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop() -> Request {
        Request::SetState(DeviceState::StopCopy)
    }

    #[test]
    fn the_downtime_begins_with_the_first_call_that_stops_a_device() {
        let mut measured = Measured::new(2, 1, 10);
        measured.asking(stop(), false, 20);
        measured.asking(Request::SetState(DeviceState::PreCopy), true, 30);
        assert_eq!(measured.timeline.stop_called_ns, None, "the VM runs");
        measured.asking(Request::SetState(DeviceState::PreCopyP2p), true, 40);
        measured.asking(stop(), true, 50);
        measured.running(60);
        measured.running(70);
        measured.noticed(&Notice::Connected { version: 1, chunk_bytes: 1 }, 15);
        measured.finished(80);
        let expected = Timeline {
            started_ns: 10,
            connected_ns: Some(15),
            stop_called_ns: Some(40),
            running_ns: Some(70),
            finished_ns: Some(80),
        };
        assert_eq!(measured.timeline, expected);
    }

    #[test]
    fn a_phase_lasts_until_the_next_one_or_the_end() {
        let mut measured = Measured::new(1, 1, 100);
        let device = DeviceId(0);
        let phase = Phase::PreCopy;
        measured.noticed(&Notice::Phase { device, phase }, 105);
        measured.finished(125);
        measured.finished(999);
        let of = |phase| measured.metrics.phase(phase);
        let once = |phase: Phase| (of(phase).len(), of(phase).max());
        assert_eq!(once(Phase::Connect), (1, 5));
        assert_eq!(once(Phase::PreCopy), (1, 20));
        assert_eq!(of(Phase::StopCopy).len(), 0);
    }
}
