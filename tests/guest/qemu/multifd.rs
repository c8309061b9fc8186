//! Device state over QEMU's multifd channels, under TLS and without.

use std::fs;
use std::slice::from_ref;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::{
    AUTO, CARRIED, OFF, ON, all, all_one, completed, hurry, next_port, same_state,
    saves_in_precopy, small, stays_in_precopy, until,
};
use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev, STOP_COPY};
use crate::mdev::Mdev;
use crate::qemu::vm::{Build, Ended, Vm};

/// Says that frames travel over multifd channels: a trace of the patch.
const OVER: &str = "vfio_ferry_multifd";
const INSISTS: Build = Build::Patched("x-migration-ferry=on,x-migration-multifd-transfer=on");
const NOT_SO: Build = Build::Patched("x-migration-ferry=on,x-migration-multifd-transfer=off");

/// What a reset does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Abort,
    Restart,
    StopCopy,
}

impl Policy {
    fn build(self) -> Build {
        Build::Patched(match self {
            Policy::Abort => "x-migration-ferry=on,x-migration-multifd-transfer=on",
            Policy::Restart => {
                "x-migration-ferry=on,x-migration-multifd-transfer=on,x-migration-ferry-on-reset=restart"
            }
            Policy::StopCopy => {
                "x-migration-ferry=on,x-migration-multifd-transfer=on,x-migration-ferry-on-reset=stop-copy"
            }
        })
    }
}

pub(super) fn run(checks: &mut Checks) {
    let is_long = std::env::var_os("FERRY_LONG").is_some();
    for (name, source, target, carried, over, always) in [
        ("patched to patched", ON, ON, true, true, false),
        ("patched to patched, auto", AUTO, AUTO, true, true, true),
        ("patched to patched, transfer=off", NOT_SO, ON, true, false, true),
        ("patched to patched, the target transfer=off", ON, NOT_SO, true, false, false),
        ("stock to stock", Build::Stock, Build::Stock, false, false, false),
        ("patched but off to stock", OFF, Build::Stock, false, false, false),
        ("stock to patched but off", Build::Stock, OFF, false, false, false),
        ("patched, auto, to stock", AUTO, Build::Stock, false, false, true),
        ("stock to patched, auto", Build::Stock, AUTO, false, false, true),
    ] {
        if is_long || always {
            checks.check(format!("multifd: 8 MiB migrate, {name}"), || {
                migrates(source, target, carried, over)
            });
        }
    }
    checks.check(
        "multifd: transfer=on, to a target where it is off: says why, and runs on",
        || {
            let (leaving, coming) = (small()?, small()?);
            let (mut here, _there, port) =
                pair(INSISTS, NOT_SO, &all_one(&leaving), &all_one(&coming), false)?;
            here.migrate(port)?;
            let ended = here.ended()?;
            let words = "does not take its state through vfio-ferry so";
            ensure!(ended.status == "failed" && ended.error.contains(words), "{ended:?}");
            runs_on(&mut here, from_ref(&leaving))
        },
    );
    for (tls, devices, policy, always) in [
        (false, 1, Policy::Abort, true),
        (false, 1, Policy::Restart, false),
        (false, 1, Policy::StopCopy, false),
        (true, 1, Policy::Abort, false),
        (true, 1, Policy::Restart, true),
        (true, 1, Policy::StopCopy, false),
        (false, 4, Policy::Abort, false),
        (false, 4, Policy::Restart, false),
        (false, 4, Policy::StopCopy, true),
        (true, 4, Policy::Abort, false),
        (true, 4, Policy::Restart, false),
        (true, 4, Policy::StopCopy, false),
    ] {
        if is_long || always {
            let name = format!(
                "multifd{}: a reset in PRE_COPY, {devices} of 64 MiB, {policy:?}",
                if tls { ", TLS" } else { "" }
            );
            checks.check(name, || reset(tls, devices, policy));
        }
    }
    checks.check("multifd: a cancel while the target's process is frozen", frozen);
    checks.check("multifd: a slow device, and the target's memory has its bound", || {
        let grown = slow(ON)?;
        println!("# patched, 256 MiB to a slow device: the target grew by {grown} MiB");
        ensure!(grown < 128, "the target grew by {grown} MiB");
        Ok(())
    });
    if is_long {
        checks.check("multifd: what stock's target needs for a slow device is recorded", || {
            let grown = slow(Build::Stock)?;
            println!("# stock, 256 MiB to a slow device: the target grew by {grown} MiB");
            Ok(())
        });
    }
}

/// A target that listens, and a source; both with a return path and multifd channels.
fn pair(
    source: Build,
    target: Build,
    leaving: &[&Mdev],
    coming: &[&Mdev],
    tls: bool,
) -> Outcome<(Vm, Vm, u16)> {
    let port = next_port();
    let mut there = Vm::start_from(target, coming, Some("defer"))?;
    let mut here = Vm::start(source, leaving, None)?;
    for (vm, endpoint) in [(&mut here, "client"), (&mut there, "server")] {
        vm.capability("return-path")?;
        vm.capability("multifd")?;
        vm.parameter("multifd-channels", 3)?;
        if tls {
            key()?;
            let credentials = json!({
                "qom-type": "tls-creds-psk", "id": "tls0", "dir": KEYS, "endpoint": endpoint
            });
            vm.ask("object-add", credentials)?;
            vm.ask("migrate-set-parameters", json!({ "tls-creds": "tls0" }))?;
        }
    }
    there.ask("migrate-incoming", json!({ "uri": format!("tcp:127.0.0.1:{port}") }))?;
    Ok((here, there, port))
}

