//! The deterministic world: the real sender and receiver of a session, with simulated devices, a
//! simulated network and a simulated clock, in one thread and under one seed.
//!
//! ```text
//! FERRY_WORLD_SEEDS=100000 cargo test -p vfio-ferry-tests --test world     more seeds
//! FERRY_WORLD_SEED=17 cargo test ... --test world every -- --nocapture     one, line by line
//! FERRY_WORLD_HOSTILE=17 cargo test ... --test world hostile -- --nocapture  one, tampered with
//! ```
//!
//! A seed draws a [`plan`] (shape, devices, everything that goes wrong; [`time`]: the limits and what
//! tries them), then the [`world`] runs it. What each machine wants is carried out by [`act`],
//! [`control`], [`fd`] and [`net`] as the engine's drive does it; [`device`] is the kernel, [`loss`]
//! what becomes of frames on a bad path. Looked at after each step, at each end and at the last:
//! [`invariants`], [`both`] ends against each other, [`clock`], [`late`] devices, [`p2p`], [`bounds`].

mod act;
mod both;
mod bounds;
mod check;
mod clock;
mod control;
mod coverage;
mod device;
mod draw;
mod fd;
mod hostile;
mod invariants;
mod late;
mod loss;
mod net;
mod p2p;
mod plan;
mod regressions;
mod rng;
mod schedule;
mod side;
mod tape;
mod time;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use coverage::Coverage;
use world::World;

/// How many of the last lines of a failing seed's trace are printed.
const LINES: usize = 60;
/// How many failing seeds are printed with what they found.
const SHOWN: usize = 20;
const SEEDS_DEFAULT: u64 = 2000;
const SEEDS_LONG: u64 = 100_000;

/// Runs one seed; what went wrong as text.
fn run(seed: u64, hostile: bool) -> Result<Coverage, String> {
    silence_panics();
    let mut steps = 0;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(seed, hostile);
        let result = world.run();
        steps = world.steps;
        result.map(|()| world.coverage)
    }));
    match outcome {
        Ok(Ok(coverage)) => Ok(Coverage { runs: 1, ..coverage }),
        Ok(Err(violation)) => {
            Err(format!("step {steps}: {}: {}", violation.invariant, violation.found))
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(format!("a machine panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// A panic is an outcome here, and printed with its seed.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let text = info.to_string();
            if trace::is_on() {
                trace::push(text);
            } else if !text.contains("/engine/src/") && !text.contains("engine/src/") {
                default(info);
            }
        }));
    });
}

/// Runs one seed again and tells the end of its story.
fn replay(seed: u64, hostile: bool) -> String {
    trace::start();
    let error = run(seed, hostile).err().unwrap_or_else(|| "it passes now".to_owned());
    let lines = trace::stop();
    let from = lines.len().saturating_sub(LINES);
    let name = if hostile { "FERRY_WORLD_HOSTILE" } else { "FERRY_WORLD_SEED" };
    format!("{}\nseed {seed} ({name}={seed} replays it)\n  {error}\n", lines[from..].join("\n"))
}

/// Runs many seeds on the machine's cores and adds up what they met. Fails with the first bad ones.
fn batch(seeds: impl Iterator<Item = u64>, hostile: bool) -> Coverage {
    let seeds: Vec<u64> = seeds.collect();
    let next = AtomicU64::new(0);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (sum, mut failures) = std::thread::scope(|scope| {
        let work = || {
            let mut sum = Coverage::default();
            let mut failures = Vec::new();
            while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                match run(seed, hostile) {
                    Ok(coverage) => sum.add(&coverage),
                    Err(error) => failures.push((seed, error)),
                }
            }
            (sum, failures)
        };
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut sum = Coverage::default();
        let mut failures = Vec::new();
        for thread in threads {
            let (part, failed) = thread.join().expect("a worker of the batch");
            sum.add(&part);
            failures.extend(failed);
        }
        (sum, failures)
    });
    failures.sort();
    if let Some((seed, _)) = failures.first() {
        println!("{}", replay(*seed, hostile));
        for (seed, error) in failures.iter().take(SHOWN) {
            println!("seed {seed}: {error}");
        }
        for (invariant, seeds) in by_invariant(&failures) {
            println!("{:5} times: {invariant}: {:?}", seeds.len(), &seeds[..seeds.len().min(5)]);
        }
        panic!("{} of {} seeds failed", failures.len(), seeds.len());
    }
    sum
}

