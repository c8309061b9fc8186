//! The devices' data fds: jobs in, events out.

use super::Drive;
use crate::drive::clock::until_ns;
use crate::drive::devices::{DataEvent, DataFds, Job, Tools};
use crate::drive::waits::DETACH_PART;
use crate::ids::{DeviceId, Epoch};
use crate::machine::{Event, ReadResult, WriteResult};
use crate::metrics::Step;
use crate::outcome::{Cause, Fault, Observation};
use crate::wire::DevicePlace;

impl Drive {
    /// A device's data fds, with what they use.
    pub(super) fn with_data<T>(
        &mut self,
        device: DeviceId,
        now_ns: u64,
        call: impl FnOnce(&mut DataFds, &mut Tools) -> T,
    ) -> T {
        let mut ring = self.ring.borrow_mut();
        let (zeros, events) = (&mut self.zeros, &mut self.data_events);
        let mut tools = Tools { ring: &mut **ring, zeros, events, now_ns };
        call(&mut self.devices[device.index()].data, &mut tools)
    }

    /// Starts to use the fd which the last SET_STATE gave.
    pub(super) fn attach(&mut self, device: DeviceId, epoch: Epoch) {
        let entry = &mut self.devices[device.index()];
        let Some(fd) = entry.fresh.take() else {
            debug_assert!(false, "{device}: no fd to attach");
            return;
        };
        let Some(itself) = entry.threads().map(|threads| threads.device.clone()) else {
            debug_assert!(false, "{device} was released");
            return;
        };
        let ring = &mut **self.ring.borrow_mut();
        let with = (&self.classes, self.chunk_bytes);
        if let Err(error) = entry.data.attach(epoch, itself, fd, with, ring) {
            let message = format!("the data fd of {device} cannot be used: {error}");
            let fault = Fault::session(Cause::Local, Observation::Engine, message);
            self.data_events.push_back(DataEvent::Local(fault));
        }
    }

    /// Takes a device's data fd away: [`DataEvent::Closed`] follows.
    pub(super) fn detach(&mut self, device: DeviceId, now_ns: u64) {
        let until_ns = until_ns(now_ns, self.cancel_bound / DETACH_PART);
        self.with_data(device, now_ns, |data, tools| data.detach(until_ns, tools));
    }

    /// Gives a job to a device's data fd; without one it comes back undone.
    pub(super) fn give(&mut self, device: DeviceId, job: Job, now_ns: u64) {
        let given = self.with_data(device, now_ns, |data, tools| data.give(job, tools));
        let Err(undone) = given else { return };
        let event = match undone {
            Job::Read { slot, .. } => {
                let (slot, epoch) =
                    (self.slots.put(slot), self.devices[device.index()].data.epoch());
                Event::Read { device, epoch, slot, result: ReadResult::Cancelled }
            }
            Job::Write { header, slot } => {
                let slot = slot.map(|slot| self.slots.put(slot));
                let (epoch, raw_bytes) = (header.place.epoch, header.raw_bytes);
                Event::Written { device, epoch, raw_bytes, slot, result: WriteResult::Cancelled }
            }
        };
        self.caused.push_back(event);
    }

    pub(super) fn take_data_event(&mut self, event: DataEvent) {
        match event {
            DataEvent::Read { id, epoch, slot, result, ns } => {
                let device = id.device;
                if let ReadResult::Chunk { bytes, .. } = result {
                    self.measured.metrics.record_step(Step::Read, ns);
                    let metrics = &mut self.measured.metrics.devices[device.index()];
                    metrics.state_bytes += u64::from(bytes);
                    metrics.device_ns += ns;
                }
                let slot = self.slots.put(slot);
                self.feed(Event::Read { device, epoch, slot, result });
            }
            DataEvent::Written { header, slot, result, ns } => {
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
            DataEvent::HungUp { id, epoch } => {
                self.feed(Event::HungUp { device: id.device, epoch });
            }
            // Where its driver was given up, the machine has gone on without it: only after the end
            // is this news to it.
            DataEvent::Closed { device, awaited } => {
                if awaited || self.linger_until_ns.is_some() {
                    self.feed(Event::Detached { device, stuck: false });
                }
            }
            DataEvent::Local(fault) => self.feed(Event::Local(fault)),
        }
    }
}
