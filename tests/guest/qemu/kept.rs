//! State that nobody takes in while it is sent: snapshots, commands, cpr-reboot. It goes in stock
//! QEMU's way, whatever the device's property says, or is refused as stock QEMU does.

use serde_json::{Value, json};

use super::tiny;
use super::{CARRIED, ON, all_one, completed, goes_on, hurry, next_port, same_state, small, until};
use crate::checks::{Checks, Failure, Outcome, ensure, fail};
use crate::ferry_dev::FerryDev;
use crate::qemu::vm::Vm;

pub(super) fn run(checks: &mut Checks) {
    checks.check("on, savevm, and loadvm while the VM is there: as stock QEMU does", save_and_load);
    checks.check("on, savevm, and -loadvm at the next start: as stock QEMU does", load_at_start);
    checks.check("on, to a command without a return path and from it: as stock QEMU does", exec);
    checks.check("on, cpr-reboot of a suspended guest: as stock QEMU does", cpr_reboot);
    checks.check("on, cpr-reboot of a guest that runs is refused, and it runs on", || {
        let leaving = small()?;
        let mut here = Vm::start(ON, &all_one(&leaving), None)?;
        here.ask("migrate-set-parameters", json!({ "mode": "cpr-reboot" }))?;
        let uri = format!("file:/tmp/state.{}", next_port());
        let why = match here.migrate_to(&uri) {
            Err(Failure(why)) => why,
            Ok(()) => here.ended()?.error,
        };
        println!("# {why}");
        ensure!(why.contains("cpr-reboot"), "it says {why:?}");
        here.ask("migrate-set-parameters", json!({ "mode": "normal" }))?;
        goes_on(&mut here, &leaving)
    });
}

/// Waits for a job of QMP's to end, and takes it away.
fn job(vm: &mut Vm, command: &str, id: &str, mut arguments: Value) -> Outcome {
    arguments["job-id"] = json!(id);
    vm.ask(command, arguments)?;
    let mut error = None;
    until("the job has concluded", || {
        let jobs = vm.ask("query-jobs", json!({}))?;
        let found = jobs.as_array().into_iter().flatten().find(|job| job["id"] == id).cloned();
        let Some(found) = found else { fail!("there is no job {id}: {jobs}") };
        error = found["error"].as_str().map(str::to_owned);
        Ok(found["status"] == "concluded")
    })?;
    vm.ask("job-dismiss", json!({ "id": id }))?;
    match error {
        Some(why) => fail!("{command}: {why}"),
        None => Ok(()),
    }
}

/// Gives it a disk that can keep a snapshot.
fn add_disk(vm: &mut Vm, path: &str) -> Outcome {
    let file = json!({ "driver": "file", "filename": path, "size": 0 });
    job(vm, "blockdev-create", "file", json!({ "options": file }))?;
    let node = json!({ "driver": "file", "filename": path, "node-name": "file" });
    vm.ask("blockdev-add", node)?;
    let disk = json!({ "driver": "qcow2", "file": "file", "size": 1 << 20 });
    job(vm, "blockdev-create", "disk", json!({ "options": disk }))?;
    vm.ask("blockdev-add", json!({ "driver": "qcow2", "file": "file", "node-name": "disk" }))?;
    Ok(())
}

fn snapshot(vm: &mut Vm, command: &str) -> Outcome {
    job(vm, command, command, json!({ "tag": "one", "vmstate": "disk", "devices": ["disk"] }))
}

fn saved(path: &str) -> Outcome<(FerryDev, Vm)> {
    let leaving = small()?;
    let mut here = Vm::start(ON, &all_one(&leaving), None)?;
    add_disk(&mut here, path)?;
    snapshot(&mut here, "snapshot-save")?;
    here.runs_as("running")?;
    ensure!(!here.said(CARRIED), "the engine carried it: {}", here.last_words());
    Ok((leaving, here))
}

fn save_and_load() -> Outcome {
    let (leaving, mut here) = saved(&format!("/tmp/disk.{}", next_port()))?;
    let before = leaving.state_crc()?;
    leaving.control("reset", 1)?;
    ensure!(leaving.state_crc()? != before, "a reset changes nothing");
    // The VM's device has been reset, which QEMU does not know: it stops it all the same.
    snapshot(&mut here, "snapshot-load")?;
    here.does("cont")?;
    here.runs_as("running")?;
    ensure!(leaving.state_crc()? == before, "the state is not that of the snapshot");
    ensure!(!here.said(CARRIED), "the engine carried it: {}", here.last_words());
    leaving.left_alone()?;
    goes_on(&mut here, &leaving)
}

fn load_at_start() -> Outcome {
    let path = format!("/tmp/disk.{}", next_port());
    let (leaving, here) = saved(&path)?;
    drop(here);
    let coming = small()?;
    let disk = format!("driver=qcow2,node-name=disk,file.driver=file,file.filename={path}");
    let more = ["-blockdev", disk.as_str(), "-loadvm", "one"];
    let mut there = Vm::start_with(ON, &all_one(&coming), None, &more)?;
    there.runs_as("running")?;
    ensure!(!there.said(CARRIED), "the engine carried it: {}", there.last_words());
    same_state(&leaving, &coming)?;
    // And it can leave as any other, though a disk has to come along.
    there.ask("blockdev-del", json!({ "node-name": "disk" }))?;
    goes_on(&mut there, &coming)
}

fn exec() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    let path = format!("/tmp/state.{}", next_port());
    let mut here = Vm::start(ON, &all_one(&leaving), None)?;
    here.migrate_to(&format!("exec:cat > {path}"))?;
    completed(&here.ended()?)?;
    ensure!(!here.said(CARRIED), "the engine carried it: {}", here.last_words());
    let mut there = Vm::start_from(ON, &all_one(&coming), Some(&format!("exec:cat {path}")))?;
    there.runs_as("running")?;
    same_state(&leaving, &coming)
}

fn cpr_reboot() -> Outcome {
    let (leaving, coming) = (small()?, small()?);
    let uri = format!("file:/tmp/state.{}", next_port());
    tiny::write()?;
    let mode = json!({ "mode": "cpr-reboot" });
    let mut here = Vm::start_with(ON, &all_one(&leaving), None, &tiny::ARGUMENTS)?;
    tiny::press(&mut here, "s")?;
    here.runs_as("suspended")?;
    here.ask("migrate-set-parameters", mode.clone())?;
    // A guest that has stopped sends nothing from which QEMU could tell how fast the file is.
    hurry(&mut here)?;
    here.migrate_to(&uri)?;
    completed(&here.ended()?)?;
    ensure!(!here.said(CARRIED), "the engine carried it: {}", here.last_words());
    let mut there = Vm::start_with(ON, &all_one(&coming), Some("defer"), &tiny::ARGUMENTS)?;
    there.ask("migrate-set-parameters", mode)?;
    there.ask("migrate-incoming", json!({ "uri": uri }))?;
    there.runs_as("suspended")?;
    same_state(&leaving, &coming)
}