/// Which invariant was broken by which seeds.
fn by_invariant(failures: &[(u64, String)]) -> BTreeMap<&str, Vec<u64>> {
    let mut broken: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (seed, error) in failures {
        let invariant = error.split(": ").nth(1).unwrap_or(error);
        broken.entry(invariant).or_default().push(*seed);
    }
    broken
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, and not {text:?}")))
}

fn seeds() -> u64 {
    let long = std::env::var_os("FERRY_LONG").is_some();
    number("FERRY_WORLD_SEEDS").unwrap_or(if long { SEEDS_LONG } else { SEEDS_DEFAULT })
}

#[test]
fn found_before() {
    batch(regressions::REGRESSIONS.iter().map(|(seed, _)| *seed), false);
    batch(regressions::HOSTILE.iter().map(|(seed, _)| *seed), true);
}

#[test]
fn every_invariant_holds() {
    if one_seed("FERRY_WORLD_SEED", false) {
        return;
    }
    let count = seeds();
    let sum = batch(0..count, false);
    println!("{sum}");
    if count >= SEEDS_DEFAULT {
        assert!(sum.missing().is_empty(), "never met: {:?}", sum.missing());
    }
}

#[test]
fn a_hostile_peer_breaks_nothing() {
    if one_seed("FERRY_WORLD_HOSTILE", true) {
        return;
    }
    let count = seeds() / 2;
    let sum = batch(0..count, true);
    println!("{sum}");
    for h in [schedule::SOURCE, schedule::TARGET] {
        let found_out = sum.causes.contains_key(&(h, "peer_misbehaviour"));
        assert!(found_out || count < SEEDS_DEFAULT / 2, "host {h} was never lied to");
    }
}

#[test]
fn what_the_fuzzers_found_holds() {
    for (target, hostile) in [("sender", schedule::TARGET), ("receiver", schedule::SOURCE)] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/");
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            for (seed, _) in regressions::REGRESSIONS {
                if let Some(tape) = tape::of_seed(*seed) {
                    std::fs::write(format!("{folder}{target}/seed_{seed}"), tape).expect("written");
                }
            }
        }
        let files = std::fs::read_dir(format!("{folder}{target}")).expect("the corpus");
        let mut count = 0;
        for file in files {
            let path = file.expect("an entry").path();
            let tape = std::fs::read(&path).expect("a file");
            tape::run(&tape, hostile).unwrap_or_else(|found| {
                panic!("{}: {}: {}", path.display(), found.invariant, found.found)
            });
            count += 1;
        }
        assert!(count > 0, "{target} has no corpus");
    }
}

#[test]
fn a_tape_tells_its_seeds_story() {
    let mut told = 0;
    for seed in 0..100 {
        let Some(tape) = tape::of_seed(seed).filter(|tape| tape.len() < 4096) else { continue };
        let story = |run: &dyn Fn()| {
            trace::start();
            run();
            trace::stop()
        };
        let of_seed = story(&|| drop(run(seed, false)));
        let of_tape = story(&|| drop(tape::run(&tape, schedule::SOURCE)));
        assert!(of_seed == of_tape, "seed {seed} has another story on a tape");
        told += 1;
    }
    assert!(told > 10, "{told} tapes");
}

#[test]
fn a_seed_replays_to_the_letter() {
    for seed in 0..20 {
        let story = |seed| {
            trace::start();
            let _ = run(seed, false);
            trace::stop()
        };
        let first = story(seed);
        assert!(first.len() > 20, "seed {seed} has {} lines", first.len());
        assert!(first == story(seed), "seed {seed} has two stories");
    }
}

/// One seed with all of its lines in place of many, if one was asked for.
fn one_seed(name: &str, hostile: bool) -> bool {
    let Some(seed) = number(name) else { return false };
    trace::start();
    let outcome = run(seed, hostile);
    println!("{}", trace::stop().join("\n"));
    println!("seed {seed}: {:?}", outcome.as_ref().err());
    assert!(outcome.is_ok());
    true
}
