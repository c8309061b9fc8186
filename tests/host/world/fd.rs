//! The thread of a data fd, simulated: jobs in order, one operation in flight, cancelled when the
//! thread is to end, and its `Detached` only when everything has come back.

use std::collections::VecDeque;

use vfio_ferry::ids::{DeviceId, Epoch, SlotId};
use vfio_ferry::machine::{Event, ReadResult, WriteResult};
use vfio_ferry::outcome::{Breach, Fault};
use vfio_ferry::wire::{DataHeader, DataPhase, chunk_hash};

use super::check::{Check, ensure};
use super::device::{ENOMSG, Got};
use super::plan::{DeviceFault, Trigger, Wrong};
use super::schedule::{HostId, Lane, Occurrence};
use super::trace::trace;
use super::world::World;

/// What the thread is to do.
#[derive(Debug, Clone)]
pub(crate) enum Job {
    Read { slot: SlotId, phase: DataPhase },
    Write { header: DataHeader, slot: Option<SlotId> },
}

#[derive(Debug)]
struct Busy {
    job: Job,
    fails: Option<i32>,
    harmless: Option<i32>,
    /// It waits for data, and only data, a dead fd or a cancel ends it.
    parked: bool,
    /// It ignores the cancel, and ends so many bounds after it, or never.
    stuck: Option<Option<u64>>,
    /// The driver holds it, whoever cancels it, for a time or for ever.
    held: bool,
    /// It holds the driver's mutex.
    mutex: bool,
    /// Its end is on the schedule.
    ending: bool,
}

#[derive(Debug)]
pub(crate) struct DataFd {
    pub(crate) epoch: Epoch,
    /// The device's session, or resuming session, behind it.
    pub(crate) session: usize,
    queue: VecDeque<Job>,
    busy: Option<Busy>,
    results: Lane,
    stopping: bool,
    /// Nobody waits for it any more.
    given_up: bool,
    pub(crate) ended: bool,
    /// Bytes that were written through it, and the epoch of them.
    pub(crate) failed: bool,
}

impl DataFd {
    pub(crate) fn new(epoch: Epoch, session: usize) -> DataFd {
        DataFd {
            epoch,
            session,
            queue: VecDeque::new(),
            busy: None,
            results: Lane::default(),
            stopping: false,
            given_up: false,
            ended: false,
            failed: false,
        }
    }

    /// It has one that the driver does not give back.
    pub(crate) fn is_stuck(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.stuck.is_some() || busy.held)
    }

    /// Calls of the control thread wait for it.
    pub(crate) fn holds_mutex(&self) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.held && busy.mutex)
    }

    /// Its thread has ended, or nobody waits for that any more.
    pub(crate) fn is_let_go(&self) -> bool {
        self.ended || self.given_up
    }
}

impl World {
    pub(crate) fn give_job(&mut self, h: HostId, id: DeviceId, job: Job) -> Check {
        match self.sides[h].device(id).active {
            Some(index) => {
                self.sides[h].device(id).fds[index].queue.push_back(job);
                self.next_job(h, id, index)
            }
            // As the drive does: an epoch that no device is in.
            None => {
                let event = undone(id, Epoch(u32::MAX), job);
                self.caused(h, event);
                Ok(())
            }
        }
    }

    /// Starts the next operation, or ends the thread.
    fn next_job(&mut self, h: HostId, id: DeviceId, index: usize) -> Check {
        loop {
            let fd = &mut self.sides[h].devices[id.index()].fds[index];
            if fd.busy.is_some() || fd.ended {
                return Ok(());
            }
            let Some(job) = fd.queue.pop_front() else {
                if fd.stopping {
                    fd.ended = true;
                    if !fd.given_up {
                        let event = Event::Detached { device: id, stuck: false };
                        self.report(h, id, index, event);
                    }
                }
                return Ok(());
            };
            if fd.stopping {
                let event = undone(id, fd.epoch, job);
                self.report(h, id, index, event);
                continue;
            }
            self.start_job(h, id, index, job);
        }
    }

    fn start_job(&mut self, h: HostId, id: DeviceId, index: usize, job: Job) {
        let device = &mut self.sides[h].devices[id.index()];
        let number = device.operations;
        device.operations += 1;
        let mutex = matches!(job, Job::Write { .. });
        let mut busy = Busy {
            job,
            fails: None,
            harmless: None,
            parked: false,
            stuck: None,
            held: false,
            mutex,
            ending: true,
        };
        let mut duration_ns = self.plan.pace_ns[h] + self.schedule.delay(self.plan.data_ns);
        let (mut sudden, mut never) = (Vec::new(), false);
        for fault in self.faults_of(h, id, Trigger::Data(number)) {
            self.allow(h, fault);
            match fault.what {
                Wrong::Reset => sudden.push(Occurrence::Reset(h, id)),
                Wrong::Error => sudden.push(Occurrence::Error(h, id)),
                Wrong::Fails(errno) => busy.fails = Some(errno),
                Wrong::Harmless(errno) => busy.harmless = Some(errno),
                Wrong::Slow(times) => duration_ns = self.plan.data_ns * times,
                Wrong::Late(ns) => {
                    busy.held = true;
                    busy.mutex |= !ns.is_multiple_of(4);
                    duration_ns = ns;
                }
                Wrong::Never => {
                    busy.held = true;
                    busy.mutex |= !number.is_multiple_of(4);
                    never = true;
                }
                Wrong::Panics => {}
                Wrong::Stuck(late) => {
                    busy.stuck = Some(late);
                    busy.ending = false;
                    busy.mutex = false;
                }
            }
        }
        trace!("      {h} {id} {:?} starts", busy.job);
        let ends = busy.ending;
        if busy.mutex {
            self.sides[h].devices[id.index()].sim.enter_mutex();
        }
        self.sides[h].devices[id.index()].fds[index].busy = Some(busy);
        let now_ns = self.schedule.now_ns;
        if ends && !never {
            self.schedule.at(now_ns + duration_ns, Occurrence::DataEnds(h, id, index));
        }
        for occurrence in sudden {
            let at_ns = now_ns + self.schedule.rng.below(duration_ns + 1);
            self.schedule.at(at_ns, occurrence);
        }
    }

