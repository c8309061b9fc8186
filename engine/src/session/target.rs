//! A session of the target.

use std::os::fd::OwnedFd;

use super::options::{Options, TargetDevice, check_names};
use super::side::Target;
use super::start::{Devices, capabilities, peer, start};
use super::{Session, TargetSession};
use crate::drive::Machines;
use crate::error::Error;
use crate::receiver::{DeviceConfig, Receiver, ReceiverConfig};

impl Session<Target> {
    /// Starts to take `devices` in over `streams`. As
    /// [`SourceSession::start`](Session#method.start) otherwise.
    ///
    /// # Errors
    /// The same.
    pub fn start(
        devices: Vec<TargetDevice>,
        streams: Vec<OwnedFd>,
        options: Options,
    ) -> Result<TargetSession, Error> {
        let shape = options.shape(devices.len(), streams.len())?;
        check_names(devices.iter().map(|device| device.name.as_str()))?;
        let taken = devices.iter().map(|device| (device.name.as_str(), &device.device));
        let taken = Devices::take(taken)?;
        let configs = devices
            .iter()
            .map(|device| {
                Ok(DeviceConfig {
                    name: device.name.clone(),
                    capabilities: capabilities(&device.name, &device.device)?,
                })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let receiver = Receiver::new(ReceiverConfig {
            devices: configs,
            peer: peer(&options, streams.len()),
            chunk_bytes: options.chunk_bytes as u32,
            workers: options.workers,
            slots_per_device: shape.slots_per_device,
            limits: options.time_limits(),
        });
        start(Machines::Target(Box::new(receiver)), taken, streams, &options, shape)
    }
}
