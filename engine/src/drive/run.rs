//! The drive's thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver as Channel;

use super::control::Control;
use super::data::{DataHandle, DataThread, Job};
use super::inbox::{Chunk, Inbox, Input, WorkTag};
use super::live::Live;
use super::outbox::{Outbox, SessionEvent};
use super::report::{Report, Sides};
use super::room::Room;
use super::streams::{StreamEvent, Streams};
use super::watch::Watch;
use crate::buffers::{Arena, Slot};
use crate::compress::workers::{Job as WorkerJob, Work, WorkResult, Worked, Workers};
use crate::ids::{DeviceId, Epoch, SlotId};
use crate::limits;
use crate::machine::{
    Action, Command, EncodeResult, Event, Finish, Machine, Notice, Outgoing, ReadResult, Request,
    WriteResult,
};
use crate::metrics::{Metrics, Step};
use crate::outcome::{Breach, Cause, Ending, Fault, Observation};
use crate::receiver::Receiver;
use crate::ring::{Backend, BackendChoice, RingConfig, open};
use crate::sender::Sender;
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::DeviceState;
use crate::wire::{DataHeader, Kind, WireLimits};

/// How long a finished session waits for the peer to close its end, so that nothing that was sent
/// is lost to a reset of the connection.
const LINGER: Duration = Duration::from_millis(500);

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

    fn sides(&self) -> Sides {
        match self {
            Machines::Source(sender) => Sides::Source(sender.reports()),
            Machines::Target(receiver) => Sides::Target(receiver.reports()),
        }
    }
}

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
    /// How long an operation that a driver holds is waited for.
    pub(crate) detach_bound: Duration,
    pub(crate) wire_limits: WireLimits,
}

/// A running session, as the embedder's side holds it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) room: Arc<Room>,
    pub(crate) report: Arc<Mutex<Option<Report>>>,
    pub(crate) metrics: Arc<Mutex<Metrics>>,
    pub(crate) thread: Option<JoinHandle<()>>,
}

/// One device's threads and fds.
struct Attached {
    behind: Arc<dyn MigrationDevice>,
    control: Control,
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
    report: Arc<Mutex<Option<Report>>>,
    watch: Watch,
    live: Live,
    backend: Backend,
    fallback: Option<String>,
    backend_choice: BackendChoice,
    chunk_bytes: usize,
    detach_bound: Duration,
    switchover: bool,
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
    /// Starts all threads of a session.
    pub(crate) fn start(config: DriveConfig) -> io::Result<Running> {
        let outbox = Arc::new(Outbox::new()?);
        let room = Arc::new(Room::default());
        let report = Arc::new(Mutex::new(None));
        let metrics = Metrics::new(config.devices.len(), config.sockets.len());
        let metrics = Arc::new(Mutex::new(metrics));
        let live = Live::new(Arc::clone(&metrics));
        let (opened, ready) = crossbeam_channel::bounded(1);
        let shared = (Arc::clone(&outbox), Arc::clone(&room), Arc::clone(&report));
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
        Ok(Running { inbox, outbox, room, report, metrics, thread: Some(thread) })
    }

    fn open(
        config: DriveConfig,
        outbox: Arc<Outbox>,
        room: Arc<Room>,
        report: Arc<Mutex<Option<Report>>>,
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
            .map(|(index, behind)| {
                let id = DeviceId(index as u32);
                let control = Control::spawn(id, Arc::clone(&behind), inbox.clone())?;
                Ok(Attached {
                    behind,
                    control,
                    asked: false,
                    fresh: None,
                    data: None,
                    ending: None,
                })
            })
            .collect::<io::Result<Vec<Attached>>>()?;
        Ok(Drive {
            machines: config.machines,
            watch: Watch::new(devices.len(), streams, now_ns()),
            live,
            devices,
            streams: Streams::new(opened.ring, config.sockets, config.wire_limits)?,
            workers,
            slots: slots.into_iter().map(Some).collect(),
            inbox,
            inputs,
            outbox,
            room,
            report,
            backend,
            fallback: opened.fallback,
            backend_choice: config.backend,
            chunk_bytes: config.chunk_bytes,
            detach_bound: config.detach_bound,
            switchover: false,
            interrupted: false,
            caused: VecDeque::new(),
            stream_events: Vec::new(),
            actions: Vec::new(),
            linger_until_ns: None,
        })
    }

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

