//! Suite `mtty-reset-storm`: thousands of short migrations between mtty devices, two pairs of them
//! at a time, with resets from other threads at moments that a seed chooses.
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

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::checks::{Checks, Failure, Outcome, ensure};
use crate::leaks::Held;
use plan::{Aim, Plan};
use round::Bench;
use tally::{Tally, Way};

/// Pairs of devices that are at it at the same time: while one waits, another one runs.
const LANES: u32 = 2;
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
    let mut lanes = (0..LANES).map(|lane| Lane::create(seed, lane)).collect::<Outcome<Vec<_>>>()?;
    let held = Held::now()?;
    let books = Mutex::new((tally, wrong));
    let mut left = rounds;
    while left > 0 {
        // Nothing may be under way when leaks are looked for.
        let batch = left.min(LEAK_CHECK_ROUNDS);
        left -= batch;
        std::thread::scope(|scope| {
            let share = |lane| batch / LANES + u32::from(lane < batch % LANES);
            let books = &books;
            let play = |(lane, share)| scope.spawn(move || Lane::play_random(lane, share, books));
            let playing: Vec<_> = lanes.iter_mut().zip((0..).map(share)).map(play).collect();
            playing.into_iter().try_for_each(|lane| lane.join().expect("a lane panicked"))
        })?;
        held.returns()?;
    }
    for way in Way::ALL {
        for _ in 0..RETRIES_MAX {
            if lock(&books).0.ways(way) > 0 {
                break;
            }
            lanes[0].play_aimed(Aim::at(way), &books)?;
        }
    }
    held.returns()
}

/// What all lanes write down: what was met, and what went wrong.
type Books<'a> = Mutex<(&'a mut Tally, &'a mut Vec<String>)>;

fn lock<'a, 'b>(books: &'b Books<'a>) -> MutexGuard<'b, (&'a mut Tally, &'a mut Vec<String>)> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pair of devices, and its own part of the seed.
struct Lane {
    bench: Bench,
    rng: fastrand::Rng,
    plans: fastrand::Rng,
}

impl Lane {
    fn create(seed: u64, lane: u32) -> Outcome<Lane> {
        let seeded = || fastrand::Rng::with_seed(seed.wrapping_add(u64::from(lane)));
        let mut lane = Lane { bench: Bench::create()?, rng: seeded(), plans: seeded() };
        // The first round makes what lives as long as the process does.
        lane.bench.round(&Plan::quiet(), &mut lane.rng)?;
        Ok(lane)
    }

    fn play_random(&mut self, rounds: u32, books: &Books<'_>) -> Outcome {
        for _ in 0..rounds {
            let typical = lock(books).0.typical_round();
            let plan = Plan::random(&mut self.plans, typical);
            self.play(&plan, books)?;
        }
        Ok(())
    }

    fn play_aimed(&mut self, aim: Aim, books: &Books<'_>) -> Outcome {
        let typical = lock(books).0.typical_round();
        let plan = Plan::aimed(&mut self.plans, aim, typical);
        self.play(&plan, books)
    }

    fn play(&mut self, plan: &Plan, books: &Books<'_>) -> Outcome {
        match self.bench.round(plan, &mut self.rng) {
            Ok(ended) => lock(books).0.add(&ended),
            Err(Failure(why)) => {
                let mut books = lock(books);
                let (tally, wrong) = &mut *books;
                wrong.push(format!("round {}: {why}; {plan:?}", tally.rounds));
                tally.rounds += 1;
                drop(books);
                self.bench.recover()?;
            }
        }
        Ok(())
    }
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
