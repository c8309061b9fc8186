//! A state that is larger than any memory that it may take on its way.

use vfio_ferry_tests::process::{Outcome, Side, Spec};

const PROGRAM: &str = env!("CARGO_BIN_EXE_ferry-side");
const MIB: u64 = 1 << 20;

/// Migrates so many bytes between two processes.
fn migrate(rest_bytes: u64, compress: bool) -> [Outcome; 2] {
    let target = Spec { is_source: false, rest_bytes, compress, ..Spec::default() };
    let side = Side::spawn(PROGRAM, &target);
    let source = Spec { is_source: true, port: side.port(), ..target };
    let source = Side::spawn(PROGRAM, &source);
    let outcomes = [source.outcome(), side.outcome()];
    println!("{rest_bytes} bytes: {outcomes:?}");
    for (outcome, ending) in outcomes.iter().zip(["handed_over", "running"]) {
        assert_eq!((outcome.ending.as_str(), outcome.bytes), (ending, rest_bytes));
        assert_eq!(outcome.digest, outcomes[0].digest);
    }
    outcomes
}

#[test]
fn four_gib_take_no_more_memory_than_a_sixteenth_of_it() {
    let small = migrate(256 * MIB, false);
    let large = migrate(4096 * MIB, false);
    for (small, large) in small.iter().zip(&large) {
        assert!(large.peak_bytes < 96 * MIB, "{large:?}");
        assert!(large.peak_bytes < small.peak_bytes + 4 * MIB, "{small:?} {large:?}");
    }
}

#[test]
fn compression_is_bounded_too() {
    for outcome in migrate(256 * MIB, true) {
        assert!(outcome.peak_bytes < 96 * MIB, "{outcome:?}");
    }
}
