//! From what a drive is made, to a thread that runs it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::guard::Guarded;
use super::{Drive, Machines};
use crate::buffers::Arena;
use crate::compress::workers::Workers;
use crate::drive::clock::now_ns;
use crate::drive::devices::{self, Control, DataThread, Device, Starting};
use crate::drive::embedder::{Closing, MessageBudget, Outbox};
use crate::drive::figures::{Ended, Live, Measured};
use crate::drive::inbox::{Inbox, Input};
use crate::drive::signals::Blocked;
use crate::drive::slots::Slots;
use crate::drive::streams::Streams;
use crate::ids::DeviceId;
use crate::machine::Goal;
use crate::metrics::Metrics;
use crate::ring::{Backend, BackendChoice, RingConfig, open};
use crate::threads::{Ready, ThreadKind, Threads};
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::DeviceState;
use crate::wire::WireLimits;

/// What a drive is made from.
pub(crate) struct DriveConfig {
    pub(crate) machines: Machines,
    pub(crate) devices: Vec<Found>,
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) slots: usize,
    pub(crate) chunk_bytes: usize,
    pub(crate) workers: usize,
    pub(crate) backend: BackendChoice,
    pub(crate) zero_copy: bool,
    /// How long a session that is given up may take until it ends.
    pub(crate) cancel_bound: Duration,
    pub(crate) wire_limits: WireLimits,
    pub(crate) threads: Threads,
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
        let (arena, slots) = Arena::new(config.slots, config.chunk_bytes)?;
        let streams = config.sockets.len();
        let ring = RingConfig {
            backend: config.backend,
            depth: 2 * streams as u32 + 2,
            files: streams as u32,
            zero_copy: config.zero_copy.then(|| Arc::clone(&arena)),
        };
        let opened = open(&ring).map_err(io::Error::other)?;
        let backend = opened.ring.backend();
        let (sender, inputs) = crossbeam_channel::unbounded();
        let inbox = Inbox::new(sender, opened.ring.waker());
        let to_workers = inbox.clone();
        let workers = Workers::start(config.workers, &config.threads, backend, move |worked| {
            to_workers.send(Input::Worked(worked));
        })?;
        let make = DeviceThreads { choice: config.backend, backend, threads: &config.threads };
        let devices = make.devices(config.devices, &inbox)?;
        Ok(Drive {
            machines: config.machines,
            measured: Measured::new(devices.len(), streams, now_ns()),
            live: Live::new(Arc::clone(&shared.metrics)),
            devices,
            streams: Streams::new(opened.ring, config.sockets, config.wire_limits)?,
            workers,
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
            switchover: false,
            handed_over: false,
            interrupted: false,
            caused: VecDeque::new(),
            actions: Vec::new(),
            linger_until_ns: None,
            said_all: false,
        })
    }
}

/// How the devices' threads are made.
struct DeviceThreads<'a> {
    choice: BackendChoice,
    backend: Backend,
    threads: &'a Threads,
}

impl DeviceThreads<'_> {
    /// The devices' threads and rings. Their rings open at the same time.
    fn devices(&self, found: Vec<Found>, inbox: &Inbox) -> io::Result<Vec<Device>> {
        let mut starting = Vec::with_capacity(found.len());
        for (index, Found { device, state, goal }) in found.into_iter().enumerate() {
            let id = DeviceId(index as u32);
            let refused = |error| lacking(id, &error);
            let on = (self.threads, self.backend);
            let control = Control::spawn(id, Arc::clone(&device), state, inbox.clone(), on);
            let (backend, inbox) = (self.choice, inbox.clone());
            let data = DataThread { id, device: Arc::clone(&device), backend, inbox };
            let data = data.spawn(self.threads);
            let (control, data) = (control.map_err(refused)?, data.map_err(refused)?);
            starting.push((device, goal, control, data));
        }
        let wait = |(index, (device, goal, (control, ready), data)): Beginning| {
            let refused = |error| lacking(DeviceId(index as u32), &error);
            ready.wait().map_err(refused)?;
            let data = data.wait().map_err(refused)?;
            Ok(Device::new(devices::Threads { device, control, data }, goal))
        };
        starting.into_iter().enumerate().map(wait).collect()
    }
}

type Beginning = (usize, (Arc<dyn MigrationDevice>, Goal, (Control, Ready), Starting));

/// What the system would not give for a device.
fn lacking(device: DeviceId, error: &io::Error) -> io::Error {
    let message = format!("no thread, ring or descriptor for the data fd of {device}: {error}");
    io::Error::new(error.kind(), message)
}
