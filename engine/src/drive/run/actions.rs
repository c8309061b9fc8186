//! What the machine wants: each action, carried out against the mechanism.

use super::Drive;
use crate::compress::workers::{Job as WorkerJob, Work};
use crate::drive::devices::Job;
use crate::drive::embedder::SessionEvent;
use crate::drive::inbox::{Chunk, WorkTag};
use crate::ids::{DeviceId, SlotId, StreamId};
use crate::limits;
use crate::machine::{Action, EncodeResult, Event, Notice, Outgoing, Request};
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
            Action::Read { device, slot, bytes, phase } => {
                if let Some(slot) = self.slots.take(slot) {
                    self.give(device, Job::Read { slot, bytes: bytes as usize, phase }, now_ns);
                }
            }
            Action::Write { device, header, slot } => {
                let slot = slot.and_then(|slot| self.slots.take(slot));
                self.give(device, Job::Write { header, slot }, now_ns);
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
            Outgoing::Padding { bytes } => self.streams.send_padding(stream, bytes, now_ns),
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
        let data_fd = entry.data.fd();
        let Some(threads) = entry.threads() else {
            debug_assert!(false, "{device} was released");
            return;
        };
        threads.control.ask(request, data_fd);
        entry.asked = true;
    }

    fn work(&mut self, chunk: Chunk, slot: SlotId, into: SlotId, work: Work, since_ns: u64) {
        let (Some(slot), Some(into)) = (self.slots.take(slot), self.slots.take(into)) else {
            return;
        };
        let tag = WorkTag { chunk, since_ns };
        if let Err(job) = self.workers.submit(WorkerJob { tag, slot, into, work }, &self.worked) {
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
