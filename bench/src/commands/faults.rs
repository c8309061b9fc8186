//! `faults`: what becomes of the guest when things go wrong.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::unbounded;

use super::{Failure, input, many};
use crate::cli::FaultsArgs;
use crate::console::say;
use crate::faults::report::{self, Report, Row};
use crate::faults::{self, Fault};
use crate::report::json::ReportFile;

/// Runs the command.
pub(crate) fn run(args: &FaultsArgs) -> Result<(), Failure> {
    let faults = chosen(faults::all(), &args.only)?;
    if args.list {
        for fault in &faults {
            say!("  {:<36} {:<8} {}\n", fault.name, fault.kind.name(), fault.about);
        }
        say!("\n  {}\n", many(faults.len(), "fault"));
        return Ok(());
    }
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let rounds = args.repeat as usize;
    let jobs: Vec<&Fault> =
        faults.iter().flat_map(|fault| std::iter::repeat_n(fault, rounds)).collect();
    say!("ferry-bench faults: {}, backend {:?}\n\n", many(jobs.len(), "run"), args.backend);
    if rounds == 1 {
        say!("{}", report::head());
    }
    let rows = go(&jobs, args, |rows| match (rounds, rows.len() % rounds) {
        (1, _) => say!("{}", rows[rows.len() - 1].text()),
        (_, 0) => {
            let last: Vec<&Row> = rows[rows.len() - rounds..].iter().collect();
            say!("{}", report::repeated(&last));
        }
        _ => {}
    });
    say!("{}", report::summary(&rows));
    json.write("faults", &Report::new(&rows, args.backend))
        .map_err(|error| input("--json", error))?;
    match rows.iter().filter(|row| !row.as_promised).count() {
        0 => Ok(()),
        broken => Err(Failure::Migration(format!("{} not as promised", many(broken, "run")))),
    }
}

/// The faults that are named, or all but the hidden ones.
fn chosen(all: Vec<Fault>, only: &[String]) -> Result<Vec<Fault>, Failure> {
    let is_named = |fault: &Fault| match fault.hidden {
        true => only.contains(&fault.name),
        false => only.is_empty() || only.iter().any(|part| fault.name.contains(part.as_str())),
    };
    let chosen: Vec<Fault> = all.into_iter().filter(is_named).collect();
    match chosen.is_empty() {
        true => Err(input("--only", "no fault has such a name; --list has them all")),
        false => Ok(chosen),
    }
}

/// Runs all, a few at a time, and shows them in their order.
fn go(jobs: &[&Fault], args: &FaultsArgs, mut show: impl FnMut(&[Row])) -> Vec<Row> {
    let next = AtomicUsize::new(0);
    let (sender, done) = unbounded();
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((place, fault)) = {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    jobs.get(place).map(|fault| (place, fault))
                } {
                    let row = Row::new(fault, &faults::run(fault, args.backend));
                    let _ = sender.send((place, row));
                }
            });
        }
        drop(sender);
        let mut early: Vec<Option<Row>> = jobs.iter().map(|_| None).collect();
        let mut rows = Vec::new();
        for (place, row) in done {
            early[place] = Some(row);
            while let Some(row) = early.get_mut(rows.len()).and_then(Option::take) {
                rows.push(row);
                show(&rows);
            }
        }
        rows
    })
}
