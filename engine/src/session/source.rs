//! A session of the source.

use super::options::{Options, SourceDevice, check_names};
use super::refuse::{Beginning, ask, check_devices, check_protection, check_streams};
use super::side::Source;
use super::start::{Devices, peer, session_id, start};
use super::{Session, SourceSession};
use crate::door::Streams;
use crate::drive::{Found, Machines};
use crate::error::{Error, UsageError};
use crate::ids::DeviceId;
use crate::limits;
use crate::machine::{Command, Goal, limit_ns};
use crate::outcome::{Cause, Fault, Observation, OnReset};
use crate::sender::{DeviceConfig, Sender, SenderConfig};
use crate::vfio::state::DeviceState;

impl Session<Source> {
    /// Starts to migrate `devices` away over `streams`, which are connected stream sockets to one
    /// target. The session owns both from here on; it closes the streams at its end. Devices are
    /// numbered in their order; the target must have the same names in the same order.
    ///
    /// Each device is asked here, on the caller's thread, what it can do and where it is: that takes as
    /// long as its driver does. Nothing is moved before it returns.
    ///
    /// A device that is found in STOP has a paused VM: it is not moved before the switchover, and
    /// goes back to STOP where the migration does not take place.
    ///
    /// # Errors
    /// [`Error::Usage`] for what no session can be made of, [`Error::Device`],
    /// [`Error::NotMigratable`] and [`Error::DeviceState`] for a device that does not take part,
    /// [`Error::System`] where threads, memory, descriptors or a ring are refused. The devices are
    /// as they were.
    pub fn start(
        devices: Vec<SourceDevice>,
        streams: impl Into<Streams>,
        mut options: Options,
    ) -> Result<SourceSession, Error> {
        let streams = streams.into();
        let share = options.take_share()?;
        let shape = options.shape(devices.len(), streams.count(), streams.pumped())?;
        check_names(devices.iter().map(|device| device.name.as_str()))?;
        check_devices(devices.iter().map(|device| (device.name.as_str(), &device.device)))?;
        check_streams(streams.sockets())?;
        check_protection(&streams, options.plaintext)?;
        for device in &devices {
            let (what, max) = ("a device's opaque bytes", limits::MESSAGE_BYTES_MAX);
            let found = device.options.opaque.len();
            if found > max {
                return Err(UsageError::TooLong { what, found, max }.into());
            }
            check_restarts(device.options.on_reset)?;
        }
        let taken = devices.iter().map(|device| (device.name.as_str(), &device.device));
        let taken = Devices::take(taken)?;
        let mut configs = Vec::with_capacity(devices.len());
        let mut found = Vec::with_capacity(devices.len());
        for (index, SourceDevice { name, device, options }) in devices.into_iter().enumerate() {
            let Beginning { capabilities, state } = ask(&name, &device)?;
            let (paused, embedded) = (state == DeviceState::Stop, taken.is_embedded(index));
            let goal = match embedded {
                true => Goal::LetGo,
                false => Goal::KeepState { home: state, reset: options.reset_to_return },
            };
            configs.push(DeviceConfig { name, capabilities, options, paused, embedded });
            found.push(Found { device, state, goal });
        }
        let sender = Sender::new(SenderConfig {
            devices: configs,
            peer: peer(&options, streams.count()),
            session: options.session.map_or_else(session_id, Ok).map_err(Error::System)?,
            chunk_bytes: shape.chunk_bytes as u32,
            workers: options.workers,
            slots_per_device: shape.slots_per_device,
            policy: options.policy,
            path_bytes_per_s: options.path_bytes_per_s,
            precopy_poll_ns: limit_ns(options.precopy_poll),
            limits: options.time_limits(),
        });
        start(Machines::Source(Box::new(sender)), found, taken, streams, &options, (shape, share))
    }

    /// The vCPUs are stopped: stop the devices, send the rest, hand over. Returns at once; the
    /// report has the [`ending`](super::Report::ending). After the end it changes nothing.
    pub fn switchover(&self) {
        self.command(Command::Switchover);
    }

    /// The embedder knows that a device was reset (it carried out the guest's FLR, say): its epoch
    /// is discarded as if the engine had seen it, and what was chosen for the device follows.
    ///
    /// # Errors
    /// [`UsageError::UnknownDevice`].
    pub fn device_was_reset(&self, device: DeviceId) -> Result<(), UsageError> {
        if device.index() >= self.devices {
            return Err(UsageError::UnknownDevice { device: device.0 });
        }
        // An embedded device's VMM may have told of the same reset in another way.
        if self.embedded[device.index()].as_ref().is_some_and(|device| device.told_of_reset()) {
            return Ok(());
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
}

/// A target takes so many discards of a device; the last may be the one that falls back to STOP_COPY.
fn check_restarts(on_reset: OnReset) -> Result<(), UsageError> {
    let max = limits::DISCARDS_MAX - 1;
    match on_reset {
        OnReset::Restart { attempts, .. } if attempts > max => Err(UsageError::Range {
            what: "the number of restarts",
            found: attempts.into(),
            min: 0,
            max: max.into(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Fallback;

    #[test]
    fn so_many_restarts_as_a_target_takes_may_be_chosen() {
        let restarts = |attempts| {
            let then = Fallback::StopCopy;
            check_restarts(OnReset::Restart { attempts, then })
        };
        for attempts in [0, 1, limits::DISCARDS_MAX - 1] {
            assert_eq!(restarts(attempts), Ok(()), "{attempts}");
        }
        for attempts in [limits::DISCARDS_MAX, u32::MAX] {
            let error = restarts(attempts).expect_err("more than a target takes");
            assert!(matches!(error, UsageError::Range { .. }), "{error}");
        }
        assert_eq!(check_restarts(OnReset::Abort), Ok(()));
    }
}
