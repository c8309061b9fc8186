//! The migrations that show what a reset costs: each round takes all ways, one after the other.

use super::Road;
use crate::process::message::RunSpec;
use crate::process::pair;
use crate::report::progress::Progress;
use crate::report::reset::{Round, must_abort};
use crate::report::run::Run;
use crate::spec::{OnResetChoice, ResetAt};

/// How many migrations a round has.
pub(super) fn migrations(at: ResetAt, on_reset: OnResetChoice) -> u64 {
    if must_abort(at, on_reset) { 3 } else { 4 }
}

/// Goes so many rounds; stops after the first that does not go as chosen. The spec says when the
/// reset is.
pub(super) fn go(spec: &RunSpec, road: &Road, count: u32) -> Vec<Round> {
    let Some(at) = spec.reset_at else { return Vec::new() };
    let aborts = must_abort(at, spec.on_reset);
    let plain = RunSpec { reset_at: None, ..spec.clone() };
    let aborted = RunSpec { on_reset: OnResetChoice::Abort, ..spec.clone() };
    let expected_bytes = spec.state.0.saturating_mul(u64::from(spec.devices));
    let steps = migrations(at, spec.on_reset).saturating_mul(count.into());
    let mut progress = Progress::new(expected_bytes.saturating_mul(steps));
    let mut rounds = Vec::new();
    for number in 1..=count {
        let mut run = |what: &str, spec: &RunSpec| {
            progress.begin(format!("round {number} of {count}, {what}"));
            let run =
                Run::new(&pair::run(spec, road.room.as_ref(), &mut |bytes| progress.at(bytes)));
            progress.end(expected_bytes);
            run
        };
        let round = Round {
            plain: run("no reset", &plain),
            chosen: run("reset", spec),
            aborted: (!aborts).then(|| run("reset and abort", &aborted)),
            again: run("all again", &plain),
        };
        let failed = round.fault().is_some();
        rounds.push(round);
        if failed {
            break;
        }
    }
    rounds
}
