//! What starting a session has in common on both hosts.

use std::marker::PhantomData;
use std::os::fd::OwnedFd;

use super::options::{Options, Shape};
use super::{Session, Side};
use crate::drive::{Drive, DriveConfig, Found, Machines};
use crate::error::Error;
use crate::machine::{PeerConfig, limit_ns};
use crate::outcome::Host;
use crate::wire::{Offer, WireLimits};

pub(super) fn start<S: Side>(
    machines: Machines,
    devices: Vec<Found>,
    sockets: Vec<OwnedFd>,
    options: &Options,
    shape: Shape,
) -> Result<Session<S>, Error> {
    if let Some(rate) = options.rate_bytes_per_s {
        super::pacing::limit(&sockets, rate)?;
    }
    let (count, streams) = (devices.len(), sockets.len());
    let offer = Offer::new(streams, count, shape.chunk_bytes);
    let running = Drive::start(DriveConfig {
        machines,
        devices,
        sockets,
        slots: shape.slots,
        chunk_bytes: shape.chunk_bytes,
        workers: options.workers,
        backend: options.backend,
        zero_copy: options.zero_copy && S::HOST == Host::Source,
        cancel_bound: options.cancel_bound,
        wire_limits: WireLimits::from(&offer),
    })
    .map_err(Error::System)?;
    Ok(Session { running, devices: count, streams, side: PhantomData })
}

pub(super) fn peer(options: &Options, streams: usize) -> PeerConfig {
    PeerConfig { streams: streams as u16, silence_ns: limit_ns(options.peer_silence) }
}

/// A random number that tells sessions apart.
pub(super) fn session_id() -> std::io::Result<u128> {
    let mut bytes = [0u8; 16];
    let flags = rustix::rand::GetRandomFlags::empty();
    let got = rustix::rand::getrandom(&mut bytes[..], flags)?;
    debug_assert_eq!(got, bytes.len(), "getrandom gives small requests whole");
    Ok(u128::from_le_bytes(bytes))
}
