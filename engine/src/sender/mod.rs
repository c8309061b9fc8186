//! The sender: the source's machine. Events in, actions out; see [`machine`](crate::machine).
//!
//! ```text
//! session:  Connect -> Active -> Handover -> Leaving -> Finished(handed over | unconfirmed)
//!              \         |          |
//!               +--------+----------+--> Aborting -> Finished(returned | not returned)
//! ```
//!
//! Each device goes through the stages of `stage.rs`. A reset seen anywhere in a saving state leads
//! to what the embedder chose: abort, or a discard that starts the next epoch of just that device.
//!
//! | file | what it holds |
//! |---|---|
//! | `handshake` | hello and accept, and each device's begin |
//! | `stage` | where a device rests and what it is asked next: tables |
//! | `device`, `epoch` | a device; one saving session of it |
//! | `requests` | requests to devices and their answers |
//! | `read`, `encode`, `schedule` | a chunk's way: out of the fd, through a worker or not, onto a stream |
//! | `train` | how fast the path is, before anything depends on it |
//! | `frames` | what the target says |
//! | `estimate` | what the downtime would be now |
//! | `pace` | how long a device's transitions take |
//! | `reset` | a lost epoch: abort, restart or stop-copy |
//! | `switchover` | the P2P barrier, the handover |
//! | `ending` | abort, and how the session ends |

mod device;
mod encode;
mod ending;
mod epoch;
mod estimate;
mod frames;
mod handshake;
mod pace;
mod read;
mod requests;
mod reset;
mod schedule;
mod stage;
mod switchover;
#[cfg(test)]
mod tests;
mod train;

pub use device::DeviceConfig;

use crate::compress::policy::{Controller, Learned, Policy};
use crate::ids::DeviceId;
use crate::machine::{
    Action, Command, DeviceReport, Event, Machine, Owed, Peer, PeerConfig, SlotBudget, TimeLimits,
    Turn, Wait, Waits, over,
};
use crate::outcome::{Breach, Cause, Fault, Observation, SourceEnding};
use crate::wire::{Accept, Kind, Offer};
use device::Device;
use train::Train;

/// What a sender is made from.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// The devices, in the order of their numbers.
    pub devices: Vec<DeviceConfig>,
    /// Streams and silence.
    pub peer: PeerConfig,
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
    /// What the embedder knows of the path, in bytes per second on the wire.
    pub path_bytes_per_s: Option<u64>,
    /// How long to wait before a drained PRE_COPY device is asked again, in nanoseconds.
    pub precopy_poll_ns: u64,
    /// How long it waits for what.
    pub limits: TimeLimits,
}

/// However short the embedder wants it: each question is an ioctl under the driver's mutex.
const PRECOPY_POLL_MIN_NS: u64 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Active,
    /// The target may run; its word is awaited.
    Handover,
    /// The devices are put to STOP: the target runs, and the session has handed over whatever
    /// happens now, or nobody knows, and there is a fault that says why.
    Leaving,
    Aborting,
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
    peer: Peer,
    waits: Waits,
    devices: Vec<Device>,
    slots: SlotBudget,
    controller: Controller,
    /// Data frames that have left raw since one left compressed.
    raw_in_a_row: u32,
    switchover: bool,
    /// To the target and back, in nanoseconds.
    round_trip_ns: u64,
    train: Train,
    /// Where the service of the device that sent last has started.
    service: u64,
    fault: Option<Fault>,
    ending: Option<SourceEnding>,
}

impl Sender {
    /// A sender at rest; [`Event::Start`] sets it going.
    pub fn new(config: SenderConfig) -> Sender {
        let poll_ns = config.precopy_poll_ns.max(PRECOPY_POLL_MIN_NS);
        let device = |(index, device): (usize, &DeviceConfig)| {
            Device::new(DeviceId(index as u32), device.clone(), poll_ns)
        };
        let devices: Vec<Device> = config.devices.iter().enumerate().map(device).collect();
        let streams = usize::from(config.peer.streams);
        Sender {
            offer: Offer::new(streams, devices.len(), config.chunk_bytes as usize),
            stage: Stage::Connect,
            accepts: vec![None; streams],
            peer: Peer::new(config.peer),
            waits: Waits::default(),
            slots: SlotBudget::new(devices.len(), config.slots_per_device, config.workers),
            controller: Controller::new(config.policy, config.workers as u32, config.chunk_bytes),
            raw_in_a_row: 0,
            switchover: false,
            round_trip_ns: 0,
            train: Train::new(),
            service: 0,
            fault: None,
            ending: None,
            devices,
            config,
        }
    }

    /// Begins with what a session before it has found out on the same path. Before [`Event::Start`].
    pub fn recall(&mut self, learned: Learned) {
        self.controller.recall(learned);
    }

    /// What it has found out.
    pub fn learned(&self) -> Learned {
        self.controller.learned()
    }

