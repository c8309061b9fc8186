//! One host of a fault's run, as a process of its own: what the hidden command `fault-host` does.
//!
//! It is a VMM as README wants one: it makes a session, listens to it, stops its guest when the
//! estimate says so, and tells the runner everything that it is told. What it does beyond that, to
//! cancel or drop the session at a bad moment, the runner asks it to.

mod device;
mod restrict;
mod session;

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use rustix::net::sockopt;

use super::message::{Command, HostEvent, HostSpec, What};
use crate::clock::monotonic_ns;
use crate::net;
use crate::spec::{Link, Side};
use device::Told;

/// Reads what it is to be, and is it. An error is the runner's having gone.
pub(crate) fn run() -> io::Result<()> {
    // A frozen process would not see that the pipe from its runner has closed.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    input.read_line(&mut line)?;
    let spec: HostSpec = serde_json::from_str(&line)?;
    // A device that panics is a fault to be looked at, not a line on standard error.
    std::panic::set_hook(Box::new(|_| {}));
    let tell = Tell::default();
    if let Err(refusal) = host(&spec, commands(input), &tell) {
        tell.tell(What::Refused(refusal));
    }
    Ok(())
}

/// Tells the runner, from any thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tell(Arc<Mutex<()>>);

impl Tell {
    /// Tells what happens now.
    pub(crate) fn tell(&self, what: What) {
        let _order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let event = HostEvent { at_ns: monotonic_ns(), what };
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        // If the runner has gone, its closed pipe ends this process.
        let mut output = io::stdout().lock();
        let _ = output.write_all(&line).and_then(|()| output.flush());
    }
}

/// What the runner says from now on. When it has gone, nothing is left to be done here.
fn commands(input: BufReader<io::Stdin>) -> Receiver<Command> {
    let (sender, receiver) = unbounded();
    thread::spawn(move || {
        for line in input.lines().map_while(Result::ok) {
            if let Ok(command) = serde_json::from_str(&line) {
                let _ = sender.send(command);
            }
        }
        std::process::exit(1);
    });
    receiver
}

fn host(spec: &HostSpec, commands: Receiver<Command>, tell: &Tell) -> Result<(), String> {
    let devices = spec
        .devices
        .iter()
        .enumerate()
        .map(|(index, device)| {
            let plan = device::plan(index, device)?;
            Ok(Arc::new(Told::new(index, device, plan, tell)?))
        })
        .collect::<io::Result<Vec<Arc<Told>>>>()
        .map_err(|error| format!("the test device: {error}"))?;
    let streams = streams(spec, tell).map_err(|error| format!("the connections: {error}"))?;
    if let Some(bytes) = spec.socket_bytes {
        let narrow = |stream| {
            sockopt::set_socket_send_buffer_size(stream, bytes)?;
            sockopt::set_socket_recv_buffer_size(stream, bytes)
        };
        streams.iter().try_for_each(narrow).map_err(|error| format!("its sockets: {error}"))?;
    }
    restrict::restrict(&spec.choices)?;
    let vmm = session::Vmm { devices: &devices, choices: &spec.choices, commands, tell };
    match spec.side {
        Side::Source => vmm.send(streams),
        Side::Target => vmm.receive(streams),
    }
}

fn streams(spec: &HostSpec, tell: &Tell) -> io::Result<Vec<TcpStream>> {
    let link = Link::default();
    if let Some(address) = spec.connect {
        return net::connect(&[address], spec.streams, &link);
    }
    let listener = net::listen(([127, 0, 0, 1], 0).into())?;
    tell.tell(What::Listening(listener.local_addr()?));
    net::accept(&listener, spec.streams, &link)
}

/// How long an idle host waits before it looks for a command.
const LOOK: Duration = Duration::from_millis(5);
