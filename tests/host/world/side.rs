//! One host: the real machine, and what stands in for the drive around it.

use std::collections::BTreeMap;

use vfio_ferry::ids::{DeviceId, Epoch, Sequence, SlotId, StreamId};
use vfio_ferry::machine::{Action, DeviceReport, Event, Machine, PeerConfig, Reply, Request};
use vfio_ferry::outcome::{Completion, EpochEnding, Fault, Phase, SourceEnding, TargetEnding};
use vfio_ferry::receiver::{self, Receiver, ReceiverConfig};
use vfio_ferry::sender::{self, Sender, SenderConfig};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{Frame, Offer, WireLimits};

use super::clock::Clock;
use super::device::SimDevice;
use super::fd::DataFd;
use super::plan::Plan;
use super::schedule::{HostId, Lane, SOURCE};

/// The smallest chunk that the handshake knows; the simulated devices give much less at a time.
pub(crate) const CHUNK_BYTES: u32 = 4096;

const RUNNING: DeviceState = DeviceState::Running;

/// Where a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Free, or at rest inside the machine.
    Machine,
    /// With a data fd.
    Fd(DeviceId),
    /// With a worker, of this device.
    Worker(DeviceId),
    /// Being sent from.
    Sending(StreamId),
    /// Being received into, for this device.
    Receiving(StreamId, DeviceId),
}

#[derive(Debug)]
pub(crate) struct SimSlot {
    pub(crate) place: Place,
    pub(crate) bytes: Vec<u8>,
}

/// A device and its threads on one host.
#[derive(Debug)]
pub(crate) struct SideDevice {
    pub(crate) sim: SimDevice,
    /// Where it was found.
    pub(crate) home: DeviceState,
    pub(crate) asked: Option<Request>,
    /// Since when; when the driver gave something back last; when the peer moved it on.
    pub(crate) asked_ns: u64,
    pub(crate) driver_ns: u64,
    pub(crate) peer_ns: u64,
    /// Since when what the driver, and the peer, owe it has not moved.
    pub(crate) owed_ns: [u64; 2],
    /// Its epoch, as its embedder was told.
    pub(crate) epoch: Epoch,
    /// Chunks of its last epoch that have come and not gone out (source).
    pub(crate) waiting: (Epoch, usize),
    /// How far the target's credit goes (source).
    pub(crate) credit: (Epoch, Sequence),
    /// How often each request was asked before.
    pub(crate) asked_before: Vec<(Request, u64)>,
    /// The call will fail so.
    pub(crate) fails: Option<i32>,
    /// The call will panic.
    pub(crate) panics: bool,
    /// The call's time is over, and a read or write still holds the driver's mutex.
    pub(crate) waits_for_mutex: bool,
    pub(crate) answers: Lane,
    /// The session behind the fd that nobody has taken yet.
    pub(crate) fresh: Option<usize>,
    pub(crate) fds: Vec<DataFd>,
    /// Which of them takes jobs.
    pub(crate) active: Option<usize>,
    /// The machine has not heard that the last one is closed, or given up.
    pub(crate) attached: bool,
    /// Calls of the control thread, and reads or writes, so far.
    pub(crate) controls: u64,
    pub(crate) operations: u64,
    /// Which session each epoch was read from.
    pub(crate) epochs: BTreeMap<Epoch, usize>,
    pub(crate) phase: Phase,
    /// Since this host's device was looked at for the last time before it may not be reset any
    /// more without anyone seeing it: see `World::may_reset`.
    pub(crate) checked: bool,
    /// The last epoch after which GET_STATE has said STOP.
    pub(crate) confirmed: Option<Epoch>,
    pub(crate) resets_asked: u64,
    /// Of these succeeded.
    pub(crate) resets_done: u64,
    /// What the kernel has told this host of the device's state.
    pub(crate) told: Told,
    /// Of the last epoch in which the source said that its initial data is sent: how often it
    /// said so, and how often it heard that this is loaded.
    pub(crate) initial: (Epoch, u32, u32),
    /// Calls that failed by plan.
    pub(crate) failed: u32,
    pub(crate) errored: bool,
    /// Something of it was under way when the session ended.
    pub(crate) late: bool,
    /// What its embedder was told of it afterwards.
    pub(crate) came_back: Option<DeviceReport>,
}

/// What the kernel has told a host of its device's state, by GET_STATE or a SET_STATE that
/// succeeded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    /// The last that it said; none before it was asked anything.
    pub(crate) last: Option<DeviceState>,
    /// A call that moves the device has failed, or has not returned, since.
    pub(crate) moved: bool,
}

impl Told {
    /// A request is on its way to the device.
    pub(crate) fn asked(&mut self, request: Request) {
        self.moved |= matches!(request, Request::SetState(_) | Request::Reset);
    }