    fn take(&mut self, input: Input) {
        match input {
            Input::Command(command) => {
                self.switchover |= matches!(command, Command::Switchover);
                self.feed(Event::Command(command));
            }
            Input::Control { device, request, result, fd, ns } => {
                self.watch.metrics.record_step(Step::Control, ns);
                if (request, result.is_ok()) == (Request::SetState(DeviceState::Running), true) {
                    self.watch.running(now_ns());
                }
                self.devices[device.index()].fresh = fd;
                self.devices[device.index()].asked = false;
                self.feed(Event::Control { device, request, result });
            }
            Input::Read { device, epoch, slot, result, ns } => {
                if let ReadResult::Chunk { bytes, .. } = result {
                    self.watch.metrics.record_step(Step::Read, ns);
                    let metrics = &mut self.watch.metrics.devices[device.index()];
                    metrics.state_bytes += u64::from(bytes);
                    metrics.device_ns += ns;
                }
                let slot = self.put(slot);
                self.feed(Event::Read { device, epoch, slot, result });
            }
            Input::Written { device, epoch, raw_bytes, slot, result, ns } => {
                self.watch.metrics.record_step(Step::Write, ns);
                let metrics = &mut self.watch.metrics.devices[device.index()];
                metrics.device_ns += ns;
                if let WriteResult::Written { .. } = result {
                    metrics.state_bytes += u64::from(raw_bytes);
                }
                let slot = slot.map(|slot| self.put(slot));
                self.feed(Event::Written { device, epoch, raw_bytes, slot, result });
            }
            Input::HungUp { device, epoch } => self.feed(Event::HungUp { device, epoch }),
            Input::Detached { device, epoch } => {
                let entry = &mut self.devices[device.index()];
                if entry.ending.is_some_and(|(ending, _)| ending == epoch) {
                    entry.ending = None;
                    self.feed(Event::Detached { device, stuck: false });
                }
            }
            Input::Worked(worked) => self.take_worked(worked),
        }
    }

    fn take_worked(&mut self, worked: Worked<WorkTag>) {
        let Worked { tag, slot, into, result, worker_ns } = worked;
        let ns = now_ns().saturating_sub(tag.since_ns);
        let slot = self.put(slot);
        let into = self.put(into);
        match tag.chunk {
            Chunk::Encode(chunk) => {
                self.watch.metrics.record_step(Step::Encode, ns);
                self.watch.metrics.devices[chunk.device.index()].worker_ns += ns;
                let result = match result {
                    WorkResult::Encoded { body_bytes, body_hash } => {
                        EncodeResult::Compressed { body_bytes, body_hash, worker_ns }
                    }
                    _ => EncodeResult::Incompressible { worker_ns },
                };
                self.feed(Event::Encoded { chunk, slot, into, result });
            }
            Chunk::Decode(header) => {
                let place = header.place;
                self.watch.metrics.record_step(Step::Decode, ns);
                self.watch.metrics.devices[place.device.index()].worker_ns += ns;
                let result = match result {
                    WorkResult::Decoded => Ok(()),
                    WorkResult::BodyDamaged => Err(Fault::breach(Breach::BodyHash { place })),
                    WorkResult::ChunkWrong(what) => {
                        Err(Fault::breach(Breach::Chunk { place, what }))
                    }
                    WorkResult::Encoded { .. } | WorkResult::Incompressible => {
                        Err(Fault::session(Cause::Local, Observation::Engine, "a worker mixed up"))
                    }
                };
                self.feed(Event::Decoded { header, slot, into, result });
            }
        }
    }

