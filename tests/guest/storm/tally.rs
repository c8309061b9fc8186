//! What was met in how many rounds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use vfio_ferry::outcome::{Cause, Host, Observation};

use super::round::Ended;

/// How a reset can be seen. The first three are those that the kernel's developers named when they
/// designed PRE_COPY; the others are what drivers do besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    InUse,
    AtSwitchover,
    WhileAborting,
    DeadOnArrival,
    SilentInResuming,
}

impl Way {
    pub(super) const ALL: [Way; 5] = [
        Way::InUse,
        Way::AtSwitchover,
        Way::WhileAborting,
        Way::DeadOnArrival,
        Way::SilentInResuming,
    ];
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::InUse => "in use, by a read or the precopy ioctl",
            Way::AtSwitchover => "at switchover, by a data fd that was not expected",
            Way::WhileAborting => "by nobody, while aborting",
            Way::DeadOnArrival => "by a data fd that was dead on arrival",
            Way::SilentInResuming => "in RESUMING, by a look at the state alone",
        })
    }
}

/// Sums over all rounds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rounds: u32,
    pub(super) longest: Duration,
    endings: BTreeMap<String, u32>,
    seen: BTreeMap<(&'static str, &'static str), u32>,
    while_aborting: u32,
    complete: u32,
    complete_time: Duration,
}

impl Tally {
    pub(super) fn add(&mut self, ended: &Ended) {
        self.rounds += 1;
        self.longest = self.longest.max(ended.took);
        let restarts = match ended.restarts {
            0 => "",
            _ => ", after a fresh start",
        };
        let ending = match (ended.source, ended.cause) {
            (ending, Some(Cause::DeviceReset)) => format!("{ending}: the source was reset"),
            (ending, Some(Cause::PeerAbort)) => format!("{ending}: the target was reset"),
            (ending, Some(cause)) => format!("{ending}: {cause}"),
            (ending, None) => ending.to_owned(),
        };
        *self.endings.entry(ending + restarts).or_default() += 1;
        for (host, observed) in &ended.seen {
            *self.seen.entry((name(*host), observed.name())).or_default() += 1;
        }
        self.while_aborting += u32::from(ended.reset_while_aborting);
        if ended.source == "handed_over" && ended.restarts == 0 {
            self.complete += 1;
            self.complete_time += ended.took;
        }
    }

    /// How long a round takes that nobody disturbs.
    pub(super) fn typical_round(&self) -> Duration {
        const GUESS: Duration = Duration::from_millis(10);
        if self.complete == 0 { GUESS } else { self.complete_time / self.complete }
    }

    /// In how many rounds resets were seen in a way.
    pub(super) fn ways(&self, way: Way) -> u32 {
        let seen = |host: Host, observed: Observation| {
            self.seen.get(&(name(host), observed.name())).copied().unwrap_or(0)
        };
        match way {
            Way::InUse => {
                seen(Host::Source, Observation::Read) + seen(Host::Source, Observation::PrecopyInfo)
            }
            Way::AtSwitchover => seen(Host::Source, Observation::UnexpectedFd),
            Way::WhileAborting => self.while_aborting,
            Way::DeadOnArrival => seen(Host::Source, Observation::DeadOnArrival),
            Way::SilentInResuming => seen(Host::Target, Observation::StateCheck),
        }
    }

    pub(super) fn endings(&self) -> impl Iterator<Item = (&str, u32)> {
        self.endings.iter().map(|(ending, count)| (ending.as_str(), *count))
    }

    pub(super) fn observations(&self) -> impl Iterator<Item = (&'static str, &'static str, u32)> {
        self.seen.iter().map(|((host, observed), count)| (*host, *observed, *count))
    }
}

fn name(host: Host) -> &'static str {
    match host {
        Host::Source => "source",
        Host::Target => "target",
    }
}
