//! The sender: the source's machine. Events in, actions out; see [`machine`](crate::machine).
//!
//! ```text
//! session:  Connect -> Active -> Handover -> Leaving -> Finished(complete | unconfirmed)
//!              \         |          |
//!               +--------+----------+--> Aborting -> Finished(aborted)
//!
//! device:   Idle -> Entering -> PreCopy --+-> ToP2p -> Stopping -> StopCopy -> Verifying -> Sent
//!             \------> Held --------------/                                      Loaded <-/
//! ```
//!
//! A reset seen anywhere in a saving state leads through its stage `Classifying` to what the
//! embedder chose: abort, or a discard that starts the next epoch of just that device.

mod connect;
mod control;
mod device;
mod frames;
mod reset;
mod saving;
mod sending;
mod shutdown;
mod switchover;
#[cfg(test)]
mod tests;

pub use device::{DeviceConfig, DeviceReport};

use std::collections::VecDeque;

use crate::compress::policy::{Controller, Policy};
use crate::ids::DeviceId;
use crate::machine::{
    Action, Command, Event, Finish, Links, LinksConfig, Machine, Notice, SlotBudget,
};
use crate::outcome::{Breach, Cause, Fault, Observation, Phase};
use crate::wire::{Accept, Kind, Offer};
use device::Device;

/// What a sender is made from.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// The devices, in the order of their numbers.
    pub devices: Vec<DeviceConfig>,
    /// Streams and silence.
    pub links: LinksConfig,
    /// Names the session: the same on all its streams.
    pub session: u128,
    /// Chunk size that is offered, in bytes; slots have room for this much.
    pub chunk_bytes: u32,
    /// Compression workers.
    pub workers: usize,
    /// Slots that one device may hold.
    pub slots_per_device: usize,
    /// Raw, zstd, or decided for each chunk.
    pub policy: Policy,
    /// How long to wait before a drained PRE_COPY device is asked again, in nanoseconds.
    pub precopy_poll_ns: u64,
    /// How long an abort waits for the devices' way back and for the abort frame to go out, in
    /// nanoseconds.
    pub abort_bound_ns: u64,
}

/// However short the embedder wants it: each question is an ioctl under the driver's mutex.
const PRECOPY_POLL_MIN_NS: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Active,
    /// The target may run; its word is awaited.
    Handover,
    /// The devices are being let go: the target runs, and the session is complete whatever happens
    /// now, or nobody knows, and there is a fault that says why.
    Leaving {
        until_ns: u64,
    },
    Aborting {
        until_ns: u64,
    },
    Finished,
}

/// See the module's text.
#[derive(Debug)]
pub struct Sender {
    config: SenderConfig,
    offer: Offer,
    stage: Stage,
    /// What the target has accepted on which stream.
    accepts: Vec<Option<Accept>>,
    links: Links,
    devices: Vec<Device>,
    slots: SlotBudget,
    controller: Controller,
    chunk_bytes: u32,
    switchover: bool,
    encoding: u32,
    /// Chunks to be compressed that wait for a worker's slot.
    unencoded: VecDeque<saving::Unencoded>,
    queued_wire_bytes: u64,
    /// Data that was sent and that the target has not said to be done with.
    under_way_wire_bytes: u64,
    /// Whose frame each stream is sending.
    stream_owner: Vec<Option<DeviceId>>,
    service: u64,
    fault: Option<Fault>,
    finish: Option<Finish>,
}

impl Sender {
    /// A sender at rest; [`Event::Start`] sets it going.
    pub fn new(mut config: SenderConfig) -> Sender {
        config.precopy_poll_ns = config.precopy_poll_ns.max(PRECOPY_POLL_MIN_NS);
        let devices: Vec<Device> = config
            .devices
            .iter()
            .enumerate()
            .map(|(i, device)| Device::new(DeviceId(i as u32), device.clone()))
            .collect();
        let streams = usize::from(config.links.streams);
        Sender {
            offer: Offer::new(streams, devices.len(), config.chunk_bytes as usize),
            stage: Stage::Connect,
            accepts: vec![None; streams],
            links: Links::new(config.links, 0),
            slots: SlotBudget::new(devices.len(), config.slots_per_device, config.workers),
            controller: Controller::new(config.policy, config.workers as u32, config.chunk_bytes),
            chunk_bytes: config.chunk_bytes,
            switchover: false,
            encoding: 0,
            unencoded: VecDeque::new(),
            queued_wire_bytes: 0,
            under_way_wire_bytes: 0,
            stream_owner: vec![None; streams],
            service: 0,
            fault: None,
            finish: None,
            devices,
            config,
        }
    }

