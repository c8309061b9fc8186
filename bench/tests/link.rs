//! That a link holds its rate from the first byte on, or that the report says it does not.

mod program;
#[path = "../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "the file is another crate's, too")]
mod skip;

use program::{ferry_bench, ferry_bench_of_a_user, report};

/// Whether this user on this host can have the namespaces; a line says so if not.
fn has_namespaces() -> bool {
    let ended = ferry_bench("--state 1KiB --runs 1 --link 1Gbit --shaper namespaces");
    if ended.status != Some(0) {
        assert_eq!((ended.status, ended.errors.lines().count()), (Some(2), 1), "{}", ended.errors);
        skip::skip(ended.errors.trim());
    }
    ended.status == Some(0)
}

#[test]
fn a_small_state_on_a_slow_link_takes_its_time() {
    if !has_namespaces() {
        return;
    }
    // What the sockets' own pacing lets pass in milliseconds: the bytes at the rate, less the burst.
    for (line, least_ms) in [
        ("--state 64KiB --link 1Mbit", 505),
        ("--state 256KiB --link 10Mbit --streams 16", 205),
        ("--state 64KiB --link 2Mbit --precopy", 60),
    ] {
        let (ended, report) = report(&format!("{line} --data random --runs 1"));
        assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""), "{line}");
        let least = report["downtime_ns"]["min"].as_u64().map(|ns| ns / 1_000_000);
        assert!(least >= Some(least_ms), "{line}: {least:?} ms");
        assert_eq!(report["spec"]["link"]["shaper"], "namespaces");
    }
}

#[test]
fn an_ordinary_user_is_told_what_holds_the_rate() {
    let ended = ferry_bench_of_a_user("--state 64KiB --link 2Mbit --runs 1 --data random");
    assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
    let words = ended.output.lines().find(|line| line.trim_start().starts_with("link "));
    let held = ["two network namespaces", "NOT kept"];
    assert!(words.is_some_and(|line| held.iter().any(|it| line.contains(it))), "{}", ended.output);
}

#[test]
fn what_pacing_does_not_keep_is_said() {
    for command in ["downtime", "compare"] {
        let line = format!("{command} --state 64KiB --link 1Gbit --shaper pacing --runs 1");
        let (ended, report) = report(&line);
        assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""));
        assert!(ended.output.contains("NOT kept for what each stream sends first"));
        assert!(
            report["link"].as_str().is_some_and(|words| words.contains("NOT kept")),
            "{report}"
        );
    }
}
