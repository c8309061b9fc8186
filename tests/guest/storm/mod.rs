//! Suite `mtty-reset-storm`: thousands of short migrations between two mtty devices, with resets
//! from another thread at moments that a seed chooses.
//!
//! Every round must end complete with the target's state equal to the source's, or aborted, or
//! started anew, in a way that says how the reset was seen. None may be wrong or stuck, and nothing
//! may leak. All the ways in which a reset can be seen must be met.
//!
//! mtty keeps its registers over a reset, so what the target must hold is known beforehand, and a
//! target that never took the state in shows by its old registers.

mod plan;
mod rig;
mod round;
mod tally;

use std::time::{Duration, Instant};

use crate::checks::{Checks, Failure, Outcome, ensure};
use crate::leaks::Held;
use plan::{Aim, Plan};
use round::Bench;
use tally::{Tally, Way};

/// Rounds between two looks at what the process holds.
const LEAK_CHECK_ROUNDS: u32 = 100;
/// Further rounds for a way of seeing a reset that was not met.
const RETRIES_MAX: u32 = 500;
/// Wrong rounds that are described; the others are only counted.
const DESCRIBED_MAX: usize = 10;

/// Runs the suite.
pub(crate) fn run(checks: &mut Checks, rounds: u32, seed: u64) {
    println!("# {rounds} rounds, --seed {seed}");
    let mut tally = Tally::default();
    let mut wrong = Vec::new();
    checks.check("the storm runs through, and nothing leaks", || {
        let started = Instant::now();
        storm(rounds, seed, &mut tally, &mut wrong)?;
        report(&tally, started.elapsed());
        Ok(())
    });
    for why in wrong.iter().take(DESCRIBED_MAX) {
        println!("# wrong: {why}");
    }
    checks.check(format!("all of {} rounds ended as they must", tally.rounds), || {
        ensure!(wrong.is_empty(), "{} did not", wrong.len());
        ensure!(tally.rounds >= rounds, "only {} of {rounds} ran", tally.rounds);
        Ok(())
    });
    for way in Way::ALL {
        checks.check(format!("a reset seen {way}"), || {
            ensure!(tally.ways(way) > 0, "not met in {} rounds", tally.rounds);
            Ok(())
        });
    }
}

fn storm(rounds: u32, seed: u64, tally: &mut Tally, wrong: &mut Vec<String>) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::create()?;
    // The first round makes what lives as long as the process does.
    bench.round(&Plan::quiet(), &mut rng)?;
    let held = Held::now()?;
    let mut play = |tally: &mut Tally, plan: Plan| {
        match bench.round(&plan, &mut rng) {
            Ok(ended) => tally.add(&ended),
            Err(Failure(why)) => {
                wrong.push(format!("round {}: {why}; {plan:?}", tally.rounds));
                tally.rounds += 1;
                bench.recover()?;
            }
        }
        if tally.rounds.is_multiple_of(LEAK_CHECK_ROUNDS) { held.returns() } else { Ok(()) }
    };
    let mut plans = fastrand::Rng::with_seed(seed);
    for _ in 0..rounds {
        let plan = Plan::random(&mut plans, tally.typical_round());
        play(tally, plan)?;
    }
    for way in Way::ALL {
        for _ in 0..RETRIES_MAX {
            if tally.ways(way) > 0 {
                break;
            }
            let plan = Plan::aimed(&mut plans, Aim::at(way), tally.typical_round());
            play(tally, plan)?;
        }
    }
    held.returns()
}

fn report(tally: &Tally, took: Duration) {
    let each = took / tally.rounds.max(1);
    println!("# {} rounds in {:.1} s, {each:.1?} each", tally.rounds, took.as_secs_f64());
    println!("# the longest one took {:.1?}", tally.longest);
    for (what, count) in tally.endings() {
        println!("# {count:>6} {what}");
    }
    for (host, observed, count) in tally.observations() {
        println!("# {count:>6} resets seen on the {host} by {observed}");
    }
    for way in Way::ALL {
        println!("# {:>6} resets seen {way}", tally.ways(way));
    }
}
