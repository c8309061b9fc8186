//! From what a drive is made, to a thread that runs it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::guard::Guarded;
use super::{Drive, Machines, now_ns};
use crate::buffers::Arena;
use crate::compress::workers::Workers;
use crate::drive::devices::{Control, Device};
use crate::drive::embedder::{MessageBudget, Outbox};
use crate::drive::figures::{Ended, Live, Measured};
use crate::drive::inbox::{Inbox, Input};
use crate::drive::slots::Slots;
use crate::drive::streams::Streams;
use crate::drive::waits::DETACH_PART;
use crate::ids::DeviceId;
use crate::metrics::Metrics;
use crate::ring::{BackendChoice, RingConfig, open};
use crate::vfio::device::MigrationDevice;
use crate::wire::WireLimits;

/// What a drive is made from.
pub(crate) struct DriveConfig {
    pub(crate) machines: Machines,
    pub(crate) devices: Vec<Arc<dyn MigrationDevice>>,
    pub(crate) sockets: Vec<OwnedFd>,
    pub(crate) slots: usize,
    pub(crate) chunk_bytes: usize,
    pub(crate) workers: usize,
    pub(crate) backend: BackendChoice,
    pub(crate) zero_copy: bool,
    /// How long a session that is given up may take until it ends.
    pub(crate) cancel_bound: Duration,
    pub(crate) wire_limits: WireLimits,
}

/// A running session, as the embedder's side holds it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) message_budget: Arc<MessageBudget>,
    pub(crate) report: Arc<Mutex<Option<Ended>>>,
    pub(crate) metrics: Arc<Mutex<Metrics>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

impl Drive {
    /// Starts all threads of a session.
    pub(crate) fn start(config: DriveConfig) -> io::Result<Running> {
        let outbox = Arc::new(Outbox::new()?);
        let message_budget = Arc::new(MessageBudget::default());
        let report = Arc::new(Mutex::new(None));
        let metrics = Metrics::new(config.devices.len(), config.sockets.len());
        let metrics = Arc::new(Mutex::new(metrics));
        let live = Live::new(Arc::clone(&metrics));
        let (opened, ready) = crossbeam_channel::bounded(1);
        let shared = (Arc::clone(&outbox), Arc::clone(&message_budget), Arc::clone(&report));
        let thread = std::thread::Builder::new().name("ferry-net".to_owned()).spawn(move || {
            // The ring belongs to the thread that opens it.
            match Drive::open(config, shared.0, shared.1, shared.2, live) {
                Ok(drive) => {
                    let _ = opened.send(Ok(drive.inbox.clone()));
                    Guarded(drive).run();
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        })?;
        let inbox = ready.recv().map_err(|_| io::Error::other("the session's thread died"))??;
        Ok(Running { inbox, outbox, message_budget, report, metrics, thread: Some(thread) })
    }

    pub(super) fn open(
        config: DriveConfig,
        outbox: Arc<Outbox>,
        message_budget: Arc<MessageBudget>,
        report: Arc<Mutex<Option<Ended>>>,
        live: Live,
    ) -> io::Result<Drive> {
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
        let workers =
            Workers::start(config.workers, move |worked| to_workers.send(Input::Worked(worked)))?;
        let devices = config
            .devices
            .into_iter()
            .enumerate()
            .map(|(index, device)| {
                let id = DeviceId(index as u32);
                let control = Control::spawn(id, Arc::clone(&device), inbox.clone())?;
                Ok(Device::new(device, control))
            })
            .collect::<io::Result<Vec<Device>>>()?;
        Ok(Drive {
            machines: config.machines,
            measured: Measured::new(devices.len(), streams, now_ns()),
            live,
            devices,
            streams: Streams::new(opened.ring, config.sockets, config.wire_limits)?,
            workers,
            slots: Slots::new(slots),
            inbox,
            inputs,
            outbox,
            message_budget,
            report,
            backend,
            fallback: opened.fallback,
            backend_choice: config.backend,
            chunk_bytes: config.chunk_bytes,
            detach_bound: config.cancel_bound / DETACH_PART,
            switchover: false,
            interrupted: false,
            caused: VecDeque::new(),
            actions: Vec::new(),
            linger_until_ns: None,
        })
    }
}
