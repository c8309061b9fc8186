//! What the commands do, and how they may fail.

pub(crate) mod compare;
pub(crate) mod downtime;
pub(crate) mod faults;
pub(crate) mod real;
mod rounds;

use crate::cli::LinkArgs;
use crate::data::Content;
use crate::net;
use crate::spec::{DataKind, Link};

/// Why the program does not end with status 0. The text is one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was asked for cannot be done: status 2.
    #[error("{0}")]
    Input(String),
    /// A migration failed, or the states differ: status 1.
    #[error("{0}")]
    Migration(String),
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Input(_) => 2,
            Failure::Migration(_) => 1,
        }
    }
}

/// Bad input, with the option that it came from.
fn input(option: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Input(format!("{option}: {error}"))
}

/// So many of something, in words.
fn many(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

fn link(args: &LinkArgs) -> Result<Link, Failure> {
    if let Some(name) = &args.congestion {
        net::check_congestion(name)
            .map_err(|error| input(&format!("--congestion {name}"), error))?;
    }
    Ok(Link { rate: args.link, congestion: args.congestion.clone() })
}

/// Finds out here, once, what every process of every run would find out.
fn check_data(data: &DataKind) -> Result<(), Failure> {
    if matches!(data, DataKind::File(_)) {
        Content::new(data).map_err(|error| input(&format!("--data {data}"), error))?;
    }
    Ok(())
}
