//! Running the program.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
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
    run(Command::new(env!("CARGO_BIN_EXE_ferry-bench")).args(line.split_whitespace()))
}

/// A user without any privilege.
const NOBODY: u32 = 65534;

/// Runs it as a user without privileges: as whoever runs the test, or as nobody if that is root.
pub(crate) fn ferry_bench_of_a_user(line: &str) -> Ended {
    if !rustix::process::geteuid().is_root() {
        return ferry_bench(line);
    }
    // Where the build put the program, nobody else need be able to reach it. Another process copies
    // it: what this one has open for writing, a child of another test holds until its exec, and a
    // program that is open for writing cannot be started (ETXTBSY).
    let folder = scratch();
    let program = folder.path().join("ferry-bench");
    let mut install = Command::new("install");
    install.args(["-m", "755", env!("CARGO_BIN_EXE_ferry-bench")]).arg(&program);
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(run(&mut install).status, Some(0));
    run(Command::new(program).args(line.split_whitespace()).uid(NOBODY).gid(NOBODY))
}

/// The names in one of the host's `tcp_..._congestion_control`.
pub(crate) fn host_congestion(which: &str) -> Vec<String> {
    let path = format!("/proc/sys/net/ipv4/tcp_{which}congestion_control");
    let names = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    names.split_whitespace().map(str::to_owned).collect()
}

fn run(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{error}"));
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
