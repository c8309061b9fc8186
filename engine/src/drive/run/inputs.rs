//! What reaches the drive from other threads and from its streams, and the events that it is to
//! the machine. Slots that travel with it are home again here.

use super::Drive;
use crate::compress::workers::{WorkResult, Worked};
use crate::drive::clock::now_ns;
use crate::drive::inbox::{Chunk, Input, WorkTag};
use crate::drive::streams::{Speed, StreamEvent};
use crate::limits;
use crate::machine::{Command, EncodeResult, Event, Request};
use crate::metrics::Step;
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::vfio::state::DeviceState;

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
            Input::Worked(worked) => self.take_worked(worked),
            Input::Local(fault) => self.feed(Event::Local(fault)),
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
                if header.body_bytes == 0 {
                    // No body comes with which it would be counted.
                    let device = header.place.device.index();
                    if let Some(metrics) = self.measured.metrics.devices.get_mut(device) {
                        metrics.wire_bytes += limits::HEADER_BYTES as u64;
                    }
                }
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
            StreamEvent::Link(Speed { bytes_per_s, at_least, round_trip_ns }) => {
                self.feed(Event::Link { bytes_per_s, at_least, round_trip_ns });
            }
            StreamEvent::Lost { stream, slots, fault } => {
                let slots = slots.into_iter().map(|slot| self.slots.put(slot)).collect();
                self.feed(Event::StreamLost { stream, slots, fault });
            }
        }
    }
}