    /// The operation takes effect and completes.
    pub(crate) fn data_ends(&mut self, h: HostId, id: DeviceId, index: usize) -> Check {
        let device = &mut self.sides[h].devices[id.index()];
        let Some(mut busy) = device.fds[index].busy.take() else { return Ok(()) };
        let fd = &device.fds[index];
        let (session, epoch, stopping) = (fd.session, fd.epoch, fd.stopping);
        // A cancelled operation may still bring what it has, or what went wrong before.
        let cancelled =
            stopping && (busy.parked || busy.stuck.is_some() || self.schedule.rng.one_in(2));
        let event = match busy.job.clone() {
            Job::Read { slot, phase } => {
                let got = match (busy.harmless, busy.fails) {
                    _ if cancelled => None,
                    (Some(errno), _) => Some(Got::Errno(errno)),
                    (None, Some(errno)) => {
                        device.sim.save_fails(session);
                        Some(Got::Errno(errno))
                    }
                    (None, None) => {
                        let device = &mut self.sides[h].devices[id.index()];
                        Some(device.sim.read(session, &mut self.schedule.rng))
                    }
                };
                if got == Some(Got::Parks) && !stopping {
                    busy.parked = true;
                    busy.ending = false;
                    self.sides[h].devices[id.index()].fds[index].busy = Some(busy);
                    return Ok(());
                }
                let result = self.read_result(h, slot, phase, got);
                Event::Read { device: id, epoch, slot, result }
            }
            Job::Write { header, slot } => {
                let result = if cancelled {
                    WriteResult::Cancelled
                } else {
                    self.write_result(h, id, index, header, slot, busy.fails)?
                };
                let raw_bytes = header.raw_bytes;
                Event::Written { device: id, epoch, raw_bytes, slot, result }
            }
        };
        if busy.mutex {
            let device = &mut self.sides[h].devices[id.index()];
            let reset = device.sim.leave_mutex();
            if std::mem::take(&mut device.waits_for_mutex) {
                self.schedule.at(self.schedule.now_ns, Occurrence::ControlEnds(h, id));
            }
            if reset {
                trace!("      {h} {id} deferred reset is applied after a read or write");
                self.wake(h, id);
            }
        }
        self.report(h, id, index, event);
        self.next_job(h, id, index)
    }

    fn read_result(
        &mut self,
        h: HostId,
        slot: SlotId,
        phase: DataPhase,
        got: Option<Got>,
    ) -> ReadResult {
        match (got, phase) {
            (None | Some(Got::Parks), _) => ReadResult::Cancelled,
            (Some(Got::Zero), DataPhase::StopCopy) => ReadResult::End,
            (Some(Got::Zero | Got::Errno(ENOMSG)), DataPhase::PreCopy) => ReadResult::Empty,
            (Some(Got::Errno(errno)), _) => ReadResult::Failed(errno),
            (Some(Got::Bytes(bytes)), _) => {
                let zero = bytes.iter().all(|byte| *byte == 0);
                let hash = chunk_hash(&bytes);
                let length = bytes.len() as u32;
                self.sides[h].slot(slot).bytes = bytes;
                ReadResult::Chunk { bytes: length, zero, hash }
            }
        }
    }

    fn write_result(
        &mut self,
        h: HostId,
        id: DeviceId,
        index: usize,
        header: DataHeader,
        slot: Option<SlotId>,
        fails: Option<i32>,
    ) -> Result<WriteResult, super::check::Violation> {
        let length = header.raw_bytes as usize;
        let bytes = match slot {
            Some(slot) => self.sides[h].slot(slot).bytes.clone(),
            None => vec![0; length],
        };
        let hash = chunk_hash(&bytes);
        if bytes.len() != length || hash != header.raw_hash {
            let breach = Breach::BodyHash { place: header.place };
            self.sides[h].device(id).fds[index].failed = true;
            return Ok(WriteResult::Corrupt(Fault::breach(breach)));
        }
        let device = &mut self.sides[h].devices[id.index()];
        if let Some(errno) = fails {
            device.fds[index].failed = true;
            return Ok(WriteResult::Failed(errno));
        }
        let resume = device.fds[index].session;
        match device.sim.write(resume, &bytes) {
            Err(errno) => {
                device.fds[index].failed = true;
                Ok(WriteResult::Failed(errno))
            }
            Ok(()) if device.fds[index].failed => Ok(WriteResult::Written { hash }),
            Ok(()) => {
                self.check_written(id, resume, header, bytes.len())?;
                Ok(WriteResult::Written { hash })
            }
        }
    }

