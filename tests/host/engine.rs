//! Sessions that share an engine: its workers and its memory.

use std::net::Ipv4Addr;
use std::slice::from_ref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::limits::ARENA_BYTES_DEFAULT;
use vfio_ferry::session::{
    Engine, EngineOptions, Error, SourceSession, TargetSession, ThreadHook, UsageError,
};
use vfio_ferry_tests::device::{Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, Pair, Setup, sources, streams, targets};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, talkative};

fn device(plan: Plan) -> Arc<TestDevice> {
    Arc::new(TestDevice::new(plan))
}

/// An engine, and the names of the threads that it has started.
fn engine(workers: usize, memory_bytes: usize) -> (Engine, Arc<Mutex<Vec<String>>>) {
    let names: Arc<Mutex<Vec<String>>> = Arc::default();
    let started = names.clone();
    let hook = ThreadHook::new(move |thread| {
        started.lock().expect("nobody panics").push(thread.name.to_owned());
        Ok(())
    });
    let thread_start = Some(hook);
    let engine = Engine::new(EngineOptions { workers, memory_bytes, thread_start });
    (engine.expect("threads and memory"), names)
}

/// Both hosts of a session have this engine.
fn sharing(engine: &Engine, threads: &Arc<AtomicUsize>) -> Setup {
    let mut setup = Setup::default();
    for options in [&mut setup.source, &mut setup.target] {
        let threads = threads.clone();
        options.engine = Some(engine.clone());
        options.policy = Policy::Zstd(1);
        options.thread_start = Some(ThreadHook::new(move |thread| {
            threads
                .fetch_add(usize::from(thread.name.starts_with("ferry-zstd")), Ordering::Relaxed);
            Ok(())
        }));
    }
    setup
}

/// Nobody has any of the engine's memory any more, or soon.
fn comes_back(engine: &Engine, whole: usize) {
    let started = Instant::now();
    while engine.memory_left() < whole {
        assert!(started.elapsed() < PATIENCE, "{engine:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn several_sessions_have_one_engine_s_workers_and_memory() {
    const SESSIONS: usize = 4;
    let whole = 2 * SESSIONS * ARENA_BYTES_DEFAULT;
    let (engine, names) = engine(2, whole);
    let mut names = names.lock().expect("nobody panics").clone();
    names.sort();
    assert_eq!(names, ["ferry-zstd-0", "ferry-zstd-1"]);
    let own = Arc::new(AtomicUsize::new(0));
    let setup = sharing(&engine, &own);
    let devices: Vec<_> =
        (0..SESSIONS).map(|_| (device(talkative()), device(talkative().target()))).collect();
    let start = |(from, to): &(Arc<TestDevice>, Arc<TestDevice>)| {
        Pair::start(from_ref(from), from_ref(to), &setup)
    };
    let pairs: Vec<Pair> = devices.iter().map(start).collect();
    let held = whole - engine.memory_left();
    assert!(held > 0 && held <= whole, "{held} of {whole}");
    for (mut pair, (from, to)) in pairs.into_iter().zip(&devices) {
        pair.switch_over_when_ready();
        let (source, target) = pair.end();
        assert_handed_over(&source, &target);
        assert_moved(from, to);
        assert!(source.report.devices[0].chunks[2] > 0, "compressed");
    }
    assert_eq!(own.load(Ordering::Relaxed), 0, "no session has workers of its own");
    comes_back(&engine, whole);
}

#[test]
fn a_session_that_finds_too_little_left_is_refused_and_takes_nothing() {
    let (engine, _) = engine(1, 1 << 20);
    let setup = sharing(&engine, &Arc::default());
    let [from, other] = [(); 2].map(|()| device(Plan::default()));
    let (ours, theirs) = streams(1);
    let first =
        SourceSession::start(sources(from_ref(&from), &setup.device), ours, setup.source.clone());
    let first = first.expect("small chunks, but chunks");
    let left = engine.memory_left();
    assert!(left < 1 << 20, "{left}");
    let many: Vec<_> = (0..64).map(|_| other.clone()).collect();
    let error = TargetSession::start(targets(&many), theirs, setup.target).expect_err("no memory");
    assert!(matches!(error, Error::Usage(UsageError::Memory { .. })), "{error}");
    assert_eq!(engine.memory_left(), left);
    drop(first);
    comes_back(&engine, 1 << 20);
}

#[test]
fn an_engine_may_be_dropped_before_its_sessions() {
    let (engine, _) = engine(1, 4 * ARENA_BYTES_DEFAULT);
    let setup = sharing(&engine, &Arc::default());
    let (from, to) = (device(talkative()), device(talkative().target()));
    let mut pair = Pair::start(from_ref(&from), from_ref(&to), &setup);
    drop((engine, setup));
    pair.switch_over_when_ready();
    let (source, target) = pair.end();
    assert_handed_over(&source, &target);
    assert_moved(&from, &to);
}

#[test]
fn what_an_engine_cannot_be_made_of_is_refused() {
    for (workers, memory_bytes) in [(0, 1 << 20), (65, 1 << 20), (1, 0), (1, usize::MAX)] {
        let options = EngineOptions { workers, memory_bytes, thread_start: None };
        let error = Engine::new(options).expect_err("refused");
        assert!(matches!(error, Error::Usage(UsageError::Range { .. })), "{error}");
    }
    let refuses = ThreadHook::new(|_| Err(std::io::Error::other("not here")));
    let options = EngineOptions { thread_start: Some(refuses), ..EngineOptions::default() };
    let error = Engine::new(options).expect_err("refused");
    assert!(error.to_string().contains("not here"), "{error}");
}

#[test]
fn what_a_source_has_found_out_of_the_path_stays_with_the_engine() {
    let (engine, _) = engine(1, 2 * ARENA_BYTES_DEFAULT);
    let mut setup = sharing(&engine, &Arc::default());
    let known = || engine.path_bytes_per_s(Ipv4Addr::LOCALHOST.into());
    let migrate = |setup: &Setup| {
        let plan = Plan { rest_bytes: 30_000_000, ..talkative() };
        let (from, to) = (device(plan.clone()), device(plan.target()));
        let mut pair = Pair::start(from_ref(&from), from_ref(&to), setup);
        pair.switch_over_when_ready();
        let (source, target) = pair.end();
        assert_handed_over(&source, &target);
    };
    // A limit of its own is no property of the path.
    setup.source.rate_bytes_per_s = Some(1 << 30);
    migrate(&setup);
    assert_eq!(known(), None);
    setup.source.rate_bytes_per_s = None;
    migrate(&setup);
    assert!(known().is_some_and(|rate| rate > 1_000_000), "{:?}", known());
}
