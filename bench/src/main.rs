//! `ferry-bench` measures the downtime of a VFIO device migration.
//!
//! Exit status: 0 if everything migrated and was verified, 1 if a migration failed or the states
//! differ, 2 if what was asked for cannot be done; 1 and 2 come with one line on standard error.

mod cli;
mod commands;
mod contender;
mod data;
mod device;
mod engine;
mod net;
mod peers;
mod process;
mod report;
mod switchover;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use cli::{Cli, Command};
use commands::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                    print!("{error}");
                    ExitCode::SUCCESS
                }
                _ => fail(&Failure::Input(cli::one_line(&error))),
            };
        }
    };
    let result = match cli.command {
        None => commands::downtime::run(&cli.downtime),
        Some(Command::Downtime(args)) => commands::downtime::run(&args),
        Some(Command::Compare(args)) => commands::compare::run(&args),
        Some(Command::Send(args)) => commands::real::send(&args),
        Some(Command::Receive(args)) => commands::real::receive(&args),
        Some(Command::Agent) => process::agent::run()
            .map_err(|error| Failure::Input(format!("agent, which the program starts: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    eprintln!("ferry-bench: {failure}");
    ExitCode::from(failure.status())
}