    fn take_stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Sent { stream, slot, ns } => {
                self.watch.metrics.record_step(Step::Send, ns);
                let slot = slot.map(|slot| self.put(slot));
                self.feed(Event::Sent { stream, slot });
            }
            StreamEvent::Frame { stream, frame } => self.feed(Event::Frame { stream, frame }),
            StreamEvent::Data { stream, header } => {
                self.feed(Event::Data { stream, header });
                debug_assert!(
                    !self.streams.is_asking(stream) || header.body_bytes == 0,
                    "{stream}: nobody said where the body goes"
                );
            }
            StreamEvent::Body { stream, header, slot, ns } => {
                self.watch.metrics.record_step(Step::Receive, ns);
                let metrics = &mut self.watch.metrics.devices[header.place.device.index()];
                metrics.link_ns += ns;
                metrics.wire_bytes += u64::from(header.body_bytes) + limits::HEADER_BYTES as u64;
                let slot = self.put(slot);
                self.feed(Event::Body { stream, header, slot });
            }
            StreamEvent::Lost { stream, slots, fault } => {
                let slots = slots.into_iter().map(|slot| self.put(slot)).collect();
                self.feed(Event::StreamLost { stream, slots, fault });
            }
        }
    }

    fn act(&mut self, now_ns: u64, action: Action) {
        match action {
            Action::Control { device, request } => {
                self.watch.asking(request, self.switchover, now_ns);
                let entry = &mut self.devices[device.index()];
                let data_fd = entry.data.as_ref().map(|(_, fd, _)| Arc::clone(fd));
                entry.control.ask(request, data_fd);
                entry.asked = true;
            }
            Action::Attach { device, epoch } => self.attach(device, epoch),
            Action::DropFd { device } => self.devices[device.index()].fresh = None,
            Action::Detach { device } => self.detach(device, now_ns),
            Action::Read { device, slot, phase } => {
                self.give_job(device, slot, |slot| Job::Read { slot, phase });
            }
            Action::Write { device, header, slot } => self.write(device, header, slot),
            Action::Encode { chunk, slot, into, bytes, level, probe } => {
                let work = Work::Encode { raw_bytes: bytes, level, probe };
                self.work(Chunk::Encode(chunk), slot, into, work, now_ns);
            }
            Action::Decode { header, slot, into } => {
                let work = Work::Decode {
                    body_bytes: header.body_bytes,
                    body_hash: header.body_hash,
                    raw_bytes: header.raw_bytes,
                    raw_hash: header.raw_hash,
                };
                self.work(Chunk::Decode(header), slot, into, work, now_ns);
            }
            Action::Send { stream, what } => {
                let mut events = std::mem::take(&mut self.stream_events);
                match what {
                    Outgoing::Frame(frame) => {
                        if frame.kind() == Kind::MESSAGE {
                            self.room.free();
                        }
                        self.streams.send_frame(stream, &frame, now_ns, &mut events);
                    }
                    Outgoing::Data { header, slot } => {
                        let metrics = &mut self.watch.metrics.devices[header.place.device.index()];
                        metrics.wire_bytes +=
                            u64::from(header.body_bytes) + limits::HEADER_BYTES as u64;
                        let slot = slot.and_then(|slot| self.slots[slot.index()].take());
                        self.streams.send_data(stream, header, slot, now_ns, &mut events);
                    }
                }
                self.stream_events = events;
            }
            Action::ReceiveBody { stream, header, slot } => {
                let mut events = std::mem::take(&mut self.stream_events);
                if let Some(slot) = self.slots[slot.index()].take() {
                    self.streams.receive_body(stream, header, slot, now_ns, &mut events);
                }
                self.stream_events = events;
            }
            Action::SkipBody { stream } => {
                let mut events = std::mem::take(&mut self.stream_events);
                self.streams.skip_body(stream, now_ns, &mut events);
                self.stream_events = events;
            }
            Action::Notify(notice) => self.notify(notice, now_ns),
            Action::Finish(finish) => self.finish(finish, now_ns),
        }
    }

    fn attach(&mut self, device: DeviceId, epoch: Epoch) {
        let entry = &mut self.devices[device.index()];
        let Some(fd) = entry.fresh.take() else {
            debug_assert!(false, "{device}: no fd to attach");
            return;
        };
        let fd = Arc::new(fd);
        let thread = DataThread {
            device,
            epoch,
            fd: Arc::clone(&fd),
            behind: Arc::clone(&entry.behind),
            backend: self.backend_choice,
            chunk_bytes: self.chunk_bytes,
            inbox: self.inbox.clone(),
        };
        match thread.spawn() {
            Ok(handle) => entry.data = Some((handle, fd, epoch)),
            Err(error) => {
                let message = format!("no thread or ring for the data fd of {device}: {error}");
                let fault = Fault::session(Cause::Local, Observation::Engine, message);
                self.caused.push_back(Event::Local(fault));
            }
        }
    }

    fn detach(&mut self, device: DeviceId, now_ns: u64) {
        let entry = &mut self.devices[device.index()];
        match entry.data.take() {
            Some((handle, fd, epoch)) => {
                entry.ending = Some((epoch, now_ns + self.detach_bound.as_nanos() as u64));
                drop(fd);
                handle.stop();
            }
            None => self.caused.push_back(Event::Detached { device, stuck: false }),
        }
    }

    fn write(&mut self, device: DeviceId, header: DataHeader, slot: Option<SlotId>) {
        match slot {
            Some(slot) => {
                self.give_job(device, slot, |slot| Job::Write { header, slot: Some(slot) });
            }
            None => self.give(device, Job::Write { header, slot: None }),
        }
    }

    fn give_job(&mut self, device: DeviceId, slot: SlotId, job: impl FnOnce(Slot) -> Job) {
        if let Some(slot) = self.slots[slot.index()].take() {
            self.give(device, job(slot));
        }
    }

    /// Gives a job to a device's data fd; without one the job comes back undone.
    fn give(&mut self, device: DeviceId, job: Job) {
        let undone = match &self.devices[device.index()].data {
            Some((handle, ..)) => match handle.submit(job) {
                Ok(()) => return,
                Err(job) => *job,
            },
            None => job,
        };
        // An epoch that no device is in: the machine only takes the slot back.
        let epoch = Epoch(u32::MAX);
        let event = match undone {
            Job::Read { slot, .. } => {
                let slot = self.put(slot);
                Event::Read { device, epoch, slot, result: ReadResult::Cancelled }
            }
            Job::Write { header, slot } => {
                let slot = slot.map(|slot| self.put(slot));
                let raw_bytes = header.raw_bytes;
                Event::Written { device, epoch, raw_bytes, slot, result: WriteResult::Cancelled }
            }
        };
        self.caused.push_back(event);
    }

    fn work(&mut self, chunk: Chunk, slot: SlotId, into: SlotId, work: Work, since_ns: u64) {
        let (Some(slot), Some(into)) =
            (self.slots[slot.index()].take(), self.slots[into.index()].take())
        else {
            debug_assert!(false, "a slot is elsewhere");
            return;
        };
        let tag = WorkTag { chunk, since_ns };
        if let Err(job) = self.workers.submit(WorkerJob { tag, slot, into, work }) {
            let slot = self.put(job.slot);
            let into = self.put(job.into);
            self.caused.push_back(match chunk {
                Chunk::Encode(chunk) => {
                    let result = EncodeResult::Incompressible { worker_ns: 0 };
                    Event::Encoded { chunk, slot, into, result }
                }
                Chunk::Decode(header) => {
                    let message = "there is no worker to decompress with";
                    let fault = Fault::session(Cause::Local, Observation::Engine, message);
                    Event::Decoded { header, slot, into, result: Err(fault) }
                }
            });
        }
    }

    fn notify(&mut self, notice: Notice, now_ns: u64) {
        self.watch.noticed(&notice, now_ns);
        if let Notice::Connected { chunk_bytes, .. } = &notice {
            // No data fd is attached yet: all reads will be of the agreed size.
            self.chunk_bytes = self.chunk_bytes.min(*chunk_bytes as usize);
        }
        if let Notice::Phase { device, phase } = &notice {
            tracing::debug!(device = device.0, phase = phase.name(), "phase");
        }
        if let Notice::Completion(completion) = &notice {
            tracing::info!(
                device = completion.device.0,
                epoch = completion.epoch.0,
                phase = completion.phase.name(),
                ending = completion.ending.name(),
                fault = completion.fault.as_ref().map(tracing::field::display),
                "completion"
            );
        }
        if !self.outbox.push(SessionEvent::Notice(notice)) {
            let breach = Breach::Messages { max: limits::MESSAGES_WAITING_MAX };
            self.caused.push_back(Event::Local(Fault::breach(breach)));
        }
    }

    fn finish(&mut self, finish: Finish, now_ns: u64) {
        self.watch.finished(now_ns);
        for (metrics, measured) in self.watch.metrics.streams.iter_mut().zip(self.streams.metrics())
        {
            *metrics = measured;
        }
        let report = Report {
            finish: finish.clone(),
            sides: self.machines.sides(),
            metrics: self.watch.metrics.clone(),
            timeline: self.watch.timeline,
            backend: self.backend,
            fallback: self.fallback.clone(),
        };
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
        self.outbox.push(SessionEvent::Finished(finish));
        self.streams.close_sending();
        self.linger_until_ns = Some(now_ns + LINGER.as_nanos() as u64);
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
            let fault = Fault::session(Cause::Local, Observation::Engine, message);
            self.0.finish(Finish { ending: Ending::Aborted, fault: Some(fault) }, now_ns());
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
