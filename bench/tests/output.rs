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

/// The program would run for days: only its first line is read.
#[test]
fn what_takes_long_is_said_first() {
    use std::io::{BufRead, BufReader};
    let mut child = program()
        .args(["--state", "100TiB", "--runs", "3", "--link", "1Gbit"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{error}"));
    let mut line = String::new();
    let output = child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines());
    for first in output.take(1) {
        line = first.unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(child.kill().is_ok() && child.wait().is_ok());
    assert_eq!(
        line,
        "3 migrations of 100 TiB take 31 days at 125.0 MB/s; --state and --runs make it less"
    );
}

#[test]
fn a_device_in_memory_is_verified_and_has_its_limits() {
    let (ended, report) =
        report("--data-fd memory --state 5000001B --devices 3 --precopy --runs 2");
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    assert_eq!((&report["verified"], &report["state_bytes"]), (&true.into(), &15_000_003.into()));
    for (line, words) in [
        ("--data-fd memory --state 100TiB", "of memory"),
        ("--data-fd memory --device-rate 1GiB", "--device-rate: reads and writes of memory"),
        ("--data-fd memory --save-latency 1ms", "--save-latency: reads and writes of memory"),
        ("--save-latency none", "never ends"),
        ("--set-state-latency halt=1ms", "no state"),
    ] {
        let ended = ferry_bench(line);
        assert_eq!((ended.status, ended.errors.lines().count()), (Some(2), 1), "{}", ended.errors);
        assert!(ended.errors.contains(words), "{line}: {}", ended.errors);
    }
}

/// A latency that were not there would be a shorter downtime than that.
#[test]
fn latencies_are_in_the_downtime() {
    let line = "--state 64KiB --runs 1 --devices 2 --save-latency 30ms \
                --set-state-latency RUNNING-STOP=20ms --set-state-latency resuming-stop=10ms";
    let (ended, report) = report(line);
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    assert!(report["downtime_ns"]["min"].as_u64() >= Some(60_000_000), "{report}");
    assert!(report["phases_ns"]["stop"]["min"].as_u64() >= Some(20_000_000), "{report}");
    for words in ["save 30 ms", "SET_STATE RUNNING-STOP 20 ms", "SET_STATE RESUMING-STOP 10 ms"] {
        assert!(ended.output.contains(words), "{}", ended.output);
    }
}
