//! `ferry-bench` measures the downtime of a VFIO device migration.
//!
//! The modules in the order of their floors; imports go down only:
//!
//! ```text
//! clock, console, spec         what everybody needs
//! data, net, switchover        what a state consists of, connections, when the guest is stopped
//! outcome                      how a side went
//! engine                       the seam to vfio-ferry
//! device                       the device double, and the clock at a device
//! peers                        what other programs do
//! carriers                     engine or peer
//! process                      two processes, and what they say to each other
//! report                       from what they said to what is read
//! grid                         the cells of a grid, and what was finished of it
//! faults                       what becomes of the guest when things go wrong
//! cli, commands                what is asked for
//! ```
//!
//! The double is a library: the tests of the whole workspace use it too ([`device`]).
//!
//! Exit status: 0 if everything migrated and was verified, 1 if a migration failed, the states differ
//! or a fault was not met as promised, 2 if what was asked for cannot be done; 1 and 2 come with one line on standard error.

#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod carriers;
mod cli;
mod clock;
mod commands;
mod console;
pub mod data;
pub mod device;
mod engine;
mod faults;
mod grid;
mod net;
mod outcome;
mod peers;
mod process;
mod report;
pub mod spec;
mod switchover;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use commands::Failure;
use console::say;

/// The program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    say!("{error}");
                    end(Ok(()))
                }
                _ => fail(&Failure::Input(cli::one_line(&error))),
            };
        }
    };
    let result = match cli.command {
        None => commands::downtime::run(&cli.downtime),
        Some(Command::Downtime(args)) => commands::downtime::run(&args),
        Some(Command::Compare(args)) => commands::compare::run(&args),
        Some(Command::Grid(args)) => commands::grid::run(&args),
        Some(Command::Send(args)) => commands::send(&args),
        Some(Command::Receive(args)) => commands::receive(&args),
        Some(Command::Faults(args)) => commands::faults::run(&args),
        Some(Command::FaultHost) => faults::host::run().map_err(|error| {
            Failure::Input(format!("fault-host, which the program starts: {error}"))
        }),
        Some(Command::Room { rate }) => process::room::hold(rate)
            .map_err(|error| Failure::Input(format!("room, which the program starts: {error}"))),
        Some(Command::Agent) => process::agent::run()
            .map_err(|error| Failure::Input(format!("agent, which the program starts: {error}"))),
    };
    end(result)
}

/// Ends the program; what of its output could not be written is a failure, too.
fn end(result: Result<(), Failure>) -> ExitCode {
    let written =
        console::close().map_err(|error| Failure::Input(format!("standard output: {error}")));
    match result.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    console::complain(format_args!("{failure}"));
    ExitCode::from(failure.status())
}
