//! `tests/qemu/demo`: one migration whose device is reset in the middle, and what QMP says at each
//! step.

use serde_json::{Value, json};

use super::{
    RESTARTS, all_one, figures::RESET, hurry, pair, same_state, saves_in_precopy, stays_in_precopy,
    until,
};
use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev};
use crate::qemu::vm::Vm;

pub(crate) fn run(checks: &mut Checks) {
    checks.check("a migration whose device is reset in the middle arrives", demo);
}

fn says(vm: &mut Vm, who: &str, command: &str, keys: &[&str]) -> Outcome {
    let answer = vm.ask(command, json!({}))?;
    let shown: serde_json::Map<String, Value> =
        keys.iter().filter_map(|key| Some(((*key).to_owned(), answer.get(key)?.clone()))).collect();
    println!("#   {who}: {command} -> {}", Value::Object(shown));
    Ok(())
}

/// The migration's status, and the device's figures.
fn figures(vm: &mut Vm, keys: &[&str]) -> Outcome {
    says(vm, "source", "query-migrate", keys)?;
    let answer = vm.ask("query-migrate", json!({}))?;
    println!("#     vfio.ferry: {}", answer["vfio"]["ferry"]);
    Ok(())
}

fn demo() -> Outcome {
    println!("# two QEMUs, a test device of 8 MiB each, x-migration-ferry=on,");
    println!("#   x-migration-ferry-on-reset=restart");
    let leaving = FerryDev::closed(FULL, &[("state_bytes", "8M"), ("content", "random")])?;
    let coming = FerryDev::closed(FULL, &[("state_bytes", "8M")])?;
    let (mut here, mut there, port) =
        pair(RESTARTS, RESTARTS, &all_one(&leaving), &all_one(&coming))?;
    says(&mut here, "source", "query-status", &["status"])?;
    says(&mut there, "target", "query-status", &["status"])?;
    println!("# migrate, at 4 MiB a second: the device saves while its guest runs (PRE_COPY)");
    stays_in_precopy(&mut here)?;
    here.migrate(port)?;
    saves_in_precopy(&leaving)?;
    figures(&mut here, &["status"])?;
    println!("# the device is reset, and what was sent of it is worthless");
    let resets: u64 = leaving.stat("resets")?;
    leaving.control("reset", 1)?;
    until("the device was reset", || Ok(leaving.stat::<u64>("resets")? > resets))?;
    until("the source has said so", || {
        here.does("query-status")?;
        Ok(!here.events(RESET).is_empty())
    })?;
    println!("#   source: {RESET} {}", here.events(RESET)[0]);
    figures(&mut here, &["status"])?;
    println!("# now as fast as the channel goes");
    hurry(&mut here)?;
    let ended = here.ended()?;
    figures(&mut here, &["status", "downtime", "error-desc"])?;
    ensure!(ended.status == "completed", "it {}: {}", ended.status, ended.error);
    there.runs_as("running")?;
    says(&mut here, "source", "query-status", &["status"])?;
    says(&mut there, "target", "query-status", &["status"])?;
    same_state(&leaving, &coming)?;
    println!(
        "# the state's checksum: source {}, target {}",
        leaving.state_crc()?,
        coming.state_crc()?
    );
    Ok(())
}
