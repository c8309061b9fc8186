//! What is promised of a run, and whether it was kept.
//!
//! A fault promises how each host ends. Beyond that every run must keep what every ending says, by
//! the word of the devices: that is [`truth`], which no fault can leave out.

mod truth;

use std::time::Duration;

use super::message::Holds;
use super::plan::Plan;
use super::record::{HostRecord, Record};
pub(crate) use crate::engine::Cause;
use crate::engine::DeviceState;
use crate::spec::Side;

/// How a host ended: as its VMM was told, or what became of it instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    HandedOver,
    Returned,
    NotReturned,
    Unconfirmed,
    Running,
    Blank,
    NotBlank,
    /// The session was not started.
    Refused,
    /// The session was dropped.
    Dropped,
    /// The process was killed.
    Killed,
}

/// An ending that is promised, with one of these causes; with any where there are none.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) ending: Ending,
    pub(crate) causes: Vec<Cause>,
}

/// What a fault promises.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promise {
    /// One of these, of the source.
    pub(crate) source: Vec<Outcome>,
    /// And of the target.
    pub(crate) target: Vec<Outcome>,
    /// And all of these.
    pub(crate) also: Vec<Also>,
}

/// What a fault promises beyond the endings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Also {
    /// The late device came back where it belongs, and this host was told.
    CameBack(Side),
    /// The devices are where they belong in the end, and if one of them was late, this host was
    /// told, unless it had dropped its session.
    BackHome(Side),
    /// The guest was not stopped for nothing.
    NotStoppedInVain,
    /// What is told has no control characters and no marks that turn text around.
    CleanText(Side),
    /// A device was reset on its way back, and that is said.
    WasReset,
    /// The process never had more memory than this.
    PeakBelow(Side, u64),
    /// No driver was asked for a state.
    Untouched(Side),
    /// No device was in this state.
    Never(Side, DeviceState),
    /// What is told has these words.
    Says(Side, &'static str),
    /// Plain system calls were used.
    PlainCalls(Side),
    /// The guest did not stand still for so long: far more than the limit that bounds it, because
    /// the machine may be busy, and far less than what would follow if that limit did not.
    StillBelow(Duration),
    /// One device was asked for the second state only when the other was in the first.
    Barrier { side: Side, arrived: (usize, DeviceState), before: (usize, DeviceState) },
}

impl Ending {
    /// The engine's name, or one of ours.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Ending::HandedOver => "handed_over",
            Ending::Returned => "returned",
            Ending::NotReturned => "not_returned",
            Ending::Unconfirmed => "unconfirmed",
            Ending::Running => "running",
            Ending::Blank => "blank",
            Ending::NotBlank => "not_blank",
            Ending::Refused => "refused",
            Ending::Dropped => "dropped",
            Ending::Killed => "killed",
        }
    }
}

/// How a host ended, and why: the names that are promised, and those that are printed.
pub(crate) fn ended(host: &HostRecord) -> (String, Option<String>) {
    match (&host.end, &host.refused) {
        _ if host.killed_ns.is_some() && host.end.is_none() => ("killed".to_owned(), None),
        (Some((_, end)), _) => (end.ending.clone(), end.cause.clone()),
        (None, Some(_)) => ("refused".to_owned(), None),
        _ if host.dropped_ns.is_some() => ("dropped".to_owned(), None),
        _ => ("no end".to_owned(), None),
    }
}

impl Promise {
    /// What was not kept, a sentence each; none if all was.
    pub(crate) fn broken(&self, plan: &Plan, record: &Record) -> Vec<String> {
        let mut broken: Vec<String> = record.failure.iter().cloned().collect();
        for (side, outcomes) in [(Side::Source, &self.source), (Side::Target, &self.target)] {
            let (ending, cause) = ended(record.host(side));
            let is_it = |outcome: &Outcome| {
                let cause = cause.as_deref();
                outcome.ending.name() == ending
                    && (outcome.causes.is_empty()
                        || outcome.causes.iter().any(|promised| Some(promised.name()) == cause))
            };
            if !outcomes.iter().any(is_it) {
                let promised: Vec<String> = outcomes.iter().map(Outcome::words).collect();
                let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                broken.push(format!(
                    "the {} is {ending}{cause}; promised: {}",
                    side.name(),
                    promised.join(" or ")
                ));
            }
        }
        broken.extend(truth::broken(plan, record));
        broken.extend(self.also.iter().filter_map(|also| also.broken(plan, record)));
        broken
    }
}

