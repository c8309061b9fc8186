//! A running session.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::options::{Options, Shape, SourceDevice, TargetDevice, check_names};
use super::{Report, SessionEvent};
use crate::drive::{Drive, DriveConfig, Input, Machines, Running};
use crate::error::{Error, UsageError};
use crate::ids::DeviceId;
use crate::limits;
use crate::machine::{Command, LinksConfig};
use crate::metrics::Metrics;
use crate::outcome::{Cause, Fault, Host, Observation};
use crate::receiver::{self, Receiver, ReceiverConfig};
use crate::sender::{self, Sender, SenderConfig};
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::Capabilities;
use crate::wire::{Offer, WireLimits};

/// A migration that runs on this host. See the [module](super) for how one is used.
///
/// All methods may be called from any thread. Dropping a session that has not ended cancels it and
/// waits, within the cancel bound, until the devices are back.
#[derive(Debug)]
pub struct Session {
    running: Running,
    host: Host,
    devices: usize,
    streams: usize,
}

impl Session {
    /// Starts to migrate `devices` away over `streams`, which are connected stream sockets to one
    /// target. The session owns both from here on; it closes the streams at its end. Devices are
    /// numbered in their order; the target must have the same names in the same order.
    ///
    /// # Errors
    /// [`Error::Usage`] for what no session can be made of, [`Error::Device`] and
    /// [`Error::NotMigratable`] for a device that does not take part, [`Error::System`] where
    /// threads, memory or a ring are refused. The devices are as they were.
    pub fn source(
        devices: Vec<SourceDevice>,
        streams: Vec<OwnedFd>,
        options: Options,
    ) -> Result<Session, Error> {
        let shape = options.shape(devices.len(), streams.len())?;
        check_names(devices.iter().map(|device| device.name.as_str()))?;
        for device in &devices {
            let (what, max) = ("a device's opaque bytes", limits::MESSAGE_BYTES_MAX);
            let found = device.options.opaque.len();
            if found > max {
                return Err(UsageError::TooLong { what, found, max }.into());
            }
        }
        let configs = devices
            .iter()
            .map(|device| {
                Ok(sender::DeviceConfig {
                    name: device.name.clone(),
                    capabilities: capabilities(&device.name, &device.device)?,
                    options: device.options.clone(),
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let sender = Sender::new(SenderConfig {
            devices: configs,
            links: links(&options, streams.len()),
            session: session_id().map_err(Error::System)?,
            chunk_bytes: options.chunk_bytes as u32,
            workers: options.workers,
            slots_per_device: shape.slots_per_device,
            policy: options.policy,
            precopy_poll_ns: options.precopy_poll.as_nanos() as u64,
            abort_bound_ns: options.cancel_bound.as_nanos() as u64,
        });
        let devices = devices.into_iter().map(|device| device.device).collect();
        let machines = Machines::Source(Box::new(sender));
        Session::start(Host::Source, machines, devices, streams, &options, shape)
    }

    /// Starts to take `devices` in over `streams`. As [`source`](Self::source) otherwise.
    ///
    /// # Errors
    /// As [`source`](Self::source).
    pub fn target(
        devices: Vec<TargetDevice>,
        streams: Vec<OwnedFd>,
        options: Options,
    ) -> Result<Session, Error> {
        let shape = options.shape(devices.len(), streams.len())?;
        check_names(devices.iter().map(|device| device.name.as_str()))?;
        let configs = devices
            .iter()
            .map(|device| {
                Ok(receiver::DeviceConfig {
                    name: device.name.clone(),
                    capabilities: capabilities(&device.name, &device.device)?,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let receiver = Receiver::new(ReceiverConfig {
            devices: configs,
            links: links(&options, streams.len()),
            chunk_bytes: options.chunk_bytes as u32,
            workers: options.workers,
            slots_per_device: shape.slots_per_device,
            abort_bound_ns: options.cancel_bound.as_nanos() as u64,
        });
        let devices = devices.into_iter().map(|device| device.device).collect();
        let machines = Machines::Target(Box::new(receiver));
        Session::start(Host::Target, machines, devices, streams, &options, shape)
    }

    fn start(
        host: Host,
        machines: Machines,
        devices: Vec<Arc<dyn MigrationDevice>>,
        sockets: Vec<OwnedFd>,
        options: &Options,
        shape: Shape,
    ) -> Result<Session, Error> {
        if let Some(rate) = options.rate_bytes_per_s {
            super::pacing::limit(&sockets, rate)?;
        }
        let (count, streams) = (devices.len(), sockets.len());
        let offer = Offer::new(streams, count, options.chunk_bytes);
        let running = Drive::start(DriveConfig {
            machines,
            devices,
            sockets,
            slots: shape.slots,
            chunk_bytes: options.chunk_bytes,
            workers: options.workers,
            backend: options.backend,
            zero_copy: options.zero_copy && host == Host::Source,
            // The other half is left for the devices' way back.
            detach_bound: options.cancel_bound / 2,
            wire_limits: WireLimits::from(&offer),
        })
        .map_err(Error::System)?;
        Ok(Session { running, host, devices: count, streams })
    }

    /// Which host this is.
    pub fn host(&self) -> Host {
        self.host
    }

    /// How many streams it was made with.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// The next event, if one waits. Never blocks.
    pub fn poll_event(&self) -> Option<SessionEvent> {
        self.running.outbox.poll()
    }

    /// Waits for the next event: for ever without a timeout. None when the timeout is over, and
    /// after [`SessionEvent::Finished`] was fetched.
    pub fn wait_event(&self, timeout: Option<Duration>) -> Option<SessionEvent> {
        self.running.outbox.wait(timeout.map(|timeout| Instant::now() + timeout))
    }

    /// An eventfd that is readable while an event waits; for poll, epoll or an event loop. It
    /// belongs to the session: do not read, write or close it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.running.outbox.event_fd()
    }

    /// The vCPUs are stopped: stop the devices, send the rest, hand over. Returns at once.
    ///
    /// # Errors
    /// [`UsageError::WrongHost`] on a target.
    pub fn switchover(&self) -> Result<(), UsageError> {
        self.only_on(Host::Source, "switchover")?;
        self.command(Command::Switchover);
        Ok(())
    }

    /// Gives the migration up. Returns at once; [`SessionEvent::Finished`] follows within the
    /// cancel bound, even while a driver holds an operation. After the handover a cancel comes too
    /// late and changes nothing.
    pub fn cancel(&self) {
        self.command(Command::Cancel);
    }

    /// Carries a message to the peer's embedder, unchanged and in order with other messages where
    /// there is one stream.
    ///
    /// What the peer's engine has not taken waits here, at most [`limits::MESSAGES_WAITING_MAX`]
    /// messages; the session's end drops them. There is room again as the peer reads. No event says
    /// when: a peer that reads nothing for long ends the session.
    ///
    /// # Errors
    /// [`UsageError::TooLong`] beyond [`limits::MESSAGE_BYTES_MAX`], [`UsageError::Full`] while as
    /// many messages wait as may.
    pub fn send_message(&self, message: Bytes) -> Result<(), UsageError> {
        let (what, max) = ("a message", limits::MESSAGE_BYTES_MAX);
        if message.len() > max {
            return Err(UsageError::TooLong { what, found: message.len(), max });
        }
        if self.running.message_budget.take() {
            self.command(Command::Message(message));
        } else if !self.has_ended() {
            return Err(UsageError::Full { max: limits::MESSAGES_WAITING_MAX });
        }
        Ok(())
    }

    /// The embedder knows that a device was reset (it carried out the guest's FLR, say): its epoch
    /// is discarded as if the engine had seen it, and what was chosen for the device follows.
    ///
    /// # Errors
    /// [`UsageError::WrongHost`] on a target, [`UsageError::UnknownDevice`].
    pub fn device_was_reset(&self, device: DeviceId) -> Result<(), UsageError> {
        self.only_on(Host::Source, "device_was_reset")?;
        if device.index() >= self.devices {
            return Err(UsageError::UnknownDevice { device: device.0 });
        }
        let fault = Fault::device(
            device,
            Cause::DeviceReset,
            Observation::Embedder,
            None,
            "the embedder reported a reset of the device",
        );
        self.command(Command::Discard(device, fault));
        Ok(())
    }

    /// Whether the session has ended: [`report`](Self::report) has something to say.
    pub fn has_ended(&self) -> bool {
        self.running.report.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What was measured so far, at most a tenth of a second old while the session runs; what the
    /// report says once it has ended.
    pub fn metrics(&self) -> Metrics {
        if let Some(report) = &*self.running.report.lock().unwrap_or_else(PoisonError::into_inner) {
            return report.metrics.clone();
        }
        self.running.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the session came to, once [`SessionEvent::Finished`] was there to be fetched.
    pub fn report(&self) -> Option<Report> {
        self.running.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end, throwing away events that were not fetched, and for the session's thread
    /// to let go of the streams.
    pub fn finish(mut self) -> Report {
        self.drain();
        match self.report() {
            Some(report) => report,
            None => unreachable!("a report is written before the last event"),
        }
    }

    fn drain(&mut self) {
        while self.wait_event(None).is_some() {}
        if let Some(thread) = self.running.thread.take() {
            let _ = thread.join();
        }
    }

    fn command(&self, command: Command) {
        self.running.inbox.send(Input::Command(command));
    }

    fn only_on(&self, host: Host, what: &'static str) -> Result<(), UsageError> {
        if self.host == host {
            return Ok(());
        }
        let host = match host {
            Host::Source => "source",
            Host::Target => "target",
        };
        Err(UsageError::WrongHost { what, host })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.cancel();
        self.drain();
    }
}

fn capabilities(name: &str, device: &Arc<dyn MigrationDevice>) -> Result<Capabilities, Error> {
    device.capabilities().map_err(|source| {
        let name = name.to_owned();
        if source.raw_os_error() == Some(rustix::io::Errno::NOTTY.raw_os_error()) {
            Error::NotMigratable { name }
        } else {
            Error::Device { name, source }
        }
    })
}

fn links(options: &Options, streams: usize) -> LinksConfig {
    LinksConfig {
        streams: streams as u16,
        silence_ns: u64::try_from(options.peer_silence.as_nanos()).unwrap_or(u64::MAX / 4),
    }
}

/// A random number that tells sessions apart.
fn session_id() -> std::io::Result<u128> {
    let mut bytes = [0u8; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    let got = rustix::rand::getrandom(&mut bytes[..], flags)?;
    debug_assert_eq!(got, bytes.len(), "getrandom gives small requests whole");
    Ok(u128::from_le_bytes(bytes))
}
