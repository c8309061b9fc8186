//! `tests/qemu/demo`: one migration whose device is reset in the middle, and what QMP says at each
//! step.

use serde_json::{Value, json};

use super::{
    RESTARTS, all_one, hurry, pair, same_state, saves_in_precopy, stays_in_precopy, until,
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
    says(&mut here, "source", "query-migrate", &["status", "vfio"])?;
    println!("# the device is reset, and what was sent of it is worthless");
    let resets: u64 = leaving.stat("resets")?;
    leaving.control("reset", 1)?;
    until("the device was reset", || Ok(leaving.stat::<u64>("resets")? > resets))?;
    until("the source has seen it", || Ok(here.said("its migration starts again")))?;
    println!("#   source's log: {}", here.line_with("its migration starts again"));
    says(&mut here, "source", "query-migrate", &["status", "vfio"])?;
    println!("# now as fast as the channel goes");
    hurry(&mut here)?;
    let ended = here.ended()?;
    says(&mut here, "source", "query-migrate", &["status", "downtime", "error-desc"])?;
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
