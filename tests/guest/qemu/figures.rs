//! What QMP says of the devices: their figures in `query-migrate`, and the event of a reset.

use serde_json::{Value, json};

use super::{
    OFF, ON, RESTARTS, all, all_one, completed, hurry, pair, saves_in_precopy, small,
    stays_in_precopy, until,
};
use crate::checks::{Checks, Failure, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev, P2P};
use crate::qemu::vm::{Build, Vm};

/// What patch 0005 calls it.
pub(super) const RESET: &str = "VFIO_FERRY_RESET";

pub(super) fn run(checks: &mut Checks) {
    checks.check("query-migrate has figures of each device", figures);
    checks.check("what the user says of the path decides what is compressed", told_path);
    checks.check("a reset is an event, and counted: restart", || reset(RESTARTS));
    checks.check("a reset is an event: abort", || reset(ON));
    checks.check("of devices that are off there are no figures", || {
        let (leaving, coming) = (small()?, small()?);
        let (mut here, _there, port) = pair(OFF, OFF, &all_one(&leaving), &all_one(&coming))?;
        here.migrate(port)?;
        completed(&here.ended()?)?;
        let said = here.ask("query-migrate", json!({}))?;
        ensure!(said["vfio"]["transferred"].as_u64() > Some(0), "vfio is {}", said["vfio"]);
        ensure!(said["vfio"].get("ferry").is_none(), "vfio is {}", said["vfio"]);
        Ok(())
    });
}

/// The figures of a device of `here`, by its number.
fn of(here: &mut Vm, index: usize) -> Outcome<Value> {
    let said = here.ask("query-migrate", json!({}))?;
    let id = format!("v{index}");
    let mut all = said["vfio"]["ferry"].as_array().into_iter().flatten();
    let found = all.find(|figures| figures["device-id"] == id.as_str());
    found.cloned().ok_or_else(|| Failure(format!("nothing of {id} in {}", said["vfio"])))
}

/// Two devices, one of which compresses well: after the end each has what it has, and not the sum.
fn figures() -> Outcome {
    let make =
        |size, content| FerryDev::closed(FULL, &[("state_bytes", size), ("content", content)]);
    let leaving = [make("4M", "random")?, make("2M", "zero")?];
    let coming = [make("4M", "random")?, make("2M", "random")?];
    let (mut here, _there, port) = pair(ON, ON, &all(&leaving), &all(&coming))?;
    here.migrate(port)?;
    completed(&here.ended()?)?;
    for (index, device) in leaving.iter().enumerate() {
        let figures = of(&mut here, index)?;
        println!("# {figures}");
        let read: u64 = device.stat("bytes_read")?;
        let wire = figures["wire-bytes"].as_u64().unwrap_or(0);
        ensure!(figures["state-bytes"] == read, "{figures}, but {read} were read");
        ensure!(figures["restarts"] == 0, "{figures}");
        ensure!(wire > 0, "{figures}");
        // The same division, but for what a decimal number loses.
        let ratio = figures["ratio"].as_f64().unwrap_or(0.0);
        let close = (ratio - read as f64 / wire as f64).abs() < 1e-9;
        ensure!(close, "{figures}");
        ensure!(index == 0 || wire * 10 < read, "zeros: {figures}");
        let path = format!("/machine/peripheral/v{index}");
        ensure!(figures["qom-path"] == path.as_str(), "{figures}");
    }
    Ok(())
}

/// The whole state is read at once when the VM has stopped, sooner than a rate could be measured.
fn told_path() -> Outcome {
    let ratio = |bytes_per_s: u64| -> Outcome<f64> {
        let knobs = [("state_bytes", "256K"), ("content", "structured")];
        let (leaving, coming) = (FerryDev::closed(P2P, &knobs)?, FerryDev::closed(P2P, &knobs)?);
        let (mut here, _there, port) = pair(ON, ON, &all_one(&leaving), &all_one(&coming))?;
        here.parameter("downtime-limit", 1_000_000)?;
        here.parameter("avail-switchover-bandwidth", bytes_per_s)?;
        here.migrate(port)?;
        completed(&here.ended()?)?;
        let figures = of(&mut here, 0)?;
        println!("# {bytes_per_s} bytes a second: {figures}");
        Ok(figures["ratio"].as_f64().unwrap_or(0.0))
    };
    let (fast, slow) = (ratio(1 << 40)?, ratio(16 << 10)?);
    let (is_raw, is_smaller) = (fast < 1.05, slow > 1.2);
    ensure!(is_raw, "over a fast path it became {fast} times smaller");
    ensure!(is_smaller, "over a slow path it became {slow} times smaller");
    Ok(())
}

fn reset(build: Build) -> Outcome {
    let leaving = FerryDev::closed(FULL, &[("state_bytes", "8M"), ("content", "random")])?;
    let coming = FerryDev::closed(FULL, &[("state_bytes", "8M")])?;
    let (mut here, _there, port) = pair(build, build, &all_one(&leaving), &all_one(&coming))?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    saves_in_precopy(&leaving)?;
    ensure!(here.events(RESET).is_empty(), "there was one before the reset");
    leaving.control("reset", 1)?;
    until("there is an event", || {
        here.does("query-status")?;
        Ok(!here.events(RESET).is_empty())
    })?;
    let restarts = build == RESTARTS;
    let event = here.events(RESET)[0].clone();
    println!("# {event}");
    ensure!(event["device-id"] == "v0", "{event}");
    ensure!(event["qom-path"] == "/machine/peripheral/v0", "{event}");
    ensure!(event["restart"] == restarts, "{event}");
    ensure!(event["reason"].as_str().is_some_and(|why| why.contains("reset")), "{event}");
    if restarts {
        until("the restart is counted", || Ok(of(&mut here, 0)?["restarts"] == 1))?;
    }
    hurry(&mut here)?;
    let ended = here.ended()?;
    ensure!(here.events(RESET).len() == 1, "more than one: {:?}", here.events(RESET));
    if !restarts {
        ensure!(ended.status == "failed", "it {}", ended.status);
        return Ok(());
    }
    completed(&ended)?;
    let figures = of(&mut here, 0)?;
    println!("# {figures}");
    // What was read before the reset is among it.
    ensure!(figures["state-bytes"].as_u64() > Some(9 << 20), "{figures}");
    ensure!(figures["restarts"] == 1, "{figures}");
    Ok(())
}
