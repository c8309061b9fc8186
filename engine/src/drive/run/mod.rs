//! The drive's thread.
//!
//! ```text
//! start.rs     makes it: arena, rings, threads
//! mod.rs       the loop: wait, hand events to the machine, look at the clock, end
//! inputs.rs    what comes in, from the other threads and the streams -> events
//! actions.rs   what the machine wants -> the mechanism
//! guard.rs     what follows when this thread panics
//! ```

mod actions;
mod guard;
mod inputs;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use start::{DriveConfig, Running};

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver as Channel;

use super::devices::Device;
use super::embedder::{MessageBudget, Outbox};
use super::figures::{Ended, Live, Measured};
use super::inbox::{Inbox, Input, WorkTag};
use super::slots::Slots;
use super::streams::Streams;
use crate::compress::workers::Workers;
use crate::ids::DeviceId;
use crate::machine::{Action, Event, Machine};
use crate::receiver::Receiver;
use crate::ring::{Backend, BackendChoice};
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
    workers: Workers<WorkTag>,
    slots: Slots,
    inbox: Inbox,
    inputs: Channel<Input>,
    outbox: Arc<Outbox>,
    message_budget: Arc<MessageBudget>,
    report: Arc<Mutex<Option<Ended>>>,
    measured: Measured,
    live: Live,
    backend: Backend,
    fallback: Option<String>,
    backend_choice: BackendChoice,
    chunk_bytes: usize,
    detach_bound: Duration,
    switchover: bool,
    /// The devices were told that the session is ending.
    interrupted: bool,
    /// Events that an action caused by itself.
    caused: VecDeque<Event>,
    actions: Vec<Action>,
    linger_until_ns: Option<u64>,
}

/// CLOCK_MONOTONIC in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Drive {
    fn run(&mut self) {
        self.feed(Event::Start);
        self.streams.start(now_ns());
        self.settle();
        while !self.is_over() {
            let timeout = self.timeout();
            if let Err(error) = self.streams.wait(timeout, now_ns) {
                tracing::debug!(%error, "waiting for the streams");
            }
            self.settle();
            while let Ok(input) = self.inputs.try_recv() {
                self.take(input);
                self.settle();
            }
            self.look_at_the_clock();
            self.settle();
        }
        self.streams.close();
    }

    fn is_over(&self) -> bool {
        self.linger_until_ns.is_some_and(|until| now_ns() >= until || self.streams.all_lost())
    }

    fn timeout(&self) -> Option<Duration> {
        let now_ns = now_ns();
        let detaching = self.devices.iter().filter_map(|device| device.detaching);
        let next = detaching
            .map(|detaching| detaching.until_ns)
            .chain(self.machines.machine().deadline_ns())
            .chain(self.linger_until_ns)
            .chain(self.live.deadline_ns())
            .min()?;
        Some(Duration::from_nanos(next.saturating_sub(now_ns)))
    }

    fn look_at_the_clock(&mut self) {
        let now_ns = now_ns();
        for index in 0..self.devices.len() {
            if self.devices[index].detaching.is_some_and(|it| it.until_ns <= now_ns) {
                self.devices[index].detaching = None;
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
            self.devices.iter().for_each(|device| device.device.interrupt());
        }
        for action in actions.drain(..) {
            self.act(now_ns, action);
        }
        self.actions = actions;
    }
}
