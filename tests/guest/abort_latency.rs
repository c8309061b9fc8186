//! Benchmark `abort-latency`: how long after a reset of a device the embedder has the completion.
//! From just before VFIO_DEVICE_RESET to the moment at which the source's session has handed out
//! the device's completion, on CLOCK_MONOTONIC of the guest. Figures are printed, not judged.
//!
//! On the way the news goes from thread to thread: the fd's, the session's, the one that asks the
//! device for its state, the session's again, the embedder's. What so many hand-overs cost on this
//! machine at this moment is printed beside it; in software emulation on a busy host it is most of
//! the figure.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{Cause, DeviceOptions, OnReset};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::SessionEvent;
use vfio_ferry::vfio::ioctl;

use crate::checks::{Checks, Failure, Outcome, ensure, fail};
use crate::ferry_dev::{FULL, FerryDev};
use crate::pair::{Pair, Route, patient};

/// What a device does when it is reset.
struct Scene {
    name: &'static str,
    knobs: &'static [(&'static str, &'static str)],
    /// It is drained in PRE_COPY; otherwise a read waits for its data.
    drained: bool,
}

const SCENES: [Scene; 4] = [
    Scene { name: "drained, pollable", knobs: &[], drained: true },
    Scene { name: "drained, not pollable", knobs: &[("pollable", "0")], drained: true },
    Scene {
        name: "a read waits, pollable",
        knobs: &[("save_latency_us", "60000000")],
        drained: false,
    },
    Scene {
        name: "a read waits, not pollable",
        knobs: &[("save_latency_us", "60000000"), ("pollable", "0")],
        drained: false,
    },
];

/// From the reset to the embedder.
const HAND_OVERS: usize = 5;
/// Threads sleep so long between two measurements: as idle as a session is between two events.
const REST: Duration = Duration::from_millis(5);

/// Longer than any round may wait.
const LOST: Duration = Duration::from_secs(60);

/// Measures.
pub(crate) fn run(checks: &mut Checks, rounds: u32, seed: u64) {
    println!("# from the reset to the completion, {rounds} rounds each:");
    for scene in &SCENES {
        checks.check(format!("abort after a reset: {}", scene.name), || {
            let mut rng = fastrand::Rng::with_seed(seed);
            measure(scene.name, rounds, || round(scene, &mut rng))
        });
    }
    checks.check("hand-overs between threads", || {
        let mut chain = Chain::start(HAND_OVERS);
        measure("for comparison, 5 hand-overs between idle threads", rounds, || chain.round())
    });
}

/// Takes times and prints what they come to.
fn measure(what: &str, rounds: u32, mut round: impl FnMut() -> Outcome<Duration>) -> Outcome {
    let mut times = Histogram::<u64>::new(3)?;
    for _ in 0..rounds {
        times.record(round()?.as_micros() as u64)?;
    }
    let ms = |us: u64| us as f64 / 1000.0;
    let [p50, p99] = [0.5, 0.99].map(|quantile| ms(times.value_at_quantile(quantile)));
    println!("# p50 {p50:6.2} ms, p99 {p99:6.2} ms, max {:6.2} ms: {what}", ms(times.max()));
    Ok(())
}

fn round(scene: &Scene, rng: &mut fastrand::Rng) -> Outcome<Duration> {
    let (source, target) = (FerryDev::create(FULL, scene.knobs)?, FerryDev::create(FULL, &[])?);
    let fd = source.mdev.fd()?;
    let route = Route {
        source: source.mdev.device(),
        target: target.mdev.device(),
        options: DeviceOptions { on_reset: OnReset::restart(), ..DeviceOptions::default() },
    };
    let mut pair = Pair::start(vec![route], 1, &patient(BackendChoice::Auto))?;
    if scene.drained {
        ensure!(pair.wait_until_ready()?, "it ended before the reset");
    } else {
        while source.stat::<u32>("sessions")? == 0 {
            sleep(Duration::from_millis(1));
        }
    }
    // Anywhere between two questions to the device.
    pair.listen(Duration::from_micros(rng.u64(5_000..30_000)));
    let reset = Instant::now();
    ioctl::reset(fd.as_fd())?;
    let took = loop {
        match pair.source.wait_event(Some(LOST)) {
            Some(SessionEvent::Notice(Notice::Completion(completion))) => {
                let cause = completion.fault.as_ref().map(|fault| fault.cause);
                ensure!(cause == Some(Cause::DeviceReset), "it ended with {completion:?}");
                break reset.elapsed();
            }
            Some(SessionEvent::Finished(finish)) => fail!("it ended with {finish:?}"),
            Some(_) => {}
            None => return Err(Failure(format!("nothing in {LOST:?}"))),
        }
    };
    pair.source.cancel();
    pair.finish();
    Ok(took)
}

/// Threads in a row, each of which hands on what it gets; the last one hands it back.
struct Chain {
    first: Sender<()>,
    last: Receiver<()>,
}

impl Chain {
    fn start(hand_overs: usize) -> Chain {
        let (first, mut last) = channel();
        for _ in 1..hand_overs {
            let (sender, receiver) = channel();
            let from = std::mem::replace(&mut last, receiver);
            std::thread::spawn(move || {
                for () in from {
                    if sender.send(()).is_err() {
                        return;
                    }
                }
            });
        }
        Chain { first, last }
    }

    fn round(&mut self) -> Outcome<Duration> {
        sleep(REST);
        let start = Instant::now();
        self.first.send(())?;
        self.last.recv()?;
        Ok(start.elapsed())
    }
}
