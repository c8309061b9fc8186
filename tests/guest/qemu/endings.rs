//! Suite `qemu-endings`: what becomes of a migration and its VM when the target is killed, frozen or
//! slow, or the migration is cancelled, at twelve points, with one and with four devices: stock QEMU
//! beside ours, one row a case. The patched source always answers QMP, and ends as stock does or
//! better.

use std::fmt;

use rustix::process::Signal;

use super::vm::{Build, Vm};
use super::{ON, all, hurry, pair, until};
use crate::checks::{Checks, Failure, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev, P2P};

/// Where a migration stands when it is harmed: a device of the target holds what its host does.
#[derive(Debug, Clone, Copy)]
struct Point {
    name: &'static str,
    kind: &'static str,
    /// Which of the target's devices holds it, in quarters of all.
    quarter: usize,
    fault: &'static str,
    /// With how many devices it runs in CI, where there is no time for all.
    sample: &'static [usize],
}

const fn point(
    name: &'static str,
    (kind, quarter): (&'static str, usize),
    fault: &'static str,
    sample: &'static [usize],
) -> Point {
    Point { name, kind, quarter, fault, sample }
}

// Several devices without P2P states are refused by QEMU, so the others have them here.
const POINTS: [Point; 12] = [
    point("setup", (FULL, 3), "block@before=RUNNING-RESUMING", &[]),
    point("PRE_COPY begins", (FULL, 0), "block@write=0", &[]),
    point("PRE_COPY", (FULL, 3), "block@write=512K", &[1]),
    point("switchover", (P2P, 0), "block@write=0", &[]),
    point("first device", (P2P, 0), "block@write=512K", &[1]),
    point("second device", (P2P, 1), "block@write=600K", &[]),
    point("third device", (P2P, 2), "block@write=700K", &[4]),
    point("fourth device", (P2P, 3), "block@write=800K", &[]),
    point("the last bytes", (P2P, 3), "block@write=1M", &[1, 4]),
    point("the state is taken in", (P2P, 3), "block@step=RESUMING-STOP", &[]),
    point("after it was taken in", (P2P, 3), TAKEN_IN, &[]),
    point("before the target runs", (P2P, 0), "block@step=STOP-RUNNING_P2P", &[1]),
];

/// The driver has the whole state, and has not said so. Stock QEMU goes from RESUMING on to
/// RUNNING_P2P in one call, of which this is the middle.
const TAKEN_IN: &str = "block@after=RESUMING-STOP";
const TAKEN_IN_BY_STOCK: &str = "block@step=STOP-RUNNING_P2P";

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// The target's process is killed.
    Kill,
    /// The target's process is stopped (SIGSTOP), and the migration cancelled.
    Stop,
    /// The driver lets go after a while: nothing was wrong.
    Slow,
    /// The migration is cancelled while the driver holds it.
    Cancel,
}

const HARMS: [Harm; 4] = [Harm::Kill, Harm::Stop, Harm::Slow, Harm::Cancel];

/// What was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    /// The slowest of some answers of the source's QMP before the harm, in milliseconds; none if it
    /// gave none in [`Vm::HARD_PATIENCE`].
    answer_ms: Option<u64>,
    /// The same after it.
    after_ms: Option<u64>,
    /// The migration's status, the VM's, and that of its devices.
    ending: String,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |ms: Option<u64>| ms.map_or("none".to_owned(), |ms| format!("{ms} ms"));
        write!(f, "{:>8} {:>8}  {:<34}", ms(self.answer_ms), ms(self.after_ms), self.ending)
    }
}

pub(crate) fn run(checks: &mut Checks, is_long: bool) {
    println!("# QMP: the slowest answer while the target is held, and after the harm");
    println!("# {:<24} {:>1} {:<7}| {:<53}| patched", "point", "n", "harm", "stock");
    for devices in [1, 4] {
        for point in POINTS.iter().filter(|point| is_long || point.sample.contains(&devices)) {
            for harm in HARMS {
                let name = format!("{devices} devices, {}, {harm:?}", point.name);
                checks.check(name, || compare(*point, devices, harm));
            }
        }
    }
}

fn compare(point: Point, devices: usize, harm: Harm) -> Outcome {
    let stock = case(Build::Stock, point, devices, harm)?;
    let patched = case(ON, point, devices, harm)?;
    println!("# {:<24} {devices} {:<7}| {stock}| {patched}", point.name, format!("{harm:?}"));
    ensure!(patched.answer_ms.is_some(), "no answer of QMP while the target was held");
    ensure!(patched.after_ms.is_some(), "no answer of QMP afterwards");
    let as_stock = patched.ending == stock.ending;
    let better = stock.after_ms.is_none() || is_whole(&patched.ending);
    ensure!(as_stock || better, "stock: {}; patched: {}", stock.ending, patched.ending);
    Ok(())
}

/// The guest runs on one of both hosts.
fn is_whole(ending: &str) -> bool {
    ["completed, postmigrate", "failed, running, RUNNING", "cancelled, running, RUNNING"]
        .iter()
        .any(|whole| ending.starts_with(whole))
}

fn case(build: Build, point: Point, devices: usize, harm: Harm) -> Outcome<Seen> {
    let make = |_| FerryDev::closed(point.kind, &[("state_bytes", "1M")]);
    let leaving = (0..devices).map(make).collect::<Outcome<Vec<_>>>()?;
    let coming = (0..devices).map(make).collect::<Outcome<Vec<_>>>()?;
    let holder = &coming[point.quarter * devices / 4];
    let fault = match build {
        Build::Stock if point.fault == TAKEN_IN => TAKEN_IN_BY_STOCK,
        _ => point.fault,
    };
    holder.control("fault", fault)?;
    let (mut here, there, port) = pair(build, build, &all(&leaving), &all(&coming))?;
    hurry(&mut here)?;
    here.migrate(port)?;
    until("the target is held", || Ok(holder.stat::<u64>("blocked")? > 0))?;
    let answer_ms = here.answers_in(3);
    match harm {
        _ if answer_ms.is_none() => {}
        Harm::Kill => there.signal(Signal::KILL)?,
        Harm::Stop => {
            there.signal(Signal::STOP)?;
            here.try_cancel();
        }
        Harm::Slow => holder.control("unblock", 1)?,
        Harm::Cancel => here.try_cancel(),
    }
    let mut after_ms = answer_ms.and_then(|_| here.answers_in(3));
    let ending = match after_ms {
        Some(_) => ending(&mut here, &leaving),
        None => Err(Failure("no answer".to_owned())),
    };
    let ending = ending.unwrap_or_else(|Failure(why)| {
        after_ms = None;
        why.chars().take(34).collect()
    });
    // Whatever it was that held it, its process can end now.
    let _ = there.signal(Signal::CONT);
    holder.control("unblock", 1)?;
    Ok(Seen { answer_ms, after_ms, ending })
}

fn ending(here: &mut Vm, leaving: &[FerryDev]) -> Outcome<String> {
    let ended = here.ended()?;
    let vm = if ended.status == "completed" { "postmigrate" } else { "running" };
    here.runs_as(vm)?;
    if vm == "running" {
        until("the devices run", || {
            for device in leaving {
                if device.stat::<String>("state")? != "RUNNING" {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
    }
    let mut states = leaving.iter().map(|device| device.stat::<String>("state"));
    let state = states.next().expect("a device")?;
    Ok(format!("{}, {vm}, {state}", ended.status))
}
