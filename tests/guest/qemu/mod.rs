//! Suite `qemu`: two QEMU processes migrate real VFIO devices over TCP, as released and with our
//! patch.

mod again;
pub(crate) mod blackout;
pub(crate) mod demo;
pub(crate) mod endings;
mod figures;
mod kept;
mod link;
mod multifd;
mod races;
mod tiny;
mod unplug;
mod vm;

use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::checks::{Checks, Outcome, ensure, fail};
use crate::ferry_dev::{FULL, FerryDev};
use crate::mdev::Mdev;
use crate::mtty::Mtty;
use vm::{Build, Ended, Vm};

const ON: Build = Build::Patched("x-migration-ferry=on");
const AUTO: Build = Build::Patched("x-migration-ferry=auto");
const OFF: Build = Build::Patched("x-migration-ferry=off");
const RESTARTS: Build = Build::Patched("x-migration-ferry=on,x-migration-ferry-on-reset=restart");
const STOP_COPIES: Build =
    Build::Patched("x-migration-ferry=on,x-migration-ferry-on-reset=stop-copy");

/// Says that the engine carried a device's state: a trace of the patch.
const CARRIED: &str = "vfio_ferry_used";
/// What a stock QEMU sets by itself, in bytes a second.
const PLENTY: u64 = 1 << 40;
/// Keeps a large device in PRE_COPY for seconds.
const LITTLE: u64 = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

static PORT: AtomicU16 = AtomicU16::new(4440);

/// Runs the suite.
pub(crate) fn run(checks: &mut Checks) {
    for (name, source, target, carried) in [
        ("stock to stock", Build::Stock, Build::Stock, false),
        ("patched to patched", ON, ON, true),
        ("patched to patched, auto", AUTO, AUTO, true),
        ("patched but off to stock", OFF, Build::Stock, false),
        ("stock to patched but off", Build::Stock, OFF, false),
        ("patched, auto, to stock", AUTO, Build::Stock, false),
        ("stock to patched, auto", Build::Stock, AUTO, false),
    ] {
        checks.check(format!("mtty migrates, {name}"), || mtty(source, target, carried));
        checks.check(format!("64 MiB migrate, {name}"), || {
            large(source, target, carried, &[("64M", FULL)])
        });
    }
    checks.check("two devices migrate, stock to stock", || {
        large(Build::Stock, Build::Stock, false, &[("16M", FULL), ("8M", FULL)])
    });
    checks.check("two devices migrate, patched to patched", || {
        large(ON, ON, true, &[("16M", FULL), ("8M", FULL)])
    });
    checks.check("on, to a stock target: says why, and runs on", || {
        refused(Build::Stock, "this device of the target does not take its state so")
    });
    checks.check("on, to a target that is off: says why, and runs on", || {
        refused(OFF, "this device of the target does not take its state so")
    });
    checks.check("on, without a return path: says what to do, and runs on", no_return_path);
    checks.check("a target that is on takes nothing else", target_insists);
    checks.check("stock's answer to a reset in PRE_COPY is recorded", || {
        let (ended, _) = reset_in_precopy(Build::Stock, Build::Stock, Reset::Driver)?;
        println!("# stock QEMU, device reset in PRE_COPY: {}: {:?}", ended.status, ended.error);
        Ok(())
    });
    checks.check("a reset in PRE_COPY ends the migration by name, and the VM runs on", || {
        let (ended, devices) = reset_in_precopy(ON, ON, Reset::Driver)?;
        println!("# patched QEMU, device reset in PRE_COPY: {}: {:?}", ended.status, ended.error);
        ensure!(ended.status == "failed", "it {}", ended.status);
        ensure!(ended.error.contains("reset"), "the error is {:?}", ended.error);
        devices.0.left_alone()
    });
    for (name, build) in [("restart", RESTARTS), ("stop-copy", STOP_COPIES)] {
        checks.check(format!("a reset in PRE_COPY with {name}: the migration completes"), || {
            let (ended, (source, target)) = reset_in_precopy(build, build, Reset::Driver)?;
            completed(&ended)?;
            same_state(&source, &target)
        });
    }
    checks.check("the guest reboots in PRE_COPY, with restart: the migration completes", || {
        let (ended, (source, target)) = reset_in_precopy(RESTARTS, RESTARTS, Reset::Machine)?;
        completed(&ended)?;
        same_state(&source, &target)
    });
    checks.check("a silent reset while loading: the source hears of it, and runs on", || {
        let ended = silent_reset(ON, ON)?;
        println!("# patched QEMU, target reset in RESUMING: {}: {:?}", ended.status, ended.error);
        ensure!(ended.status == "failed" && ended.error.contains("reset"), "{ended:?}");
        Ok(())
    });
    checks.check("stock's answer to a silent reset while loading is recorded", || {
        let ended = silent_reset(Build::Stock, Build::Stock)?;
        println!("# stock QEMU, target reset in RESUMING: {}: {:?}", ended.status, ended.error);
        Ok(())
    });
    checks.check("a cancel ends while the driver holds a read", cancelled);
    checks.check("the target dies in PRE_COPY: the VM runs on", target_dies);
    races::run(checks);
    figures::run(checks);
    again::run(checks);
    unplug::run(checks);
    kept::run(checks);
    multifd::run(checks);
}

