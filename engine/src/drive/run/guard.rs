//! What follows when the session's thread panics: the embedder hears of the end all the same, with
//! what can be known of the devices.

use super::{Drive, Machines, now_ns};
use crate::outcome::{Cause, Fault, Observation};

/// A drive whose embedder hears of its end even if it panics.
pub(super) struct Guarded(pub(super) Drive);

impl Guarded {
    pub(super) fn run(&mut self) {
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
            let mut devices = self.0.machines.machine().reports();
            // Answers that have not reached the machine may say otherwise.
            devices.iter_mut().for_each(|device| device.state = None);
            self.0.end(devices, fault, now_ns());
        }
        for device in self.0.devices.drain(..) {
            if let Some(attached) = device.data {
                attached.thread.stop();
            }
            // The embedder may take the device away once the session is over. Only a driver that
            // has not answered keeps it.
            if !device.asked {
                device.control.finish();
            }
        }
    }
}
