//! What the command line takes, and how it refuses.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, String> {
    let words = std::iter::once("ferry-bench").chain(line.split_whitespace());
    Cli::try_parse_from(words).map_err(|error| one_line(&error))
}

#[test]
fn definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn no_arguments_mean_downtime_with_defaults() {
    let cli = parse("").unwrap_or_else(|error| panic!("{error}"));
    assert!(cli.command.is_none());
    assert_eq!(cli.downtime.device.state, Size(256 << 20));
    assert_eq!(cli.downtime.device.data, DataKind::Structured);
    assert_eq!(cli.downtime.link.congestion, None);
}

#[test]
fn options_need_no_command_name() {
    let cli = parse("--state 1MiB --runs 3").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((cli.downtime.device.state, cli.downtime.runs), (Size(1 << 20), 3));
}

#[test]
fn limits_have_units_or_are_none() {
    let line = "--switchover-budget 300ms --handshake-limit 1.5s --confirm-limit none";
    let cli = parse(line).unwrap_or_else(|error| panic!("{error}"));
    let limits = cli.downtime.limits;
    let ms = |limit: Option<crate::spec::Time>| limit.map(|limit| limit.0.as_millis());
    assert_eq!((ms(limits.switchover_budget), ms(limits.handshake_limit)), (Some(300), Some(1500)));
    assert_eq!(limits.confirm_limit.map(|limit| limit.0), Some(std::time::Duration::MAX));
    assert_eq!((limits.stall_limit, limits.cancel_bound), (None, None));
}

#[test]
fn bad_input_is_one_line_that_names_the_option() {
    for (line, word) in [
        ("--state 0", "--state"),
        ("downtime --state 12q", "12q"),
        ("downtime --runs 0", "--runs"),
        ("downtime --devices 65", "65"),
        ("downtime --chunk 1KiB", "--chunk"),
        ("downtime --dirty-rate 1GB/s", "--precopy"),
        ("downtime --policy zstd=99", "zstd"),
        ("compare --link 10", "--link"),
        ("send --connect 127.0.0.1:1 --dirty-rate 1MB", "--precopy"),
        ("send --device /x", "--connect"),
        ("--reset-at handover", "handover"),
        ("--on-reset shrug", "shrug"),
        ("receive --device /x --listen nowhere", "--listen"),
        ("--switchover-budget 300", "--switchover-budget"),
        ("send --device /x --connect 127.0.0.1:1 --stall-limit never", "--stall-limit"),
        ("receive --device /x --listen 127.0.0.1:0 --cancel-bound 0s", "--cancel-bound"),
        ("faults --repeat 0", "--repeat"),
        ("faults --backend vapour", "--backend"),
        ("fly", "fly"),
    ] {
        let error = parse(line).err().unwrap_or_else(|| panic!("accepted: {line}"));
        assert!(error.contains(word), "{line}: {error}");
        assert!(!error.contains('\n'), "{line}: {error}");
    }
}

#[test]
fn every_rate_is_taken_with_and_without_its_s() {
    let rates = |line: &str| {
        let cli = parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        (cli.downtime.link.link, cli.downtime.device.device_rate, cli.downtime.dirty_rate)
    };
    let expected = (Some(Rate(1_250_000_000)), Some(Rate(1 << 30)), Some(Rate(100_000_000)));
    for line in [
        "--precopy --link 10Gbit --device-rate 1GiB --dirty-rate 100MB",
        "--precopy --link 10Gbit/s --device-rate 1GiB/s --dirty-rate 100MB/s",
    ] {
        assert_eq!(rates(line), expected, "{line}");
    }
    let grid = |line: &str| match parse(line).map(|cli| cli.command) {
        Ok(Some(Command::Grid(args))) => args.axes(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(
        grid("grid --link none,1Gbit/s,1GB").links,
        [None, Some(Rate(125_000_000)), Some(Rate(1_000_000_000))]
    );
    let all = grid("grid");
    assert_eq!((all.states.len(), all.links.len(), all.data.len()), (6, 4, 4));
    assert_eq!(grid("grid --quick").places().len(), 4);
}