/// Two mtty cards, whose ports' registers and buffers must have moved.
fn mtty(source: Build, target: Build, carried: bool) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(0x7175_656d);
    let leaving = Mtty::create()?;
    leaving.scribble(&mut rng)?;
    let state = leaving.mdev.read_state()?;
    let (leaving, coming) = (leaving.hand_out(), Mtty::create()?.hand_out());
    let (mut here, mut there, port) = pair(source, target, &[&leaving], &[&coming])?;
    here.migrate(port)?;
    arrives(&mut here, &mut there, carried)?;
    drop((here, there));
    let found = coming.reopened()?.read_state()?;
    ensure!(found == state, "the target's state is {found:x?}, the source's was {state:x?}");
    Ok(())
}

/// Our own devices, of these sizes and types.
fn large(source: Build, target: Build, carried: bool, kinds: &[(&str, &str)]) -> Outcome {
    let make = |&(size, kind): &(&str, &str)| FerryDev::closed(kind, &[("state_bytes", size)]);
    let leaving = kinds.iter().map(make).collect::<Outcome<Vec<_>>>()?;
    let coming = kinds.iter().map(make).collect::<Outcome<Vec<_>>>()?;
    let (mut here, mut there, port) = pair(source, target, &all(&leaving), &all(&coming))?;
    here.migrate(port)?;
    arrives(&mut here, &mut there, carried)?;
    for (leaving, coming) in leaving.iter().zip(&coming) {
        same_state(leaving, coming)?;
    }
    Ok(())
}

/// A source that insists on the engine, and a target that does not have it.
fn refused(target: Build, words: &str) -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    let (mut here, _there, port) = pair(ON, target, &all_one(&leaving), &all_one(&coming))?;
    here.migrate(port)?;
    let ended = here.ended()?;
    println!("# {}: {:?}", ended.status, ended.error);
    ensure!(ended.status == "failed", "it {}", ended.status);
    ensure!(ended.error.contains(words), "the error is {:?}", ended.error);
    goes_on(&mut here, &leaving)
}

fn no_return_path() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    let port = next_port();
    let _there = Vm::start(ON, &all_one(&coming), Some(port))?;
    let mut here = Vm::start(ON, &all_one(&leaving), None)?;
    let Err(why) = here.migrate(port) else { fail!("it was let begin") };
    ensure!(why.0.contains("return-path"), "the error is {:?}", why.0);
    goes_on(&mut here, &leaving)
}

fn target_insists() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    let (mut here, mut there, port) = pair(OFF, ON, &all_one(&leaving), &all_one(&coming))?;
    here.migrate(port)?;
    let ended = here.ended()?;
    ensure!(ended.status == "failed", "it {}", ended.status);
    there.gone()?;
    ensure!(there.said("x-migration-ferry=on, but the source"), "{}", there.last_words());
    goes_on(&mut here, &leaving)
}

