//! The receiver: the target's machine. Events in, actions out; see [`machine`](crate::machine).
//!
//! ```text
//! session:  Connect -> Active -> Resuming -> Telling -> Finished(running)
//!              \         |          |
//!               +--------+----------+--> Aborting -> Finished(blank | not blank)
//! ```
//!
//! Each device goes through the stages of `stage.rs`. Frames of a device may arrive in any order
//! over the streams; its window puts them in order. A frame is taken only within the credit that was
//! granted, and the credit never goes further than the slots that the device owns, so a frame that
//! is allowed to arrive always finds its slot.
//!
//! | file | what it holds |
//! |---|---|
//! | `handshake` | hello and accept |
//! | `stage` | where a device rests and what it is asked next: tables |
//! | `device`, `epoch` | a device; one epoch of it |
//! | `window` | frames in order, and credit |
//! | `requests` | requests to devices and their answers |
//! | `frames` | what the source says |
//! | `body`, `write` | a chunk's way: off a stream, through a worker, into the fd |
//! | `discard` | a discarded epoch |
//! | `switchover` | the handover, the P2P barrier |
//! | `ending` | abort, and how the session ends |

mod body;
mod device;
mod discard;
mod ending;
mod epoch;
mod frames;
mod handshake;
mod requests;
mod stage;
mod switchover;
mod window;
mod write;

pub use device::DeviceConfig;

use std::collections::VecDeque;

use crate::ids::DeviceId;
use crate::machine::{
    Action, Command, DeviceReport, Event, Machine, Owed, Peer, PeerConfig, SlotBudget, TimeLimits,
    Turn, Wait, Waits, over,
};
use crate::outcome::{Cause, Fault, Observation, TargetEnding};
use crate::wire::{Accept, Hello, Offer};
use device::Device;
use stage::Stage as DeviceStage;

/// What a receiver is made from.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// The devices, in the order of their numbers.
    pub devices: Vec<DeviceConfig>,
    /// Streams and silence.
    pub peer: PeerConfig,
    /// Chunk size that is offered, in bytes; slots have room for this much.
    pub chunk_bytes: u32,
    /// Decompression workers.
    pub workers: usize,
    /// Slots that one device owns: the window of its frames.
    pub slots_per_device: usize,
    /// How long it waits for what.
    pub limits: TimeLimits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Active,
    /// The session was handed over: the devices go to RUNNING.
    Resuming,
    /// All devices run; the source is being told.
    Telling,
    Aborting,
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
    peer: Peer,
    waits: Waits,
    devices: Vec<Device>,
    slots: SlotBudget,
    /// The source has stopped a device, and so its VM: the state of every device is owed.
    vm_stopped: bool,
    /// Bodies that wait for a slot to be decompressed into.
    undecoded: VecDeque<body::Undecoded>,
    fault: Option<Fault>,
    /// The abort frame, held back until every device is known not to run with the state.
    held_abort: Option<Fault>,
    ending: Option<TargetEnding>,
}

impl Receiver {
    /// A receiver at rest; [`Event::Start`] sets it going.
    pub fn new(config: ReceiverConfig) -> Receiver {
        let streams = usize::from(config.peer.streams);
        let slots = config.slots_per_device as u64;
        let device = |(index, device): (usize, &DeviceConfig)| {
            Device::new(DeviceId(index as u32), device.clone(), slots)
        };
        Receiver {
            offer: Offer::new(streams, config.devices.len(), config.chunk_bytes as usize),
            stage: Stage::Connect,
            hello: None,
            accept: None,
            greeted: vec![false; streams],
            peer: Peer::new(config.peer),
            waits: Waits::default(),
            devices: config.devices.iter().enumerate().map(device).collect(),
            slots: SlotBudget::new(config.devices.len(), config.slots_per_device, config.workers),
            vm_stopped: false,
            undecoded: VecDeque::new(),
            fault: None,
            held_abort: None,
            ending: None,
            config,
        }
    }

    /// How the session ended, once it has.
    pub fn ending(&self) -> Option<&TargetEnding> {
        self.ending.as_ref()
    }

    /// Takes an event; the fault gives the session up.
    fn take(&mut self, turn: &mut Turn, event: Event) -> Result<(), Fault> {
        if event.is_heard() {
            self.peer.heard(turn);
        }
        if event.epoch().is_some_and(|(device, epoch)| self.is_stale(device, epoch)) {
            event.slots().for_each(|slot| self.slots.put(slot));
            return Ok(());
        }
        match event {
            Event::Start => self.start(turn),
            Event::Command(command) => return self.command(command),
            Event::Control { device, request, result } => {
                return self.answered(turn, device, request, result);
            }
            Event::Written { device, raw_bytes, slot, result, .. } => {
                return self.written(turn, device, raw_bytes, slot, result);
            }
            Event::Detached { device, stuck } => return self.detached(turn, device, stuck),
            Event::Decoded { header, slot, into, result } => {
                return self.decoded(turn, header, slot, into, result);
            }
            Event::Sent { stream, .. } => self.peer.sent(stream),
            Event::Frame { stream, frame } => return self.frame(turn, stream, frame),
            Event::Data { stream, header } => return self.data(turn, stream, header),
            Event::Body { header, slot, .. } => return self.body(turn, header, slot),
            Event::StreamLost { stream, slots, fault } => {
                slots.into_iter().for_each(|slot| self.slots.put(slot));
                return self.peer.lost(turn, stream, fault);
            }
            Event::Part { sent, bytes, .. } => {
                if !sent && self.peer.part_moved(bytes) {
                    self.path_moved(turn);
                }
            }
            Event::Local(fault) => return Err(fault),
            Event::Tick => return self.tick(turn),
            // Who receives does not choose how chunks travel.
            Event::Path { .. } | Event::Link { .. } => {}
            Event::Read { .. }
            | Event::HungUp { .. }
            | Event::Encoded { .. }
            | Event::Sampled(_) => {
                debug_assert!(false, "a receiver reads and encodes nothing");
            }
        }
        Ok(())
    }

