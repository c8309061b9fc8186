//! What happens at the wrong moment: a target that is slow, frozen or dead, a VM that stops and goes
//! on, a reset that the VM's stop overtakes, and hosts that do not want the same.

use rustix::process::Signal;
use serde_json::json;

use super::{
    AUTO, CARRIED, ON, RESTARTS, STOP_COPIES, all, all_one, completed, goes_on, hurry, next_port,
    pair, same_state, saves_in_precopy, small, stays_in_precopy, until,
};
use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev, PRE_COPY, STOP_COPY};
use crate::qemu::vm::{Build, Vm};

pub(super) fn run(checks: &mut Checks) {
    for kind in [FULL, STOP_COPY] {
        checks
            .check(format!("{kind}: the target is killed while its driver holds a write"), || {
                held(kind, Harm::Kill)
            });
        checks.check(format!("{kind}: a cancel while the target's driver holds a write"), || {
            held(kind, Harm::Cancel)
        });
        checks.check(format!("{kind}: a cancel while the target's process is frozen"), || {
            held(kind, Harm::Freeze)
        });
    }
    checks.check("the target's driver is slow: QMP answers, and the migration completes", slow);
    checks.check("each device goes as both hosts let it", each_by_itself);
    checks.check("a target that refuses says why to the source", refusal);
    checks.check("stop and cont in PRE_COPY, with restart: the migration completes", || {
        stop_and_cont(RESTARTS)
    });
    checks.check("stop and cont in PRE_COPY: the migration fails with what happened", || {
        stop_and_cont(ON)
    });
    checks.check("a VM that is stopped in PRE_COPY arrives stopped", stopped);
    for (name, build) in [("restart", RESTARTS), ("stop-copy", STOP_COPIES)] {
        for (kind, at) in [
            (FULL, "PRE_COPY-PRE_COPY_P2P"),
            (FULL, "PRE_COPY_P2P-STOP_COPY"),
            (PRE_COPY, "PRE_COPY-STOP_COPY"),
        ] {
            checks.check(format!("{kind}, {name}: a reset as the VM stops, {at}"), || {
                reset_at_stop(build, kind, at)
            });
        }
    }
    for kind in [FULL, PRE_COPY] {
        let times = if std::env::var_os("FERRY_LONG").is_some() { 50 } else { 3 };
        checks.check(format!("{kind}: a reset and the VM stops at once, {times} times"), || {
            (0..times).try_for_each(|_| reset_and_stop(kind))
        });
    }
    checks.check("on, to a file and from it: as stock QEMU does", file);
    for (name, build) in [("stock", Build::Stock), ("patched", ON)] {
        checks.check(format!("without PRE_COPY the downtime's limit is kept, {name}"), || {
            keeps_the_limit(build)
        });
    }
}

/// What happens to a migration whose target's driver holds a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Kill,
    Freeze,
    Cancel,
}

/// The source answers QMP while the target does not move, and runs on.
fn held(kind: &str, harm: Harm) -> Outcome {
    let make = || FerryDev::closed(kind, &[("state_bytes", "1M")]);
    let (leaving, coming) = (make()?, make()?);
    coming.control("fault", "block@write=64K")?;
    let (mut here, there, port) = pair(ON, ON, &all_one(&leaving), &all_one(&coming))?;
    here.parameter("downtime-limit", 2000)?;
    here.migrate(port)?;
    until("the target's driver holds a write", || Ok(coming.stat::<u64>("blocked")? > 0))?;
    let ask = |here: &mut Vm| {
        here.does("query-status")?;
        here.does("query-migrate")
    };
    ask(&mut here)?;
    ensure!(coming.stat::<u64>("blocked")? > 0, "it answered when the driver had let go");
    if harm == Harm::Freeze {
        there.signal(Signal::STOP)?;
        ask(&mut here)?;
    }
    let status = match harm {
        Harm::Kill => {
            there.signal(Signal::KILL)?;
            "failed"
        }
        Harm::Freeze | Harm::Cancel => {
            here.does("migrate_cancel")?;
            "cancelled"
        }
    };
    let ended = here.ended()?;
    println!("# {kind}, {harm:?}: {}: {:?}", ended.status, ended.error);
    ensure!(ended.status == status, "it {}: {}", ended.status, ended.error);
    here.runs_as("running")?;
    // Until here nobody has let the driver go: it lets go of a process that is killed.
    drop(there);
    goes_on(&mut here, &leaving)
}

fn slow() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    coming.control("fault", "block@write=64K")?;
    let (mut here, mut there, port) = pair(ON, ON, &all_one(&leaving), &all_one(&coming))?;
    here.parameter("downtime-limit", 2000)?;
    here.migrate(port)?;
    until("the target's driver holds a write", || Ok(coming.stat::<u64>("blocked")? > 0))?;
    for _ in 0..10 {
        here.does("query-status")?;
    }
    ensure!(coming.stat::<u64>("blocked")? > 0, "it answered when the driver had let go");
    coming.control("unblock", 1)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    same_state(&leaving, &coming)
}

fn each_by_itself() -> Outcome {
    const TARGET: Build = Build::Each(&["x-migration-ferry=on", "x-migration-ferry=off"]);
    let leaving = [small()?, small()?];
    let coming = [small()?, small()?];
    let (mut here, mut there, port) = pair(AUTO, TARGET, &all(&leaving), &all(&coming))?;
    here.migrate(port)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    ensure!(here.said(CARRIED), "the engine carried none: {}", here.last_words());
    ensure!(here.said("the target does not take it"), "it carried both: {}", here.last_words());
    leaving.iter().zip(&coming).try_for_each(|(leaving, coming)| same_state(leaving, coming))
}

