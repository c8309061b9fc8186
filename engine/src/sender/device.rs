//! One device as the sender sees it.

use std::collections::BTreeMap;

use super::sending::UnderWay;
use crate::abort::{Goal, Line};
use crate::ids::{DeviceId, Epoch, Sequence, SlotId};
use crate::machine::{Action, Notice, Outgoing};
use crate::outcome::{
    Completion, DeviceOptions, EpochEnding, Fault, Operation, Phase, Verdict, classify,
};
use crate::vfio::state::{Capabilities, DeviceState};
use crate::wire::{DataHeader, DevicePlace, Digest, Frame, StateDigest, Total};

/// Failed calls from one chunk to the next, without anything wrong, that are put up with.
const HARMLESS_MAX: u32 = 1000;

/// A device as the embedder gave it to the source.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The name that the target must know it by.
    pub name: String,
    /// What it can do.
    pub capabilities: Capabilities,
    /// The embedder's choices.
    pub options: DeviceOptions,
}

/// What became of a device on the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Its last epoch.
    pub epoch: Epoch,
    /// How its migration ended; none while it goes on.
    pub ending: Option<EpochEnding>,
    /// Bytes of state and digest of the last epoch.
    pub total: Total,
    /// Bytes of state that were sent in discarded epochs.
    pub discarded_bytes: u64,
    /// Bytes that its frames took on the wire, headers included, all epochs.
    pub wire_bytes: u64,
    /// Chunks sent as zero, raw and zstd.
    pub chunks: [u64; 3],
    /// The driver never gave back an operation: its slots and fd stay with a lingering thread.
    pub stuck: bool,
    /// The device's state at the end, if it was asked for.
    pub state: Option<DeviceState>,
}

/// Where a device is on the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The session is not agreed on yet.
    Idle,
    /// SET_STATE(PRE_COPY) is in flight.
    Entering,
    /// Waits for the switchover without saving.
    Held,
    /// The guest runs, PRE_COPY data is read.
    PreCopy,
    /// SET_STATE to the P2P form of its state is in flight.
    ToP2p,
    /// No DMA to other devices; waits until the other devices are as far.
    AtP2p,
    /// SET_STATE(STOP_COPY) is in flight.
    Stopping,
    /// STOP_COPY data is read.
    StopCopy,
    /// The last byte was read; GET_STATE must still say STOP_COPY.
    Verifying,
    /// All is sent or queued; the target has not confirmed.
    Sent,
    /// The target has confirmed.
    Loaded,
    /// The session was handed over: the data fd is being closed, the device put to STOP.
    LettingGo,
    /// Nothing more to do.
    Gone,
    /// An error is being looked into: GET_STATE.
    Classifying,
    /// A new STOP_COPY session has already begun; the old data fd is being closed.
    Reusing,
    /// The device is brought to RUNNING for a new epoch.
    Restarting,
    /// The device is brought to RUNNING because the session is aborted.
    Recovering,
}

/// A frame that waits for less has met a stream that was busy with copying, not a full path.
const WAIT_NS_MIN: u64 = 100_000;

#[derive(Debug)]
pub(super) struct Device {
    pub(super) line: Line,
    pub(super) config: DeviceConfig,
    pub(super) stage: Stage,
    pub(super) phase: Phase,
    /// There is a new session's fd, which waits for the old one to be closed.
    pub(super) fresh: bool,

    pub(super) epoch: Epoch,
    pub(super) next: Sequence,
    pub(super) credit: Sequence,
    pub(super) digest: StateDigest,
    pub(super) ready: BTreeMap<Sequence, Outgoing>,
    /// Chunks that are with a worker, and the level.
    pub(super) encoding: BTreeMap<Sequence, (DataHeader, i32)>,

    /// Data frames that were sent and that the target has not said to be done with.
    pub(super) under_way: BTreeMap<Sequence, UnderWay>,
    /// Since when there has always been a frame that waits: for credit or a stream.
    pub(super) waits_since_ns: Option<u64>,
    /// How many sequences the target takes at once: its credit goes this far beyond what is done.
    pub(super) window: Option<u64>,

