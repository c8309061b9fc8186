//! What is read of the runs: a row each, for a person and for a program.

use serde::Serialize;

use super::fault::Fault;
use super::message::{DeviceSaid, Moved};
use super::promise::ended;
use super::record::Record;
use crate::report::spread::Spread;
use crate::report::table::duration;
use crate::spec::Side;

/// One run of a fault.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    name: String,
    kind: &'static str,
    about: String,
    /// Everything that was promised was kept.
    pub(crate) as_promised: bool,
    /// What was not, a sentence each.
    broken: Vec<String>,
    source: HostRow,
    target: HostRow,
    /// How long the guest stood still; absent if it was never stopped.
    stood_still_ns: Option<u64>,
    /// What explains that: limits that struck, and slow drivers.
    explained_by: String,
}

/// One host of it.
#[derive(Debug, Clone, Serialize)]
struct HostRow {
    /// What its VMM was told; or refused, dropped, killed.
    ending: String,
    cause: Option<String>,
    observed: Option<String>,
    message: String,
    /// How long after the fault had come; absent where nothing had to come.
    told_after_ns: Option<u64>,
    backend: String,
    /// What was said of its devices at the end.
    said: Vec<DeviceSaid>,
    /// Late devices that came back.
    came_back: Vec<DeviceSaid>,
    /// Where its devices were when all was over, by their own word.
    devices: Vec<Moved>,
}

impl Row {
    /// A run's.
    pub(crate) fn new(fault: &Fault, record: &Record) -> Row {
        let broken = fault.promise.broken(&fault.plan, record);
        Row {
            name: fault.name.clone(),
            kind: fault.kind.name(),
            about: fault.about.clone(),
            as_promised: broken.is_empty(),
            broken,
            source: HostRow::new(record, Side::Source),
            target: HostRow::new(record, Side::Target),
            stood_still_ns: record.still_ns(&fault.plan),
            explained_by: record.explained(&fault.plan),
        }
    }

    /// The row as a person reads it: a line, and one more for each thing that was not kept.
    pub(crate) fn text(&self) -> String {
        let still = self.stood_still_ns.map_or("-".to_owned(), duration);
        let ends = format!("{} | {}", self.source.places(), self.target.places());
        let kept = if self.as_promised { "as promised" } else { "NOT AS PROMISED" };
        let cells = [&self.name, &self.source.told(), &self.target.told(), &still, &ends, kept];
        let mut text = line(&cells.map(|cell| cell as &str));
        for what in &self.broken {
            text += &format!("      {what}\n");
        }
        if !self.as_promised {
            for host in [&self.source, &self.target] {
                if !host.message.is_empty() {
                    text += &format!("      told: {}\n", host.message.escape_debug());
                }
            }
        }
        text
    }
}

/// The columns' names.
pub(crate) fn head() -> String {
    line(&["fault", "source: ending, cause, after", "target", "still", "devices in the end", ""])
}

/// A line of the table; a cell that is too long moves those behind it.
fn line(cells: &[&str]) -> String {
    const WIDTHS: [usize; 6] = [36, 38, 38, 9, 30, 0];
    let mut line = String::from("  ");
    for (cell, width) in cells.iter().zip(WIDTHS) {
        line += &format!("{cell:<width$} ");
    }
    line.trim_end().to_owned() + "\n"
}

/// Several runs of one fault in one line.
pub(crate) fn repeated(rows: &[&Row]) -> String {
    let kept = rows.iter().filter(|row| row.as_promised).count();
    let still = Spread::of(rows.iter().filter_map(|row| row.stood_still_ns));
    let name = rows.first().map_or("", |row| &row.name);
    let still = match still.max {
        0 => "the guest was never stopped".to_owned(),
        most => {
            format!("the guest stood still {} (most: {})", duration(still.median), duration(most))
        }
    };
    let mut text = format!("  {name:<36} {kept} of {} as promised; {still}\n", rows.len());
    for row in rows.iter().filter(|row| !row.as_promised) {
        text += &row.text();
    }
    text
}

/// What all runs come to.
pub(crate) fn summary(rows: &[Row]) -> String {
    let kept = rows.iter().filter(|row| row.as_promised).count();
    let mut text = format!("\n  {kept} of {} as promised\n", rows.len());
    if let Some(row) = longest(rows) {
        let still = duration(row.stood_still_ns.unwrap_or(0));
        let why = match row.explained_by.as_str() {
            "" => "no limit struck",
            why => why,
        };
        text +=
            &format!("  the longest that a guest stood still: {still}, in {} ({why})\n", row.name);
    }
    text
}

/// The run in which the guest stood still for longest.
fn longest(rows: &[Row]) -> Option<&Row> {
    rows.iter().filter(|row| row.stood_still_ns.is_some()).max_by_key(|row| row.stood_still_ns)
}

/// The report as a program reads it.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    as_promised: bool,
    /// The engine's system calls, as they were chosen.
    backend: crate::spec::BackendChoice,
    /// The run in which the guest stood still for longest.
    longest_still: Option<&'a Row>,
    rows: &'a [Row],
}

impl<'a> Report<'a> {
    pub(crate) fn new(rows: &'a [Row], backend: crate::spec::BackendChoice) -> Report<'a> {
        let as_promised = rows.iter().all(|row| row.as_promised);
        Report { as_promised, backend, longest_still: longest(rows), rows }
    }
}

impl HostRow {
    fn new(record: &Record, side: Side) -> HostRow {
        let host = record.host(side);
        let (ending, cause) = ended(host);
        let end = host.end.as_ref().map(|(_, end)| end);
        let at_ns = host.end.as_ref().map(|(at, _)| *at).or(host.dropped_ns);
        let since = |at_ns: u64| record.struck_ns.map(|struck| at_ns.saturating_sub(struck));
        HostRow {
            ending,
            cause,
            observed: end.and_then(|end| end.observed.clone()),
            message: end
                .map(|end| end.message.clone())
                .or(host.refused.clone())
                .unwrap_or_default(),
            told_after_ns: at_ns.and_then(since),
            backend: end.map(|end| end.backend.clone()).unwrap_or_default(),
            said: end.map(|end| end.devices.clone()).unwrap_or_default(),
            came_back: host.came_back.iter().map(|(_, said)| said.clone()).collect(),
            devices: host.places(),
        }
    }

    /// What it was told, why, and after how long.
    fn told(&self) -> String {
        let mut parts = vec![self.ending.replace('_', " ")];
        parts.extend(self.cause.as_ref().map(|cause| cause.replace('_', " ")));
        parts.extend(self.told_after_ns.map(duration));
        parts.join(", ")
    }

    /// Where its devices are.
    fn places(&self) -> String {
        if self.ending == "killed" {
            return "gone".to_owned();
        }
        let place = |moved: &Moved| match moved.holds {
            super::message::Holds::Own => moved.state.to_string(),
            holds => format!("{} {}", moved.state, format!("{holds:?}").to_lowercase()),
        };
        let mut places: Vec<String> = self.devices.iter().map(place).collect();
        places.dedup();
        let late = if self.came_back.is_empty() { "" } else { ", late" };
        places.join(", ") + late
    }
}