fn refusal() -> Outcome {
    const SOURCE: Build = Build::Each(&["x-migration-ferry=on", "x-migration-ferry=off"]);
    let leaving = [small()?, small()?];
    let coming = [small()?, small()?];
    let (mut here, mut there, port) = pair(SOURCE, ON, &all(&leaving), &all(&coming))?;
    here.migrate(port)?;
    let ended = here.ended()?;
    println!("# {}: {:?}", ended.status, ended.error);
    ensure!(ended.status == "failed", "it {}", ended.status);
    let words = "the destination refused: ";
    ensure!(ended.error.contains(words), "the error is {:?}", ended.error);
    ensure!(ended.error.contains("does not send its state so"), "the error is {:?}", ended.error);
    there.gone()?;
    here.runs_as("running")
}

/// A device that saves in PRE_COPY at a rate that leaves time. The VMs come last, to be dropped first:
/// a device's removal waits until nobody has it open.
fn in_precopy(build: Build, kind: &str) -> Outcome<(FerryDev, FerryDev, Vm, Vm)> {
    let leaving = FerryDev::closed(kind, &[("state_bytes", "8M"), ("content", "random")])?;
    let coming = FerryDev::closed(kind, &[("state_bytes", "8M")])?;
    let (mut here, there, port) = pair(build, build, &all_one(&leaving), &all_one(&coming))?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    saves_in_precopy(&leaving)?;
    Ok((leaving, coming, here, there))
}

fn stop_and_cont(build: Build) -> Outcome {
    let (leaving, coming, mut here, mut there) = in_precopy(build, FULL)?;
    here.does("stop")?;
    here.does("cont")?;
    hurry(&mut here)?;
    let ended = here.ended()?;
    println!("# {}: {:?}", ended.status, ended.error);
    if build == RESTARTS {
        completed(&ended)?;
        there.runs_as("running")?;
        return same_state(&leaving, &coming);
    }
    ensure!(ended.status == "failed", "it {}", ended.status);
    ensure!(ended.error.contains("was stopped and went on"), "the error is {:?}", ended.error);
    goes_on(&mut here, &leaving)
}

fn stopped() -> Outcome {
    let (leaving, coming, mut here, mut there) = in_precopy(ON, FULL)?;
    here.does("stop")?;
    hurry(&mut here)?;
    completed(&here.ended()?)?;
    there.runs_as("paused")?;
    same_state(&leaving, &coming)
}

/// The reset comes just before QEMU stops the device, so that the engine cannot have seen it.
fn reset_at_stop(build: Build, kind: &str, at: &str) -> Outcome {
    let make = |content| FerryDev::closed(kind, &[("state_bytes", "4M"), ("content", content)]);
    let (leaving, coming) = (make("random")?, make("random")?);
    leaving.control("fault", format!("reset@before={at}"))?;
    let (mut here, mut there, port) = pair(build, build, &all_one(&leaving), &all_one(&coming))?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    // Where nothing was read of the saving session that the reset ends, there is nothing to be seen.
    if at.starts_with("PRE_COPY") {
        saves_in_precopy(&leaving)?;
    }
    hurry(&mut here)?;
    let ended = here.ended()?;
    if ended.status != "completed" {
        println!("# {}", here.last_words());
    }
    completed(&ended)?;
    ensure!(leaving.stat::<u64>("resets")? > 0, "there was no reset");
    ensure!(here.said("device_reset"), "it was not seen: {}", here.last_words());
    there.runs_as("running")?;
    same_state(&leaving, &coming)
}

fn reset_and_stop(kind: &str) -> Outcome {
    let (leaving, coming, mut here, mut there) = in_precopy(RESTARTS, kind)?;
    hurry(&mut here)?;
    leaving.control("reset", 1)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    same_state(&leaving, &coming)
}

/// What is read once the VM has stopped counts for the downtime: it does not stop before that is short
/// enough.
fn keeps_the_limit(build: Build) -> Outcome {
    let make = || FerryDev::closed(STOP_COPY, &[("state_bytes", "4M"), ("content", "random")]);
    let (leaving, coming) = (make()?, make()?);
    let (mut here, mut there, port) = pair(build, build, &all_one(&leaving), &all_one(&coming))?;
    here.parameter("downtime-limit", 1)?;
    here.parameter("avail-switchover-bandwidth", 1 << 20)?;
    here.migrate(port)?;
    until("it has looked ten times", || {
        let said = here.ask("query-migrate", json!({}))?;
        Ok(said["ram"]["dirty-sync-count"].as_u64() >= Some(10))
    })?;
    ensure!(leaving.stat::<String>("state")? == "RUNNING", "the VM was stopped");
    hurry(&mut here)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    same_state(&leaving, &coming)
}

fn file() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    let uri = format!("file:/tmp/state.{}", next_port());
    let mut here = Vm::start(ON, &all_one(&leaving), None)?;
    here.migrate_to(&uri)?;
    completed(&here.ended()?)?;
    ensure!(!here.said(CARRIED), "the engine carried it: {}", here.last_words());
    let mut there = Vm::start_from(ON, &all_one(&coming), Some(&uri))?;
    there.runs_as("running")?;
    there.ask("query-status", json!({}))?;
    same_state(&leaving, &coming)
}
