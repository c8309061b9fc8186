//! The session's end: the devices are released and the report is written, then the embedder is told,
//! and waits no longer. What is left goes on here, on a thread that nobody waits for: the streams
//! linger and are closed, and the devices whose drivers are late are brought back when they answer.

use std::sync::PoisonError;
use std::time::Instant;

use crossbeam_channel::RecvTimeoutError;

use super::{Drive, Machines};
use crate::drive::clock::{now_ns, until_ns};
use crate::drive::embedder::SessionEvent;
use crate::drive::figures::{Ended, Report};
use crate::drive::waits::{LATE_DRIVER, LINGER, RELEASE};
use crate::ids::DeviceId;
use crate::machine::DeviceReport;
use crate::outcome::{Cause, Fault, Observation, SourceEnding, TargetEnding};

impl Drive {
    pub(super) fn finish(&mut self, now_ns: u64) {
        let message = "the session ended without a reason; this is a defect of the engine";
        let fault = Fault::session(Cause::Local, Observation::Engine, message);
        let reports = self.machines.machine().reports();
        match &self.machines {
            Machines::Source(sender) => {
                let ending = sender.ending_if_lost(fault);
                if let Some(take) = self.learned.take() {
                    take(sender.learned());
                }
                self.end(Endings::Source(ending), reports, now_ns);
            }
            Machines::Target(receiver) => {
                let ending = receiver.ending_if_lost(fault);
                self.end(Endings::Target(ending), reports, now_ns);
            }
        }
    }

    /// Writes the report, and tells the embedder.
    pub(super) fn end(&mut self, ending: Endings, devices: Vec<DeviceReport>, now_ns: u64) {
        self.measured.finished(now_ns);
        for (metrics, measured) in
            self.measured.metrics.streams.iter_mut().zip(self.streams.metrics())
        {
            *metrics = measured;
        }
        self.release(|index| devices.get(index).is_some_and(|report| report.home));
        let ended = match ending {
            Endings::Source(ending) => Ended::Source(self.report(ending, devices)),
            Endings::Target(ending) => Ended::Target(self.report(ending, devices)),
        };
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        self.outbox.push(SessionEvent::Finished);
        if !self.is_late() {
            self.outbox.close();
        }
        self.linger_until_ns = Some(until_ns(now_ns, LINGER));
    }

    fn report<E>(&self, ending: E, devices: Vec<DeviceReport>) -> Report<E> {
        Report {
            ending,
            devices,
            metrics: self.measured.metrics.clone(),
            timeline: self.measured.timeline,
            backend: self.backend,
            fallback: self.fallback.clone(),
        }
    }

    /// The embedder may take the devices away once the session is over: only a driver that has not
    /// answered keeps its device. One that is not home stays with us while others are late: it may
    /// be waiting for them.
    fn release(&mut self, is_home: impl Fn(usize) -> bool) {
        let late = self.is_late();
        let mut released = Vec::new();
        for index in 0..self.devices.len() {
            let stays = late && !is_home(index);
            if stays || self.devices[index].is_late() {
                continue;
            }
            // Nothing is attached any more, unless the machine was lost.
            if !self.devices[index].data.are_closed() {
                self.detach(DeviceId(index as u32), now_ns());
            }
            released.extend(self.devices[index].release());
        }
        let deadline = Instant::now() + RELEASE;
        for device in released {
            if device.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("a device is still being dropped");
                return;
            }
        }
    }

    /// Whether a driver holds something.
    fn is_late(&self) -> bool {
        self.devices.iter().any(|device| device.is_late())
    }

    /// After the end: closes the streams when it is time, and lets go of devices that have come back.
    /// Nothing more is told once none is late.
    pub(super) fn go_on_ending(&mut self) {
        let Some(until_ns) = self.linger_until_ns else { return };
        if !self.said_all && self.machines.machine().has_told() {
            self.said_all = true;
            self.streams.close_sending();
        } else if self.streams.owes_end() {
            self.streams.close_sending();
        }
        if !self.streams.is_closing() && (now_ns() >= until_ns || self.streams.all_lost()) {
            self.streams.close();
        }
        if self.streams.is_closed() {
            self.closing.done();
        }
        debug_assert_eq!(LATE_DRIVER, None, "a late driver is waited for until it answers");
        if !self.is_late() {
            self.release(|_| true);
            self.outbox.close();
        }
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_over(&self) -> bool {
        self.linger_until_ns.is_some() && self.streams.is_closed() && !self.is_late()
    }
}

/// How a session ended on either host.
pub(super) enum Endings {
    Source(SourceEnding),
    Target(TargetEnding),
}
