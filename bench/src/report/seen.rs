//! How the engine saw a reset.

use nix::errno::Errno;
use serde::Serialize;

use crate::outcome::Told;
use crate::process::message::SideReport;
use crate::spec::Side;

/// A reset that came, and what the engine told of it.
#[derive(Debug, Clone)]
pub(crate) struct SeenReset {
    /// Whose device was reset.
    side: Side,
    /// When.
    at_ns: u64,
    /// The first that the engine told of that device afterwards, on the same host.
    told: Option<Told>,
}

impl SeenReset {
    /// The planned reset of a run, if it came.
    pub(crate) fn of(source: &SideReport, target: &SideReport) -> Option<SeenReset> {
        [(Side::Source, source), (Side::Target, target)].into_iter().find_map(|(side, report)| {
            let index = report.devices.iter().position(|device| device.reset_ns > 0)?;
            let at_ns = report.devices[index].reset_ns;
            let mut of_device = report.told.iter().filter(|told| told.device as usize == index);
            Some(SeenReset {
                side,
                at_ns,
                told: of_device.find(|told| told.at_ns >= at_ns).cloned(),
            })
        })
    }

    /// Whether the engine called it what it was.
    pub(crate) fn is_named(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.cause == "device_reset")
    }

    /// From the reset to the completion.
    pub(crate) fn told_after_ns(&self) -> Option<u64> {
        Some(self.told.as_ref()?.at_ns - self.at_ns)
    }
}

/// A way in which resets were seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Sight {
    /// The host.
    pub(crate) host: &'static str,
    /// What followed: `restarted` or `aborted`; empty if the engine told nothing.
    pub(crate) ending: String,
    /// The engine's name of the cause.
    pub(crate) cause: String,
    /// Its name of how that was observed.
    pub(crate) observed: String,
    /// Where the device was.
    pub(crate) phase: String,
    /// What the kernel said.
    pub(crate) errno: Option<i32>,
    /// The sentence for a person, of the first one.
    pub(crate) message: String,
    /// How often.
    pub(crate) count: usize,
}

impl Sight {
    /// The ways in which these resets were seen, the most frequent first.
    pub(super) fn count(resets: &[&SeenReset]) -> Vec<Sight> {
        let mut sights: Vec<Sight> = Vec::new();
        for reset in resets {
            let told = reset.told.clone().unwrap_or_default();
            let sight = Sight {
                host: reset.side.name(),
                ending: told.ending,
                cause: told.cause,
                observed: told.observed,
                phase: told.phase,
                errno: told.errno,
                message: told.message,
                count: 1,
            };
            match sights.iter_mut().find(|it| it.is_like(&sight)) {
                Some(same) => same.count += 1,
                None => sights.push(sight),
            }
        }
        sights.sort_by_key(|sight| std::cmp::Reverse(sight.count));
        sights
    }

    fn is_like(&self, other: &Sight) -> bool {
        let of = |it: &Sight| {
            (it.host, it.cause.clone(), it.observed.clone(), it.phase.clone(), it.errno)
        };
        of(self) == of(other)
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        if self.cause.is_empty() {
            return format!("not told of on the {}", self.host);
        }
        let Sight { cause, observed, phase, host, .. } = self;
        let errno = match self.errno {
            Some(errno) => format!(", errno {errno} ({})", errno_name(errno)),
            None => String::new(),
        };
        format!("{cause} by {observed}, in {phase} on the {host}{errno}")
    }
}

fn errno_name(errno: i32) -> String {
    /// Not for user space, and yet the kernel leaks it.
    const ERESTARTSYS: i32 = 512;
    match Errno::from_raw(errno) {
        Errno::UnknownErrno if errno == ERESTARTSYS => "ERESTARTSYS".to_owned(),
        known => format!("{known:?}"),
    }
}
