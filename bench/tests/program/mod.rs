//! Running the program.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::process::{Command, Stdio};

use serde_json::Value;

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status; none if a signal ended it.
    pub(crate) status: Option<i32>,
    /// Standard output.
    pub(crate) output: String,
    /// Standard error.
    pub(crate) errors: String,
}

/// Runs it with arguments, which are separated by spaces.
pub(crate) fn ferry_bench(line: &str) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_ferry-bench"))
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{error}"));
    Ended {
        status: output.status.code(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
        errors: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs it with `--json`, and reads what it wrote.
pub(crate) fn report(line: &str) -> (Ended, Value) {
    let folder = scratch();
    let file = folder.path().join("report.json");
    let ended = ferry_bench(&format!("{line} --json {}", file.display()));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{line}: {error}"));
    let value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"));
    (ended, value)
}

/// A folder that goes away.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"))
}
