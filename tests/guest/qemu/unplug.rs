//! A device that the guest lets go of in the middle of a migration, asked for it before: QEMU takes the
//! device away while the migration's threads are at it.

use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use super::tiny;
use super::{
    ON, RESTARTS, all, all_one, completed, hurry, next_port, same_state, saves_in_precopy, small,
    stays_in_precopy, until,
};
use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev};
use crate::mdev::Mdev;
use crate::qemu::vm::{Build, Vm};

pub(super) fn run(checks: &mut Checks) {
    checks.check(
        "one of two devices is unplugged in PRE_COPY: why it failed, and the VM runs on",
        || one_of_two(ON),
    );
    checks.check("the only device is unplugged in PRE_COPY", || only_one(None));
    checks.check("the only device is unplugged while its driver holds a read", || {
        only_one(Some("block@read=64K"))
    });
    let times = if std::env::var_os("FERRY_LONG").is_some() { 50 } else { 3 };
    checks.check(format!("a device is unplugged at any moment, {times} times"), || {
        let mut rng = fastrand::Rng::with_seed(0x756e_706c);
        (0..times).try_for_each(|_| at_any_moment(rng.u64(0..400)))
    });
    checks.check("a device whose unplugging the guest has not answered arrives", not_answered);
}

/// A source and a target with the tiny guest, both with a return path.
fn pair(build: Build, leaving: &[&Mdev], coming: &[&Mdev]) -> Outcome<(Vm, Vm, u16)> {
    tiny::write()?;
    let port = next_port();
    let there = target(build, coming, port)?;
    let mut here = Vm::start_with(build, leaving, None, &tiny::ARGUMENTS)?;
    here.capability("return-path")?;
    Ok((here, there, port))
}

fn target(build: Build, coming: &[&Mdev], port: u16) -> Outcome<Vm> {
    let uri = format!("tcp:127.0.0.1:{port}");
    let mut there = Vm::start_with(build, coming, Some(&uri), &tiny::ARGUMENTS)?;
    there.capability("return-path")?;
    Ok(there)
}

/// Of a size that stays in PRE_COPY.
fn large() -> Outcome<FerryDev> {
    FerryDev::closed(FULL, &[("state_bytes", "64M"), ("content", "random")])
}

/// Asks the guest for a device; it does not hear it yet.
fn ask_for(here: &mut Vm, id: &str) -> Outcome {
    here.ask("device_del", json!({ "id": id }))?;
    here.does("query-status")?;
    ensure!(here.events("DEVICE_DELETED").is_empty(), "it went at once");
    Ok(())
}

/// The guest lets go of it, and QEMU has taken it away.
fn goes(here: &mut Vm) -> Outcome {
    tiny::press(here, "e")?;
    until("the device is deleted", || {
        here.does("query-status")?;
        Ok(!here.events("DEVICE_DELETED").is_empty())
    })
}

fn failed(here: &mut Vm) -> Outcome {
    let ended = here.ended()?;
    println!("# {}: {:?}", ended.status, ended.error);
    ensure!(ended.status == "failed", "it {}: {}", ended.status, ended.error);
    ensure!(ended.error.contains("was unplugged while its state"), "{:?}", ended.error);
    here.runs_as("running")
}

/// What is left of the VM arrives at a target that does not have the device.
fn arrives_without(here: &mut Vm, leaving: &[&FerryDev], coming: &[FerryDev]) -> Outcome {
    let port = next_port();
    let mut there = target(ON, &all(coming), port)?;
    hurry(here)?;
    here.migrate(port)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    leaving.iter().zip(coming).try_for_each(|(leaving, coming)| same_state(leaving, coming))
}

fn is_free(device: &FerryDev) -> Outcome {
    until("no data fd is open", || Ok(device.stat::<u64>("open_data_fds")? == 0))?;
    device.left_alone()
}

fn one_of_two(build: Build) -> Outcome {
    let leaving = [small()?, large()?];
    let coming = [small()?, large()?];
    let (mut here, there, port) = pair(build, &all(&leaving), &all(&coming))?;
    ask_for(&mut here, "v1")?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    saves_in_precopy(&leaving[1])?;
    goes(&mut here)?;
    failed(&mut here)?;
    is_free(&leaving[1])?;
    drop(there);
    arrives_without(&mut here, &[&leaving[0]], &[small()?])
}

/// With a fault of its driver's, which lets go when asked to.
fn only_one(fault: Option<&str>) -> Outcome {
    let (leaving, coming) = (large()?, large()?);
    if let Some(fault) = fault {
        leaving.control("fault", fault)?;
    }
    let (mut here, there, port) = pair(ON, &all_one(&leaving), &all_one(&coming))?;
    ask_for(&mut here, "v0")?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    match fault {
        None => saves_in_precopy(&leaving)?,
        Some(_) => until("the driver holds a read", || Ok(leaving.stat::<u64>("blocked")? > 0))?,
    }
    goes(&mut here)?;
    failed(&mut here)?;
    leaving.control("unblock", 1)?;
    is_free(&leaving)?;
    drop(there);
    arrives_without(&mut here, &[], &[])
}

/// So many milliseconds after the migration has begun. It may have completed before, or the VM
/// stopped, and then the guest does not let go of anything.
fn at_any_moment(ms: u64) -> Outcome {
    let leaving = [small()?, small()?];
    let coming = [small()?, small()?];
    let (mut here, there, port) = pair(RESTARTS, &all(&leaving), &all(&coming))?;
    ask_for(&mut here, "v1")?;
    hurry(&mut here)?;
    here.migrate(port)?;
    sleep(Duration::from_millis(ms));
    tiny::press(&mut here, "e")?;
    let ended = here.ended()?;
    println!("# after {ms} ms: {}: {:?}", ended.status, ended.error);
    here.does("query-status")?;
    if ended.status == "completed" {
        // The guest may have let go of the other one since.
        return same_state(&leaving[0], &coming[0]);
    }
    failed(&mut here)?;
    is_free(&leaving[1])?;
    drop(there);
    Ok(())
}

fn not_answered() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    let (mut here, mut there, port) = pair(ON, &all_one(&leaving), &all_one(&coming))?;
    ask_for(&mut here, "v0")?;
    hurry(&mut here)?;
    here.migrate(port)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    same_state(&leaving, &coming)?;
    // The request has come along.
    tiny::press(&mut there, "e")?;
    until("the device is deleted", || {
        there.does("query-status")?;
        Ok(!there.events("DEVICE_DELETED").is_empty())
    })
}
