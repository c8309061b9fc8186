//! What is compared with what, and what counts as having gone as chosen.

use super::*;
use crate::outcome::Told;
use crate::process::message::{DeviceReport, SideReport};
use crate::process::pair::PairReport;
use crate::spec::Size;

const MS: u64 = 1_000_000;

/// A complete migration of two devices that took so many milliseconds, the last 10 of them stopped.
fn complete(total_ms: u64, wire_bytes: u64) -> PairReport {
    let device = |base_ns| DeviceReport {
        started_ns: base_ns,
        stop_called_ns: base_ns + (total_ms - 10) * MS,
        stop_copy_ns: base_ns + (total_ms - 9) * MS,
        last_transfer_ns: base_ns + (total_ms - 1) * MS,
        running_ns: base_ns + total_ms * MS,
        bytes: 4096,
        digest: Some("aa".to_owned()),
        all_bytes: 4096,
        state: "RUNNING".to_owned(),
        ..DeviceReport::default()
    };
    let side = || SideReport {
        devices: vec![device(1000), device(1000)],
        wire_bytes,
        ..SideReport::default()
    };
    PairReport { source: Some(side()), target: Some(side()), ..PairReport::default() }
}

fn told(ending: &str) -> Told {
    Told {
        at_ns: 1000 + 3 * MS,
        device: 0,
        ending: ending.to_owned(),
        phase: "pre_copy".to_owned(),
        cause: "device_reset".to_owned(),
        observed: "read".to_owned(),
        errno: Some(19),
        message: "the device was reset".to_owned(),
    }
}

/// Device 0 of the source was reset after 2 ms, and the engine told of it 1 ms later.
fn reset(mut pair: PairReport, ending: &str) -> PairReport {
    if let Some(source) = &mut pair.source {
        source.told = vec![told(ending)];
        source.discarded_bytes = 2048;
        source.devices[0].reset_ns = 1000 + 2 * MS;
        source.devices[0].all_bytes += 2048;
        source.devices[0].resets = 1;
    }
    pair
}

/// Aborted 5 ms after the first call to a device; none was stopped.
fn aborted(wire_bytes: u64) -> PairReport {
    let mut pair = reset(complete(100, wire_bytes), "aborted");
    for side in [&mut pair.source, &mut pair.target].into_iter().flatten() {
        side.fault = Some("device_reset".to_owned());
        side.ended_ns = 1000 + 5 * MS;
        for device in &mut side.devices {
            (device.stop_called_ns, device.digest) = (0, None);
        }
    }
    pair
}

fn restarted() -> Round {
    Round {
        plain: Run::new(&complete(100, 1000)),
        chosen: Run::new(&reset(complete(130, 1500), "restarted")),
        aborted: Some(Run::new(&aborted(600))),
        again: Run::new(&complete(150, 1000)),
    }
}

#[test]
fn a_restart_is_weighed_against_both_other_ways() {
    let report = Reset::new(ResetAt::PreCopy, OnResetChoice::Restart, &[restarted(), restarted()]);
    assert!(report.as_chosen, "{report:?}");
    let near = |value: i64, ms: i64| (value - ms * MS as i64).abs() < MS as i64;
    assert!(near(report.cost.total_ns, 30), "{report:?}");
    assert_eq!(report.cost.wire_bytes, 500);
    // 5 ms and 150 ms, against 130 ms.
    let Some(saved) = report.saved else { panic!("{report:?}") };
    assert!(near(saved.total_ns, 25) && saved.wire_bytes == 100, "{saved:?}");
    assert_eq!(report.discarded_bytes, 2048);
    assert!(near(report.told_after_ns.median as i64, 1));
    let others = |way: &Way| way.other_devices_bytes;
    assert_eq!(others(&report.without_reset), 4096);
    assert_eq!(report.with_reset.as_ref().map(others), Some(4096));
    assert_eq!(others(&report.migrated_again), 8192);
    assert_eq!((report.seen.len(), report.seen[0].count), (1, 2));
    assert_eq!(
        report.seen[0].words(),
        "device_reset by read, in pre_copy on the source, errno 19 (ENODEV)"
    );
    let text = text(&report, 2);
    for words in ["restart saved", "discarded    2 KiB", "8 KiB if all is sent again"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
}

#[test]
fn an_abort_has_no_second_way() {
    let round = Round {
        plain: Run::new(&complete(100, 1000)),
        chosen: Run::new(&aborted(600)),
        aborted: None,
        again: Run::new(&complete(100, 1000)),
    };
    assert_eq!(round.fault(), None);
    let report = Reset::new(ResetAt::PreCopy, OnResetChoice::Abort, &[round]);
    assert!(report.as_chosen && report.with_reset.is_none() && report.saved.is_none());
    assert_eq!(report.cost.wire_bytes, 600);
    assert!(text(&report, 1).contains("run again"), "{}", text(&report, 1));
}

#[test]
fn what_is_not_as_chosen_is_named() {
    let spoiled = |spoil: fn(&mut Round)| {
        let mut round = restarted();
        spoil(&mut round);
        let report = Reset::new(ResetAt::Bytes(Size(1)), OnResetChoice::Restart, &[round]);
        assert!(!report.as_chosen);
        report
    };
    let fault = |round: &Round| round.fault().unwrap_or_default();
    let mut round = restarted();
    round.chosen = Run::new(&complete(100, 1000));
    assert!(fault(&round).contains("never came"), "{}", fault(&round));
    round.chosen = Run::new(&aborted(600));
    assert!(fault(&round).contains("did not complete after the reset"), "{}", fault(&round));
    round.aborted = None;
    assert_eq!(fault(&round), "");
    round.chosen.source_runs = false;
    assert!(fault(&round).contains("not in RUNNING"), "{}", fault(&round));
    round.chosen = Run::new(&reset(complete(100, 1000), "restarted"));
    assert!(fault(&round).contains("in spite of"), "{}", fault(&round));

    spoiled(|round| round.plain.outcome = Outcome::Mismatch);
    spoiled(|round| round.again.outcome = Outcome::Failed);
    spoiled(|round| {
        if let Some(run) = &mut round.aborted {
            run.reset = None;
        }
    });
}
