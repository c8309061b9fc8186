//! The parent's side of a run: starts both agents, listens to them, and ends them.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::identity::Identity;
use super::message::{Event, RunSpec, SideReport, Task};
use super::room::Room;
use crate::spec::Side;

/// How long both sides may be silent, no byte moved and nothing ended, beyond what a peer takes
/// that reads, encodes and sends the whole state before the target's device gets a byte.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How slow that may be.
const SLOWEST_BYTES_PER_S: u64 = 10_000_000;
/// How long a side may take to notice that the other one has ended.
const GRACE: Duration = Duration::from_secs(20);

/// What the two sides of a run reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct PairReport {
    /// The source's report; none if it ended without one.
    pub(crate) source: Option<SideReport>,
    /// The target's.
    pub(crate) target: Option<SideReport>,
    /// Why a side could not even begin.
    pub(crate) refusal: Option<String>,
    /// The first thing that went wrong with a side as a process.
    pub(crate) failure: Option<String>,
}

/// Runs a migration between two new processes; `progress` hears how many bytes the target has.
/// They are in a room of their own, if there is one.
pub(crate) fn run(
    spec: &RunSpec,
    room: Option<&Room>,
    progress: &mut dyn FnMut(u64),
) -> PairReport {
    let mut report = PairReport::default();
    if let Err(error) = drive(spec, room, progress, &mut report) {
        report.failure.get_or_insert(format!("cannot start a process: {error}"));
    }
    report
}

/// What the parent hears.
enum Heard {
    Event(Event),
    /// The agent's output has ended.
    Ended,
}

fn drive(
    spec: &RunSpec,
    room: Option<&Room>,
    progress: &mut dyn FnMut(u64),
    report: &mut PairReport,
) -> io::Result<()> {
    let identities = spec.tls.then(Identity::pair).transpose().map_err(io::Error::other)?;
    let task = |side, connect| Task {
        spec: spec.clone(),
        place: room.map(|room| room.place(side)),
        connect,
        identity: identities.as_ref().map(|[source, target]| match side {
            Side::Source => source.clone(),
            Side::Target => target.clone(),
        }),
    };
    let (sender, receiver) = unbounded();
    // Agents are ended when they go out of scope, whatever happens.
    let mut agents = vec![Agent::start(Side::Target, &task(Side::Target, None), &sender)?];
    let state_bytes = spec.state.0.saturating_mul(u64::from(spec.devices));
    let slowest = spec.link.rate.map_or(u64::MAX, |rate| rate.0 / 2).min(SLOWEST_BYTES_PER_S);
    let silence = SILENCE_MAX + Duration::from_secs(state_bytes / slowest.max(1));
    let mut ended = 0;
    while ended < 2 {
        match hear(&receiver, if ended == 0 { silence } else { GRACE }) {
            Some((_, Heard::Event(Event::Listening(address)))) => {
                let task = task(Side::Source, Some(address));
                agents.push(Agent::start(Side::Source, &task, &sender)?);
            }
            Some((Side::Target, Heard::Event(Event::Progress(bytes)))) => progress(bytes),
            Some((Side::Source, Heard::Event(Event::Progress(_)))) => {}
            Some((side, Heard::Event(Event::Done(side_report)))) => {
                *report.of(side) = Some(*side_report);
            }
            Some((side, Heard::Event(Event::Refused(message)))) => {
                report.refusal.get_or_insert(format!("{}: {message}", side.name()));
                // The message is its report; the other side may have one, too.
                *report.of(side) = None;
            }
            Some((side, Heard::Ended)) => {
                ended += 1;
                if report.of(side).is_none() {
                    let how = agents
                        .iter_mut()
                        .find(|agent| agent.side == side)
                        .map_or_else(String::new, |agent| agent.ending());
                    report.failure.get_or_insert(format!(
                        "the {} process ended without a report ({how})",
                        side.name()
                    ));
                }
                // A target that ends before it listens leaves no source to wait for.
                if agents.len() == 1 {
                    return Ok(());
                }
            }
            None => {
                report.failure.get_or_insert("the processes are stuck".to_owned());
                return Ok(());
            }
        }
    }
    Ok(())
}

fn hear(receiver: &Receiver<(Side, Heard)>, patience: Duration) -> Option<(Side, Heard)> {
    receiver.recv_timeout(patience).ok()
}

impl PairReport {
    fn of(&mut self, side: Side) -> &mut Option<SideReport> {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }
}

/// One child process. Dropping it ends it.
struct Agent {
    side: Side,
    child: Child,
}

impl Agent {
    fn start(side: Side, task: &Task, events: &Sender<(Side, Heard)>) -> io::Result<Agent> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("agent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take();
        let input = child.stdin.as_mut();
        // Owned from here on, so that an error below ends it.
        let mut line = serde_json::to_vec(task)?;
        line.push(b'\n');
        let sent = input.map_or(Ok(()), |input| input.write_all(&line));
        let agent = Agent { side, child };
        sent?;
        let events = events.clone();
        thread::spawn(move || {
            let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines());
            for line in lines.map_while(Result::ok) {
                let event = serde_json::from_str(&line)
                    .unwrap_or_else(|error| Event::Refused(format!("said {line:?}: {error}")));
                if events.send((side, Heard::Event(event))).is_err() {
                    return;
                }
            }
            // The receiver is gone if the run is over for another reason.
            let _ = events.send((side, Heard::Ended));
        });
        Ok(agent)
    }

    fn ending(&mut self) -> String {
        match self.child.wait() {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail if the child has ended and was waited for, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
