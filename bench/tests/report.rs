//! Whole migrations through the program, and what their reports say.

mod program;
#[path = "../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "the file is another crate's, too")]
mod skip;

use serde_json::Value;

use program::{ferry_bench, report};

/// Peak memory of a process that migrates any amount of state.
const RSS_BYTES_MAX: u64 = 96 << 20;

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no whole number"))
}

/// A verified migration of so many bytes, with every key that programs count on.
#[track_caller]
fn verified(report: &Value, state_bytes: u64) {
    assert_eq!(report["outcome"], "complete", "{report}");
    assert_eq!(report["verified"], true, "{report}");
    assert_eq!(report["state_bytes"], state_bytes, "{report}");
    for key in ["wire_bytes", "throughput_bytes_per_s", "cpu_ns", "peak_rss_bytes"] {
        assert!(number(&report[key]) > 0, "{key}: {report}");
    }
    let spread = |spread: &Value| ["min", "median", "max"].map(|key| number(&spread[key]));
    let downtime = spread(&report["downtime_ns"]);
    assert!(0 < downtime[0] && downtime.is_sorted(), "{downtime:?}");
    for phase in ["stop", "stop_copy", "load", "handover", "resume"] {
        assert!(spread(&report["phases_ns"][phase])[2] > 0, "{phase}: {report}");
    }
    assert!(["io_uring", "syscalls"].contains(&report["backend"].as_str().unwrap_or("")));
    assert_eq!(report["tcp_congestion"], program::host_congestion("")[0]);
    assert!(report["peak_rss_bytes"].as_u64().is_some_and(|bytes| bytes < RSS_BYTES_MAX));
}

#[test]
fn downtime_is_verified_and_tells_all() {
    let (ended, report) = report("downtime --state 1MiB --runs 1");
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    verified(&report, 1 << 20);
    assert!(report.get("reset").is_none());
    for words in ["downtime", "stop_copy", "verified     1 of 1 run"] {
        assert!(ended.output.contains(words), "{words} is not in\n{}", ended.output);
    }
}

#[test]
fn tls_guards_what_is_measured() {
    let line = "downtime --state 3MiB --data random --policy raw --streams 2 --runs 2";
    let rows = [("", "none"), (" --tls", "tls_"), (" --tls --tls-user-space", "tls_user_space")];
    for (tls, protection) in rows {
        let (ended, report) = report(&format!("{line}{tls}"));
        assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
        verified(&report, 3 << 20);
        // Which of the two it is without having been chosen is the kernel's to say.
        let found = report["protection"].as_str().unwrap_or_default();
        assert!(found.starts_with(protection), "{report}");
    }
}

#[test]
fn every_option_at_once() {
    let line = "--state 1MiB --data random --devices 3 --streams 2 --policy zstd=1 \
                --backend syscalls --link 10Gbit --device-rate 1GB/s --precopy \
                --dirty-rate 10MB/s --chunk 64KiB --runs 2";
    let (ended, report) = report(line);
    assert_eq!(ended.status, Some(0), "{}", ended.errors);
    assert_eq!((&report["verified"], &report["runs"]), (&true.into(), &2.into()), "{report}");
    assert_eq!(report["backend"], "syscalls");
    assert!(report["state_bytes"].as_u64().is_some_and(|bytes| bytes >= 3 << 20), "{report}");
}

#[test]
fn a_file_is_a_state_too() {
    let folder = program::scratch();
    let file = folder.path().join("state");
    std::fs::write(&file, [7; 5000]).unwrap_or_else(|error| panic!("{error}"));
    let line = format!("--data {} --state 300001B --runs 1", file.display());
    let (ended, report) = report(&line);
    assert_eq!(ended.status, Some(0), "{}", ended.errors);
    verified(&report, 300_001);
}

/// At this rate the state takes half a minute; the guest runs on at the source instead.
#[test]
fn a_switchover_has_a_budget() {
    let line = "--state 64MiB --data random --runs 1 --link 2MB/s --switchover-budget 300ms";
    let (ended, report) = report(line);
    assert_eq!(ended.status, Some(1), "{}", ended.output);
    assert!(ended.errors.contains("switchover_budget (300ms) is over"), "{}", ended.errors);
    assert_eq!(report["outcome"], "aborted", "{report}");
    let (ended, _) = self::report("--state 1MiB --runs 1 --switchover-budget none");
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
}

/// Downtime, total time and bytes of a way, and that it has them all.
#[track_caller]
fn way(reset: &Value, name: &str) -> [i64; 3] {
    let way = &reset[name];
    [&way["downtime_ns"]["median"], &way["total_ns"]["median"], &way["wire_bytes"]].map(number)
}

