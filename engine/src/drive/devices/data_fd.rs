//! A device's data fd on the session's ring: chunks are read into slots or written from them, with
//! one operation in flight, in the order in which they were asked for.
//!
//! ```text
//! Idle --a job--> an operation on the ring --its answer--> the next operation of the same chunk,
//!   ^                                             |        a pause (the driver says EAGAIN or EINTR),
//!   +---- the next job, or the watch for a <------+        or the chunk's end
//!         hang-up where there is none
//! ```
//!
//! While an fd that has a poll has nothing to read it is watched for its death: that is how a reset
//! of a drained device shows at once. When the fd is taken away, what is in flight on it is cancelled
//! and waited for: a driver that ignores the cancel keeps a worker of the ring, its slot and its fd
//! until it returns, and nobody else waits for that.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::chunk::{Chunk, State, Step, Then, What, was_read, was_written};
use super::zeros::Zeros;
use crate::buffers::{Buffer, Slot};
use crate::drive::clock::until_ns;
use crate::drive::guarded::{guarded, panicked};
use crate::drive::owner::{DataFdId, Owner};
use crate::drive::waits::{AGAIN_PAUSE, HELD_PAUSE};
use crate::errno::{ECANCELED, EINPROGRESS, EIO};
use crate::ids::{DeviceId, Epoch};
use crate::limits::HEADER_BYTES;
use crate::machine::{ReadResult, WriteResult};
use crate::outcome::{Breach, Fault};
use crate::ring::{Done, FileId, FileKind, Op, Ring};
use crate::vfio::device::MigrationDevice;
use crate::wire::{DataHeader, DataPhase, Encoding, chunk_hash};

/// What is to be done with a data fd.
#[derive(Debug)]
pub(in crate::drive) enum Job {
    /// Read a chunk of so many bytes at most into the slot.
    Read { slot: Slot, bytes: usize, phase: DataPhase },
    /// Verify the chunk that stands in the slot, or zeros, and write it.
    Write { header: DataHeader, slot: Option<Slot> },
}

/// What happened on a data fd.
#[derive(Debug)]
pub(in crate::drive) enum DataEvent {
    Read {
        id: DataFdId,
        epoch: Epoch,
        slot: Slot,
        result: ReadResult,
        ns: u64,
    },
    Written {
        header: DataHeader,
        slot: Option<Slot>,
        result: WriteResult,
        ns: u64,
    },
    HungUp {
        id: DataFdId,
        epoch: Epoch,
    },
    /// One that was taken away is closed: the one that is awaited, or one whose driver was given up.
    Closed {
        device: DeviceId,
        awaited: bool,
    },
    /// The session cannot go on.
    Local(Fault),
}

/// What data fds use together, for the time of a call.
pub(in crate::drive) struct Tools<'a> {
    pub(in crate::drive) ring: &'a mut dyn Ring,
    pub(in crate::drive) zeros: &'a mut Zeros,
    pub(in crate::drive) events: &'a mut VecDeque<DataEvent>,
    pub(in crate::drive) now_ns: u64,
}

/// See the module's text.
pub(in crate::drive) struct DataFd {
    pub(super) id: DataFdId,
    pub(super) epoch: Epoch,
    /// Has the last say over what an operation answered.
    device: Arc<dyn MigrationDevice>,
    fd: Arc<OwnedFd>,
    file: FileId,
    kind: FileKind,
    chunk_bytes: usize,
    jobs: VecDeque<Job>,
    chunk: Option<Chunk>,
    place: Place,
    /// An error that came after bytes in one chunk; the next read answers with it.
    pending: Option<i32>,
    /// A read in STOP_COPY has met the end, which is all that those behind it would find.
    ended: bool,
    /// The last read found nothing, in PRE_COPY: only a poll shows now that the fd died.
    drained: bool,
    watching: bool,
    /// It is to be closed: what is in flight is cancelled, and nothing more is begun.
    stopped: bool,
}

/// Where the chunk's buffer is.
#[derive(Debug)]
enum Place {
    /// There is no chunk, or its buffer is in the hands of the one who looks.
    Here,
    OnRing,
    /// Until it is time for what comes then.
    Paused {
        buffer: Buffer,
        until_ns: u64,
        then: Then,
    },
}

