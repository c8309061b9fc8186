//! The runner's side of a host's process.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::{Pid, Signal, kill_process};

use super::message::{Command, HostEvent, HostSpec, What};
use super::plan::Plan;
use super::proxy::NARROW_BYTES;
use crate::clock::monotonic_ns;
use crate::spec::Side;

/// How long the threads of a process may take to stop.
const FREEZING_MAX: Duration = Duration::from_secs(20);

/// What the runner hears.
pub(super) enum Heard {
    Host(Side, HostEvent),
    /// A process's output has ended.
    Gone(Side),
    /// A rule of the network has struck.
    Net(usize, u64),
}

/// One host's process. Dropping it ends it.
pub(super) struct Host {
    child: Child,
}

impl Host {
    pub(super) fn start(
        plan: &Plan,
        side: Side,
        connect: Option<SocketAddr>,
        heard: &Sender<Heard>,
    ) -> io::Result<Host> {
        let mut child = std::process::Command::new(std::env::current_exe()?)
            .arg("fault-host")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take();
        // Owned from here on, so that an error below ends it.
        let mut host = Host { child };
        let (streams, own) = (plan.net.streams, plan.host(side));
        let (devices, choices) = (own.devices.clone(), own.choices.clone());
        let socket_bytes = plan.net.is_narrow.then_some(NARROW_BYTES);
        host.say(&HostSpec { side, connect, streams, socket_bytes, devices, choices })?;
        let heard = heard.clone();
        thread::spawn(move || {
            let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or_else(|error| HostEvent {
                    at_ns: monotonic_ns(),
                    what: What::Refused(format!("said {line:?}: {error}")),
                });
                if heard.send(Heard::Host(side, event)).is_err() {
                    return;
                }
            }
            // The receiver is gone if the run is over for another reason.
            let _ = heard.send(Heard::Gone(side));
        });
        Ok(host)
    }

    /// Sends a signal.
    pub(super) fn signal(&self, signal: Signal) {
        // ESRCH: it has ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    fn say(&mut self, what: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        match &mut self.child.stdin {
            Some(input) => input.write_all(&line),
            None => Ok(()),
        }
    }

    /// A host that has gone hears nothing more.
    pub(super) fn tell(&mut self, command: Command) {
        let _ = self.say(&command);
    }

    /// SIGSTOP has been sent; the threads stop one after the other.
    pub(super) fn wait_until_frozen(&self) {
        let tasks = format!("/proc/{}/task", self.child.id());
        let is_frozen = || {
            let mut tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
            // The state stands behind the name, which may have anything in it.
            tasks.all(|task| {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with(['T', 'Z', 'X']))
            })
        };
        let deadline = Instant::now() + FREEZING_MAX;
        while !is_frozen() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn exit(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail if the child has ended and was waited for, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
