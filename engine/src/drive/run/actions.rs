//! What the machine wants: each action, carried out against the mechanism.

use std::sync::Arc;

use super::Drive;
use crate::compress::workers::{Job as WorkerJob, Work};
use crate::drive::clock::until_ns;
use crate::drive::devices::{Detaching, Job};
use crate::drive::embedder::SessionEvent;
use crate::drive::inbox::{Chunk, WorkTag};
use crate::drive::waits::DETACH_PART;
use crate::ids::{DeviceId, Epoch, SlotId, StreamId};
use crate::limits;
use crate::machine::{
    Action, EncodeResult, Event, Notice, Outgoing, ReadResult, Request, WriteResult,
};
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::wire::Kind;

impl Drive {
    /// Carries out one action; what that causes at once waits in `caused` and in the
    /// streams.
    pub(super) fn act(&mut self, now_ns: u64, action: Action) {
        match action {
            Action::Control { device, request } => self.ask(device, request, now_ns),
            Action::Attach { device, epoch } => self.attach(device, epoch),
            Action::DropFd { device } => self.devices[device.index()].fresh = None,
            Action::Detach { device } => self.detach(device, now_ns),
            Action::Read { device, slot, phase } => {
                let epoch = self.devices[device.index()].epoch;
                if let Some(slot) = self.slots.take(slot) {
                    self.give(device, Job::Read { epoch, slot, phase });
                }
            }
            Action::Write { device, header, slot } => {
                let slot = slot.and_then(|slot| self.slots.take(slot));
                self.give(device, Job::Write { header, slot });
            }
            Action::Encode { chunk, slot, into, bytes, level, probe, sample } => {
                let work = Work::Encode { raw_bytes: bytes, level, probe, sample };
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
            Action::Send { stream, what } => self.send(stream, what, now_ns),
            Action::ReceiveBody { stream, header, slot } => {
                if let Some(slot) = self.slots.take(slot) {
                    self.streams.receive_body(stream, header, slot, now_ns);
                }
            }
            Action::SkipBody { stream } => self.streams.skip_body(stream, now_ns),
            Action::Notify(notice) => self.notify(notice, now_ns),
            Action::Finish => self.finish(now_ns),
        }
    }

    fn send(&mut self, stream: StreamId, what: Outgoing, now_ns: u64) {
        match what {
            Outgoing::Frame(frame) => {
                if frame.kind() == Kind::MESSAGE {
                    self.message_budget.free();
                }
                self.streams.send_frame(stream, &frame, now_ns);
            }
            Outgoing::Data { header, slot } => {
                let metrics = &mut self.measured.metrics.devices[header.place.device.index()];
                metrics.wire_bytes += u64::from(header.body_bytes) + limits::HEADER_BYTES as u64;
                let slot = slot.and_then(|slot| self.slots.take(slot));
                self.streams.send_data(stream, header, slot, now_ns);
            }
        }
    }

    fn ask(&mut self, device: DeviceId, request: Request, now_ns: u64) {
        self.measured.asking(request, self.switchover, now_ns);
        let entry = &mut self.devices[device.index()];
        let data_fd = entry.fd.clone();
        let Some(threads) = entry.threads() else {
            debug_assert!(false, "{device} was released");
            return;
        };
        threads.control.ask(request, data_fd);
        entry.asked = true;
    }

    fn attach(&mut self, device: DeviceId, epoch: Epoch) {
        let chunk_bytes = self.chunk_bytes;
        let entry = &mut self.devices[device.index()];
        let Some(fd) = entry.fresh.take() else {
            debug_assert!(false, "{device}: no fd to attach");
            return;
        };
        let fd = Arc::new(fd);
        entry.epoch = epoch;
        entry.fd = Some(Arc::clone(&fd));
        if let Some(threads) = entry.threads() {
            threads.data.attach(fd, chunk_bytes);
        }
    }

    fn detach(&mut self, device: DeviceId, now_ns: u64) {
        let until_ns = until_ns(now_ns, self.cancel_bound / DETACH_PART);
        let entry = &mut self.devices[device.index()];
        let (attached, epoch, dead) = (entry.fd.take().is_some(), entry.epoch, entry.dead);
        match entry.threads() {
            Some(threads) if attached && !dead => {
                threads.data.detach(epoch);
                entry.detaching = Some(Detaching { epoch, until_ns });
            }
            // Slots may have died with the thread.
            _ => self.caused.push_back(Event::Detached { device, stuck: dead }),
        }
    }

    /// Gives a job to the thread of a device's data fd; without one it comes back undone.
    fn give(&mut self, device: DeviceId, job: Job) {
        let entry = &mut self.devices[device.index()];
        let attached = entry.fd.is_some();
        let undone = match entry.threads() {
            Some(threads) if attached => match threads.data.submit(job) {
                Ok(()) => return,
                Err(job) => *job,
            },
            _ => job,
        };
        self.caused.push_back(match undone {
            Job::Read { epoch, slot, .. } => {
                let slot = self.slots.put(slot);
                Event::Read { device, epoch, slot, result: ReadResult::Cancelled }
            }
            Job::Write { header, slot } => {
                let slot = slot.map(|slot| self.slots.put(slot));
                let (epoch, raw_bytes) = (header.place.epoch, header.raw_bytes);
                Event::Written { device, epoch, raw_bytes, slot, result: WriteResult::Cancelled }
            }
            Job::Attach { .. } | Job::Detach { .. } => return,
        });
    }

    fn work(&mut self, chunk: Chunk, slot: SlotId, into: SlotId, work: Work, since_ns: u64) {
        let (Some(slot), Some(into)) = (self.slots.take(slot), self.slots.take(into)) else {
            return;
        };
        let tag = WorkTag { chunk, since_ns };
        if let Err(job) = self.workers.submit(WorkerJob { tag, slot, into, work }) {
            let slot = self.slots.put(job.slot);
            let into = self.slots.put(job.into);
            self.caused.push_back(match chunk {
                Chunk::Encode(chunk) => {
                    let result = EncodeResult::Incompressible { worker_ns: 0, cpu_ns: 0 };
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
        self.measured.noticed(&notice, now_ns);
        if let Notice::Connected { chunk_bytes, .. } = &notice {
            // No data fd is attached yet: all reads will be of the agreed size.
            self.chunk_bytes = self.chunk_bytes.min(*chunk_bytes as usize);
        }
        self.handed_over |= matches!(notice, Notice::HandedOver);
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
}