impl DataFd {
    /// Takes a data fd for an epoch. It is on the ring from now on.
    pub(in crate::drive) fn attach(
        id: DataFdId,
        epoch: Epoch,
        device: Arc<dyn MigrationDevice>,
        (fd, kind): (Arc<OwnedFd>, FileKind),
        chunk_bytes: usize,
        ring: &mut dyn Ring,
    ) -> io::Result<DataFd> {
        if kind == FileKind::Socket {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a socket"));
        }
        Ok(DataFd {
            id,
            epoch,
            device,
            file: ring.add_file(Arc::clone(&fd), kind)?,
            fd,
            kind,
            chunk_bytes,
            jobs: VecDeque::new(),
            chunk: None,
            place: Place::Here,
            pending: None,
            ended: false,
            drained: false,
            watching: false,
            stopped: false,
        })
    }

    /// Takes a job; those before it come first. There are no more of them than slots, and frames
    /// that wait to be written.
    pub(in crate::drive) fn give(&mut self, job: Job, tools: &mut Tools) {
        self.jobs.push_back(job);
        self.go_on(tools);
    }

    /// Takes the completion of its operation.
    pub(in crate::drive) fn done(&mut self, done: Done, tools: &mut Tools) {
        self.place = Place::Here;
        let step = self.answered(done.buffer, done.result, tools.events);
        self.run(Ok(step), tools);
    }

    /// Takes the completion of its watch.
    pub(in crate::drive) fn watched(&mut self, done: &Done, tools: &mut Tools) {
        self.watching = false;
        // A pipe whose other end is closed answers POLLHUP; no driver does.
        let rdhup = usize::try_from(libc::POLLRDHUP).unwrap_or(usize::MAX);
        let died = done.result.is_ok_and(|seen| seen & rdhup != 0);
        if died && self.drained && self.jobs.is_empty() && !self.stopped {
            self.drained = false;
            tools.events.push_back(DataEvent::HungUp { id: self.id, epoch: self.epoch });
        }
    }

    /// When it has something to do by itself.
    pub(in crate::drive) fn deadline_ns(&self) -> Option<u64> {
        match &self.place {
            Place::Paused { until_ns, .. } => Some(*until_ns),
            Place::Here | Place::OnRing => None,
        }
    }

    /// Does what it has to do by itself, if it is time.
    pub(in crate::drive) fn look_at_the_clock(&mut self, tools: &mut Tools) {
        if self.deadline_ns().is_none_or(|at| at > tools.now_ns) {
            return;
        }
        let Place::Paused { buffer, then, .. } = std::mem::replace(&mut self.place, Place::Here)
        else {
            return;
        };
        let step = match then {
            Then::Operate => Step::Operate(buffer),
            Then::Observe(result) => self.observed(buffer, result, tools.events),
            Then::Fail(errno) => Step::End(buffer, Err(errno)),
        };
        self.run(Ok(step), tools);
    }

    /// Begins to take it away: what is in flight is cancelled, what waits is given back.
    pub(in crate::drive) fn stop(&mut self, tools: &mut Tools) {
        self.stopped = true;
        if self.watching {
            tools.ring.cancel(Owner::Watch(self.id).token());
        }
        match std::mem::replace(&mut self.place, Place::Here) {
            Place::Here => {}
            Place::OnRing => {
                self.place = Place::OnRing;
                tools.ring.cancel(Owner::Data(self.id).token());
            }
            // The driver has it still.
            held @ Place::Paused { then: Then::Observe(_), .. } => self.place = held,
            Place::Paused { buffer, .. } => {
                self.run(Ok(Step::End(buffer, Err(ECANCELED))), tools);
            }
        }
        let jobs = std::mem::take(&mut self.jobs);
        tools.events.extend(jobs.into_iter().map(|job| self.undone(job, 0)));
    }

    /// Whether nothing of it is in flight.
    pub(in crate::drive) fn is_idle(&self) -> bool {
        self.chunk.is_none() && self.jobs.is_empty() && !self.watching
    }

