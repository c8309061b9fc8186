//! How results are counted and printed, as `tests/run` reads them.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a check failed, for a person.
#[derive(Debug)]
pub(crate) struct Failure(pub String);

/// What a check comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure(error.to_string())
    }
}

/// Fails with a formatted reason.
macro_rules! fail {
    ($($text:tt)*) => {
        return Err($crate::checks::Failure(format!($($text)*)))
    };
}

/// Fails with a formatted reason unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            return Err($crate::checks::Failure(format!($($text)*)));
        }
    };
}

pub(crate) use {ensure, fail};

/// The count of a suite.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    passed: u32,
    failed: u32,
    /// Checks whose name lacks this are left out.
    only: Option<String>,
}

impl Checks {
    /// Counts checks whose name has this in it, or all.
    pub(crate) fn only(only: Option<String>) -> Checks {
        Checks { only, ..Checks::default() }
    }

    /// Runs one check and prints how it went.
    pub(crate) fn check(&mut self, name: impl Display, body: impl FnOnce() -> Outcome) {
        let name = name.to_string();
        if self.only.as_ref().is_some_and(|only| !only.split('|').any(|only| name.contains(only))) {
            return;
        }
        match body() {
            Ok(()) => {
                println!("ok {name}");
                self.passed += 1;
            }
            Err(Failure(why)) => {
                println!("FAIL {name}: {why}");
                self.failed += 1;
            }
        }
    }

    /// Prints the count.
    pub(crate) fn finish(self) -> ExitCode {
        println!("{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
