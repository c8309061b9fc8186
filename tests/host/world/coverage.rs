//! What the runs of a batch met, so that a world that has stopped to look somewhere is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};

use vfio_ferry::limits::FRAMES_QUEUED_MAX;
use vfio_ferry::machine::Event;
use vfio_ferry::outcome::{Cause, Completion, EpochEnding};
use vfio_ferry::wire::Frame;

use super::schedule::{HostId, SOURCE, TARGET};
use super::side::{Ended, Side};

const LIMITS: [&str; 5] =
    ["handshake_limit", "stall_limit", "idle_limit", "switchover_budget", "confirm_limit"];

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) runs: u64,
    pub(crate) steps: u64,
    pub(crate) stuck: u64,
    pub(crate) late_frames: u64,
    /// Calls that panicked.
    pub(crate) panics: u64,
    /// Devices that were late at their session's end, and of these those that came: by host.
    pub(crate) late: [u64; 2],
    pub(crate) came_back: [u64; 2],
    /// Most chunks of a device that waited to be sent at once.
    pub(crate) frames_waiting: u64,
    /// Sessions that a cancel after the handover ended: by host.
    pub(crate) cancelled_late: [u64; 2],
    /// Devices of the target that came after such an end.
    pub(crate) came_late: u64,
    /// Frames of padding, and paths of which it was found out how fast they are.
    pub(crate) padding: u64,
    pub(crate) paths: u64,
    /// Source devices that were reset on their way back; sessions of a paused VM that were given up.
    pub(crate) was_reset: u64,
    pub(crate) paused: u64,
    /// Frames that a peer left out; that were lost without and with a trace in their stream.
    pub(crate) muted: u64,
    pub(crate) lost: [u64; 2],
    /// Parts of frames on slow streams.
    pub(crate) parts: u64,
    /// Which limits were over: host, option.
    pub(crate) limits: BTreeMap<(HostId, &'static str), u64>,
    /// Sessions by their endings.
    pub(crate) sessions: BTreeMap<(HostId, &'static str), u64>,
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
        self.frames_waiting = self.frames_waiting.max(other.frames_waiting);
        self.was_reset += other.was_reset;
        self.came_late += other.came_late;
        self.padding += other.padding;
        self.paths += other.paths;
        self.paused += other.paused;
        self.panics += other.panics;
        self.muted += other.muted;
        self.parts += other.parts;
        for index in 0..2 {
            self.cancelled_late[index] += other.cancelled_late[index];
            self.late[index] += other.late[index];
            self.came_back[index] += other.came_back[index];
            self.lost[index] += other.lost[index];
        }
        for (sum, part) in [
            (&mut self.endings, &other.endings),
            (&mut self.causes, &other.causes),
            (&mut self.observations, &other.observations),
            (&mut self.limits, &other.limits),
            (&mut self.sessions, &other.sessions),
        ] {
            for (key, count) in part {
                *sum.entry(*key).or_default() += count;
            }
        }
        self.phases.extend(&other.phases);
        self.grid.extend(&other.grid);
    }

    /// How a session ended, and which limit that was.
    pub(crate) fn session(&mut self, h: HostId, ended: &Ended, side: &Side) {
        let out = side.handover_sent || side.handed_over;
        if out && ended.fault().is_some_and(|fault| fault.cause == Cause::Cancelled) {
            self.cancelled_late[h] += 1;
            let back = side.devices.iter().filter(|device| device.came_back.is_some());
            self.came_late += if h == TARGET { back.count() as u64 } else { 0 };
        }
        *self.sessions.entry((h, ended.name())).or_default() += 1;
        let limits = LIMITS.iter().filter(|limit| {
            let fault = ended.fault();
            fault.is_some_and(|fault| {
                fault.cause == Cause::TimeLimit && fault.message.starts_with(**limit)
            })
        });
        for limit in limits {
            *self.limits.entry((h, *limit)).or_default() += 1;
        }
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
            "time_limit",
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
        let endings = ["handed_over", "returned", "not_returned", "unconfirmed"];
        want(&self.sessions, SOURCE, &endings);
        want(&self.sessions, TARGET, &["running", "blank", "not_blank"]);
        let limits = ["handshake_limit", "stall_limit", "switchover_budget", "confirm_limit"];
        want(&self.limits, SOURCE, &limits);
        want(&self.limits, TARGET, &["handshake_limit", "stall_limit", "idle_limit"]);
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
            ("late devices on the source", self.late[SOURCE]),
            ("late devices on the target", self.late[TARGET]),
            ("devices that came back late on the source", self.came_back[SOURCE]),
            ("devices that came back late on the target", self.came_back[TARGET]),
            ("cancels after the handover on the source", self.cancelled_late[SOURCE]),
            ("cancels after the handover on the target", self.cancelled_late[TARGET]),
            ("devices that came after such an end", self.came_late),
            ("frames of padding", self.padding),
            ("paths that were tried", self.paths),
            ("panics", self.panics),
            ("resets as the last resort", self.was_reset),
            ("devices of paused VMs that came back", self.paused),
            ("as many frames as may wait", self.frames_waiting / FRAMES_QUEUED_MAX as u64),
            ("frames that a peer left out", self.muted),
            ("frames lost unseen", self.lost[0]),
            ("frames lost and seen", self.lost[1]),
            ("parts of frames", self.parts),
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
        for (what, map) in [
            ("sessions", &self.sessions),
            ("endings", &self.endings),
            ("causes", &self.causes),
            ("seen by", &self.observations),
            ("limits", &self.limits),
        ] {
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
        writeln!(
            f,
            "late devices {:?}, back {:?}; panics {}; frames left out {}, lost {:?}; parts {}",
            self.late, self.came_back, self.panics, self.muted, self.lost, self.parts
        )?;
        writeln!(
            f,
            "reset to return {}, paused and returned {}, most frames that waited {}, cancelled late \
             {:?}, came late {}, padding {}, paths {}",
            self.was_reset,
            self.paused,
            self.frames_waiting,
            self.cancelled_late,
            self.came_late,
            self.padding,
            self.paths
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
        Event::Sampled(_) => "sampled",
        Event::Path { .. } => "path",
        Event::Link { .. } => "link",
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
