//! What makes a run complete, and what does not.

use super::*;

fn device(digest: &str, base_ns: u64) -> DeviceReport {
    DeviceReport {
        started_ns: base_ns,
        stop_called_ns: base_ns + 10,
        stop_copy_ns: base_ns + 20,
        last_transfer_ns: base_ns + 1000,
        running_ns: base_ns + 1100,
        bytes: 4096,
        digest: Some(digest.to_owned()),
        state: "RUNNING".to_owned(),
        ..DeviceReport::default()
    }
}

fn side(digests: &[&str], base_ns: u64) -> SideReport {
    SideReport {
        devices: digests.iter().map(|digest| device(digest, base_ns)).collect(),
        phases_ns: vec![("stop_copy".to_owned(), 7)],
        ..SideReport::default()
    }
}

fn pair(source: &[&str], target: &[&str]) -> PairReport {
    PairReport {
        source: Some(side(source, 1000)),
        target: Some(side(target, 5000)),
        ..PairReport::default()
    }
}

#[test]
fn equal_digests_are_complete_and_the_times_span_both_sides() {
    let run = Run::new(&pair(&["aa", "bb"], &["aa", "bb"]));
    assert_eq!((run.outcome, run.message), (Outcome::Complete, None));
    assert_eq!(run.state_bytes, 8192);
    assert_eq!(run.downtime_ns, 6100 - 1010);
    assert_eq!(run.transfer_ns, 6000 - 1020);
    assert_eq!(run.total_ns, 6100 - 1000);
}

#[test]
fn whatever_differs_is_a_mismatch() {
    assert_eq!(Run::new(&pair(&["aa", "bb"], &["bb", "aa"])).outcome, Outcome::Mismatch);
    let spoil: [fn(&mut PairReport); 3] = [
        |pair| {
            for side in [&mut pair.source, &mut pair.target].into_iter().flatten() {
                side.devices[0].digest = None;
            }
        },
        |pair| {
            if let Some(side) = &mut pair.target {
                side.devices[0].bytes += 1;
            }
        },
        |pair| {
            if let Some(side) = &mut pair.target {
                side.devices[0].state = "RESUMING".to_owned();
            }
        },
    ];
    for spoil in spoil {
        let mut pair = pair(&["aa"], &["aa"]);
        spoil(&mut pair);
        let run = Run::new(&pair);
        assert_eq!(run.outcome, Outcome::Mismatch);
        assert!(run.message.is_some_and(|text| text.contains("device 0")));
    }
}

#[test]
fn a_fault_is_an_abort_even_if_the_bytes_are_equal() {
    let mut pair = pair(&["aa"], &["aa"]);
    if let Some(side) = &mut pair.source {
        side.fault = Some("device_reset".to_owned());
    }
    let run = Run::new(&pair);
    assert_eq!(run.outcome, Outcome::Aborted);
    assert_eq!(run.message.as_deref(), Some("source: device_reset"));
    let sum = Runs::new(&[run]);
    assert!(!sum.verified && sum.runs == 0 && sum.outcome == Outcome::Aborted);
}

#[test]
fn a_missing_report_is_a_failure() {
    let pair = PairReport { failure: Some("gone".to_owned()), ..PairReport::default() };
    let run = Run::new(&pair);
    assert_eq!((run.outcome, run.message.as_deref()), (Outcome::Failed, Some("gone")));
}

#[test]
fn one_bad_run_spoils_the_verdict_and_not_the_numbers() {
    let good = Run::new(&pair(&["aa"], &["aa"]));
    let bad = Run::new(&pair(&["aa"], &["ab"]));
    let sum = Runs::new(&[good.clone(), bad, good]);
    assert_eq!((sum.outcome, sum.verified, sum.runs), (Outcome::Mismatch, false, 2));
    assert_eq!(sum.phases_ns.len(), 1);
    assert!(!Runs::new(&[]).verified);
}

#[test]
fn what_was_discarded_is_not_taken_for_expansion() {
    let mut pair = pair(&["aa"], &["aa"]);
    for side in [&mut pair.source, &mut pair.target].into_iter().flatten() {
        (side.wire_bytes, side.discarded_bytes) = (4096, 4096);
    }
    // As many bytes again were sent in vain: the wire had a half of all.
    assert_eq!(Runs::new(&[Run::new(&pair)]).ratio, 2.0);
}

#[test]
fn phases_that_overlap_are_said_to() {
    let mut pair = pair(&["aa"], &["aa"]);
    assert_eq!(Runs::new(&[Run::new(&pair)]).phases_overlap_ns, 0);
    if let Some(source) = &mut pair.source {
        source.phases_ns = [("pre_copy", 90_000), ("stop_copy", 5000), ("load", 190)]
            .map(|(name, ns)| (name.to_owned(), ns))
            .to_vec();
    }
    let runs = Runs::new(&[Run::new(&pair)]);
    assert_eq!(runs.phases_overlap_ns, 5190 - runs.downtime_ns.median);
    assert!(crate::report::table::runs(&runs).contains("phases overlap by 0.10 us"));
}

#[test]
fn a_forecast_is_weighed_against_what_came() {
    assert!(is_forecast_good(1_000_000, 2_900_000), "2 ms");
    assert!(is_forecast_good(95_000_000, 100_000_000));
    assert!(!is_forecast_good(89_000_000, 100_000_000));
    assert!(!is_forecast_good(111_000_000, 100_000_000));
    let run = |forecast_ns| {
        let mut run = Run::new(&pair(&["aa"], &["aa"]));
        (run.forecast_ns, run.downtime_ns) = (forecast_ns, 100_000_000);
        run
    };
    let runs = Runs::new(&[run(Some(50_000_000)), run(Some(100_000_000)), run(None)]);
    let Some(forecast) = &runs.forecast else { panic!("there were forecasts") };
    assert_eq!((forecast.good, forecast.runs, forecast.came_over_forecast), (1, 2, 1.5));
    let text = crate::report::table::runs(&runs);
    assert!(
        text.contains("75.00 ms; 1.50 times as much came") && text.contains("in 1 of 2"),
        "{text}"
    );
    assert!(Runs::new(&[run(None)]).forecast.is_none());
}