    fn command(&mut self, command: Command) -> Result<(), Fault> {
        match command {
            Command::Cancel => Err(Fault::session(
                Cause::Cancelled,
                Observation::Embedder,
                "the embedder of the target cancelled the migration",
            )),
            Command::Message(bytes) => self.peer.queue_message(bytes),
            // The embedder has found its device reset: what was loaded is lost.
            Command::Discard(_, fault) => Err(fault),
            // The source's.
            Command::Switchover => Ok(()),
        }
    }

    fn tick(&mut self, turn: &mut Turn) -> Result<(), Fault> {
        match self.waits.take_due(turn.now_ns) {
            Some(Wait::Handshake) => {
                let owed = "the source has not said hello on every stream";
                return Err(over("handshake_limit", self.config.limits.handshake_ns, None, owed));
            }
            // What is owed has its own limit.
            Some(Wait::Idle) if self.devices.iter().any(|d| d.core.progress.owed().is_some()) => {
                self.waits.set(Wait::Idle, turn.after(self.config.limits.idle_ns));
            }
            Some(Wait::Idle) => {
                let owed = "the source has sent none of the state";
                return Err(over("idle_limit", self.config.limits.idle_ns, None, owed));
            }
            Some(Wait::Resume) => self.end_unfinished(turn),
            Some(Wait::WayBack) => self.end_aborted(turn),
            Some(Wait::Farewell) => self.end(turn, TargetEnding::Running),
            _ => {}
        }
        self.check_progress(turn)?;
        self.peer.tick(turn)
    }

    /// A device that has not moved ends the session, after the handover too.
    fn check_progress(&mut self, turn: &mut Turn) -> Result<(), Fault> {
        let stall_ns = self.config.limits.stall_ns;
        let late = |device: &mut Device| device.core.check_progress(turn, stall_ns).err();
        let Some(fault) = self.devices.iter_mut().find_map(late) else { return Ok(()) };
        self.give_up(turn, fault);
        Ok(())
    }

    /// Some of the state has come, or a frame that speaks of it.
    pub(super) fn moved(&mut self, turn: &Turn) {
        self.path_moved(turn);
    }

    /// The source moves: every device has its share of the path.
    fn path_moved(&mut self, turn: &Turn) {
        if self.stage == Stage::Active {
            self.waits.set(Wait::Idle, turn.after(self.config.limits.idle_ns));
        }
        for device in &mut self.devices {
            if device.core.progress.owed().is_some_and(Owed::is_by_peer) {
                device.core.progress.moved();
            }
        }
    }

    /// What every device is owed after this event.
    fn look_for_progress(&mut self, turn: &Turn) {
        let goes_on = matches!(self.stage, Stage::Active | Stage::Resuming);
        let all = self.devices.iter().all(|device| device.core.stage == DeviceStage::Loaded);
        for device in &mut self.devices {
            let owed = device
                .owed(self.slots.held(device.core.id()), self.vm_stopped, all)
                .filter(|_| goes_on);
            device.core.progress.look(turn, owed, self.config.limits.stall_ns);
        }
    }

    /// Everything that can be started now is started.
    fn pump(&mut self, turn: &mut Turn) {
        self.decode_next(turn);
        self.advance(turn);
        self.peer.pump(turn);
        self.look_for_progress(turn);
        self.end_if_done(turn);
    }
}

impl Machine for Receiver {
    fn handle(&mut self, now_ns: u64, event: Event, actions: &mut Vec<Action>) {
        let mut turn = Turn::new(now_ns, actions);
        if let Err(fault) = self.take(&mut turn, event) {
            self.abort(&mut turn, fault);
        }
        self.pump(&mut turn);
    }

    fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Aborting | Stage::Finished)
    }

    fn deadline_ns(&self) -> Option<u64> {
        let session = [self.waits.deadline_ns(), self.peer.deadline_ns()];
        let devices = self.devices.iter().map(|device| device.core.deadline_ns());
        session.into_iter().chain(devices).flatten().min()
    }

    fn reports(&self) -> Vec<DeviceReport> {
        self.devices.iter().map(|device| device.core.report(&device.epoch.state)).collect()
    }

    fn has_told(&self) -> bool {
        self.peer.is_told()
    }

    fn slots_out(&self) -> usize {
        self.slots.out()
    }
}