#[test]
fn a_restart_says_what_it_cost_and_saved() {
    let line = "--state 4MiB --devices 2 --precopy --reset-at pre_copy --on-reset restart --runs 2";
    let (ended, report) = report(line);
    assert_eq!(ended.status, Some(0), "{}", ended.errors);
    verified(&report, 8 << 20);
    let reset = &report["reset"];
    assert_eq!(reset["as_chosen"], true, "{reset}");
    assert_eq!((&reset["at"], &reset["on_reset"]), (&"pre_copy".into(), &"restart".into()));
    let [plain, chosen, again] =
        ["without_reset", "with_reset", "migrated_again"].map(|name| way(reset, name));
    for (index, key) in ["downtime_ns", "total_ns", "wire_bytes"].into_iter().enumerate() {
        assert_eq!(number(&reset["cost"][key]), chosen[index] - plain[index], "{key}: {reset}");
        assert_eq!(number(&reset["saved"][key]), again[index] - chosen[index], "{key}: {reset}");
    }
    let discarded = number(&reset["discarded_bytes"]);
    // Half of 3 MiB, but for what the last read would have brought, which is a chunk at most.
    assert!((1 << 19..3 << 20).contains(&discarded), "{reset}");
    // The other device's state went once. How much of it goes in a migration that is aborted after
    // half of the first one's initial data is the scheduler's business.
    let others = |name: &str| number(&reset[name]["other_devices_bytes"]);
    assert_eq!(others("with_reset"), 4 << 20, "{reset}");
    assert!(others("migrated_again") >= 4 << 20, "{reset}");
    let seen = &reset["seen"][0];
    assert_eq!((&seen["cause"], &seen["host"]), (&"device_reset".into(), &"source".into()));
    assert_eq!((&seen["ending"], &seen["count"]), (&"restarted".into(), &2.into()));
    assert!(number(&reset["told_after_ns"]["max"]) > 0);
    for words in ["the reset cost", "restart saved", "discarded", "the others"] {
        assert!(ended.output.contains(words), "{words} is not in\n{}", ended.output);
    }
}

#[test]
fn every_moment_and_policy_ends_as_chosen() {
    for (at, options) in [
        ("pre_copy", "--precopy --on-reset stop-copy"),
        ("stop", "--precopy --on-reset restart"),
        ("stop_copy", "--on-reset restart"),
        ("100KiB", "--on-reset stop-copy"),
    ] {
        let line = format!("--state 1MiB --runs 1 --reset-at {at} {options}");
        let (ended, report) = report(&line);
        assert_eq!(ended.status, Some(0), "{line}: {}", ended.errors);
        verified(&report, 1 << 20);
        let reset = &report["reset"];
        assert_eq!(reset["as_chosen"], true, "{line}: {reset}");
        assert_eq!(reset["seen"][0]["cause"], "device_reset", "{line}: {reset}");
        // Nothing may wait for what does not come.
        let total = number(&reset["with_reset"]["total_ns"]["max"]);
        assert!(total < 4_000_000_000, "{line}: {total} ns");
    }
}

#[test]
fn an_abort_that_was_chosen_is_no_failure() {
    for (line, host, observed) in [
        ("--reset-at stop_copy", "source", "read"),
        ("--reset-at stop --precopy", "source", "unexpected_fd"),
        ("--reset-at load --precopy --on-reset restart", "target", "state_check"),
    ] {
        let (ended, report) = report(&format!("--state 1MiB --runs 1 {line}"));
        assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""), "{line}");
        assert_eq!(report["outcome"], "aborted", "{line}");
        let reset = &report["reset"];
        assert_eq!(reset["as_chosen"], true, "{line}: {reset}");
        assert!(reset.get("with_reset").is_none() && reset.get("saved").is_none(), "{reset}");
        let seen = &reset["seen"][0];
        assert_eq!(seen["ending"], "aborted", "{line}: {seen}");
        assert_eq!((&seen["host"], &seen["observed"]), (&host.into(), &observed.into()), "{line}");
        // The wire's bytes differ more from run to run than the reset costs.
        assert!(number(&reset["cost"]["read_bytes"]) > 0, "{line}: {reset}");
        assert!(ended.output.contains("run again"), "{}", ended.output);
    }
}

#[test]
fn compare_has_a_verified_row_for_every_contender() {
    let (ended, report) = report("compare --state 1MiB --runs 1");
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    assert_eq!(report["verified"], true);
    let mut names = vec!["vfio-ferry", "qemu-main-channel", "qemu-multifd", "cloud-hypervisor"];
    for name in ["zstd-pipeline", "tokio-uring"] {
        match ended.output.contains(&format!("{name} is left out: ")) {
            true => skip::skip(format!("{name} cannot run here")),
            false => names.push(name),
        }
    }
    for name in names {
        let row = ended.output.lines().find(|line| line.trim_start().starts_with(name));
        assert!(row.is_some_and(|row| row.trim_end().ends_with("1 run")), "{name}: {row:?}");
        let runs = &report["contenders"][name];
        assert_eq!((&runs["verified"], &runs["state_bytes"]), (&true.into(), &(1 << 20).into()));
        assert!(report["transfer_ratio_to_engine"][name].as_f64().is_some_and(|it| it > 0.0));
    }
}

#[test]
fn nothing_but_the_report_is_written_where_there_is_no_terminal() {
    let ended = ferry_bench("--state 64KiB --runs 2");
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    assert!(!ended.output.contains(['\x1b', '\r']), "{:?}", ended.output);
}
