//! The same device, time and again: retries after migrations that failed, there and back, and as many
//! devices at once as may be.

use rustix::process::Signal;

use super::{
    ON, RESTARTS, all, all_one, arrives, completed, goes_on, hurry, next_port, pair, same_state,
    small, stays_in_precopy, until,
};
use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev};
use crate::qemu::vm::Vm;

pub(super) fn run(checks: &mut Checks) {
    let is_long = std::env::var_os("FERRY_LONG").is_some();
    let times = if is_long { 10 } else { 2 };
    checks.check(format!("{times} migrations of one device fail, and the next completes"), || {
        retries(times)
    });
    checks.check(format!("there and back, {times} times"), || there_and_back(times));
    // Each has a session on both hosts, and here both hosts share the memory.
    let counts: &[usize] = if is_long { &[8, 24] } else { &[8] };
    for &count in counts {
        checks.check(format!("{count} devices migrate, patched to patched"), || many(count));
    }
}

/// By turns the target dies, the device is reset, and the user gives up.
fn retries(times: u32) -> Outcome {
    let leaving = FerryDev::closed(FULL, &[("state_bytes", "8M"), ("content", "random")])?;
    let mut here = Vm::start(ON, &all_one(&leaving), None)?;
    here.capability("return-path")?;
    for time in 0..times {
        let coming = FerryDev::closed(FULL, &[("state_bytes", "8M")])?;
        let port = next_port();
        let mut there = Vm::start(ON, &all_one(&coming), Some(port))?;
        there.capability("return-path")?;
        stays_in_precopy(&mut here)?;
        let read: u64 = leaving.stat("bytes_read")?;
        here.migrate(port)?;
        until("a megabyte was read", || Ok(leaving.stat::<u64>("bytes_read")? > read + (1 << 20)))?;
        match time % 3 {
            0 => there.signal(Signal::KILL)?,
            1 => leaving.control("reset", 1)?,
            _ => here.does("migrate_cancel")?,
        }
        let ended = here.ended()?;
        println!("# {}: {:?}", ended.status, ended.error);
        ensure!(ended.status == ["failed", "failed", "cancelled"][time as usize % 3], "{ended:?}");
        here.runs_as("running")?;
    }
    goes_on(&mut here, &leaving)
}

fn there_and_back(times: u32) -> Outcome {
    let devices = [small()?, small()?];
    let mut here = Vm::start(RESTARTS, &all_one(&devices[0]), None)?;
    // A machine that starts resets its devices.
    let before = devices[0].state_crc()?;
    here.capability("return-path")?;
    for time in 0..2 * times as usize {
        let (leaving, coming) = (&devices[time % 2], &devices[(time + 1) % 2]);
        let port = next_port();
        let mut there = Vm::start(RESTARTS, &all_one(coming), Some(port))?;
        there.capability("return-path")?;
        hurry(&mut here)?;
        here.migrate(port)?;
        completed(&here.ended()?)?;
        there.runs_as("running")?;
        same_state(leaving, coming)?;
        ensure!(coming.state_crc()? == before, "not what the first one had");
        // The source's process ends here, and its device can be the next target's.
        here = there;
    }
    Ok(())
}

fn many(count: usize) -> Outcome {
    let make = || (0..count).map(|_| small()).collect::<Outcome<Vec<_>>>();
    let (leaving, coming) = (make()?, make()?);
    let (mut here, mut there, port) = pair(ON, ON, &all(&leaving), &all(&coming))?;
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    // All save at once.
    leaving.iter().try_for_each(saves_begun)?;
    hurry(&mut here)?;
    arrives(&mut here, &mut there, true)?;
    let said = here.ask("query-migrate", serde_json::json!({}))?;
    let carried = said["vfio"]["ferry"].as_array().map_or(0, Vec::len);
    ensure!(carried == count, "the engine carried {carried} of {count}");
    leaving.iter().zip(&coming).try_for_each(|(leaving, coming)| same_state(leaving, coming))
}

fn saves_begun(leaving: &FerryDev) -> Outcome {
    until("it saves", || Ok(leaving.stat::<u64>("bytes_read")? > 0))
}
