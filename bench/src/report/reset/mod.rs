//! What a reset cost, and what the chosen policy saved against starting the whole migration again.
//!
//! Every round takes three ways, so that the host's other load falls on all alike:
//!
//! | way | migrations of a round |
//! |---|---|
//! | `without_reset` | one, and nothing happens |
//! | `with_reset` | one with the reset, and what was chosen for it |
//! | `migrated_again` | one with the reset, aborted, then a whole new one: what a VMM does today |
//!
//! Where an abort was chosen, or nothing else is possible, there is no second way. The time between
//! the two migrations of the third, in which a VMM starts the target again, is not counted.

mod text;

pub(crate) use text::text;

use serde::Serialize;

use super::run::{Outcome, Run};
use super::seen::{SeenReset, Sight};
use super::spread::{Spread, median};
use crate::spec::{OnResetChoice, ResetAt};

/// The migrations of one round.
#[derive(Debug)]
pub(crate) struct Round {
    /// Without a reset.
    pub(crate) plain: Run,
    /// With the reset, and what was chosen for it.
    pub(crate) chosen: Run,
    /// With the reset, aborted. None if that is what was chosen.
    pub(crate) aborted: Option<Run>,
    /// The new migration after the abort.
    pub(crate) again: Run,
}

/// Whether a reset at this moment can end in nothing but an abort: the source has the whole state
/// when the target's device is reset, and lets go of nothing.
pub(crate) fn must_abort(at: ResetAt, choice: OnResetChoice) -> bool {
    at == ResetAt::Load || choice == OnResetChoice::Abort
}

impl Round {
    /// What did not go as chosen; none if all did.
    pub(crate) fn fault(&self) -> Option<String> {
        let complete = |what: &str, run: &Run| {
            let reason = run.message.clone().unwrap_or_else(|| "no reason was given".to_owned());
            (run.outcome != Outcome::Complete).then(|| format!("{what}: {reason}"))
        };
        complete("the migration without a reset did not complete", &self.plain)
            .or_else(|| self.chosen_fault())
            .or_else(|| self.aborted.as_ref().and_then(abort_fault))
            .or_else(|| complete("the new migration did not complete", &self.again))
    }

    fn chosen_fault(&self) -> Option<String> {
        let run = &self.chosen;
        if self.aborted.is_none() {
            return abort_fault(run);
        }
        match run.outcome {
            Outcome::Complete if run.reset.is_some() => None,
            Outcome::Complete => Some(never_came(run)),
            _ => Some(format!(
                "the migration did not complete after the reset: {}",
                run.message.as_deref().unwrap_or("no reason was given")
            )),
        }
    }

    /// The aborted migration and the new one.
    fn again(&self) -> Sums {
        Sums::of(self.aborted.as_ref().unwrap_or(&self.chosen)).plus(&Sums::of(&self.again))
    }
}

/// Why a migration that was to be aborted by the reset was not, or not as it should be.
fn abort_fault(run: &Run) -> Option<String> {
    let reason = run.message.as_deref().unwrap_or("no reason was given");
    match (&run.reset, run.outcome) {
        (None, Outcome::Complete) => Some(never_came(run)),
        (_, Outcome::Complete) => Some("the migration went on in spite of the reset".to_owned()),
        (Some(seen), Outcome::Aborted) if seen.is_named() && run.source_runs => None,
        (Some(seen), Outcome::Aborted) if seen.is_named() => {
            Some(format!("a source device is not in RUNNING after the abort: {reason}"))
        }
        _ => Some(format!("the migration failed in another way than by the reset: {reason}")),
    }
}

fn never_came(run: &Run) -> String {
    format!(
        "the reset never came: {} bytes were read without one",
        run.read_bytes.iter().sum::<u64>()
    )
}

/// The result of one way in one round.
#[derive(Debug, Clone, Copy)]
struct Sums {
    downtime_ns: u64,
    total_ns: u64,
    wire_bytes: u64,
    read_bytes: u64,
    other_bytes: u64,
}

impl Sums {
    fn of(run: &Run) -> Sums {
        Sums {
            downtime_ns: run.downtime_ns,
            total_ns: run.total_ns,
            wire_bytes: run.wire_bytes,
            read_bytes: run.read_bytes.iter().sum(),
            other_bytes: run.read_bytes.iter().skip(1).sum(),
        }
    }

    fn plus(&self, other: &Sums) -> Sums {
        Sums {
            downtime_ns: self.downtime_ns + other.downtime_ns,
            total_ns: self.total_ns + other.total_ns,
            wire_bytes: self.wire_bytes + other.wire_bytes,
            read_bytes: self.read_bytes + other.read_bytes,
            other_bytes: self.other_bytes + other.other_bytes,
        }
    }
}

