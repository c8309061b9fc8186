//! The drive's thread.
//!
//! ```text
//! start.rs     makes it: arena, ring, threads
//! mod.rs       the loop: wait, hand events to the machine, look at the clock, end
//! inputs.rs    what comes in, from the other threads and the streams -> events
//! actions.rs   what the machine wants -> the mechanism
//! data.rs      the devices' data fds: jobs in, events out
//! end.rs       the report, and what goes on after it: streams that linger, late drivers
//! guard.rs     what follows when this thread panics
//! ```

mod actions;
mod data;
mod end;
mod guard;
mod inputs;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use start::{Crew, DriveConfig, Found, Running};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver as Channel;

use super::clock::{left, now_ns};
use super::devices::{DataEvent, Device, Zeros};
use super::embedder::{Closing, MessageBudget, Outbox};
use super::figures::{Ended, Live, Measured};
use super::guarded::{guarded, panicked};
use super::inbox::{Inbox, Input, WorkTag};
use super::owner::{Owner, SharedRing};
use super::slots::Slots;
use super::streams::{Known, Streams};
use crate::compress::policy::{Hosts, Learned};
use crate::compress::workers::Taker;
use crate::drive::Workers;
use crate::ids::DeviceId;
use crate::machine::{Action, Event, Machine};
use crate::receiver::Receiver;
use crate::ring::{Backend, Classes, Done};
use crate::sender::Sender;

/// The machine of either role.
#[derive(Debug)]
pub(crate) enum Machines {
    Source(Box<Sender>),
    Target(Box<Receiver>),
}

impl Machines {
    fn machine(&self) -> &dyn Machine {
        match self {
            Machines::Source(sender) => &**sender,
            Machines::Target(receiver) => &**receiver,
        }
    }

    fn machine_mut(&mut self) -> &mut dyn Machine {
        match self {
            Machines::Source(sender) => &mut **sender,
            Machines::Target(receiver) => &mut **receiver,
        }
    }
}

pub(crate) struct Drive {
    machines: Machines,
    devices: Vec<Device>,
    streams: Streams,
    /// What happened on data fds and nobody has taken yet.
    data_events: VecDeque<DataEvent>,
    classes: Classes,
    zeros: Zeros,
    ring: SharedRing,
    done: Vec<Done>,
    workers: Arc<Workers>,
    /// Takes what they are through with.
    worked: Taker<WorkTag>,
    slots: Slots,
    inbox: Inbox,
    inputs: Channel<Input>,
    outbox: Arc<Outbox>,
    message_budget: Arc<MessageBudget>,
    report: Arc<Mutex<Option<Ended>>>,
    closing: Arc<Closing>,
    measured: Measured,
    live: Live,
    backend: Backend,
    fallback: Option<String>,
    chunk_bytes: usize,
    cancel_bound: Duration,
    /// Of this host. To count them opens files, which a jailed thread may not.
    cores: u32,
    switchover: bool,
    /// The source has let go of the devices (target).
    handed_over: bool,
    /// The devices were told that the session is ending.
    interrupted: bool,
    /// Events that an action caused by itself.
    caused: VecDeque<Event>,
    actions: Vec<Action>,
    /// Until when the streams stay open, once the session has ended.
    linger_until_ns: Option<u64>,
    /// The peer has been told everything, and sees the streams' ends next.
    said_all: bool,
    /// Takes what was found out (source).
    learned: Option<Box<dyn FnOnce(Learned) + Send>>,
}

impl Drive {
    fn run(&mut self) {
        self.feed(Event::Start);
        match self.machines {
            Machines::Source(_) => {
                let Known { shared, bytes_per_s, may_try } = self.streams.measure();
                let hosts = Hosts { cores: self.cores, shared };
                self.feed(Event::Path { hosts, bytes_per_s, may_try });
            }
            Machines::Target(_) => self.streams.expect_state(),
        }
        self.streams.start(now_ns());
        self.settle();
        while !self.is_over() {
            let timeout = self.timeout();
            self.wait(timeout);
            self.settle();
            while let Ok(input) = self.inputs.try_recv() {
                self.take(input);
                self.settle();
            }
            self.look_at_the_clock();
            self.settle();
            self.go_on_ending();
        }
    }

    /// Waits for what happens on the ring, for a wake or the timeout.
    fn wait(&mut self, timeout: Option<Duration>) {
        let waited = self.ring.borrow_mut().wait(timeout, &mut self.done);
        if let Err(error) = waited {
            tracing::debug!(%error, "waiting for the ring");
        }
        let now_ns = now_ns();
        let mut done = std::mem::take(&mut self.done);
        done.extend(self.streams.take_strays());
        for done in done.drain(..) {
            match Owner::of(done.token) {
                Owner::Stream(stream, way) => self.streams.done(stream, way, done, now_ns),
                owner @ (Owner::Data(id) | Owner::Watch(id)) => {
                    self.with_data(id.device, now_ns, |data, tools| data.done(owner, done, tools));
                }
            }
        }
        self.done = done;
        self.streams.look_for_parts(now_ns);
    }

    fn timeout(&self) -> Option<Duration> {
        let data_fds = self.devices.iter().filter_map(|device| device.data.deadline_ns());
        let next = data_fds
            .chain(self.machines.machine().deadline_ns())
            .chain(self.linger_until_ns.filter(|_| !self.streams.is_closing()))
            .chain(self.live.deadline_ns())
            .chain(self.streams.deadline_ns())
            .min()?;
        left(now_ns(), next)
    }

    fn look_at_the_clock(&mut self) {
        let now_ns = now_ns();
        for index in 0..self.devices.len() {
            self.with_data(DeviceId(index as u32), now_ns, |data, tools| {
                data.look_at_the_clock(tools);
            });
            if self.devices[index].data.give_up(now_ns) {
                tracing::warn!(device = index, "the driver still holds an operation");
                self.feed(Event::Detached { device: DeviceId(index as u32), stuck: true });
            }
        }
        if self.machines.machine().deadline_ns().is_some_and(|at| at <= now_ns) {
            self.feed(Event::Tick);
        }
        self.live.look(now_ns, &self.measured.metrics, self.streams.metrics());
    }

    /// Hands on what streams and actions have caused, until there is nothing more.
    fn settle(&mut self) {
        loop {
            if let Some(event) = self.caused.pop_front() {
                self.feed(event);
            } else if let Some(event) = self.data_events.pop_front() {
                self.take_data_event(event);
            } else if let Some(event) = self.streams.next() {
                self.take_stream_event(event);
            } else {
                return;
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let now_ns = now_ns();
        self.live.touch();
        self.machines.machine_mut().handle(now_ns, event, &mut actions);
        if !self.interrupted && self.machines.machine().is_ending() {
            self.interrupted = true;
            self.interrupt();
        }
        for action in actions.drain(..) {
            self.act(now_ns, action);
        }
        self.actions = actions;
    }

    /// Tells the devices that the session is ending.
    fn interrupt(&mut self) {
        for (index, device) in self.devices.iter_mut().enumerate() {
            let Some(threads) = device.threads() else { continue };
            if let Err(said) = guarded(|| threads.device.interrupt()) {
                let id = DeviceId(index as u32);
                tracing::warn!(fault = %panicked("interrupt", id, &said), "the session ends anyway");
            }
        }
    }
}