    /// Slots that are out for this device, those of old epochs included.
    pub(super) held: usize,
    pub(super) reads: usize,
    /// Nothing to read for now.
    pub(super) drained: bool,
    /// Calls that failed although nothing was wrong, since the last chunk.
    pub(super) harmless: u32,
    /// The last PRECOPY_INFO promised bytes and none has come since.
    pub(super) promised: bool,
    pub(super) ended: bool,
    /// Bytes that came out of this fd.
    pub(super) fd_bytes: u64,
    /// When PRECOPY_INFO is asked, and how far data that flows may put that off.
    pub(super) ask_at_ns: Option<u64>,
    pub(super) ask_by_ns: u64,
    pub(super) initial_sent: bool,
    /// The device has no initial data left, but reads that were under way when it said so may
    /// still bring the last of it: this many.
    pub(super) initial_reads: Option<usize>,
    /// Times that the initial data was sent and the target has not said that it is loaded: a
    /// device may have initial data more than once.
    pub(super) initial_unanswered: u32,
    pub(super) initial_loaded: bool,
    pub(super) pending_bytes: u64,
    pub(super) stop_copy_bytes: Option<u64>,
    pub(super) length_known: bool,
    pub(super) stop_copy_only: bool,

    /// Bytes sent over weight: the device with the least sends next.
    pub(super) served: u64,
    pub(super) incompressible: u32,
    pub(super) restarts: u32,
    pub(super) report: DeviceReport,
}

impl Device {
    pub(super) fn new(id: DeviceId, config: DeviceConfig) -> Device {
        let digest = StateDigest::new();
        Device {
            line: Line::new(id, Goal::KeepState),
            stage: Stage::Idle,
            phase: Phase::Connect,
            fresh: false,
            epoch: Epoch(0),
            next: Sequence(0),
            credit: Sequence(1),
            ready: BTreeMap::new(),
            encoding: BTreeMap::new(),
            under_way: BTreeMap::new(),
            waits_since_ns: None,
            window: None,
            held: 0,
            reads: 0,
            drained: false,
            harmless: 0,
            promised: false,
            ended: false,
            fd_bytes: 0,
            ask_at_ns: None,
            ask_by_ns: 0,
            initial_sent: false,
            initial_reads: None,
            initial_unanswered: 0,
            initial_loaded: false,
            pending_bytes: 0,
            stop_copy_bytes: None,
            length_known: false,
            stop_copy_only: false,
            served: 0,
            incompressible: 0,
            restarts: 0,
            report: DeviceReport {
                device: id,
                epoch: Epoch(0),
                ending: None,
                total: Total { bytes: 0, digest: Digest(0) },
                discarded_bytes: 0,
                wire_bytes: 0,
                chunks: [0; 3],
                stuck: false,
                state: None,
            },
            digest,
            config,
        }
    }

    pub(super) fn report(&self) -> DeviceReport {
        DeviceReport { epoch: self.epoch, total: self.total(), ..self.report.clone() }
    }

    pub(super) fn total(&self) -> Total {
        Total { bytes: self.digest.bytes(), digest: self.digest.finish() }
    }

    pub(super) fn saves_in_precopy(&self) -> bool {
        self.config.capabilities.precopy && self.config.options.precopy && !self.stop_copy_only
    }

    pub(super) fn ask_at_ns(&self) -> Option<u64> {
        (self.stage == Stage::PreCopy && self.line.is_free()).then_some(self.ask_at_ns).flatten()
    }

    /// The next place in the device's sequence.
    pub(super) fn place(&mut self) -> DevicePlace {
        let place = DevicePlace { device: self.line.id(), epoch: self.epoch, sequence: self.next };
        self.next = self.next.next();
        place
    }

    /// Puts a frame where the scheduler finds it.
    pub(super) fn enqueue(&mut self, sequence: Sequence, what: Outgoing) {
        self.ready.insert(sequence, what);
    }

    /// The first frame that may be sent: in order of sequence, as far as the credit goes.
    pub(super) fn sendable(&self) -> Option<Sequence> {
        let first = *self.ready.keys().next()?;
        (first < self.credit).then_some(first)
    }

    /// Bytes of state that were read and have not been sent.
    pub(super) fn unsent_bytes(&self) -> u64 {
        let encoding = self.encoding.values().map(|(header, _)| u64::from(header.raw_bytes));
        let ready = self.ready.values().map(|what| match what {
            Outgoing::Data { header, .. } => u64::from(header.raw_bytes),
            Outgoing::Frame(_) => 0,
        });
        encoding.chain(ready).sum()
    }

