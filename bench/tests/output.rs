//! Standard output that is closed or full, reports that cannot be written, and what a report says of
//! where it was made.

mod program;

use std::fs::File;
use std::process::{Command, Stdio};

use program::{ferry_bench, report};

const RUN: [&str; 4] = ["--state", "64KiB", "--runs", "1"];

fn to_a_full_disk() -> File {
    File::create("/dev/full").unwrap_or_else(|error| panic!("{error}"))
}

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ferry-bench"));
    command.stdin(Stdio::null());
    command
}

/// The other end of a pipe that is already gone.
fn to_nobody() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap_or_else(|error| panic!("{error}"));
    drop(reader);
    writer.into()
}

#[test]
fn nobody_who_listens_is_no_failure() {
    for line in [
        &RUN[..],
        &["--help"],
        &["faults", "--list"],
        &["compare", "--runs", "1", "--state", "1KiB"],
    ] {
        let ended = program().args(line).stdout(to_nobody()).output();
        let ended = ended.unwrap_or_else(|error| panic!("{error}"));
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), &*errors), (Some(0), ""), "{line:?}");
    }
}

#[test]
fn a_full_disk_is_told_and_no_panic() {
    for line in [&RUN[..], &["--help"], &["faults", "--list"]] {
        let ended = program().args(line).stdout(to_a_full_disk()).output();
        let ended = ended.unwrap_or_else(|error| panic!("{error}"));
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), errors.lines().count()), (Some(2), 1), "{errors}");
        assert!(errors.contains("standard output: No space left"), "{line:?}: {errors}");
    }
    let both = program().args(RUN).stdout(to_a_full_disk()).stderr(to_a_full_disk()).status();
    assert_eq!(both.ok().and_then(|status| status.code()), Some(2));
}

#[test]
fn a_report_that_cannot_be_written_is_told() {
    let ended = ferry_bench(&format!("{} --json /dev/full", RUN.join(" ")));
    assert_eq!(ended.status, Some(2), "{}", ended.errors);
    assert!(ended.errors.contains("--json: No space left"), "{}", ended.errors);
}

#[test]
fn a_report_says_what_it_is_and_where_it_was_made() {
    for command in ["downtime --state 64KiB --runs 3", "compare --state 64KiB --runs 1"] {
        let (_, report) = report(command);
        assert_eq!(report["version"], 2, "{report}");
        assert_eq!(report["command"], command.split(' ').next().unwrap_or_default());
        let machine = &report["machine"];
        for key in ["host", "kernel", "cpu", "ferry_bench", "build"] {
            assert!(machine[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {machine}");
        }
        assert!(machine["cpus"].as_u64() > Some(0) && machine["load"].is_number(), "{machine}");
    }
    let (_, report) = report("--state 64KiB --runs 3");
    let each = report["each"].as_array().cloned().unwrap_or_default();
    let mut downtimes: Vec<u64> = each.iter().filter_map(|it| it["downtime_ns"].as_u64()).collect();
    downtimes.sort_unstable();
    let spread = ["min", "median", "max"].map(|key| report["downtime_ns"][key].as_u64());
    assert_eq!(spread.to_vec(), downtimes.iter().copied().map(Some).collect::<Vec<_>>());
    assert!(each.iter().all(|run| run["phases_ns"]["stop"].as_u64() > Some(0)), "{report}");
}
