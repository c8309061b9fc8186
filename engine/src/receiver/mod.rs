//! The receiver: the target's machine. Events in, actions out; see [`machine`](crate::machine).
//!
//! ```text
//! session:  Connect -> Active -> Resuming -> Finished(complete)
//!              \         |          |
//!               +--------+----------+--> Aborting -> Finished(aborted)
//!
//! device:   Expected -> Entering -> Loading -> Checking -> Stopping -> Confirming -> Loaded
//!                          ^           |                                               |
//!                          +-Discarding+ (discard frame: reset, RESUMING anew)         v
//!                                                         ToP2p -> AtP2p -> ToRunning -> Running
//! ```
//!
//! Frames of a device may arrive in any order over the streams; `window` puts them in order. A
//! frame is taken only within the credit that was granted, and the credit never goes further than
//! the slots that the device owns, so a frame that is allowed to arrive always finds its slot.

mod connect;
mod control;
mod device;
mod discard;
mod frames;
mod loading;
mod resuming;
mod shutdown;
mod window;

pub use device::{DeviceConfig, DeviceReport};

use std::collections::VecDeque;

use crate::ids::DeviceId;
use crate::machine::{
    Action, Command, Event, Finish, Links, LinksConfig, Machine, Notice, SlotBudget,
};
use crate::outcome::{Cause, Fault, Observation, Phase};
use crate::wire::{Accept, Hello, Offer};
use device::Device;

/// What a receiver is made from.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The devices, in the order of their numbers.
    pub devices: Vec<DeviceConfig>,
    /// Streams and silence.
    pub links: LinksConfig,
    /// Chunk size that is offered, in bytes; slots have room for this much.
    pub chunk_bytes: u32,
    /// Decompression workers.
    pub workers: usize,
    /// Slots that one device owns: the window of its frames.
    pub slots_per_device: usize,
    /// How long an abort waits for the devices' way back and for the abort frame to go out, in
    /// nanoseconds.
    pub abort_bound_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Active,
    Resuming,
    /// All devices run; the source is being told.
    Telling {
        until_ns: u64,
    },
    Aborting {
        until_ns: u64,
    },
    Finished,
}

/// See the module's text.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    offer: Offer,
    stage: Stage,
    hello: Option<Hello>,
    accept: Option<Accept>,
    greeted: Vec<bool>,
    links: Links,
    devices: Vec<Device>,
    slots: SlotBudget,
    /// Bodies that wait for a slot to be decompressed into.
    undecoded: VecDeque<loading::Undecoded>,
    /// Whose body each stream is receiving.
    receiving: Vec<Option<DeviceId>>,
    fault: Option<Fault>,
    /// The source is told that this side does not run only when that is so.
    word: Option<Fault>,
    finish: Option<Finish>,
}

impl Receiver {
    /// A receiver at rest; [`Event::Start`] sets it going.
    pub fn new(config: ReceiverConfig) -> Receiver {
        let streams = usize::from(config.links.streams);
        let window = config.slots_per_device as u64;
        Receiver {
            offer: Offer::new(streams, config.devices.len(), config.chunk_bytes as usize),
            stage: Stage::Connect,
            hello: None,
            accept: None,
            greeted: vec![false; streams],
            links: Links::new(config.links, 0),
            slots: SlotBudget::new(config.devices.len(), config.slots_per_device, config.workers),
            devices: config
                .devices
                .iter()
                .enumerate()
                .map(|(i, device)| Device::new(DeviceId(i as u32), device.clone(), window))
                .collect(),
            undecoded: VecDeque::new(),
            receiving: vec![None; streams],
            fault: None,
            word: None,
            finish: None,
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
            Command::Cancel => {
                let fault = Fault::session(
                    Cause::Cancelled,
                    Observation::Embedder,
                    "the embedder of the target cancelled the migration",
                );
                self.abort(now_ns, fault, actions);
            }
            Command::Message(bytes) => {
                if let Err(fault) = self.links.queue_message(bytes) {
                    self.abort(now_ns, fault, actions);
                }
            }
            // The source's commands.
            Command::Switchover | Command::Discard(..) => {}
        }
    }

    fn tick(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        match self.stage {
            Stage::Aborting { until_ns } if now_ns >= until_ns => self.aborted(actions),
            Stage::Telling { until_ns } if now_ns >= until_ns => self.complete(actions),
            // Since the handover nothing depends on the source any more.
            Stage::Resuming | Stage::Telling { .. } | Stage::Aborting { .. } | Stage::Finished => {}
            Stage::Connect | Stage::Active => {
                if let Err(fault) = self.links.tick(now_ns) {
                    self.abort(now_ns, fault, actions);
                }
            }
        }
    }

    fn enter_phase(&mut self, id: DeviceId, phase: Phase, actions: &mut Vec<Action>) {
        let device = &mut self.devices[id.index()];
        if device.phase != phase {
            device.phase = phase;
            actions.push(Action::Notify(Notice::Phase { device: id, phase }));
        }
    }

    fn pump(&mut self, now_ns: u64, actions: &mut Vec<Action>) {
        self.advance(now_ns, actions);
        self.links.pump(actions);
        self.finish_if_done(actions);
    }
}

impl Machine for Receiver {
    fn handle(&mut self, now_ns: u64, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Start => self.links = Links::new(self.config.links, now_ns),
            Event::Command(command) => self.command(now_ns, command, actions),
            Event::Control { device, request, result } => {
                self.answered(now_ns, device, request, result, actions);
            }
            Event::Written { device, epoch, raw_bytes, slot, result } => {
                self.written(now_ns, device, epoch, raw_bytes, slot, result, actions);
            }
            Event::Detached { device, stuck } => self.detached(now_ns, device, stuck, actions),
            Event::Decoded { header, slot, into, result } => {
                self.decoded(now_ns, header, slot, into, result, actions);
            }
            Event::Sent { stream, .. } => self.links.sent(stream),
            Event::Frame { stream, frame } => self.frame(now_ns, stream, frame, actions),
            Event::Data { stream, header } => self.data(now_ns, stream, header, actions),
            Event::Body { stream, header, slot } => {
                self.body(now_ns, stream, header, slot, actions);
            }
            Event::StreamLost { stream, slots, fault } => {
                self.stream_lost(now_ns, stream, slots, fault, actions);
            }
            Event::Local(fault) => self.abort(now_ns, fault, actions),
            Event::Tick => self.tick(now_ns, actions),
            Event::Read { .. } | Event::HungUp { .. } | Event::Encoded { .. } => {
                debug_assert!(false, "a receiver reads and encodes nothing");
            }
        }
        self.pump(now_ns, actions);
    }

    fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Aborting { .. } | Stage::Finished)
    }

    fn deadline_ns(&self) -> Option<u64> {
        match self.stage {
            Stage::Resuming | Stage::Finished => None,
            Stage::Telling { until_ns } | Stage::Aborting { until_ns } => Some(until_ns),
            Stage::Connect | Stage::Active => Some(self.links.deadline_ns()),
        }
    }
}
