//! A session of the target.

use super::options::{Options, TargetDevice, check_names};
use super::refuse::{Beginning, ask, check_devices, check_protection, check_streams};
use super::side::Target;
use super::start::{Devices, peer, start};
use super::{Session, TargetSession};
use crate::door::Streams;
use crate::drive::{Found, Machines};
use crate::error::Error;
use crate::machine::Goal;
use crate::receiver::{DeviceConfig, Receiver, ReceiverConfig};

impl Session<Target> {
    /// Starts to take `devices` in over `streams`. As
    /// [`SourceSession::start`](Session#method.start) otherwise.
    ///
    /// # Errors
    /// The same.
    pub fn start(
        devices: Vec<TargetDevice>,
        streams: impl Into<Streams>,
        mut options: Options,
    ) -> Result<TargetSession, Error> {
        let streams = streams.into();
        let share = options.take_share()?;
        let shape = options.shape(devices.len(), streams.count(), streams.pumped())?;
        check_names(devices.iter().map(|device| device.name.as_str()))?;
        check_devices(devices.iter().map(|device| (device.name.as_str(), &device.device)))?;
        check_streams(streams.sockets())?;
        check_protection(&streams, options.plaintext)?;
        let taken = devices.iter().map(|device| (device.name.as_str(), &device.device));
        let taken = Devices::take(taken)?;
        let mut configs = Vec::with_capacity(devices.len());
        let mut found = Vec::with_capacity(devices.len());
        for TargetDevice { name, device } in devices {
            let Beginning { capabilities, state } = ask(&name, &device)?;
            configs.push(DeviceConfig { name, capabilities });
            found.push(Found { device, state, goal: Goal::Blank });
        }
        let receiver = Receiver::new(ReceiverConfig {
            devices: configs,
            peer: peer(&options, streams.count()),
            chunk_bytes: shape.chunk_bytes as u32,
            workers: options.workers,
            slots_per_device: shape.slots_per_device,
            limits: options.time_limits(),
        });
        start(Machines::Target(Box::new(receiver)), found, taken, streams, &options, (shape, share))
    }
}