    /// How the session ended, once it has.
    pub fn ending(&self) -> Option<&SourceEnding> {
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
            Event::Command(command) => return self.command(turn, command),
            Event::Control { device, request, result } => {
                return self.answered(turn, device, request, result);
            }
            Event::Read { device, slot, result, .. } => self.read(turn, device, slot, result),
            Event::HungUp { device, .. } => self.hung_up(device),
            Event::Detached { device, stuck } => return self.detached(turn, device, stuck),
            Event::Encoded { chunk, slot, into, result } => {
                self.encoded(chunk, slot, into, result);
            }
            Event::Sampled(samples) => self.controller.sampled(&samples),
            Event::Path { hosts, bytes_per_s, may_try } => {
                self.controller.hosts_known(hosts);
                let known = [bytes_per_s, self.config.path_bytes_per_s].into_iter().flatten().min();
                match known {
                    Some(rate) => self.controller.link_known(rate),
                    None if may_try => self.train.wanted(),
                    None => {}
                }
            }
            Event::Link { bytes_per_s, at_least, round_trip_ns } => {
                // Of a stream that is no TCP the kernel does not know it.
                if round_trip_ns > 0 {
                    self.round_trip_ns = round_trip_ns;
                }
                self.controller.link_measured(bytes_per_s, at_least);
            }
            Event::Sent { stream, slot } => {
                self.peer.sent(stream);
                self.path_moved();
                slot.into_iter().for_each(|slot| self.slots.put(slot));
            }
            Event::Frame { stream, frame } => return self.frame(turn, stream, frame),
            Event::StreamLost { stream, slots, fault } => {
                slots.into_iter().for_each(|slot| self.slots.put(slot));
                return self.peer.lost(turn, stream, fault);
            }
            Event::Part { sent, bytes, .. } => {
                if sent && self.peer.part_moved(bytes) {
                    self.path_moved();
                }
            }
            Event::Local(fault) => return Err(fault),
            Event::Tick => return self.tick(turn),
            Event::Data { stream, header } => {
                if header.body_bytes > 0 {
                    turn.act(Action::SkipBody { stream });
                }
                let what = "state goes from the source to the target";
                return Err(Fault::breach(Breach::Unexpected { kind: Kind::DATA, what }));
            }
            Event::Body { .. } | Event::Decoded { .. } | Event::Written { .. } => {
                debug_assert!(false, "a sender receives, decodes and writes nothing");
            }
        }
        Ok(())
    }

    fn command(&mut self, turn: &mut Turn, command: Command) -> Result<(), Fault> {
        match command {
            Command::Switchover => self.switchover(turn),
            Command::Cancel => {
                return Err(Fault::session(
                    Cause::Cancelled,
                    Observation::Embedder,
                    "the embedder cancelled the migration",
                ));
            }
            Command::Message(bytes) => match self.peer.queue_message(bytes) {
                // No reason not to be told that the target runs.
                Err(fault) if self.stage == Stage::Handover => {
                    tracing::warn!(%fault, "after the handover; the message is not sent");
                }
                queued => return queued,
            },
            Command::Discard(device, fault) => {
                if let Some(lost) = self.devices.get_mut(device.index()) {
                    // What its VMM says is what is known of it, and it has said so elsewhere.
                    if lost.config.embedded {
                        lost.core.line.was_moved();
                    }
                    return self.epoch_lost(turn, device, fault);
                }
            }
        }
        Ok(())
    }

    fn tick(&mut self, turn: &mut Turn) -> Result<(), Fault> {
        match self.waits.take_due(turn.now_ns) {
            Some(Wait::Handshake) => {
                let owed = "the target has not accepted every stream";
                return Err(over("handshake_limit", self.config.limits.handshake_ns, None, owed));
            }
            Some(Wait::Budget) => return Err(self.budget_over()),
            Some(Wait::Stall) => {
                let owed = "the streams do not take the handover";
                return Err(over("stall_limit", self.config.limits.stall_ns, None, owed));
            }
            Some(Wait::Confirm) => {
                let fault = self.unconfirmed();
                self.leave(turn, Some(fault));
            }
            Some(Wait::Barrier) => self.release_all(turn),
            Some(Wait::WayBack) => self.end_aborted(turn),
            Some(Wait::LettingGo) => self.end_left(turn),
            _ => {}
        }
        let stall_ns = self.config.limits.stall_ns;
        for device in &mut self.devices {
            device.core.check_progress(turn, stall_ns)?;
        }
        self.peer.tick(turn)
    }

    /// Frames have left, or much of one.
    fn path_moved(&mut self) {
        for device in &mut self.devices {
            if device.core.progress.owed() == Some(Owed::Path) {
                device.core.progress.moved();
            }
        }
    }

    /// The target moves: every device has its share of what it does.
    pub(super) fn peer_moved(&mut self) {
        for device in &mut self.devices {
            if device.core.progress.owed().is_some_and(Owed::is_by_peer) {
                device.core.progress.moved();
            }
        }
    }

    /// What every device is owed after this event.
    fn look_for_progress(&mut self, turn: &Turn) {
        let active = self.stage == Stage::Active;
        for device in &mut self.devices {
            let owed = device.owed().filter(|_| active);
            device.core.progress.look(turn, owed, self.config.limits.stall_ns);
        }
    }

    /// Everything that can be started now is started.
    fn pump(&mut self, turn: &mut Turn) {
        self.advance(turn);
        self.ask_for_reads(turn);
        self.offer_chunks(turn);
        self.peer.pump(turn);
        self.confirm_if_out(turn);
        self.send_data(turn);
        self.try_path(turn);
        self.look_for_progress(turn);
        self.end_if_done(turn);
    }
}

impl Machine for Sender {
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
        if self.stage == Stage::Finished {
            return None;
        }
        let session = [self.waits.deadline_ns(), self.peer.deadline_ns()];
        let devices = self.devices.iter().map(|device| device.deadline_ns(self.switchover));
        session.into_iter().chain(devices).flatten().min()
    }

    fn reports(&self) -> Vec<DeviceReport> {
        self.devices.iter().map(Device::report).collect()
    }

    fn has_told(&self) -> bool {
        self.peer.is_told()
    }

    fn slots_out(&self) -> usize {
        self.slots.out()
    }
}