    /// Closes it. Nothing is in flight on it.
    pub(in crate::drive) fn close(self, ring: &mut dyn Ring) {
        debug_assert!(self.is_idle(), "it is closed under an operation");
        if let Err(error) = ring.remove_file(self.file) {
            tracing::warn!(%error, "a data fd stays open until its ring ends");
        }
    }

    /// Gives back what was not begun.
    fn undone(&self, job: Job, ns: u64) -> DataEvent {
        match job {
            Job::Read { slot, .. } => self.read(slot, ReadResult::Cancelled, ns),
            Job::Write { header, slot } => {
                DataEvent::Written { header, slot, result: WriteResult::Cancelled, ns }
            }
        }
    }

    fn read(&self, slot: Slot, result: ReadResult, ns: u64) -> DataEvent {
        DataEvent::Read { id: self.id, epoch: self.epoch, slot, result, ns }
    }

    fn has_poll(&self) -> bool {
        self.kind == FileKind::Pollable
    }

    fn state(&self) -> State {
        State { has_poll: self.has_poll(), stopped: self.stopped }
    }

    /// Begins the next job if there is no chunk.
    fn go_on(&mut self, tools: &mut Tools) {
        if self.chunk.is_none()
            && let Some(job) = self.jobs.pop_front()
        {
            let step = self.begin(job, tools);
            self.run(step, tools);
        }
    }

    /// Takes steps until something is waited for.
    fn run(&mut self, mut step: Result<Step, DataEvent>, tools: &mut Tools) {
        loop {
            let event = match step {
                Ok(Step::Operate(buffer)) => match self.submit(buffer, tools.ring) {
                    Ok(()) => return,
                    Err((buffer, errno)) => {
                        step = Ok(self.answered(buffer, Err(errno), tools.events));
                        continue;
                    }
                },
                Ok(Step::Pause(buffer, pause, then)) => {
                    let until_ns = until_ns(tools.now_ns, pause);
                    self.place = Place::Paused { buffer, until_ns, then };
                    return;
                }
                Ok(Step::End(buffer, result)) => self.end(buffer, result, tools),
                Err(event) => Some(event),
            };
            // The next operation is on its way before anybody looks at what this one has brought.
            let next = self.jobs.pop_front().map(|job| self.begin(job, tools));
            tools.events.extend(event);
            match next {
                Some(next) => step = next,
                None => return self.watch(tools.ring),
            }
        }
    }

    /// Err: it is over without an operation.
    fn begin(&mut self, job: Job, tools: &mut Tools) -> Result<Step, DataEvent> {
        if self.stopped {
            return Err(self.undone(job, 0));
        }
        self.drained = false;
        let (buffer, rest, what) = match job {
            Job::Read { slot, bytes, phase } => {
                if let Some(errno) = self.pending.take() {
                    return Err(self.read(slot, ReadResult::Failed(errno), 0));
                }
                if self.ended && phase == DataPhase::StopCopy {
                    return Err(self.read(slot, ReadResult::End, 0));
                }
                // In PRE_COPY an fd that polls is tried before it is waited for, so that a device
                // double that cannot say ENOMSG can put it in place of EAGAIN. EAGAIN itself does
                // not mean drained: mlx5 says so while it saves, and a poll tells when there is more.
                let patient = !self.has_poll() || phase == DataPhase::StopCopy;
                let rest = HEADER_BYTES..HEADER_BYTES + bytes.clamp(1, self.chunk_bytes);
                (Buffer::Slot(slot), rest, What::Read { phase, patient })
            }
            Job::Write { header, slot } => {
                let bytes = header.raw_bytes as usize;
                let (buffer, rest, hash) = match slot {
                    Some(slot) => {
                        let hash = chunk_hash(&slot.body()[..bytes]);
                        (Buffer::Slot(slot), HEADER_BYTES..HEADER_BYTES + bytes, hash)
                    }
                    None => {
                        debug_assert!(tools.zeros.reach(bytes), "a chunk of more than was agreed");
                        (tools.zeros.buffer(), 0..bytes, tools.zeros.hash(bytes))
                    }
                };
                if hash != header.raw_hash {
                    let result = WriteResult::Corrupt(corrupt(&header));
                    let slot = slot_of(buffer);
                    return Err(DataEvent::Written { header, slot, result, ns: 0 });
                }
                (buffer, rest, What::Write { header, hash, again: 0 })
            }
        };
        self.chunk = Some(Chunk::new(what, rest, tools.now_ns));
        Ok(Step::Operate(buffer))
    }