    /// Operations that wait for something look again.
    pub(crate) fn wake(&mut self, h: HostId, id: DeviceId) {
        let device = &mut self.sides[h].devices[id.index()];
        for (index, fd) in device.fds.iter_mut().enumerate() {
            if let Some(busy) = fd.busy.as_mut().filter(|busy| busy.parked && !busy.ending) {
                busy.ending = true;
                self.schedule.after(self.plan.data_ns, Occurrence::DataEnds(h, id, index));
            }
        }
    }

    pub(crate) fn detach(&mut self, h: HostId, id: DeviceId) -> Check {
        let Some(index) = self.sides[h].device(id).active.take() else {
            self.caused(h, Event::Detached { device: id, stuck: false });
            return Ok(());
        };
        let bound_ns = self.schedule.now_ns + self.plan.detach_bound_ns;
        let fd = &mut self.sides[h].devices[id.index()].fds[index];
        fd.stopping = true;
        match fd.busy.as_mut() {
            Some(Busy { stuck: Some(late), ending, .. }) => {
                if let Some(bounds) = late {
                    *ending = true;
                    let at_ns = self.schedule.now_ns + self.plan.bound_ns * *bounds / 2 + 7;
                    self.schedule.at(at_ns, Occurrence::DataEnds(h, id, index));
                }
                self.schedule.at(bound_ns, Occurrence::DetachBound(h, id, index));
            }
            Some(Busy { held: true, .. }) => {
                self.schedule.at(bound_ns, Occurrence::DetachBound(h, id, index));
            }
            Some(busy) if !busy.ending => {
                busy.ending = true;
                self.schedule.after(self.plan.data_ns, Occurrence::DataEnds(h, id, index));
            }
            _ => {}
        }
        self.next_job(h, id, index)
    }

    pub(crate) fn detach_bound(&mut self, h: HostId, id: DeviceId, index: usize) -> Check {
        let fd = &mut self.sides[h].devices[id.index()].fds[index];
        if fd.ended || fd.given_up {
            return Ok(());
        }
        fd.given_up = true;
        self.coverage.stuck += 1;
        self.feed(h, Event::Detached { device: id, stuck: true })
    }

    /// A result on its way from the thread to the machine.
    fn report(&mut self, h: HostId, id: DeviceId, index: usize, event: Event) {
        let high_ns = self.plan.data_ns / 2;
        let lane = &mut self.sides[h].devices[id.index()].fds[index].results;
        self.schedule.through(lane, high_ns, Occurrence::Feed(h, Box::new(event)));
    }

    /// The faults that were planned for this call.
    pub(crate) fn faults_of(&self, h: HostId, id: DeviceId, when: Trigger) -> Vec<DeviceFault> {
        let fits = |fault: &&DeviceFault| (fault.host, fault.device, fault.when) == (h, id.0, when);
        self.plan.faults.iter().filter(fits).copied().collect()
    }

    /// What reaches a target's device is the next piece of one epoch of the source's.
    fn check_written(
        &mut self,
        id: DeviceId,
        resume: usize,
        header: DataHeader,
        length: usize,
    ) -> Check {
        let epoch = header.place.epoch;
        let tampered = self.is_tampered();
        let [source, target] = &mut self.sides;
        let source = &source.devices[id.index()];
        let session = source.epochs.get(&epoch).map(|session| &source.sim.sessions[*session]);
        let target = &mut target.devices[id.index()].sim.resumes[resume];
        let end = target.bytes.len();
        let start = end - length;
        let first = *target.epoch.get_or_insert(epoch);
        ensure!(
            first == epoch,
            "bytes of two epochs never meet in a device",
            "{id}: {first} is being loaded, and {epoch} was written"
        );
        ensure!(
            header.offset == start as u64,
            "an epoch's bytes are written in order",
            "{id}: offset {} was written at {start}",
            header.offset
        );
        if tampered {
            return Ok(());
        }
        let same = session.is_some_and(|session| {
            session.bytes.get(start..end) == Some(&target.bytes[start..end])
        });
        ensure!(
            same,
            "a target's content is a prefix of its source's session",
            "{id} {epoch}: bytes {start}..{end} are not those of the session"
        );
        Ok(())
    }
}

fn undone(device: DeviceId, epoch: Epoch, job: Job) -> Event {
    match job {
        Job::Read { slot, .. } => {
            Event::Read { device, epoch, slot, result: ReadResult::Cancelled }
        }
        Job::Write { header, slot } => {
            let raw_bytes = header.raw_bytes;
            Event::Written { device, epoch, raw_bytes, slot, result: WriteResult::Cancelled }
        }
    }
}
