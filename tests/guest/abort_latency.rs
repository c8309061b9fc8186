//! Benchmark `abort-latency`: how long after a reset of a device the embedder has the completion.
//! From just before VFIO_DEVICE_RESET to the moment at which the source's session has handed out
//! the device's completion, after a poll of its event fd, on CLOCK_MONOTONIC of the guest. Figures
//! are printed, not judged; `bench/PERFORMANCE.md` keeps them.
//!
//! On the way the news goes from thread to thread: the fd's, the session's, the one that asks the
//! device for its state, the session's again, the embedder's. What so many hand-overs cost on this
//! machine at this moment is printed beside it; in software emulation on a busy host it is most of
//! the figure. All scenes take turns, so that what disturbs the machine disturbs all of them.

use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfio_ferry::ids::DeviceId;
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{Cause, Completion, DeviceOptions, EpochEnding, OnReset};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{SessionEvent, SourceSession};
use vfio_ferry::vfio::ioctl;
use vfio_ferry::vfio::state::DeviceState;

use crate::checks::{Checks, Failure, Outcome, ensure, fail};
use crate::ferry_dev::{FULL, FerryDev};
use crate::pair::{Pair, Route, patient};

/// What a device does when it is reset, and what is to follow.
struct Scene {
    name: &'static str,
    knobs: &'static [(&'static str, &'static str)],
    /// It is drained in PRE_COPY; otherwise a read waits for its data.
    drained: bool,
    on_reset: OnReset,
    /// The first of them is reset.
    devices: usize,
}

const SLOW: (&str, &str) = ("save_latency_us", "60000000");
const NOT_POLLABLE: (&str, &str) = ("pollable", "0");
const DRAINED: Scene = Scene {
    name: "abort: drained, pollable",
    knobs: &[],
    drained: true,
    on_reset: OnReset::Abort,
    devices: 1,
};

fn scenes() -> [Scene; 6] {
    [
        DRAINED,
        Scene { name: "abort: drained, pollable, one of 4 devices", devices: 4, ..DRAINED },
        Scene { name: "restart: drained, pollable", on_reset: OnReset::restart(), ..DRAINED },
        Scene { name: "abort: a read waits, pollable", knobs: &[SLOW], drained: false, ..DRAINED },
        Scene {
            name: "abort: a read waits, not pollable",
            knobs: &[SLOW, NOT_POLLABLE],
            drained: false,
            ..DRAINED
        },
        // Nothing tells of its reset but a question, and those come at intervals.
        Scene {
            name: "abort: drained, not pollable, asked every 20 ms",
            knobs: &[NOT_POLLABLE],
            ..DRAINED
        },
    ]
}

/// From the reset to the embedder.
const HAND_OVERS: usize = 5;
/// Threads sleep so long between two measurements: as idle as a session is between two events.
const REST: Duration = Duration::from_millis(5);

/// Longer than any round may wait.
const LOST: Duration = Duration::from_secs(60);

/// Measures.
pub(crate) fn run(checks: &mut Checks, rounds: u32, seed: u64) {
    println!("# from the reset to the completion, {rounds} rounds each:");
    let scenes = scenes();
    checks.check("the embedder hears of a reset", || {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut chain = Chain::start(HAND_OVERS);
        let mut times = vec![Histogram::<u64>::new(3)?; scenes.len() + 1];
        for _ in 0..rounds {
            for (scene, times) in scenes.iter().zip(&mut times) {
                let took = round(scene, &mut rng)
                    .map_err(|Failure(why)| Failure(format!("{}: {why}", scene.name)))?;
                times.record(took.as_micros() as u64)?;
            }
            times[scenes.len()].record(chain.round()?.as_micros() as u64)?;
        }
        let compared = "for comparison: 5 hand-overs between idle threads";
        let names = scenes.iter().map(|scene| scene.name).chain([compared]);
        names.zip(&times).for_each(|(name, times)| print(name, times));
        Ok(())
    });
}

fn print(name: &str, times: &Histogram<u64>) {
    let ms = |us: u64| us as f64 / 1000.0;
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| ms(times.value_at_quantile(q)));
    let max = ms(times.max());
    println!("# p50 {p50:6.2} ms, p90 {p90:6.2} ms, p99 {p99:6.2} ms, max {max:6.2} ms: {name}");
}

fn round(scene: &Scene, rng: &mut fastrand::Rng) -> Outcome<Duration> {
    let create = |knobs| FerryDev::create(FULL, knobs);
    let sources = (0..scene.devices).map(|_| create(scene.knobs)).collect::<Outcome<Vec<_>>>()?;
    let targets = (0..scene.devices).map(|_| create(&[])).collect::<Outcome<Vec<_>>>()?;
    let fd = sources[0].mdev.fd()?;
    let options = DeviceOptions { on_reset: scene.on_reset, ..DeviceOptions::default() };
    let route = |(source, target): (&FerryDev, &FerryDev)| Route {
        source: source.mdev.device(),
        target: target.mdev.device(),
        options: options.clone(),
    };
    let routes = sources.iter().zip(&targets).map(route).collect();
    let mut pair = Pair::start(routes, 1, &patient(BackendChoice::Auto))?;
    if scene.drained {
        ensure!(pair.wait_until_ready()?, "it ended before the reset");
    } else {
        while sources[0].stat::<u32>("sessions")? == 0 {
            sleep(Duration::from_millis(1));
        }
    }
    // Anywhere between two questions to the device.
    pair.listen(Duration::from_micros(rng.u64(5_000..30_000)));
    let reset = Instant::now();
    ioctl::reset(fd.as_fd())?;
    let (at, completion) = first_completion(&pair.source)?;
    let cause = completion.fault.as_ref().map(|fault| fault.cause);
    let ending = if scene.on_reset == OnReset::Abort {
        EpochEnding::Aborted
    } else {
        EpochEnding::Restarted
    };
    let is_told = (completion.device, completion.ending, cause, completion.state)
        == (DeviceId(0), ending, Some(Cause::DeviceReset), Some(DeviceState::Running));
    ensure!(is_told, "the first completion is {completion:?}");
    pair.source.cancel();
    pair.finish();
    Ok(at - reset)
}

/// Waits as a VMM does: in a poll of the session's event fd.
fn first_completion(session: &SourceSession) -> Outcome<(Instant, Completion)> {
    let patience = Timespec { tv_sec: LOST.as_secs() as i64, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(session.event_fd(), PollFlags::IN)];
        ensure!(poll(&mut fds, Some(&patience))? > 0, "nothing in {LOST:?}");
        while let Some(event) = session.poll_event() {
            match event {
                SessionEvent::Notice(Notice::Completion(completion)) => {
                    return Ok((Instant::now(), completion));
                }
                SessionEvent::Finished => fail!("it ended: {:?}", session.report()),
                _ => {}
            }
        }
    }
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