    /// It was answered.
    pub(crate) fn answered(&mut self, request: Request, result: Result<Reply, i32>) {
        match (request, result) {
            (Request::SetState(state), Ok(_)) => *self = Told { last: Some(state), moved: false },
            (_, Ok(Reply::State(state))) => *self = Told { last: Some(state), moved: false },
            (Request::GetState, Err(_)) => self.moved = true,
            _ => {}
        }
    }
}

/// The machine of either host.
#[derive(Debug)]
pub(crate) enum Real {
    Sender(Box<Sender>),
    Receiver(Box<Receiver>),
}

impl Real {
    pub(crate) fn machine(&mut self) -> &mut dyn Machine {
        match self {
            Real::Sender(sender) => &mut **sender,
            Real::Receiver(receiver) => &mut **receiver,
        }
    }

    pub(crate) fn look(&self) -> &dyn Machine {
        match self {
            Real::Sender(sender) => &**sender,
            Real::Receiver(receiver) => &**receiver,
        }
    }

    /// How its session ended, once it has.
    pub(crate) fn ended(&self) -> Option<Ended> {
        match self {
            Real::Sender(sender) => sender.ending().cloned().map(Ended::Source),
            Real::Receiver(receiver) => receiver.ending().cloned().map(Ended::Target),
        }
    }
}

/// How a host's session ended.
#[derive(Debug, Clone)]
pub(crate) enum Ended {
    Source(SourceEnding),
    Target(TargetEnding),
}

impl Ended {
    /// How the last epoch of each of its devices must have ended.
    pub(crate) fn epochs(&self) -> EpochEnding {
        match self {
            Ended::Source(SourceEnding::HandedOver) | Ended::Target(TargetEnding::Running) => {
                EpochEnding::Complete
            }
            Ended::Source(SourceEnding::Unconfirmed(_)) => EpochEnding::Unconfirmed,
            _ => EpochEnding::Aborted,
        }
    }

    /// The name used in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Ended::Source(ending) => ending.name(),
            Ended::Target(ending) => ending.name(),
        }
    }

    /// Whether it says that every device is where it was found.
    pub(crate) fn says_home(&self) -> bool {
        matches!(
            self,
            Ended::Source(SourceEnding::Returned(_)) | Ended::Target(TargetEnding::Blank(_))
        )
    }

    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            Ended::Source(ending) => ending.fault(),
            Ended::Target(ending) => ending.fault(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) real: Real,
    pub(crate) devices: Vec<SideDevice>,
    pub(crate) slots: Vec<SimSlot>,
    pub(crate) limits: WireLimits,
    pub(crate) connected: bool,
    pub(crate) handed_over: bool,
    /// It has sent its abort.
    pub(crate) gave_word: bool,
    /// It has sent the handover.
    pub(crate) handover_sent: bool,
    pub(crate) ended: Option<Ended>,
    pub(crate) finished_ns: u64,
    pub(crate) clock: Clock,
    /// It was cancelled, and has until then.
    pub(crate) ends_by_ns: Option<u64>,
    pub(crate) completions: Vec<Completion>,
    pub(crate) messages: u64,
    /// When a tick is on its way.
    pub(crate) tick_at_ns: Option<u64>,
    /// Ticks that left a deadline over, since anything else.
    pub(crate) ticks: u32,
    pub(crate) actions: Vec<Action>,
}

impl Side {
    pub(crate) fn new(host: HostId, plan: &Plan) -> Side {
        let count = plan.devices.len();
        let peer = PeerConfig { streams: plan.streams, silence_ns: plan.silence_ns };
        let slots_per_device = plan.slots_per_device;
        let name = |index: usize| format!("device-{index}");
        let real = if host == SOURCE {
            let config = |(i, device): (usize, &super::plan::DevicePlan)| sender::DeviceConfig {
                name: name(i),
                capabilities: device.source,
                options: device.options.clone(),
                paused: device.paused,
                embedded: false,
            };
            Real::Sender(Box::new(Sender::new(SenderConfig {
                devices: plan.devices.iter().enumerate().map(config).collect(),
                peer,
                session: 0x5e55,
                chunk_bytes: CHUNK_BYTES,
                workers: plan.workers,
                slots_per_device,
                policy: plan.policy,
                path_bytes_per_s: None,
                precopy_poll_ns: plan.poll_ns,
                limits: plan.limits[host],
            })))
        } else {
            let config = |(i, device): (usize, &super::plan::DevicePlan)| receiver::DeviceConfig {
                name: name(i),
                capabilities: device.target,
            };
            Real::Receiver(Box::new(Receiver::new(ReceiverConfig {
                devices: plan.devices.iter().enumerate().map(config).collect(),
                peer,
                chunk_bytes: CHUNK_BYTES,
                workers: plan.workers,
                slots_per_device,
                limits: plan.limits[host],
            })))
        };
        let slots = count * slots_per_device + plan.workers * 2;
        let devices = plan.devices.iter().map(|device| {
            let caps = if host == SOURCE { device.source } else { device.target };
            let home = if host == SOURCE && device.paused { DeviceState::Stop } else { RUNNING };
            SideDevice::new(SimDevice::new(device.clone(), caps, home), home)
        });
        Side {
            real,
            devices: devices.collect(),
            slots: (0..slots).map(|_| SimSlot { place: Place::Machine, bytes: vec![] }).collect(),
            limits: WireLimits::from(&Offer::new(
                usize::from(plan.streams),
                count,
                CHUNK_BYTES as usize,
            )),
            connected: false,
            handed_over: false,
            gave_word: false,
            handover_sent: false,
            ended: None,
            finished_ns: 0,
            clock: Clock::default(),
            ends_by_ns: None,
            completions: Vec::new(),
            messages: 0,
            tick_at_ns: None,
            ticks: 0,
            actions: Vec::new(),
        }
    }

