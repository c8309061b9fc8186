//! Benchmark `abort-latency`: how long after a reset of a device the embedder has the completion.
//! From just before VFIO_DEVICE_RESET to the moment at which the source's session has handed out
//! the device's completion, on CLOCK_MONOTONIC of the guest. Figures are printed, not judged.

use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{Cause, DeviceOptions, OnReset};
use vfio_ferry::session::{Options, SessionEvent};
use vfio_ferry::vfio::ioctl;

use crate::checks::{Checks, Failure, Outcome, ensure, fail};
use crate::ferry_dev::{FULL, FerryDev};
use crate::pair::{Pair, Route};

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

/// Longer than any round may wait.
const LOST: Duration = Duration::from_secs(10);

/// Measures.
pub(crate) fn run(checks: &mut Checks, rounds: u32, seed: u64) {
    for scene in &SCENES {
        checks.check(format!("abort after a reset: {}", scene.name), || {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut times = Histogram::<u64>::new(3)?;
            for _ in 0..rounds {
                times.record(round(scene, &mut rng)?.as_micros() as u64)?;
            }
            let ms = |us: u64| us as f64 / 1000.0;
            println!(
                "# {}: from the reset to the completion p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms \
                 in {rounds} rounds",
                scene.name,
                ms(times.value_at_quantile(0.5)),
                ms(times.value_at_quantile(0.99)),
                ms(times.max()),
            );
            Ok(())
        });
    }
}

fn round(scene: &Scene, rng: &mut fastrand::Rng) -> Outcome<Duration> {
    let (source, target) = (FerryDev::create(FULL, scene.knobs)?, FerryDev::create(FULL, &[])?);
    let fd = source.mdev.fd()?;
    let route = Route {
        source: source.mdev.device(),
        target: target.mdev.device(),
        options: DeviceOptions { on_reset: OnReset::restart(), ..DeviceOptions::default() },
    };
    let mut pair = Pair::start(vec![route], 1, &Options::default())?;
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
