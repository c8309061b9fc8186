//! `ferry-bench faults`: what it runs, what it says, and that it fails where a promise is not kept.

mod program;

use program::{Ended, ferry_bench, report};

#[test]
fn the_list_has_every_fault_and_runs_none() {
    let Ended { status, output, errors } = ferry_bench("faults --list");
    assert_eq!((status, errors.as_str()), (Some(0), ""));
    assert!(output.lines().count() > 100, "{output}");
    for name in ["none", "kill-source-at-handover", "half-open-at-data", "budget-held-stop"] {
        assert!(output.lines().any(|line| line.trim_start().starts_with(name)), "{name}");
    }
    assert!(!output.contains("self-test"), "what tests the program is no fault");
    let some = ferry_bench("faults --list --only kill-target --only paused").output;
    let names = some.lines().filter(|line| line.starts_with("  ") && !line.contains(" faults"));
    let is_named = |name: &str| name.contains("kill-target") || name.contains("paused");
    assert!(names.count() > 5 && some.lines().filter(|l| l.contains("kill-")).all(is_named));
}

#[test]
fn a_fault_that_nobody_knows_is_bad_input() {
    let Ended { status, errors, .. } = ferry_bench("faults --only no-such-fault");
    assert_eq!((status, errors.lines().count()), (Some(2), 1), "{errors}");
    assert!(errors.contains("--only"), "{errors}");
}

#[test]
fn what_is_promised_is_kept_on_both_backends() {
    for backend in ["auto", "syscalls"] {
        // Nothing; a driver, a peer, the network, a host, a budget.
        let line = format!(
            "faults --backend {backend} --only none --only source-set-stop-copy-refused \
             --only kill-target-at-end --only cut-at-handover --only cancel-source-at-data \
             --only budget-not-loaded"
        );
        let (ended, report) = report(&line);
        assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""), "{}", ended.output);
        assert_eq!(report["as_promised"], true, "{report}");
        let rows = report["rows"].as_array().cloned().unwrap_or_default();
        let row = |name: &str| {
            let row = rows.iter().find(|row| row["name"] == name);
            row.unwrap_or_else(|| panic!("{name} is not in {report}"))
        };
        let endings = |name: &str| [&row(name)["source"]["ending"], &row(name)["target"]["ending"]];
        assert_eq!(endings("none"), ["handed_over", "running"]);
        assert_eq!(endings("kill-target-at-end"), ["returned", "killed"]);
        assert_eq!(endings("cut-at-handover"), ["unconfirmed", "blank"]);
        let budget = row("budget-not-loaded");
        assert_eq!(budget["source"]["cause"], "time_limit");
        assert!(budget["stood_still_ns"].as_u64().is_some_and(|ns| ns >= 300_000_000), "{budget}");
        assert!(budget["explained_by"].as_str().is_some_and(|why| why.contains("budget")));
        assert!(report["longest_still"]["stood_still_ns"].as_u64() > Some(0), "{report}");
        assert!(ended.output.contains("as promised") && !ended.output.contains("NOT AS PROMISED"));
    }
}

#[test]
fn a_promise_that_is_not_kept_is_status_1_and_says_what_was_not() {
    let (ended, report) = report("faults --only self-test-broken-promise");
    assert_eq!(ended.status, Some(1));
    assert_eq!(ended.errors.lines().count(), 1, "{}", ended.errors);
    assert!(ended.output.contains("NOT AS PROMISED"), "{}", ended.output);
    assert!(ended.output.contains("the source is handed_over; promised: returned"));
    assert_eq!(report["as_promised"], false);
    assert!(report["rows"][0]["broken"].as_array().is_some_and(|broken| broken.len() == 2));
}

#[test]
fn a_fault_can_be_repeated() {
    let (ended, report) = report("faults --repeat 3 --jobs 2 --only cut-at-end");
    assert_eq!(ended.status, Some(0), "{}", ended.output);
    assert!(ended.output.contains("3 of 3 as promised"), "{}", ended.output);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(3));
}