    fn submit(&mut self, buffer: Buffer, ring: &mut dyn Ring) -> Result<(), (Buffer, i32)> {
        debug_assert!(!self.stopped, "an operation that nobody cancels");
        let Some(chunk) = &self.chunk else { return Err((buffer, EIO)) };
        let op = Op::of(chunk.operation(), self.file, buffer, chunk.rest.clone());
        ring.submit(Owner::Data(self.id).token(), op)
            .map(|()| self.place = Place::OnRing)
            .map_err(|rejected| (rejected.op.buffer, rejected.errno))
    }

    /// The ring has answered.
    fn answered(
        &mut self,
        buffer: Buffer,
        result: Result<usize, i32>,
        events: &mut VecDeque<DataEvent>,
    ) -> Step {
        let fd = self.state();
        if self.chunk.as_mut().is_some_and(|chunk| chunk.begins_again(result, fd)) {
            return Step::Pause(buffer, AGAIN_PAUSE, Then::Operate);
        }
        self.observed(buffer, result, events)
    }

    /// The device has the last say.
    fn observed(
        &mut self,
        buffer: Buffer,
        result: Result<usize, i32>,
        events: &mut VecDeque<DataEvent>,
    ) -> Step {
        let told = result.map_err(io::Error::from_raw_os_error);
        let (device, fd) = (&self.device, &self.fd);
        let observed = match guarded(|| device.observe(fd.as_fd(), told)) {
            Ok(observed) => observed.map_err(|error| error.raw_os_error().unwrap_or(EIO)),
            Err(said) => {
                events.push_back(DataEvent::Local(panicked("observe", self.id.device, &said)));
                Err(EIO)
            }
        };
        if observed == Err(EINPROGRESS) {
            return Step::Pause(buffer, HELD_PAUSE, Then::Observe(result));
        }
        let fd = self.state();
        match &mut self.chunk {
            Some(chunk) => chunk.goes_on(buffer, observed, fd),
            None => Step::End(buffer, Err(EIO)),
        }
    }

    /// The chunk is read or written, or has failed.
    fn end(
        &mut self,
        buffer: Buffer,
        result: Result<(), i32>,
        tools: &mut Tools,
    ) -> Option<DataEvent> {
        let Chunk { what, rest, since_ns, .. } = self.chunk.take()?;
        let ns = tools.now_ns.saturating_sub(since_ns);
        match what {
            What::Read { phase, .. } => {
                let bytes = rest.start - HEADER_BYTES;
                let slot = slot_of(buffer)?;
                let (result, pending) =
                    was_read((&slot, bytes), result, phase, self.state(), tools.zeros);
                self.pending = pending;
                self.drained = result == ReadResult::Empty;
                self.ended = result == ReadResult::End;
                Some(self.read(slot, result, ns))
            }
            What::Write { header, hash, .. } => {
                let result = was_written(hash, result, self.state());
                Some(DataEvent::Written { header, slot: slot_of(buffer), result, ns })
            }
        }
    }

    /// Watches for the fd's death where only that shows it.
    fn watch(&mut self, ring: &mut dyn Ring) {
        if self.drained && self.has_poll() && !self.watching && !self.stopped {
            let watch = Op::hang_up(self.file);
            self.watching = ring.submit(Owner::Watch(self.id).token(), watch).is_ok();
        }
    }
}

fn corrupt(header: &DataHeader) -> Fault {
    let place = header.place;
    Fault::breach(match header.encoding {
        Encoding::Zero => Breach::Chunk { place, what: "its zeros have another hash" },
        _ => Breach::BodyHash { place },
    })
}

fn slot_of(buffer: Buffer) -> Option<Slot> {
    match buffer {
        Buffer::Slot(slot) => Some(slot),
        Buffer::Small(_) | Buffer::Zeros(_) => None,
    }
}
