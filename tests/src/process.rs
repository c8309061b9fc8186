//! One host of a migration as a process of its own: to be measured, killed or frozen.
//!
//! [`Spec`] is its command line. It tells what happens on its standard output, one line each:
//! `listening PORT`, `phase NAME`, at the end `end KEY=VALUE ...` ([`Outcome`]).

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::pair::PATIENCE;

/// What the process is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Whether the state leaves this process; else it comes in.
    pub is_source: bool,
    /// A source connects to this port; a target finds one itself.
    pub port: u16,
    /// Devices of the session.
    pub devices: usize,
    /// Streams of the session.
    pub streams: usize,
    /// Bytes of each device's initial PRE_COPY data.
    pub initial_bytes: u64,
    /// Bytes of each device's other state.
    pub rest_bytes: u64,
    /// Compress, or send as it is.
    pub compress: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            is_source: true,
            port: 0,
            devices: 1,
            streams: 2,
            initial_bytes: 0,
            rest_bytes: 8 << 20,
            compress: false,
        }
    }
}

impl Spec {
    /// The command line.
    pub fn to_arguments(&self) -> [String; 7] {
        [
            u8::from(self.is_source).to_string(),
            self.port.to_string(),
            self.devices.to_string(),
            self.streams.to_string(),
            self.initial_bytes.to_string(),
            self.rest_bytes.to_string(),
            u8::from(self.compress).to_string(),
        ]
    }

    /// From the command line.
    pub fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Option<Spec> {
        fn next<T: FromStr>(arguments: &mut impl Iterator<Item = String>) -> Option<T> {
            arguments.next()?.parse().ok()
        }
        Some(Spec {
            is_source: next::<u8>(&mut arguments)? == 1,
            port: next(&mut arguments)?,
            devices: next(&mut arguments)?,
            streams: next(&mut arguments)?,
            initial_bytes: next(&mut arguments)?,
            rest_bytes: next(&mut arguments)?,
            compress: next::<u8>(&mut arguments)? == 1,
        })
    }
}

/// How the process says that its session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The session's ending by name.
    pub ending: String,
    /// Bytes that went through the devices' fds, and their digests' sum.
    pub bytes: u64,
    /// Of all devices, xored.
    pub digest: u128,
    /// The most memory that the process ever had.
    pub peak_bytes: u64,
}

impl Outcome {
    /// The process's last line.
    pub fn to_line(&self) -> String {
        let Outcome { ending, bytes, digest, peak_bytes } = self;
        format!("end {ending} {bytes} {digest} {peak_bytes}")
    }

    fn from_line(line: &str) -> Option<Outcome> {
        let mut words = line.strip_prefix("end ")?.split(' ');
        Some(Outcome {
            ending: words.next()?.to_owned(),
            bytes: words.next()?.parse().ok()?,
            digest: words.next()?.parse().ok()?,
            peak_bytes: words.next()?.parse().ok()?,
        })
    }
}

/// A running one. Dropping it kills it.
#[derive(Debug)]
pub struct Side {
    child: Child,
    lines: Receiver<String>,
}

impl Side {
    /// Starts the program, which is this crate's `ferry-side`.
    pub fn spawn(program: &str, spec: &Spec) -> Side {
        let mut child = Command::new(program)
            .args(spec.to_arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test's own program starts");
        let output = BufReader::new(child.stdout.take().expect("a piped output"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Side { child, lines }
    }

    /// The next line within `patience`; none at the process's end.
    pub fn line(&self, patience: Duration) -> Result<String, RecvTimeoutError> {
        self.lines.recv_timeout(patience)
    }

    /// The port that a target listens on.
    pub fn port(&self) -> u16 {
        let line = self.line(PATIENCE).expect("a target says where it listens");
        line.strip_prefix("listening ").and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Reads on to the end.
    pub fn outcome(&self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.line(deadline.saturating_duration_since(Instant::now()));
            let line = line.expect("a line that begins with end");
            if let Some(outcome) = Outcome::from_line(&line) {
                return outcome;
            }
        }
    }

    /// Sends a signal to just this process.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // ESRCH: it has ended by itself.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// The most memory that this process ever had (VmHWM).
pub fn peak_bytes() -> u64 {
    status_kib("VmHWM:") << 10
}

fn status_kib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a known key");
    line.trim().strip_suffix("kB").and_then(|kib| kib.trim().parse().ok()).expect("a number")
}