impl Outcome {
    fn words(&self) -> String {
        let causes: Vec<&str> = self.causes.iter().map(|cause| cause.name()).collect();
        match causes[..] {
            [] => self.ending.name().to_owned(),
            _ => format!("{} ({})", self.ending.name(), causes.join(", ")),
        }
    }
}

impl Also {
    fn broken(&self, plan: &Plan, record: &Record) -> Option<String> {
        let (kept, otherwise) = match *self {
            Also::CameBack(side) => {
                let host = record.host(side);
                let kept = host.late() == 0 && !host.came_back.is_empty();
                (
                    kept && is_home(plan, record, side),
                    format!("a late device of the {} is not said to be back", side.name()),
                )
            }
            Also::BackHome(side) => (
                is_home(plan, record, side) && record.host(side).late() == 0,
                format!("a device of the {} is not back", side.name()),
            ),
            Also::NotStoppedInVain => {
                let source = &record.source;
                let in_vain = source.switchover_ns.is_some() && source.ending() == Some("returned");
                (!in_vain, "the guest was stopped in vain".to_owned())
            }
            Also::CleanText(side) => {
                let text = message(record.host(side));
                (text.chars().all(is_clean), format!("the {} is told {text:?}", side.name()))
            }
            Also::WasReset => {
                let end = record.source.end.as_ref();
                let kept = end.is_some_and(|(_, end)| end.devices.iter().any(|d| d.was_reset));
                (kept, "nobody says that a device was reset".to_owned())
            }
            Also::PeakBelow(side, most) => {
                let left = record.host(side).left.as_ref();
                let peak = left.map_or(0, |left| left.peak_rss_bytes);
                (peak > 0 && peak < most, format!("the {} had {} MiB", side.name(), peak >> 20))
            }
            Also::Untouched(side) => {
                let asked = &record.host(side).asked;
                (asked.is_empty(), format!("the {}'s devices were touched", side.name()))
            }
            Also::Never(side, state) => {
                let moved = &record.host(side).moved;
                let was = moved.iter().any(|(_, moved)| moved.state == state);
                (!was, format!("a device of the {} was in {state}", side.name()))
            }
            Also::Says(side, words) => {
                let text = message(record.host(side));
                (text.contains(words), format!("{words:?} is not in {text:?}"))
            }
            Also::PlainCalls(side) => {
                let end = record.host(side).end.as_ref();
                let kept = end.is_some_and(|(_, end)| end.backend == "syscalls");
                (kept, format!("the {} did not use plain system calls", side.name()))
            }
            Also::StillBelow(most) => {
                let still = record.still_ns(plan).map_or(Duration::MAX, Duration::from_nanos);
                (still < most, format!("the guest stood still for {still:.1?}"))
            }
            Also::Barrier { side, arrived, before } => barrier(record.host(side), arrived, before),
        };
        (!kept).then_some(otherwise)
    }
}

/// Whether the last request of `before` came when `arrived` was there.
fn barrier(
    host: &HostRecord,
    arrived: (usize, DeviceState),
    before: (usize, DeviceState),
) -> (bool, String) {
    let there = host.moved.iter().rev().find(|(_, it)| (it.device, it.state) == arrived);
    let asked = host.asked.iter().rev().find(|(_, device, state)| (*device, *state) == before);
    let kept = there.zip(asked).is_some_and(|((there, _), (asked, ..))| there <= asked);
    let (one, its) = arrived;
    let (other, state) = before;
    (kept, format!("device {other} was asked for {state} before device {one} was in {its}"))
}

/// What a host was told last.
fn message(host: &HostRecord) -> &str {
    match (&host.end, &host.refused) {
        (Some((_, end)), _) => &end.message,
        (None, Some(why)) => why,
        _ => "",
    }
}

fn is_clean(letter: char) -> bool {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !letter.is_control() && !turns
}

/// Whether a host's devices are where they belong after what it has come to, by their own word.
pub(super) fn is_home(plan: &Plan, record: &Record, side: Side) -> bool {
    let places = record.host(side).places();
    places.len() == plan.host(side).devices.len()
        && places.iter().zip(&plan.host(side).devices).all(|(place, device)| match side {
            Side::Source if truth::handed_over(record) => !place.state.is_running(),
            Side::Source => place.state == device.found,
            Side::Target => {
                place.state == DeviceState::Running
                    && matches!(place.holds, Holds::Own | Holds::Blank)
            }
        })
}

#[cfg(test)]
mod tests;