    pub(crate) fn device(&mut self, id: DeviceId) -> &mut SideDevice {
        &mut self.devices[id.index()]
    }

    pub(crate) fn slot(&mut self, id: SlotId) -> &mut SimSlot {
        &mut self.slots[id.index()]
    }

    /// Slots that are not the machine's at the moment.
    pub(crate) fn slots_away(&self) -> usize {
        self.slots.iter().filter(|slot| slot.place != Place::Machine).count()
    }

    /// The slots that come back with an event are the machine's from here on.
    pub(crate) fn take_back(&mut self, event: &Event) {
        let mut back = |slot: SlotId| self.slots[slot.index()].place = Place::Machine;
        match event {
            Event::Read { slot, .. } | Event::Body { slot, .. } => back(*slot),
            Event::Written { slot, .. } | Event::Sent { slot, .. } => {
                slot.iter().copied().for_each(back);
            }
            Event::Encoded { slot, into, .. } | Event::Decoded { slot, into, .. } => {
                back(*slot);
                back(*into);
            }
            Event::StreamLost { slots, .. } => slots.iter().copied().for_each(back),
            _ => {}
        }
    }
}

impl SideDevice {
    fn new(sim: SimDevice, home: DeviceState) -> SideDevice {
        SideDevice {
            sim,
            home,
            asked: None,
            asked_ns: 0,
            driver_ns: 0,
            peer_ns: 0,
            owed_ns: [0; 2],
            epoch: Epoch(0),
            waiting: (Epoch(0), 0),
            credit: (Epoch(0), Sequence(0)),
            asked_before: Vec::new(),
            fails: None,
            panics: false,
            waits_for_mutex: false,
            answers: Lane::default(),
            fresh: None,
            fds: Vec::new(),
            active: None,
            attached: false,
            controls: 0,
            operations: 0,
            epochs: BTreeMap::new(),
            phase: Phase::Connect,
            checked: false,
            confirmed: None,
            resets_asked: 0,
            resets_done: 0,
            told: Told::default(),
            initial: (Epoch(0), 0, 0),
            failed: 0,
            errored: false,
            late: false,
            came_back: None,
        }
    }

    /// Whether this is more than the peer has said before: a credit that another stream has held up
    /// grants nothing new, nor does what is said of a discarded epoch.
    pub(crate) fn gains(&mut self, event: &Event) -> bool {
        match event {
            Event::Frame { frame: Frame::Credit { epoch, up_to, .. }, .. } => {
                let more = *epoch == self.epoch && (*epoch, *up_to) > self.credit;
                self.credit = self.credit.max((*epoch, *up_to));
                more
            }
            Event::Frame {
                frame: Frame::InitialDataLoaded { epoch, .. } | Frame::Loaded { epoch, .. },
                ..
            } => *epoch == self.epoch,
            _ => true,
        }
    }

    /// How often this was asked before; counts it.
    pub(crate) fn count(&mut self, request: Request) -> u64 {
        match self.asked_before.iter_mut().find(|(of, _)| *of == request) {
            Some((_, count)) => {
                *count += 1;
                *count - 1
            }
            None => {
                self.asked_before.push((request, 1));
                0
            }
        }
    }

    /// Every data fd is closed, or with a driver for which nobody waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.fds.iter().all(DataFd::is_let_go)
    }

    /// A thread whose operation the driver does not give back.
    pub(crate) fn has_stuck_fd(&self) -> bool {
        self.fds.iter().any(|fd| fd.is_stuck())
    }
}