    /// What became of each device so far.
    pub fn reports(&self) -> Vec<DeviceReport> {
        self.devices.iter().map(Device::report).collect()
    }

    /// How the session ended, once it has.
    pub fn finish(&self) -> Option<&Finish> {
        self.finish.as_ref()
    }

    /// Slots that are out; 0 once everything has come back.
    pub fn slots_out(&self) -> usize {
        self.slots.out()
    }

    fn command(&mut self, now_ns: u64, command: Command, actions: &mut Vec<Action>) {
        match command {
            Command::Switchover => self.switchover(now_ns, actions),
            Command::Cancel => {
                let fault = Fault::session(
                    Cause::Cancelled,
                    Observation::Embedder,
                    "the embedder cancelled the migration",
                );
                self.abort(now_ns, fault, actions);
            }
            Command::Message(bytes) => match self.links.queue_message(bytes) {
                // No reason not to be told that the target runs.
                Err(fault) if self.stage == Stage::Handover => {
                    tracing::warn!(%fault, "after the handover; the message is not sent");
                }
                Err(fault) => self.abort(now_ns, fault, actions),
                Ok(()) => {}
            },
            Command::Discard(device, fault) => {
                if device.index() < self.devices.len() {
                    self.epoch_lost(now_ns, device, fault, actions);
                }
            }
        }
    }

    fn tick(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.stage {
            Stage::Aborting { until_ns } if now_ns >= until_ns => self.aborted(actions),
            Stage::Leaving { until_ns } if now_ns >= until_ns => self.complete(actions),
            _ => {}
        }
        if matches!(self.stage, Stage::Aborting { .. } | Stage::Leaving { .. } | Stage::Finished) {
            return;
        }
        if let Err(fault) = self.links.tick(now_ns) {
            self.abort(now_ns, fault, actions);
        }
    }

    fn enter_phase(&mut self, device: DeviceId, phase: Phase, actions: &mut Vec<Action>) {
        let entry = &mut self.devices[device.index()];
        if entry.phase != phase {
            entry.phase = phase;
            actions.push(Action::Notify(Notice::Phase { device, phase }));
        }
    }
}

impl Machine for Sender {
    fn handle(&mut self, now_ns: u64, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Start => self.start(now_ns, actions),
            Event::Command(command) => self.command(now_ns, command, actions),
            Event::Control { device, request, result } => {
                self.answered(now_ns, device, request, result, actions);
            }
            Event::Read { device, epoch, slot, result } => {
                self.read(now_ns, device, epoch, slot, result, actions);
            }
            Event::HungUp { device, epoch } => self.hung_up(device, epoch),
            Event::Detached { device, stuck } => self.detached(now_ns, device, stuck, actions),
            Event::Encoded { chunk, slot, into, result } => {
                self.encoded(now_ns, chunk, slot, into, result, actions);
            }
            Event::Sent { stream, slot } => self.sent(stream, slot),
            Event::Frame { stream, frame } => self.frame(now_ns, stream, frame, actions),
            Event::StreamLost { stream, slots, fault } => {
                self.stream_lost(now_ns, stream, slots, fault, actions);
            }
            Event::Local(fault) => self.abort(now_ns, fault, actions),
            Event::Tick => self.tick(now_ns, actions),
            Event::Data { stream, header } => {
                if header.body_bytes > 0 {
                    actions.push(Action::SkipBody { stream });
                }
                let what = "state goes from the source to the target";
                let breach = Breach::Unexpected { kind: Kind::DATA, what };
                self.misbehaved(now_ns, breach, actions);
            }
            Event::Body { .. } | Event::Decoded { .. } | Event::Written { .. } => {
                debug_assert!(false, "a sender receives, decodes and writes nothing");
            }
        }
        self.pump(now_ns, actions);
    }

    fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Aborting { .. } | Stage::Finished)
    }

    fn deadline_ns(&self) -> Option<u64> {
        match self.stage {
            Stage::Finished => None,
            Stage::Aborting { until_ns } | Stage::Leaving { until_ns } => Some(until_ns),
            _ => {
                let asks = self.devices.iter().filter_map(Device::ask_at_ns).min();
                Some(self.links.deadline_ns().min(asks.unwrap_or(u64::MAX)))
            }
        }
    }
}
