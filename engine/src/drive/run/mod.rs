//! The drive's thread.
//!
//! ```text
//! start.rs     makes it: arena, rings, threads
//! mod.rs       the loop: wait, hand events to the machine, look at the clock, end
//! inputs.rs    what comes in, from the other threads and the streams -> events
//! actions.rs   what the machine wants -> the mechanism
//! ```

mod actions;
mod inputs;
mod start;

pub(crate) use start::{DriveConfig, Running};

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_channel::Receiver as Channel;

use super::control::Control;
use super::data::DataHandle;
use super::inbox::{Inbox, Input, WorkTag};
use super::live::Live;
use super::outbox::Outbox;
use super::report::{Ended, Seen};
use super::room::Room;
use super::streams::{StreamEvent, Streams};
use super::watch::Watch;
use crate::buffers::Slot;
use crate::compress::workers::Workers;
use crate::ids::{DeviceId, Epoch, SlotId};
use crate::machine::{Action, Event, Finish, Machine};
use crate::outcome::{Cause, EpochEnding, Fault, Observation};
use crate::receiver::Receiver;
use crate::ring::{Backend, BackendChoice};
use crate::sender::Sender;
use crate::vfio::device::MigrationDevice;

/// The machine of either role.
#[derive(Debug)]
pub(crate) enum Machines {
    Source(Box<Sender>),
    Target(Box<Receiver>),
}

impl Machines {
    fn machine(&mut self) -> &mut dyn Machine {
        match self {
            Machines::Source(sender) => &mut **sender,
            Machines::Target(receiver) => &mut **receiver,
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        match self {
            Machines::Source(sender) => sender.deadline_ns(),
            Machines::Target(receiver) => receiver.deadline_ns(),
        }
    }
}

/// One device's threads and fds.
struct Attached {
    behind: Arc<dyn MigrationDevice>,
    control: Control,
    /// Something was asked of it.
    touched: bool,
    /// The control thread is with the driver.
    asked: bool,
    /// What the last SET_STATE gave and nobody has taken.
    fresh: Option<OwnedFd>,
    data: Option<(DataHandle, Arc<OwnedFd>, Epoch)>,
    /// A thread that was told to end: which, and until when that is waited for.
    ending: Option<(Epoch, u64)>,
}

pub(crate) struct Drive {
    machines: Machines,
    devices: Vec<Attached>,
    streams: Streams,
    workers: Workers<WorkTag>,
    slots: Vec<Option<Slot>>,
    inbox: Inbox,
    inputs: Channel<Input>,
    outbox: Arc<Outbox>,
    room: Arc<Room>,
    report: Arc<Mutex<Option<Ended>>>,
    watch: Watch,
    live: Live,
    backend: Backend,
    fallback: Option<String>,
    backend_choice: BackendChoice,
    chunk_bytes: usize,
    detach_bound: Duration,
    switchover: bool,
    /// The target was told to run.
    handed_over: bool,
    /// The devices were told that the session is ending.
    interrupted: bool,
    /// Events that an action caused by itself.
    caused: VecDeque<Event>,
    stream_events: Vec<StreamEvent>,
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
        let mut events = std::mem::take(&mut self.stream_events);
        self.streams.start(now_ns(), &mut events);
        self.stream_events = events;
        self.settle();
        while !self.is_over() {
            let timeout = self.timeout();
            let mut events = std::mem::take(&mut self.stream_events);
            if let Err(error) = self.streams.wait(timeout, now_ns, &mut events) {
                tracing::debug!(%error, "waiting for the streams");
            }
            self.stream_events = events;
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
        let endings = self.devices.iter().filter_map(|d| d.ending.map(|(_, until)| until));
        let next = endings
            .chain(self.machines.deadline_ns())
            .chain(self.linger_until_ns)
            .chain(self.live.deadline_ns())
            .min()?;
        Some(Duration::from_nanos(next.saturating_sub(now_ns)))
    }

    fn look_at_the_clock(&mut self) {
        let now_ns = now_ns();
        for index in 0..self.devices.len() {
            if self.devices[index].ending.is_some_and(|(_, until)| until <= now_ns) {
                self.devices[index].ending = None;
                tracing::warn!(device = index, "the driver still holds an operation");
                self.feed(Event::Detached { device: DeviceId(index as u32), stuck: true });
            }
        }
        if self.machines.deadline_ns().is_some_and(|at| at <= now_ns) {
            self.feed(Event::Tick);
        }
        self.live.look(now_ns, &self.watch.metrics, self.streams.metrics());
    }

    /// Hands on what streams and actions have caused, until there is nothing more.
    fn settle(&mut self) {
        loop {
            if let Some(event) = self.caused.pop_front() {
                self.feed(event);
            } else if self.stream_events.is_empty() {
                return;
            } else {
                for event in std::mem::take(&mut self.stream_events) {
                    self.take_stream_event(event);
                }
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let mut actions = std::mem::take(&mut self.actions);
        let now_ns = now_ns();
        self.live.touch();
        self.machines.machine().handle(now_ns, event, &mut actions);
        if !self.interrupted && self.machines.machine().is_ending() {
            self.interrupted = true;
            self.devices.iter().for_each(|device| device.behind.interrupt());
        }
        for action in actions.drain(..) {
            self.act(now_ns, action);
        }
        self.actions = actions;
    }

    fn put(&mut self, slot: Slot) -> SlotId {
        let id = slot.id();
        debug_assert!(self.slots[id.index()].is_none(), "{id} is in two places");
        self.slots[id.index()] = Some(slot);
        id
    }
}

/// A drive whose embedder hears of its end even if it panics.
struct Guarded(Drive);

impl Guarded {
    fn run(&mut self) {
        let host = match self.0.machines {
            Machines::Source(_) => "source",
            Machines::Target(_) => "target",
        };
        let devices = self.0.devices.len();
        let span = tracing::info_span!("session", host, devices, backend = ?self.0.backend);
        let _entered = span.enter();
        if let Some(why) = &self.0.fallback {
            tracing::warn!(why, "plain system calls in place of io_uring");
        }
        self.0.run();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.0.linger_until_ns.is_none() {
            let message = "the session's thread ended unexpectedly; this is a defect of the engine";
            let fault = Some(Fault::session(Cause::Local, Observation::Engine, message));
            let ending = match self.0.handed_over {
                true => EpochEnding::Unconfirmed,
                false => EpochEnding::Aborted,
            };
            // Whatever the machine says of the devices, nobody knows what became of them.
            let seen = vec![Seen { touched: true, unanswered: true }; self.0.devices.len()];
            self.0.end(Finish { ending, fault }, &seen, now_ns());
        }
        for device in self.0.devices.drain(..) {
            if let Some((handle, ..)) = device.data {
                handle.stop();
            }
            // The embedder may take the device away once the session is over. Only a driver that
            // has not answered keeps it.
            if !device.asked {
                device.control.finish();
            }
        }
    }
}
