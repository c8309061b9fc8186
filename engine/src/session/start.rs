//! What starting a session has in common on both hosts.

use std::marker::PhantomData;
use std::sync::Arc;

use super::embedded::{EmbeddedDevice, Joined, embedded};
use super::lore::begin;
use super::options::{Options, Shape};
use super::{Session, Side};
use crate::buffers::Share;
use crate::door::{Guard, Streams};
use crate::drive::{Crew, Drive, DriveConfig, Found, Input, Machines, Socket};
use crate::error::{Error, UsageError};
use crate::ids::DeviceId;
use crate::limits;
use crate::machine::{Command, PeerConfig, limit_ns};
use crate::outcome::Host;
use crate::threads::Threads;
use crate::vfio::device::MigrationDevice;
use crate::wire::{Offer, WireLimits};

/// The embedded ones among the devices of a session that is about to start.
pub(super) struct Devices {
    embedded: Vec<Option<Arc<EmbeddedDevice>>>,
    joined: Vec<Option<Joined>>,
}

impl Devices {
    /// Takes the devices for a session, which an embedded device has one of.
    pub(super) fn take<'a>(
        devices: impl Iterator<Item = (&'a str, &'a Arc<dyn MigrationDevice>)>,
    ) -> Result<Devices, UsageError> {
        let mut taken = Devices { embedded: Vec::new(), joined: Vec::new() };
        for (name, device) in devices {
            let embedded = embedded(device);
            let joined = match embedded.clone().map(EmbeddedDevice::join) {
                Some(None) => return Err(UsageError::SecondSession { name: name.to_owned() }),
                joined => joined.flatten(),
            };
            taken.embedded.push(embedded);
            taken.joined.push(joined);
        }
        Ok(taken)
    }

    /// Whether a device's VMM moves it.
    pub(super) fn is_embedded(&self, index: usize) -> bool {
        self.embedded[index].is_some()
    }
}

pub(super) fn start<S: Side>(
    mut machines: Machines,
    devices: Vec<Found>,
    Devices { embedded, joined }: Devices,
    streams: Streams,
    options: &Options,
    (shape, mut share): (Shape, Option<Share>),
) -> Result<Session<S>, Error> {
    if let Some(rate) = options.rate_bytes_per_s {
        super::pacing::limit(streams.sockets(), rate)?;
    }
    let tls_bytes = streams.pumped() * limits::TLS_STREAM_BYTES;
    if let Some(share) = &mut share {
        share.shrink(shape.bytes() + tls_bytes);
    }
    let crew = match &options.engine {
        Some(engine) => Crew::Shared(engine.threads()),
        None => Crew::Own(options.workers),
    };
    // With a limit of its own a source would find out that one.
    let engine = options.engine.as_ref().filter(|_| options.rate_bytes_per_s.is_none());
    let learned = engine.and_then(|engine| begin(&mut machines, &streams, engine.lore()));
    let threads = Threads::new(options.thread_start.clone());
    let (fds, guards): (Vec<_>, Vec<_>) =
        streams.open(&threads).map_err(Error::System)?.into_iter().unzip();
    let kernel = |guard: &Option<Guard>| guard.as_ref().and_then(Guard::kernel).cloned();
    let sockets: Vec<Socket> =
        fds.into_iter().zip(&guards).map(|(fd, guard)| Socket { fd, tls: kernel(guard) }).collect();
    let (count, streams) = (devices.len(), sockets.len());
    let offer = Offer::new(streams, count, shape.chunk_bytes);
    let running = Drive::start(DriveConfig {
        machines,
        devices,
        sockets,
        slots: shape.slots,
        chunk_bytes: shape.chunk_bytes,
        crew,
        share,
        backend: options.backend,
        zero_copy: options.zero_copy && S::HOST == Host::Source,
        cancel_bound: options.cancel_bound,
        threads,
        wire_limits: WireLimits::from(&offer),
        learned,
    })
    .map_err(Error::System)?;
    for (index, joined) in joined.into_iter().enumerate() {
        let (id, inbox) = (DeviceId(index as u32), running.inbox.clone());
        if let Some(joined) = joined {
            joined.keep(id, move |fault| inbox.send(Input::Command(Command::Discard(id, fault))));
        }
    }
    Ok(Session { running, devices: count, embedded, streams, guards, side: PhantomData })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::EmbeddedConfig;
    use crate::vfio::VfioDevice;

    #[test]
    fn an_embedded_device_is_told_from_others_and_taken_once() {
        let null = std::fs::File::open("/dev/null").expect("it opens");
        let plain = VfioDevice::from_fd(null.into()).expect("no opt-in is no error");
        let embedded = EmbeddedDevice::new(Host::Source, EmbeddedConfig::default());
        let devices: [Arc<dyn MigrationDevice>; 2] =
            [Arc::new(plain), embedded.expect("an eventfd")];
        let named = || ["plain", "embedded"].into_iter().zip(&devices);
        let taken = Devices::take(named()).expect("both are free");
        assert_eq!((taken.is_embedded(0), taken.is_embedded(1)), (false, true));
        match Devices::take(named()) {
            Err(UsageError::SecondSession { name }) => assert_eq!(name, "embedded"),
            other => panic!("{:?}", other.map(drop)),
        }
        drop(taken);
        assert!(Devices::take(named()).is_ok(), "no session was made of it");
    }

    #[test]
    fn two_sessions_have_two_numbers() {
        let number = || session_id().expect("the kernel has some");
        assert_ne!(number(), number());
    }
}
