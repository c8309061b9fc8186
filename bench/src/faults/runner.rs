//! Runs a fault: starts both hosts' processes with the network between them, does what is to be done
//! at its moments, and writes down what happens.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::Signal;

use super::fault::Fault;
use super::message::{Command, HostEvent, What};
use super::plan::{Does, Plan, Reaction, Trigger};
use super::process::{Heard, Host};
use super::promise::is_home;
use super::proxy::Proxy;
use super::record::Record;
use crate::clock::monotonic_ns;
use crate::spec::{BackendChoice, Side};

/// How long a run may take: far more than any limit in it, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a driver that was let go of may take to be home again.
const COMING_BACK: Duration = Duration::from_secs(20);

/// Runs a fault once.
pub(crate) fn run(fault: &Fault, backend: BackendChoice) -> Record {
    let mut plan = fault.plan.clone();
    for side in [Side::Source, Side::Target] {
        let choices = &mut plan.host_mut(side).choices;
        // Who is refused io_uring has it as its first choice.
        if !choices.no_io_uring {
            choices.backend = backend;
        }
    }
    let mut record = Record::default();
    let mut run = match Run::start(&plan) {
        Ok(run) => run,
        Err(error) => {
            record.failure = Some(format!("cannot start a process: {error}"));
            return record;
        }
    };
    if let Err(error) = run.go(&mut record) {
        record.failure.get_or_insert(error);
    }
    record
}

struct Run<'a> {
    plan: &'a Plan,
    sender: Sender<Heard>,
    heard: Receiver<Heard>,
    target: Host,
    source: Option<Host>,
    proxy: Option<Proxy>,
    /// Reactions that are still to come.
    due: Vec<bool>,
    happened: BTreeSet<String>,
    /// When each host's drivers were let go of.
    released: [Option<Instant>; 2],
    told_to_end: bool,
}

impl<'a> Run<'a> {
    fn start(plan: &'a Plan) -> io::Result<Run<'a>> {
        let (sender, heard) = unbounded();
        let target = Host::start(plan, Side::Target, None, &sender)?;
        let due = vec![true; plan.reactions.len()];
        let happened = BTreeSet::new();
        let (released, told_to_end) = ([None; 2], false);
        let (source, proxy) = (None, None);
        Ok(Run { plan, sender, heard, target, source, proxy, due, happened, released, told_to_end })
    }

    fn go(&mut self, record: &mut Record) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let io = |error: io::Error| format!("cannot start a process: {error}");
        while record.source.exit.is_none() || record.target.exit.is_none() {
            match self.heard.recv_timeout(Duration::from_millis(20)) {
                Ok(Heard::Host(_, HostEvent { what: What::Listening(address), .. })) => {
                    self.connect(address).map_err(io)?;
                }
                Ok(Heard::Host(side, event)) => self.event(record, side, event),
                Ok(Heard::Net(rule, at_ns)) => {
                    record.strike(at_ns);
                    self.moment(record, Trigger::Net(rule));
                }
                Ok(Heard::Gone(side)) => {
                    let exit = self.host(side).map_or_else(String::new, Host::exit);
                    record.host_mut(side).exit = Some(exit);
                    self.moment(record, Trigger::Ended(side));
                    if side == Side::Target && self.source.is_none() {
                        return Err("the target did not begin to listen".to_owned());
                    }
                }
                Err(_) => {}
            }
            self.end_if_through(record);
            if Instant::now() > deadline {
                let open =
                    |side| record.host(side).exit.is_none() && !self.is_through(record, side);
                let who = [Side::Source, Side::Target].into_iter().filter(|side| open(*side));
                let who: Vec<&str> = who.map(Side::name).collect();
                return Err(format!("no end within {} s: {}", PATIENCE.as_secs(), who.join(", ")));
            }
        }
        Ok(())
    }

    /// The target listens: the network and the source come.
    fn connect(&mut self, address: SocketAddr) -> io::Result<()> {
        let sender = self.sender.clone();
        let on_deed = move |rule| drop(sender.send(Heard::Net(rule, monotonic_ns())));
        let proxy = Proxy::start(address, self.plan.net.clone(), Box::new(on_deed))?;
        let source = Host::start(self.plan, Side::Source, Some(proxy.address()), &self.sender)?;
        (self.proxy, self.source) = (Some(proxy), Some(source));
        Ok(())
    }