/// Who resets a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reset {
    /// The driver, and QEMU does not know.
    Driver,
    /// QEMU, with all of the machine: what a guest's reboot does.
    Machine,
}

/// Resets the source's device in the middle of PRE_COPY.
fn reset_in_precopy(
    source: Build,
    target: Build,
    how: Reset,
) -> Outcome<(Ended, (FerryDev, FerryDev))> {
    let (leaving, coming) = (
        FerryDev::closed(FULL, &[("state_bytes", "64M"), ("content", "random")])?,
        FerryDev::closed(FULL, &[("state_bytes", "64M")])?,
    );
    let (mut here, mut there, port) = pair(source, target, &all_one(&leaving), &all_one(&coming))?;
    if how == Reset::Machine {
        // The firmware of a guest that is booting resets it again on the target.
        there.ask("stop", serde_json::json!({}))?;
    }
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    saves_in_precopy(&leaving)?;
    let resets: u64 = leaving.stat("resets")?;
    match how {
        Reset::Driver => leaving.control("reset", 1)?,
        Reset::Machine => drop(here.ask("system_reset", serde_json::json!({}))?),
    }
    until("the device was reset", || Ok(leaving.stat::<u64>("resets")? > resets))?;
    // It is seen while the guest runs: what happens when the VM stops first is another matter.
    match source {
        Build::Stock => sleep(Duration::from_millis(200)),
        Build::Patched(_) | Build::Each(_) => until("the source has seen the reset", || {
            Ok(here.said("restarted: device_reset") || here.said("aborted: device_reset"))
        })?,
    }
    hurry(&mut here)?;
    let ended = here.ended()?;
    if ended.status == "completed" {
        ensure!(here.said("its migration starts again"), "no restart: {}", here.last_words());
        there.runs_as(if how == Reset::Machine { "paused" } else { "running" })?;
    } else {
        goes_on(&mut here, &leaving)?;
    }
    Ok((ended, (leaving, coming)))
}

/// Resets the target's device when its last byte was written: its driver says nothing of it.
fn silent_reset(source: Build, target: Build) -> Outcome<Ended> {
    let (leaving, coming) = (small()?, small()?);
    coming.control("fault", "reset@write=end")?;
    let (mut here, there, port) = pair(source, target, &all_one(&leaving), &all_one(&coming))?;
    here.migrate(port)?;
    let ended = here.ended()?;
    if ended.status == "failed" {
        goes_on(&mut here, &leaving)?;
    }
    let _ = there;
    Ok(ended)
}

/// Cancels while the source's driver sleeps in a read.
fn cancelled() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    leaving.control("fault", "block@read=64K")?;
    let (mut here, _there, port) = pair(ON, ON, &all_one(&leaving), &all_one(&coming))?;
    here.migrate(port)?;
    until("the driver holds a read", || Ok(leaving.stat::<u64>("blocked")? > 0))?;
    here.ask("migrate_cancel", serde_json::json!({}))?;
    let ended = here.ended()?;
    ensure!(ended.status == "cancelled", "it {}: {}", ended.status, ended.error);
    leaving.control("unblock", 1)?;
    goes_on(&mut here, &leaving)
}

/// The target's process ends in the middle of PRE_COPY.
fn target_dies() -> Outcome {
    let leaving = FerryDev::closed(FULL, &[("state_bytes", "64M"), ("content", "random")])?;
    let coming = FerryDev::closed(FULL, &[("state_bytes", "64M")])?;
    let (mut here, there, port) = pair(ON, ON, &all_one(&leaving), &all_one(&coming))?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    saves_in_precopy(&leaving)?;
    drop(there);
    let ended = here.ended()?;
    ensure!(ended.status == "failed", "it {}", ended.status);
    goes_on(&mut here, &leaving)
}

/// Lets a migration converge that stayed in PRE_COPY.
fn hurry(here: &mut Vm) -> Outcome {
    here.parameter("downtime-limit", 2000)?;
    here.parameter("max-bandwidth", PLENTY)?;
    // Until it has a figure of its own: with nothing to send in PRE_COPY, QEMU measures none.
    here.parameter("avail-switchover-bandwidth", PLENTY)
}

