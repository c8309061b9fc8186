//! What the runs of a batch met, so that a world that has stopped to look somewhere is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use vfio_ferry::machine::Event;
use vfio_ferry::outcome::{Completion, EpochEnding};
use vfio_ferry::wire::Frame;

use super::schedule::{HostId, SOURCE};
use super::side::Side;

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) stuck: u64,
    pub(crate) late_frames: u64,
    /// Discards after which everything comes from STOP_COPY.
    pub(crate) stop_copy_fallbacks: u64,
    /// How sessions and epochs ended: host, ending.
    pub(crate) endings: BTreeMap<(HostId, &'static str), u64>,
    /// Why: host, cause.
    pub(crate) causes: BTreeMap<(HostId, &'static str), u64>,
    /// How a device's fault was seen: host, observation.
    pub(crate) observations: BTreeMap<(HostId, &'static str), u64>,
    pub(crate) phases: BTreeSet<(HostId, &'static str)>,
    /// Which event reached which host while its first device was in which phase.
    pub(crate) grid: BTreeSet<(HostId, &'static str, &'static str)>,
}

impl Coverage {
    pub(crate) fn fed(&mut self, h: HostId, event: &Event, side: &Side) {
        let phase = side.devices[0].phase.name();
        self.grid.insert((h, phase, kind(event)));
        if let Event::Frame { frame: Frame::Discard(_, discard), .. } = event {
            self.stop_copy_fallbacks += u64::from(discard.stop_copy_only);
        }
    }

    pub(crate) fn completed(&mut self, h: HostId, completion: &Completion) {
        *self.endings.entry((h, completion.ending.name())).or_default() += 1;
        if let Some(fault) = &completion.fault
            && completion.ending != EpochEnding::Complete
        {
            *self.causes.entry((h, fault.cause.name())).or_default() += 1;
            *self.observations.entry((h, fault.observed.name())).or_default() += 1;
        }
    }

    pub(crate) fn add(&mut self, other: &Coverage) {
        self.runs += other.runs;
        self.steps += other.steps;
        self.stuck += other.stuck;
        self.late_frames += other.late_frames;
        self.stop_copy_fallbacks += other.stop_copy_fallbacks;
        for (sum, part) in [
            (&mut self.endings, &other.endings),
            (&mut self.causes, &other.causes),
            (&mut self.observations, &other.observations),
        ] {
            for (key, count) in part {
                *sum.entry(*key).or_default() += count;
            }
        }
        self.phases.extend(&other.phases);
        self.grid.extend(&other.grid);
    }

    /// What a batch of the default size must have met and did not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut want =
            |map: &BTreeMap<(HostId, &'static str), u64>, h: HostId, names: &[&'static str]| {
                for name in names {
                    if !map.contains_key(&(h, name)) {
                        missing.push(format!("{name} on the {}", host(h)));
                    }
                }
            };
        let causes = [
            "device_reset",
            "device_failure",
            "device_error",
            "peer_abort",
            "network",
            "cancelled",
            "local",
        ];
        for h in [0, 1] {
            want(&self.endings, h, &["complete", "restarted", "aborted"]);
            // Misbehaviour is the hostile peer's: see `a_hostile_peer_breaks_nothing`.
            want(&self.causes, h, &causes);
            want(
                &self.observations,
                h,
                &["state_check", "set_state", "peer", "stream", "embedder", "engine"],
            );
        }
        want(&self.endings, SOURCE, &["unconfirmed"]);
        want(
            &self.observations,
            SOURCE,
            &["read", "precopy_info", "unexpected_fd", "dead_on_arrival"],
        );
        want(&self.observations, 1, &["write"]);
        for (name, count) in [
            ("detaches of a stuck operation", self.stuck),
            ("late frames dropped", self.late_frames),
            ("stop-copy fallbacks", self.stop_copy_fallbacks),
        ] {
            if count == 0 {
                missing.push(name.to_owned());
            }
        }
        missing
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} runs, {} steps", self.runs, self.steps)?;
        for (what, map) in
            [("endings", &self.endings), ("causes", &self.causes), ("seen by", &self.observations)]
        {
            for h in [0, 1] {
                let mut line = String::new();
                for ((at, name), count) in map {
                    if *at == h {
                        write!(line, " {name} {count}")?;
                    }
                }
                writeln!(f, "{what:>8}, {}:{line}", host(h))?;
            }
        }
        writeln!(
            f,
            "late frames dropped {}, stop-copy fallbacks {}, stuck detaches {}",
            self.late_frames, self.stop_copy_fallbacks, self.stuck
        )?;
        write!(f, "phase x event pairs met: {}", self.grid.len())
    }
}

fn host(h: HostId) -> &'static str {
    ["source", "target"][h]
}

fn kind(event: &Event) -> &'static str {
    match event {
        Event::Start => "start",
        Event::Command(_) => "command",
        Event::Control { .. } => "control",
        Event::Read { .. } => "read",
        Event::HungUp { .. } => "hung up",
        Event::Written { .. } => "written",
        Event::Detached { .. } => "detached",
        Event::Encoded { .. } => "encoded",
        Event::Decoded { .. } => "decoded",
        Event::Sent { .. } => "sent",
        Event::Frame { .. } => "frame",
        Event::Data { .. } => "data",
        Event::Body { .. } => "body",
        Event::StreamLost { .. } => "stream lost",
        Event::Part { .. } => "part",
        Event::Local(_) => "local",
        Event::Tick => "tick",
    }
}
