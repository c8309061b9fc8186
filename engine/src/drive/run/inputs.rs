//! What reaches the drive from other threads and from its streams, and the events that it is to
//! the machine. Slots that travel with it are home again here.

use super::Drive;
use crate::compress::workers::{WorkResult, Worked};
use crate::drive::clock::now_ns;
use crate::drive::inbox::{Chunk, Input, WorkTag};
use crate::drive::streams::StreamEvent;
use crate::ids::{DeviceId, Epoch};
use crate::limits;
use crate::machine::{Command, EncodeResult, Event, ReadResult, Request, WriteResult};
use crate::metrics::Step;
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::vfio::state::DeviceState;
use crate::wire::DevicePlace;

impl Drive {
    /// Takes what another thread has put into the inbox.
    pub(super) fn take(&mut self, input: Input) {
        match input {
            Input::Command(command) => {
                self.switchover |= matches!(command, Command::Switchover);
                self.feed(Event::Command(command));
            }
            Input::Control { device, request, result, fd, ns } => {
                self.measured.metrics.record_step(Step::Control, ns);
                if (request, result.is_ok()) == (Request::SetState(DeviceState::Running), true) {
                    self.measured.running(now_ns());
                }
                self.devices[device.index()].fresh = fd;
                self.devices[device.index()].asked = false;
                self.feed(Event::Control { device, request, result });
            }
            Input::Read { device, epoch, slot, result, ns } => {
                if let ReadResult::Chunk { bytes, .. } = result {
                    self.measured.metrics.record_step(Step::Read, ns);
                    let metrics = &mut self.measured.metrics.devices[device.index()];
                    metrics.state_bytes += u64::from(bytes);
                    metrics.device_ns += ns;
                }
                let slot = self.slots.put(slot);
                self.feed(Event::Read { device, epoch, slot, result });
            }
            Input::Written { header, slot, result, ns } => {
                let DevicePlace { device, epoch, .. } = header.place;
                let raw_bytes = header.raw_bytes;
                self.measured.metrics.record_step(Step::Write, ns);
                let metrics = &mut self.measured.metrics.devices[device.index()];
                metrics.device_ns += ns;
                if let WriteResult::Written { .. } = result {
                    metrics.state_bytes += u64::from(raw_bytes);
                }
                let slot = slot.map(|slot| self.slots.put(slot));
                self.feed(Event::Written { device, epoch, raw_bytes, slot, result });
            }
            Input::HungUp { device, epoch } => self.feed(Event::HungUp { device, epoch }),
            Input::Detached { device, epoch } => self.take_detached(device, epoch),
            Input::Worked(worked) => self.take_worked(worked),
            Input::Local(fault) => self.feed(Event::Local(fault)),
            Input::Died { device, fault } => self.take_death(device, fault),
        }
    }

    /// A data fd is closed: the one that is waited for, or one that was given up before.
    fn take_detached(&mut self, device: DeviceId, epoch: Epoch) {
        let ended = self.linger_until_ns.is_some();
        let entry = &mut self.devices[device.index()];
        if entry.detaching.is_some_and(|detaching| detaching.epoch == epoch) {
            entry.detaching = None;
        } else {
            debug_assert!(entry.stuck > 0, "{device}: nobody waits for epoch {epoch}");
            entry.stuck = entry.stuck.saturating_sub(1);
            // The machine has gone on without it. Only after the end is this news to it.
            if !ended {
                return;
            }
        }
        self.feed(Event::Detached { device, stuck: false });
    }

    /// The session is over: the thread's slots, and its data fd's jobs, do not come back.
    fn take_death(&mut self, device: DeviceId, fault: Fault) {
        let entry = &mut self.devices[device.index()];
        (entry.dead, entry.stuck) = (true, 0);
        let awaited = entry.detaching.take().is_some();
        self.feed(Event::Local(fault));
        if awaited {
            self.feed(Event::Detached { device, stuck: true });
        }
    }

    fn take_worked(&mut self, worked: Worked<WorkTag>) {
        let Worked { tag, slot, into, result, samples, worker_ns, cpu_ns } = worked;
        if result == WorkResult::Panicked {
            let message = "a worker panicked over a chunk; this is a defect of the engine";
            let fault = Fault::session(Cause::Local, Observation::Engine, message);
            self.feed(Event::Local(fault));
        }
        let ns = now_ns().saturating_sub(tag.since_ns);
        let slot = self.slots.put(slot);
        let into = self.slots.put(into);
        match tag.chunk {
            Chunk::Encode(chunk) => {
                self.measured.metrics.record_step(Step::Encode, ns);
                self.measured.metrics.devices[chunk.device.index()].worker_ns += ns;
                let result = match result {
                    WorkResult::Encoded { body_bytes, body_hash } => {
                        EncodeResult::Compressed { body_bytes, body_hash, worker_ns, cpu_ns }
                    }
                    _ => EncodeResult::Incompressible { worker_ns, cpu_ns },
                };
                if let Some(samples) = samples {
                    self.feed(Event::Sampled(samples));
                }
                self.feed(Event::Encoded { chunk, slot, into, result });
            }
            Chunk::Decode(header) => {
                let place = header.place;
                self.measured.metrics.record_step(Step::Decode, ns);
                self.measured.metrics.devices[place.device.index()].worker_ns += ns;
                let result = match result {
                    WorkResult::Decoded => Ok(()),
                    WorkResult::BodyDamaged => Err(Fault::breach(Breach::BodyHash { place })),
                    WorkResult::ChunkWrong(what) => {
                        Err(Fault::breach(Breach::Chunk { place, what }))
                    }
                    WorkResult::Panicked
                    | WorkResult::Encoded { .. }
                    | WorkResult::Incompressible => {
                        Err(Fault::session(Cause::Local, Observation::Engine, "a worker mixed up"))
                    }
                };
                self.feed(Event::Decoded { header, slot, into, result });
            }
        }
    }

    pub(super) fn take_stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Sent { stream, slot, ns } => {
                self.measured.metrics.record_step(Step::Send, ns);
                let slot = slot.map(|slot| self.slots.put(slot));
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
                self.measured.metrics.record_step(Step::Receive, ns);
                let metrics = &mut self.measured.metrics.devices[header.place.device.index()];
                metrics.link_ns += ns;
                metrics.wire_bytes += u64::from(header.body_bytes) + limits::HEADER_BYTES as u64;
                let slot = self.slots.put(slot);
                self.feed(Event::Body { stream, header, slot });
            }
            StreamEvent::Part { stream, sent, bytes } => {
                self.feed(Event::Part { stream, sent, bytes });
            }
            StreamEvent::Link { bytes_per_s, at_least } => {
                self.feed(Event::Link { bytes_per_s, at_least });
            }
            StreamEvent::Lost { stream, slots, fault } => {
                let slots = slots.into_iter().map(|slot| self.slots.put(slot)).collect();
                self.feed(Event::StreamLost { stream, slots, fault });
            }
        }
    }
}
