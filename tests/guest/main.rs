//! Runs inside of the test VM (`tests/run`, `tests/vm/boot`) and drives the engine on real VFIO
//! devices through the real ioctls: a source's and a target's session in one process, over
//! loopback TCP. Each suite makes its own mediated devices and takes them away again.
//!
//! Prints `ok NAME` or `FAIL NAME: why`, and `N passed, N failed` at the end; the exit status is 0
//! only if nothing failed.

mod abort_latency;
mod checks;
mod faults;
mod ferry_dev;
mod ferry_dev_migrate;
mod leaks;
mod mdev;
mod mtty;
mod mtty_migrate;
mod pair;
mod qemu;
mod storm;

use std::process::ExitCode;

use checks::Checks;
use clap::{Parser, ValueEnum};

/// Drives the engine on the real VFIO devices of a test VM.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to run.
    suite: Suite,
    /// Rounds of the suites that have them [default: enough for CI, more with FERRY_LONG=1]
    #[arg(long)]
    rounds: Option<u32>,
    /// Only checks whose name has this in it, or one of several with | between them [default: what
    /// FERRY_ONLY says]
    #[arg(long)]
    only: Option<String>,
    /// Replays what a suite chose by chance
    #[arg(long)]
    seed: Option<u64>,
}

impl Arguments {
    fn rounds(&self, short: u32, long: u32) -> u32 {
        let is_long = std::env::var_os("FERRY_LONG").is_some();
        self.rounds.unwrap_or(if is_long { long } else { short })
    }

    fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..))
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Suite {
    /// An mtty device's state goes to a second one.
    MttyMigrate,
    /// Our own kernel device, in every kind that drivers come in, goes to a second one.
    FerryDevMigrate,
    /// Thousands of migrations of mtty devices that are reset at random moments.
    MttyResetStorm,
    /// Everything that our own device can do wrong, each with the cause that must be given.
    FerryDevFaults,
    /// Measures how long after a reset the embedder has the completion.
    AbortLatency,
    /// Two QEMU processes migrate both kinds of device, as released and with our patch.
    Qemu,
    /// One migration of the patched QEMU, with what QMP says at each step.
    QemuDemo,
    /// What becomes of a migration that is harmed at any of its points: stock QEMU beside ours.
    QemuEndings,
    /// For how long a guest is without its devices: stock QEMU beside ours.
    QemuBlackout,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let only = arguments.only.clone().or_else(|| std::env::var("FERRY_ONLY").ok());
    let mut checks = Checks::only(only);
    match arguments.suite {
        Suite::MttyMigrate => mtty_migrate::run(&mut checks),
        Suite::FerryDevMigrate => ferry_dev_migrate::run(&mut checks),
        Suite::AbortLatency => {
            abort_latency::run(&mut checks, arguments.rounds(100, 1_000), arguments.seed());
        }
        Suite::Qemu => qemu::run(&mut checks),
        Suite::QemuDemo => qemu::demo::run(&mut checks),
        Suite::QemuEndings => {
            qemu::endings::run(&mut checks, std::env::var_os("FERRY_LONG").is_some());
        }
        Suite::QemuBlackout => {
            qemu::blackout::run(&mut checks, arguments.rounds(1, 15));
        }
        Suite::FerryDevFaults => faults::run(&mut checks),
        Suite::MttyResetStorm => {
            storm::run(&mut checks, arguments.rounds(2_000, 20_000), arguments.seed());
        }
    }
    checks.finish()
}
