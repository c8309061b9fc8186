//! Runs inside of the test VM (`tests/run`, `tests/vm/boot`) and drives the engine on real VFIO
//! devices through the real ioctls: a source's and a target's session in one process, over
//! loopback TCP. Each suite makes its own mediated devices and takes them away again.
//!
//! Prints `ok NAME` or `FAIL NAME: why`, and `N passed, N failed` at the end; the exit status is 0
//! only if nothing failed.

mod checks;
mod ferry_dev;
mod ferry_dev_migrate;
mod leaks;
mod mdev;
mod mtty;
mod mtty_migrate;
mod pair;

use std::process::ExitCode;

use checks::Checks;
use clap::{Parser, ValueEnum};

/// Drives the engine on the real VFIO devices of a test VM.
#[derive(Debug, Parser)]
struct Arguments {
    /// What to run.
    suite: Suite,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Suite {
    /// An mtty device's state goes to a second one.
    MttyMigrate,
    /// Our own kernel device, in every kind that drivers come in, goes to a second one.
    FerryDevMigrate,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut checks = Checks::default();
    match arguments.suite {
        Suite::MttyMigrate => mtty_migrate::run(&mut checks),
        Suite::FerryDevMigrate => ferry_dev_migrate::run(&mut checks),
    }
    checks.finish()
}