/// Until its bandwidth is raised, and what downtime it accepts.
fn stays_in_precopy(here: &mut Vm) -> Outcome {
    here.parameter("max-bandwidth", LITTLE)?;
    here.parameter("downtime-limit", 1)
}

fn saves_in_precopy(leaving: &FerryDev) -> Outcome {
    until("a megabyte was read in PRE_COPY", || {
        Ok(leaving.stat::<String>("state")?.starts_with("PRE_COPY")
            && leaving.stat::<u64>("bytes_read")? > 1 << 20)
    })
}

/// A target that listens, and a source; both with a return path.
fn pair(
    source: Build,
    target: Build,
    leaving: &[&Mdev],
    coming: &[&Mdev],
) -> Outcome<(Vm, Vm, u16)> {
    let port = next_port();
    let mut there = Vm::start(target, coming, Some(port))?;
    let mut here = Vm::start(source, leaving, None)?;
    there.capability("return-path")?;
    here.capability("return-path")?;
    Ok((here, there, port))
}

/// The migration completes, the target runs, and the engine did it or did not.
fn arrives(here: &mut Vm, there: &mut Vm, carried: bool) -> Outcome {
    let ended = here.ended()?;
    if ended.status != "completed" {
        fail!(
            "the migration {}: {:?}; source: {}; target: {}",
            ended.status,
            ended.error,
            here.last_words(),
            there.last_words()
        );
    }
    println!("# downtime {} ms", ended.downtime_ms);
    there.runs_as("running")?;
    for vm in [here, there] {
        ensure!(vm.said(CARRIED) == carried, "the engine: {}", vm.last_words());
    }
    Ok(())
}

/// After a migration that failed: the VM and its device run, and can be migrated again.
fn goes_on(here: &mut Vm, leaving: &FerryDev) -> Outcome {
    here.runs_as("running")?;
    until("the source's device runs", || Ok(leaving.stat::<String>("state")? == "RUNNING"))?;
    // A driver that held an operation gives the fd back when it lets go.
    until("no data fd is open", || Ok(leaving.stat::<u64>("open_data_fds")? == 0))?;
    let again = small()?;
    // Of the same size: the device says how much it is.
    again.knob("state_bytes", leaving.knob_value("state_bytes")?)?;
    let port = next_port();
    let mut there = Vm::start(AUTO, &all_one(&again), Some(port))?;
    there.capability("return-path")?;
    // A stock source has it too, and a source that was refused for lack of it gets it now.
    here.capability("return-path")?;
    here.parameter("max-bandwidth", PLENTY)?;
    here.parameter("downtime-limit", 2000)?;
    here.migrate(port)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    same_state(leaving, &again)
}

fn completed(ended: &Ended) -> Outcome {
    ensure!(ended.status == "completed", "the migration {}: {}", ended.status, ended.error);
    Ok(())
}

fn same_state(leaving: &FerryDev, coming: &FerryDev) -> Outcome {
    let (before, after) = (leaving.state_crc()?, coming.state_crc()?);
    let resets = |device: &FerryDev| device.stat::<u64>("resets_applied");
    ensure!(
        before == after,
        "the source's state is {before} after {} resets, the target's {after} after {}",
        resets(leaving)?,
        resets(coming)?
    );
    // QEMU says that it has completed before it has cleaned up.
    for device in [leaving, coming] {
        until("no data fd is open", || Ok(device.stat::<u64>("open_data_fds")? == 0))?;
        device.left_alone()?;
    }
    Ok(())
}

fn small() -> Outcome<FerryDev> {
    FerryDev::closed(FULL, &[("state_bytes", "1M")])
}

fn all(devices: &[FerryDev]) -> Vec<&Mdev> {
    devices.iter().map(|device| &device.mdev).collect()
}

fn all_one(device: &FerryDev) -> [&Mdev; 1] {
    [&device.mdev]
}

fn next_port() -> u16 {
    PORT.fetch_add(1, Ordering::Relaxed)
}

fn until(what: &str, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(5));
    }
    Ok(())
}