const KEYS: &str = "/tmp/psk";

/// The credentials of QEMU's own tests (`tests/unit/crypto-tls-psk-helpers.c`).
fn key() -> Outcome {
    fs::create_dir_all(KEYS)?;
    fs::write(format!("{KEYS}/keys.psk"), "qemu:009d5638c40fde0c\n")?;
    Ok(())
}

fn migrates(source: Build, target: Build, carried: bool, over: bool) -> Outcome {
    let make = || FerryDev::closed(FULL, &[("state_bytes", "8M"), ("content", "random")]);
    let (leaving, coming) = (make()?, make()?);
    let (mut here, mut there, port) =
        pair(source, target, &all_one(&leaving), &all_one(&coming), false)?;
    here.parameter("downtime-limit", 2000)?;
    here.migrate(port)?;
    completed_here(&here.ended()?, &here, &there)?;
    there.runs_as("running")?;
    ensure!(here.said(CARRIED) == carried, "the engine: {}", here.last_words());
    ensure!(here.said(OVER) == over, "over multifd: {}", here.last_words());
    same_state(&leaving, &coming)
}

/// The first of some devices is reset in the middle of PRE_COPY.
fn reset(tls: bool, devices: usize, policy: Policy) -> Outcome {
    // Ciphers are slow where they are emulated, so what goes through them compresses.
    let content = if tls { "structured" } else { "random" };
    let make = |_| FerryDev::closed(FULL, &[("state_bytes", "64M"), ("content", content)]);
    let leaving = (0..devices).map(make).collect::<Outcome<Vec<_>>>()?;
    let coming = (0..devices).map(make).collect::<Outcome<Vec<_>>>()?;
    let (mut here, mut there, port) =
        pair(policy.build(), policy.build(), &all(&leaving), &all(&coming), tls)?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    // QEMU asks the others when this one has nothing more.
    saves_in_precopy(&leaving[0])?;
    leaving[0].control("reset", 1)?;
    until("the source has seen the reset", || {
        Ok(here.said("restarted: device_reset") || here.said("aborted: device_reset"))
    })?;
    hurry(&mut here)?;
    // Four devices, and each byte through a cipher that is emulated.
    let ended = here.ended_within(Duration::from_secs(600))?;
    ensure!(here.said(OVER), "not over multifd: {}", here.last_words());
    if policy == Policy::Abort {
        ensure!(ended.status == "failed" && ended.error.contains("reset"), "{ended:?}");
        return runs_on(&mut here, &leaving);
    }
    completed_here(&ended, &here, &there)?;
    ensure!(here.said("its migration starts again"), "no restart: {}", here.last_words());
    println!("# downtime {} ms", ended.downtime_ms);
    there.runs_as("running")?;
    leaving.iter().zip(&coming).try_for_each(|(leaving, coming)| same_state(leaving, coming))
}

/// The target stands still with a part of the state, and all channels are full.
fn frozen() -> Outcome {
    let make = || FerryDev::closed(STOP_COPY, &[("state_bytes", "64M"), ("content", "random")]);
    let (leaving, coming) = (make()?, make()?);
    coming.control("fault", "block@write=512K")?;
    let (mut here, there, port) =
        pair(INSISTS, INSISTS, &all_one(&leaving), &all_one(&coming), false)?;
    hurry(&mut here)?;
    here.migrate(port)?;
    until("the target's driver holds a write", || Ok(coming.stat::<u64>("blocked")? > 0))?;
    there.signal(Signal::STOP)?;
    coming.control("unblock", 1)?;
    ensure!(here.answers_in(20).is_some(), "QMP does not answer");
    here.does("migrate_cancel")?;
    let ended = here.ended()?;
    ensure!(ended.status == "cancelled", "it {}: {}", ended.status, ended.error);
    drop(there);
    runs_on(&mut here, from_ref(&leaving))
}

/// By how many MiB the target grows while a slow device takes 256 MiB in.
fn slow(build: Build) -> Outcome<u64> {
    let size = ("state_bytes", "256M");
    let leaving = FerryDev::closed(STOP_COPY, &[size, ("content", "random")])?;
    let coming = FerryDev::closed(STOP_COPY, &[size, ("write_rate", "24M")])?;
    let (mut here, mut there, port) =
        pair(build, build, &all_one(&leaving), &all_one(&coming), false)?;
    hurry(&mut here)?;
    let before = there.most_memory_mib()?;
    here.migrate(port)?;
    completed_here(&here.ended()?, &here, &there)?;
    there.runs_as("running")?;
    same_state(&leaving, &coming)?;
    Ok(there.most_memory_mib()?.saturating_sub(before))
}

fn completed_here(ended: &Ended, here: &Vm, there: &Vm) -> Outcome {
    ensure!(
        ended.status == "completed",
        "{ended:?}; source: {}; target: {}",
        here.last_words(),
        there.last_words()
    );
    completed(ended)
}

/// After a migration that failed: the VM and its devices run, and nothing is left open.
fn runs_on(here: &mut Vm, leaving: &[FerryDev]) -> Outcome {
    here.runs_as("running")?;
    for device in leaving {
        until("the source's device runs", || Ok(device.stat::<String>("state")? == "RUNNING"))?;
        until("no data fd is open", || Ok(device.stat::<u64>("open_data_fds")? == 0))?;
        device.left_alone()?;
    }
    Ok(())
}