    fn event(&mut self, record: &mut Record, side: Side, event: HostEvent) {
        let moment = match event.what {
            What::Struck => Some(Trigger::Struck(side)),
            What::Finished(_) | What::Refused(_) | What::Done(Command::Drop) => {
                Some(Trigger::Ended(side))
            }
            _ => None,
        };
        record.take(side, event);
        if let Some(moment) = moment {
            self.moment(record, moment);
        }
    }

    /// Does what is to be done at a moment, once.
    fn moment(&mut self, record: &mut Record, moment: Trigger) {
        if !self.happened.insert(format!("{moment:?}")) {
            return;
        }
        for place in 0..self.due.len() {
            let reaction = self.plan.reactions[place];
            if reaction.on == moment && std::mem::take(&mut self.due[place]) {
                self.does(record, reaction.does);
                self.thaw_if_late(record, reaction.does);
            }
        }
        if let (Trigger::Ended(side), true) = (moment, self.plan.releases)
            && self.plan.host(side).holds()
        {
            self.released[side as usize] = Some(Instant::now());
            self.does(record, Does::Tell(side, Command::Release));
        }
    }

    /// What is to go on when the other host has ended goes on at once where that was before.
    fn thaw_if_late(&mut self, record: &mut Record, done: Does) {
        let Does::Freeze(side) = done else { return };
        let thaws = |(place, reaction): (usize, &Reaction)| {
            reaction.does == Does::Thaw(side) && !self.due[place]
        };
        if self.plan.reactions.iter().enumerate().any(thaws) {
            self.does(record, Does::Thaw(side));
        }
    }

    fn does(&mut self, record: &mut Record, does: Does) {
        let at_ns = monotonic_ns();
        match does {
            Does::Kill(side) => {
                record.host_mut(side).killed_ns = Some(at_ns);
                self.signal(side, Signal::KILL);
                // A frame that goes on from here goes to a host that is not there.
                if let Some(host) = self.host(side) {
                    host.exit();
                }
            }
            Does::Freeze(side) => {
                self.signal(side, Signal::STOP);
                if let Some(host) = self.host(side) {
                    host.wait_until_frozen();
                }
            }
            Does::Thaw(side) => self.signal(side, Signal::CONT),
            Does::Tell(side, command) => {
                if let Some(host) = self.host(side) {
                    host.tell(command);
                }
            }
            Does::OpenGate => {
                if let Some(proxy) = &self.proxy {
                    proxy.open();
                }
            }
        }
        if !matches!(does, Does::OpenGate | Does::Tell(_, Command::Release)) {
            record.strike(at_ns);
        }
    }

    /// Whether nothing more is to be seen at a host.
    fn is_through(&self, record: &Record, side: Side) -> bool {
        let host = record.host(side);
        let waited = self.released[side as usize].is_none_or(|at| at.elapsed() > COMING_BACK);
        // A device that a driver holds has moved since, and is home.
        let back = |dropped_ns| {
            let moved = || host.moved.iter().any(|(at_ns, _)| *at_ns > dropped_ns);
            (moved() || !self.plan.host(side).holds()) && is_home(self.plan, record, side)
        };
        host.exit.is_some()
            || host.refused.is_some()
            || (host.end.is_some() && (host.late() == 0 || waited))
            || host.dropped_ns.is_some_and(|dropped_ns| waited || back(dropped_ns))
    }

    fn end_if_through(&mut self, record: &Record) {
        let through = |side| self.is_through(record, side);
        if !self.told_to_end && through(Side::Source) && through(Side::Target) {
            self.told_to_end = true;
            for side in [Side::Source, Side::Target] {
                if let Some(host) = self.host(side) {
                    host.tell(Command::End);
                }
            }
        }
    }

    fn host(&mut self, side: Side) -> Option<&mut Host> {
        match side {
            Side::Source => self.source.as_mut(),
            Side::Target => Some(&mut self.target),
        }
    }

    fn signal(&mut self, side: Side, signal: Signal) {
        if let Some(host) = self.host(side) {
            host.signal(signal);
        }
    }
}