    /// Whether frames have had to wait for longer than a send takes that only copies.
    pub(super) fn waited(&self, now_ns: u64) -> bool {
        self.waits_since_ns.is_some_and(|since| now_ns.saturating_sub(since) >= WAIT_NS_MIN)
    }

    /// Forgets what waits to be sent or is being compressed, and returns the slots that waited.
    pub(super) fn drop_waiting(&mut self) -> Vec<SlotId> {
        self.encoding.clear();
        std::mem::take(&mut self.ready)
            .into_values()
            .filter_map(|what| match what {
                Outgoing::Data { slot, .. } => slot,
                Outgoing::Frame(_) => None,
            })
            .collect()
    }

    /// A read failed. An interrupted one, or one that found nothing, has lost nothing and is made
    /// again; a driver that never has another answer is looked into.
    pub(super) fn read_failed(&mut self, errno: i32) {
        let operation = Operation::Read { first: self.fd_bytes == 0 };
        if !self.is_harmless(operation, errno) {
            self.line.suspect(operation, Some(errno));
        }
    }

    /// PRECOPY_INFO failed: asked again at `again_ns`, unless something is wrong.
    pub(super) fn info_failed(&mut self, errno: i32, again_ns: u64) {
        if self.is_harmless(Operation::PrecopyInfo, errno) {
            self.ask_at_ns = Some(again_ns);
        } else {
            self.line.suspect(Operation::PrecopyInfo, Some(errno));
        }
    }

    /// The device says that there is no initial data left to read. That holds for what has come
    /// out of the fd, not for what has reached this machine: the reads that are under way come
    /// first. Where they wait for data that never comes the next answer decides.
    pub(super) fn initial_read(&mut self) {
        if self.initial_sent {
            return;
        }
        if self.reads == 0 || self.drained || self.initial_reads.is_some() {
            self.say_initial_sent();
        } else {
            self.initial_reads = Some(self.reads);
        }
    }

    /// A read came back, and its chunk has its place.
    pub(super) fn initial_read_back(&mut self) {
        if let Some(reads) = &mut self.initial_reads {
            *reads -= 1;
            if *reads == 0 {
                self.say_initial_sent();
            }
        }
    }

    fn say_initial_sent(&mut self) {
        self.initial_reads = None;
        self.initial_sent = true;
        self.initial_unanswered += 1;
        let place = self.place();
        self.enqueue(place.sequence, Outgoing::Frame(Frame::InitialDataSent(place)));
    }

    fn is_harmless(&mut self, operation: Operation, errno: i32) -> bool {
        let answer = self.line.answer(operation, Some(errno), None);
        self.harmless += 1;
        self.harmless <= HARMLESS_MAX && classify(answer).verdict != Verdict::Fault
    }

    /// Starts an epoch's books afresh. What waited to be sent was dropped before.
    pub(super) fn drop_epoch(&mut self) {
        self.report.discarded_bytes += self.digest.bytes();
        self.epoch = self.epoch.next();
        self.next = Sequence(0);
        self.credit = Sequence(1);
        self.digest = StateDigest::new();
        self.drained = false;
        self.harmless = 0;
        self.promised = false;
        self.ended = false;
        self.ask_at_ns = None;
        self.initial_sent = false;
        self.initial_reads = None;
        self.initial_unanswered = 0;
        self.initial_loaded = false;
        self.pending_bytes = 0;
        self.window = None;
        // Asked again, and the embedder told again what the downtime would be.
        self.length_known = false;
        self.stop_copy_bytes = None;
    }

    /// Its migration ends here.
    pub(super) fn ends(&mut self, ending: EpochEnding, fault: Option<Fault>) -> Action {
        self.report.ending = Some(ending);
        self.completion(ending, fault)
    }

    pub(super) fn completion(&self, ending: EpochEnding, fault: Option<Fault>) -> Action {
        Action::Notify(Notice::Completion(Completion {
            device: self.line.id(),
            epoch: self.epoch,
            phase: self.phase,
            ending,
            fault,
            state: self.report.state,
            bytes: self.digest.bytes(),
        }))
    }
}
