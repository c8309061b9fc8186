//! From what a drive is made, to a thread that runs it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guard::Guarded;
use super::{Drive, Machines};
use crate::buffers::Arena;
use crate::buffers::Share;
use crate::compress::policy::Learned;
use crate::compress::workers::Taker;
use crate::drive::Workers;
use crate::drive::clock::now_ns;
use crate::drive::devices::{self, Control, DataFds, Device, Zeros};
use crate::drive::embedder::{Closing, MessageBudget, Outbox};
use crate::drive::figures::{Ended, Live, Measured};
use crate::drive::inbox::{Inbox, Input};
use crate::drive::owner::SharedRing;
use crate::drive::signals::Blocked;
use crate::drive::slots::Slots;
use crate::drive::streams::{Socket, Streams};
use crate::ids::DeviceId;
use crate::machine::Goal;
use crate::metrics::Metrics;
use crate::ring::{Backend, BackendChoice, BlockingThreads, Classes, RingConfig, open};
use crate::threads::{Ready, ThreadKind, Threads};
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::DeviceState;
use crate::wire::WireLimits;

/// What a drive is made from.
pub(crate) struct DriveConfig {
    pub(crate) machines: Machines,
    pub(crate) devices: Vec<Found>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) slots: usize,
    pub(crate) chunk_bytes: usize,
    pub(crate) crew: Crew,
    /// Of what several sessions share.
    pub(crate) share: Option<Share>,
    pub(crate) backend: BackendChoice,
    pub(crate) zero_copy: bool,
    /// How long a session that is given up may take until it ends.
    pub(crate) cancel_bound: Duration,
    pub(crate) wire_limits: WireLimits,
    pub(crate) threads: Threads,
    /// Takes what the session has found out, at its end (source).
    pub(crate) learned: Option<Box<dyn FnOnce(Learned) + Send>>,
}

/// Who compresses.
pub(crate) enum Crew {
    /// So many threads of the session's own.
    Own(usize),
    /// Threads that other sessions have, too.
    Shared(Arc<Workers>),
}

/// A device as it was found.
pub(crate) struct Found {
    pub(crate) device: Arc<dyn MigrationDevice>,
    pub(crate) state: DeviceState,
    /// How it is left where the migration does not take place.
    pub(crate) goal: Goal,
}

/// A running session, as the embedder's side holds it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) message_budget: Arc<MessageBudget>,
    pub(crate) report: Arc<Mutex<Option<Ended>>>,
    pub(crate) metrics: Arc<Mutex<Metrics>>,
    pub(crate) closing: Arc<Closing>,
}

/// What the drive shares with the embedder's side.
#[derive(Debug)]
pub(super) struct Shared {
    outbox: Arc<Outbox>,
    message_budget: Arc<MessageBudget>,
    report: Arc<Mutex<Option<Ended>>>,
    metrics: Arc<Mutex<Metrics>>,
    closing: Arc<Closing>,
}

impl Shared {
    pub(super) fn new(devices: usize, streams: usize) -> io::Result<Shared> {
        Ok(Shared {
            outbox: Arc::new(Outbox::new()?),
            message_budget: Arc::default(),
            report: Arc::default(),
            metrics: Arc::new(Mutex::new(Metrics::new(devices, streams))),
            closing: Arc::default(),
        })
    }

    fn running(&self, inbox: Inbox) -> Running {
        Running {
            inbox,
            outbox: Arc::clone(&self.outbox),
            message_budget: Arc::clone(&self.message_budget),
            report: Arc::clone(&self.report),
            metrics: Arc::clone(&self.metrics),
            closing: Arc::clone(&self.closing),
        }
    }
}