/// The results of one way over all rounds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Way {
    /// How long the guest stood still, on either host.
    pub(crate) downtime_ns: Spread,
    /// From the first call to a device to the guest's going on.
    pub(crate) total_ns: Spread,
    /// Median. Where the engine chooses between raw and compressed, that says more about its
    /// choices than about the reset.
    pub(crate) wire_bytes: u64,
    /// State read from all devices, median.
    pub(crate) read_bytes: u64,
    /// State read from the devices that were not reset, median.
    pub(crate) other_devices_bytes: u64,
}

impl Way {
    fn over(rounds: &[Round], sums: impl Fn(&Round) -> Sums) -> Way {
        let over = |value: fn(&Sums) -> u64| Spread::of(rounds.iter().map(|it| value(&sums(it))));
        let median =
            |value: fn(&Sums) -> u64| median(rounds.iter().map(|it| value(&sums(it))).collect());
        Way {
            downtime_ns: over(|sums| sums.downtime_ns),
            total_ns: over(|sums| sums.total_ns),
            wire_bytes: median(|sums| sums.wire_bytes),
            read_bytes: median(|sums| sums.read_bytes),
            other_devices_bytes: median(|sums| sums.other_bytes),
        }
    }

    /// What this way takes more than another, median against median.
    fn beyond(&self, other: &Way) -> Difference {
        let minus = |one: u64, two: u64| one as i64 - two as i64;
        Difference {
            downtime_ns: minus(self.downtime_ns.median, other.downtime_ns.median),
            total_ns: minus(self.total_ns.median, other.total_ns.median),
            wire_bytes: minus(self.wire_bytes, other.wire_bytes),
            read_bytes: minus(self.read_bytes, other.read_bytes),
        }
    }
}

/// Of the medians of two ways. What is within the host's noise may well be less than 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// In downtime.
    pub(crate) downtime_ns: i64,
    /// In total time.
    pub(crate) total_ns: i64,
    /// On the wire.
    pub(crate) wire_bytes: i64,
    /// Of state read.
    pub(crate) read_bytes: i64,
}

/// The section of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Reset {
    /// When the first device was reset.
    pub(crate) at: ResetAt,
    /// What was chosen for it.
    pub(crate) on_reset: OnResetChoice,
    /// Whether that is what happened, every time, and every loaded state was the source's.
    pub(crate) as_chosen: bool,
    /// Rounds.
    pub(crate) rounds: usize,
    /// How the engine saw it, and how often so.
    pub(crate) seen: Vec<Sight>,
    /// From the reset to the completion that tells of it.
    pub(crate) told_after_ns: Spread,
    /// State of the first device that was sent in vain, median.
    pub(crate) discarded_bytes: u64,
    /// See the module's text.
    pub(crate) without_reset: Way,
    /// See the module's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) with_reset: Option<Way>,
    /// See the module's text.
    pub(crate) migrated_again: Way,
    /// What the chosen way took more than a migration without a reset.
    pub(crate) cost: Difference,
    /// What the chosen way took less than a whole new migration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) saved: Option<Difference>,
}

impl Reset {
    /// Sums the rounds up.
    pub(crate) fn new(at: ResetAt, on_reset: OnResetChoice, rounds: &[Round]) -> Reset {
        let without_reset = Way::over(rounds, |round| Sums::of(&round.plain));
        let migrated_again = Way::over(rounds, Round::again);
        let with_reset =
            (!must_abort(at, on_reset)).then(|| Way::over(rounds, |round| Sums::of(&round.chosen)));
        let resets: Vec<&SeenReset> =
            rounds.iter().filter_map(|round| round.chosen.reset.as_ref()).collect();
        let discarded = rounds.iter().map(|it| it.chosen.discarded_bytes).collect();
        Reset {
            at,
            on_reset,
            as_chosen: !rounds.is_empty() && rounds.iter().all(|round| round.fault().is_none()),
            rounds: rounds.len(),
            seen: Sight::count(&resets),
            told_after_ns: Spread::of(resets.iter().filter_map(|reset| reset.told_after_ns())),
            discarded_bytes: median(discarded),
            cost: with_reset.as_ref().unwrap_or(&migrated_again).beyond(&without_reset),
            saved: with_reset.as_ref().map(|way| migrated_again.beyond(way)),
            without_reset,
            with_reset,
            migrated_again,
        }
    }
}

#[cfg(test)]
mod tests;
