//! The program as a person or a script calls it: bad input, reports, exit statuses.

mod program;

use std::net::TcpListener;

use program::{Ended, ferry_bench, ferry_bench_of_a_user, host_congestion, scratch};

/// Exactly one line on standard error, which has these words in it; nothing else, and status 2.
#[track_caller]
fn refused(line: &str, words: &[&str]) {
    let Ended { status, output, errors } = ferry_bench(line);
    assert_eq!(status, Some(2), "{line}: {errors}");
    assert_eq!(output, "", "{line}");
    assert_eq!(errors.lines().count(), 1, "{line}: {errors}");
    assert!(errors.starts_with("ferry-bench: "), "{line}: {errors}");
    for word in words {
        assert!(errors.contains(word), "{line}: {word:?} is not in {errors}");
    }
}

#[test]
fn bad_words_and_numbers() {
    refused("--state 0", &["--state", "greater than zero"]);
    refused("--state 12parsecs", &["--state", "parsecs"]);
    refused("--state -1", &["-1"]);
    refused("--runs 0", &["--runs"]);
    refused("--runs many", &["--runs", "many"]);
    refused("--devices 0", &["--devices"]);
    refused("--devices 100000", &["--devices"]);
    refused("--streams 65", &["--streams", "65"]);
    refused("--chunk 1", &["--chunk"]);
    refused("--link 10", &["--link", "Gbit"]);
    refused("--policy zstd=100", &["--policy", "22"]);
    refused("--backend magic", &["--backend", "magic"]);
    refused("--congestion no_such_control", &["--congestion", "this host has: "]);
    refused("compare --runs 0", &["--runs"]);
    refused("fly", &["fly"]);
}

#[test]
fn a_reset_that_cannot_come() {
    refused("--reset-at pre_copy", &["--reset-at", "--precopy"]);
    refused("--reset-at stop", &["--reset-at", "--precopy"]);
    refused("--reset-at 2MiB --state 1MiB", &["--reset-at", "1 MiB"]);
    refused("--reset-at handover", &["--reset-at", "handover"]);
    refused("--on-reset restart", &["--on-reset", "--reset-at"]);
    refused("--dirty-rate 1MB/s", &["--precopy"]);
}

#[test]
fn files_that_cannot_be_read_or_written() {
    let folder = scratch();
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("empty"), b"").unwrap_or_else(|e| panic!("{e}"));
    refused(&format!("--data {}", at("none")), &["--data", "none"]);
    refused(&format!("--data {}", at("empty")), &["--data", "empty"]);
    refused(&format!("--data {}", folder.path().display()), &["--data"]);
    refused(&format!("--json {}", at("none/report")), &["--json"]);
    refused(&format!("compare --json {}", at("none/report")), &["--json"]);
}

#[test]
fn devices_that_are_not_there() {
    let folder = scratch();
    let path = folder.path().display();
    refused("send --device /no/such --connect 127.0.0.1:1", &["--device", "/no/such"]);
    refused("receive --device /no/such --listen 127.0.0.1:0", &["--device", "no such device"]);
    // A folder, but not one of a device that VFIO could open.
    refused(&format!("send --device {path} --connect 127.0.0.1:1"), &["--device", "iommu_group"]);
    refused("send --connect 127.0.0.1:1 --runs 1", &["--connect", "refused"]);
    refused("receive --device /x --listen nowhere", &["--listen"]);
}

/// What is wrong with the addresses is told before a device is opened.
#[test]
fn addresses() {
    refused("send --device /x --connect nowhere", &["--connect", "nowhere"]);
    refused("send --device /x --connect 127.0.0.1:99999", &["--connect"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|e| panic!("{e}"));
    let address = taken.local_addr().unwrap_or_else(|e| panic!("{e}"));
    refused(&format!("receive --device /x --listen {address}"), &["--listen", "in use"]);
}

/// Needs no privilege: neither the defaults nor what the README shows, as far as it needs no device.
#[test]
fn an_ordinary_user_can_run_it() {
    for line in [
        "--state 1MiB --runs 1",
        "downtime --state 1MiB --devices 4 --streams 4 --link 10Gbit --runs 1",
        "--state 1MiB --runs 1 --precopy --dirty-rate 100MB/s --reset-at pre_copy --on-reset restart",
        "compare --state 1MiB --runs 1",
    ] {
        let Ended { status, output, errors } = ferry_bench_of_a_user(line);
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{line}");
        assert!(output.contains(&host_congestion("")[0]), "{line}: {output}");
    }
}

#[test]
fn a_congestion_control_that_is_not_allowed_is_refused_with_those_that_are() {
    let allowed = host_congestion("allowed_");
    let available = host_congestion("available_");
    // Where every user may use all that there is, another one.
    let other = available.iter().find(|name| !allowed.contains(name));
    let why = if other.is_some() { "not permitted" } else { "No such file" };
    let other = other.map_or("no_such_control", String::as_str);
    let line = format!("--state 1MiB --runs 1 --congestion {other}");
    let Ended { status, errors, .. } = ferry_bench_of_a_user(&line);
    assert_eq!((status, errors.lines().count()), (Some(2), 1), "{errors}");
    let words = format!("allowed to every user: {};", allowed.join(" "));
    assert!(errors.contains(&words) && errors.contains(why), "{errors}");
}

/// Where the memory does not reach for chunks of this size, the engine takes smaller ones.
#[test]
fn the_most_devices_and_the_largest_chunks_fit() {
    let Ended { status, errors, .. } =
        ferry_bench("--devices 64 --chunk 4MiB --state 1KiB --runs 1");
    assert_eq!((status, errors.as_str()), (Some(0), ""));
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "-h", "--version", "help", "downtime --help", "receive --help"] {
        let ended = ferry_bench(line);
        assert_eq!((ended.status, ended.errors.as_str()), (Some(0), ""), "{line}");
        assert!(!ended.output.is_empty(), "{line}");
    }
    assert!(ferry_bench("--help").output.contains("Exit status"));
}
