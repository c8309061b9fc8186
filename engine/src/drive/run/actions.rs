//! What the machine wants: each action, carried out against the mechanism.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Drive, Machines};
use crate::buffers::Slot;
use crate::compress::workers::{Job as WorkerJob, Work};
use crate::drive::data::{DataThread, Job};
use crate::drive::inbox::{Chunk, WorkTag};
use crate::drive::outbox::SessionEvent;
use crate::drive::report::{Ended, Report, Seen, source_ending, target_ending};
use crate::ids::{DeviceId, Epoch, SlotId};
use crate::limits;
use crate::machine::{
    Action, EncodeResult, Event, Finish, Notice, Outgoing, ReadResult, WriteResult,
};
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::wire::{DataHeader, Kind};

/// How long a finished session waits for the peer to close its end, so that nothing that was sent
/// is lost to a reset of the connection.
const LINGER: Duration = Duration::from_millis(500);

impl Drive {
    /// Carries out one action; what that causes at once waits in `caused` and `stream_events`.
    pub(super) fn act(&mut self, now_ns: u64, action: Action) {
        match action {
            Action::Control { device, request } => {
                self.watch.asking(request, self.switchover, now_ns);
                let entry = &mut self.devices[device.index()];
                let data_fd = entry.data.as_ref().map(|(_, fd, _)| Arc::clone(fd));
                entry.control.ask(request, data_fd);
                (entry.touched, entry.asked) = (true, true);
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
                        match frame.kind() {
                            Kind::MESSAGE => self.room.free(),
                            Kind::HANDOVER => self.handed_over = true,
                            _ => {}
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
        let completion = match &notice {
            Notice::Completion(completion) => Some(completion.clone()),
            _ => None,
        };
        if !self.outbox.push(SessionEvent::Notice(notice)) {
            let breach = Breach::Messages { max: limits::MESSAGES_WAITING_MAX };
            self.caused.push_back(Event::Local(Fault::breach(breach)));
        }
        // Whoever waits for it comes before whoever reads the log.
        if let Some(completion) = completion {
            tracing::info!(
                device = completion.device.0,
                epoch = completion.epoch.0,
                phase = completion.phase.name(),
                ending = completion.ending.name(),
                fault = completion.fault.as_ref().map(tracing::field::display),
                "completion"
            );
        }
    }

    fn finish(&mut self, finish: Finish, now_ns: u64) {
        let seen = |device: &super::Attached| Seen {
            touched: device.touched,
            unanswered: device.asked || device.ending.is_some(),
        };
        let seen: Vec<Seen> = self.devices.iter().map(seen).collect();
        self.end(finish, &seen, now_ns);
    }

    pub(super) fn end(&mut self, finish: Finish, seen: &[Seen], now_ns: u64) {
        self.watch.finished(now_ns);
        for (metrics, measured) in self.watch.metrics.streams.iter_mut().zip(self.streams.metrics())
        {
            *metrics = measured;
        }
        let ended = match &self.machines {
            Machines::Source(sender) => {
                let mut devices = sender.reports();
                let ending = source_ending(finish, &mut devices, seen);
                Ended::Source(self.report(ending, devices))
            }
            Machines::Target(receiver) => {
                let mut devices = receiver.reports();
                let ending = target_ending(finish, &mut devices, seen);
                Ended::Target(self.report(ending, devices))
            }
        };
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        self.outbox.push(SessionEvent::Finished);
        self.streams.close_sending();
        self.linger_until_ns = Some(now_ns + LINGER.as_nanos() as u64);
    }

    fn report<E, D>(&self, ending: E, devices: Vec<D>) -> Report<E, D> {
        Report {
            ending,
            devices,
            metrics: self.watch.metrics.clone(),
            timeline: self.watch.timeline,
            backend: self.backend,
            fallback: self.fallback.clone(),
        }
    }
}
