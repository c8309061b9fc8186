//! Suite `mtty-migrate`: an mtty device's state goes to a second one over TCP.

use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::ring::{Backend, BackendChoice};
use vfio_ferry::vfio::state::DeviceState;

use crate::checks::{Checks, Outcome, ensure};
use crate::leaks::Held;
use crate::mtty::Mtty;
use crate::pair::{Pair, Route, patient, same_state};

const STREAMS: usize = 2;
const ROUNDS: usize = 5;
/// mtty.c: a header of 24 bytes and 36 for each port.
const STATE_BYTES: usize = 96;

/// Runs the suite.
pub(crate) fn run(checks: &mut Checks) {
    for (name, choice, backend) in [
        ("io_uring", BackendChoice::IoUring, Backend::IoUring),
        ("plain system calls", BackendChoice::Syscalls, Backend::Syscalls),
    ] {
        for precopy in [true, false] {
            let way = if precopy { "PRE_COPY then STOP_COPY" } else { "STOP_COPY alone" };
            checks.check(format!("mtty migrates by {way} on {name}"), || {
                migrate(choice, backend, precopy)
            });
        }
    }
}

/// Goes back and forth between two devices: what is a target in one round is the next one's source.
fn migrate(choice: BackendChoice, backend: Backend, precopy: bool) -> Outcome {
    let mut rng = fastrand::Rng::with_seed(0x6d74_7479);
    let (mut source, mut target) = (Mtty::create()?, Mtty::create()?);
    let options = patient(choice);
    let held = Held::now()?;
    for _ in 0..ROUNDS {
        source.scribble(&mut rng)?;
        let state = source.mdev.read_state()?;
        ensure!(state.len() == STATE_BYTES, "{} bytes of state", state.len());
        ensure!(state != target.mdev.read_state()?, "both devices are alike beforehand");

        let route = Route {
            source: source.mdev.device(),
            target: target.mdev.device(),
            options: DeviceOptions { precopy, ..DeviceOptions::default() },
        };
        let mut pair = Pair::start(vec![route], STREAMS, &options)?;
        pair.switchover_when_ready()?;
        let (sent, loaded) = pair.finish();

        sent.complete()?;
        loaded.complete()?;
        ensure!(sent.report.backend == backend, "it ran on {:?}", sent.report.backend);
        let total = sent.report.devices[0].total;
        ensure!(total.bytes == STATE_BYTES as u64, "{total:?}");
        let (before, after) = (source.mdev.state()?, target.mdev.state()?);
        ensure!(before == DeviceState::Stop, "the source is in {before}");
        ensure!(after == DeviceState::Running, "the target is in {after}");
        same_state(&state, &target.mdev.read_state()?)?;
        same_state(&state, &source.mdev.read_state()?)?;
        std::mem::swap(&mut source, &mut target);
    }
    held.returns()
}
