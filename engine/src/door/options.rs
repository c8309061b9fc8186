//! What an acceptor is made with.

use std::net::IpAddr;
use std::time::Duration;

use super::tls::Tls;
use super::waits;
use crate::error::UsageError;
use crate::limits;

/// How the streams of a session are guarded on their way.
///
/// The wire's hashes find damage, not malice: whoever is on the path of an unprotected stream can
/// read the guest's state, change it, or leave two hosts with the same device running.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Protection {
    /// None, and none is needed: both ends are on this host. Any other peer is refused.
    #[default]
    Loopback,
    /// None, though the path leaves this host: who asks for it says that the path is guarded
    /// otherwise (a tunnel, a network of its own).
    Plaintext,
    /// TLS 1.3 with certificates on both sides. Nothing else is let in, from this host either.
    Tls(Tls),
}

impl Protection {
    /// Whether a stream to or from this address may be used.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        match self {
            Protection::Loopback => is_loopback(address),
            Protection::Plaintext | Protection::Tls(_) => true,
        }
    }
}

/// 127.0.0.0/8, ::1, and the first as IPv6 has it.
pub(crate) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// The bounds of an [`Acceptor`](super::Acceptor).
#[derive(Debug, Clone)]
pub struct DoorOptions {
    /// How streams are guarded.
    pub protection: Protection,
    /// Most connections that are held at once while their sessions are not complete: as many fds.
    /// When one more comes, the one that has been silent for longest goes, of the address that has
    /// the most. 1 to [`limits::DOOR_CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// The same for one address; of IPv6, for one /64, which is what one host is given. Fewer than a
    /// session's streams keep that session out.
    pub per_address_max: usize,
    /// Most complete sessions that wait to be taken. 1 to [`limits::DOOR_SESSIONS_MAX`].
    pub sessions_max: usize,
    /// How long a connection may take for its hello, from when it was accepted.
    pub greeting_limit: Duration,
    /// How long a session's streams may take, from the first one's hello to the last one's.
    pub gathering_limit: Duration,
    /// The one session that is let in, where the embedder knows it beforehand: what the source's
    /// [`Options::session`](crate::Options::session) says.
    pub session: Option<u128>,
}

impl Default for DoorOptions {
    fn default() -> Self {
        DoorOptions {
            protection: Protection::Loopback,
            connections_max: 4 * limits::STREAMS_MAX,
            per_address_max: 2 * limits::STREAMS_MAX,
            sessions_max: 16,
            greeting_limit: waits::GREETING,
            gathering_limit: waits::GATHERING,
            session: None,
        }
    }
}

impl DoorOptions {
    pub(super) fn check(&self) -> Result<(), UsageError> {
        let range = |what, found: usize, max: usize| match (1..=max).contains(&found) {
            true => Ok(()),
            false => Err(UsageError::Range { what, found: found as u64, min: 1, max: max as u64 }),
        };
        let max = limits::DOOR_CONNECTIONS_MAX;
        range("the number of connections", self.connections_max, max)?;
        range("the number of connections of one address", self.per_address_max, max)?;
        range("the number of sessions", self.sessions_max, limits::DOOR_SESSIONS_MAX)
    }
}