impl Drive {
    /// Starts all threads of a session, and has everything that could be refused later.
    pub(crate) fn start(config: DriveConfig) -> io::Result<Running> {
        let shared = Shared::new(config.devices.len(), config.sockets.len())?;
        let (opened, ready) = crossbeam_channel::bounded(1);
        // Every other thread is started by this one.
        let blocked = Blocked::all();
        let threads = config.threads.clone();
        threads.spawn(ThreadKind::Net, 0, move |hook| {
            // The ring belongs to the thread that opens it. The hook comes last: what it allows need
            // not start threads, nor open rings.
            let opened_drive = Drive::open(config, &shared)
                .and_then(|drive| hook.run(drive.backend).map(|()| drive));
            match opened_drive {
                Ok(drive) => {
                    let _ = opened.send(Ok(shared.running(drive.inbox.clone())));
                    drop((shared, opened));
                    Guarded(drive).run();
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        })?;
        drop(blocked);
        ready.recv().map_err(|_| io::Error::other("the session's thread died"))?
    }

    pub(super) fn open(config: DriveConfig, shared: &Shared) -> io::Result<Drive> {
        let (arena, slots) = Arena::with_share(config.slots, config.chunk_bytes, config.share)?;
        let (streams, devices) = (config.sockets.len() as u32, config.devices.len() as u32);
        let ring = RingConfig {
            backend: config.backend,
            depth: operations(streams, devices),
            files: files(streams, devices),
            blocking: blocking_threads(devices, &config.threads),
            zero_copy: config.zero_copy.then(|| Arc::clone(&arena)),
        };
        let opened = open(&ring).map_err(io::Error::other)?;
        let backend = opened.ring.backend();
        let (sender, inputs) = crossbeam_channel::unbounded();
        let inbox = Inbox::new(sender, opened.ring.waker());
        let to_workers = inbox.clone();
        let worked: Taker<_> = Arc::new(move |worked| to_workers.send(Input::Worked(worked)));
        let workers = match config.crew {
            Crew::Own(count) => Arc::new(Workers::start(count, &config.threads, backend)?),
            Crew::Shared(workers) => workers,
        };
        let devices = start_devices(config.devices, &inbox, (&config.threads, backend))?;
        let ring: SharedRing = Rc::new(RefCell::new(opened.ring));
        Ok(Drive {
            machines: config.machines,
            measured: Measured::new(devices.len(), streams as usize, now_ns()),
            live: Live::new(Arc::clone(&shared.metrics)),
            devices,
            streams: Streams::new(Rc::clone(&ring), config.sockets, config.wire_limits)?,
            data_events: VecDeque::new(),
            classes: Classes::new()?,
            zeros: Zeros::new(config.chunk_bytes),
            ring,
            done: Vec::new(),
            workers,
            worked,
            slots: Slots::new(slots),
            inbox,
            inputs,
            outbox: Arc::clone(&shared.outbox),
            message_budget: Arc::clone(&shared.message_budget),
            report: Arc::clone(&shared.report),
            closing: Arc::clone(&shared.closing),
            backend,
            fallback: opened.fallback,
            chunk_bytes: config.chunk_bytes,
            cancel_bound: config.cancel_bound,
            cores: std::thread::available_parallelism().map_or(1, usize::from) as u32,
            switchover: false,
            handed_over: false,
            interrupted: false,
            caused: VecDeque::new(),
            actions: Vec::new(),
            linger_until_ns: None,
            said_all: false,
            learned: config.learned,
        })
    }
}

/// Files of a device: the data fd that is attached, and those that its driver has not let go of.
/// More of those give the session up.
const FILES_PER_DEVICE: u32 = 4;
/// Each has a read or a write, and a watch for its death.
const OPERATIONS_PER_DEVICE: u32 = 2 * FILES_PER_DEVICE;

/// What may be in flight at once: a send and a receive a stream, and the devices'.
pub(super) fn operations(streams: u32, devices: u32) -> u32 {
    2 * streams + OPERATIONS_PER_DEVICE * devices
}

/// What the ring may have at once.
pub(super) fn files(streams: u32, devices: u32) -> u32 {
    streams + FILES_PER_DEVICE * devices
}

/// A thread for each device's data fd: for what no kernel worker runs.
fn blocking_threads(devices: u32, threads: &Threads) -> BlockingThreads {
    let threads = threads.clone();
    BlockingThreads::started_by(devices, move |backend, index, body| {
        threads.spawn_ready(ThreadKind::Data, index, backend, body)?.wait()
    })
}

/// The devices' threads, which begin at the same time.
fn start_devices(
    found: Vec<Found>,
    inbox: &Inbox,
    on: (&Threads, Backend),
) -> io::Result<Vec<Device>> {
    let mut starting = Vec::with_capacity(found.len());
    for (index, Found { device, state, goal }) in found.into_iter().enumerate() {
        let id = DeviceId(index as u32);
        let control = Control::spawn(id, Arc::clone(&device), state, inbox.clone(), on);
        let (control, ready) = control.map_err(|error| lacking(id, &error))?;
        let threads = devices::Threads { device, control };
        starting.push((id, Device::new(DataFds::of(id), threads, goal), ready));
    }
    let wait = |(id, device, ready): (DeviceId, Device, Ready)| {
        ready.wait().map_err(|error| lacking(id, &error)).map(|()| device)
    };
    starting.into_iter().map(wait).collect()
}

/// What the system would not give for a device.
fn lacking(device: DeviceId, error: &io::Error) -> io::Error {
    let message = format!("no thread or descriptor for {device}: {error}");
    io::Error::new(error.kind(), message)
}
