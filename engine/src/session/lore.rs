//! What sessions have found out about the paths to other hosts, for those that come after them.
//!
//! A path is known by the other host's address, whatever its port. What was found out long ago, and
//! what sessions with a limit of their own have seen, is not.

#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::compress::policy::Learned;
use crate::door::Streams;
use crate::drive::Machines;

/// Other hosts that are remembered.
const HOSTS_MAX: usize = 64;
/// What is older says nothing: the path may be another one.
const AGE_MAX: Duration = Duration::from_secs(600);

/// See the module's text. A handle: clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Lore(Arc<Mutex<Vec<Entry>>>);

#[derive(Debug)]
struct Entry {
    host: IpAddr,
    learned: Learned,
    at: Instant,
}

impl Lore {
    /// What is known of the path to this host. Of one that is not known, and of none: what may be so
    /// on any.
    pub(super) fn recall(&self, host: Option<IpAddr>, now: Instant) -> Learned {
        let entries = self.entries();
        let fresh = || entries.iter().filter(|entry| now.duration_since(entry.at) <= AGE_MAX);
        if let Some(entry) = fresh().find(|entry| Some(entry.host) == host) {
            return entry.learned.clone();
        }
        let last = fresh().max_by_key(|entry| entry.at);
        last.map(|entry| entry.learned.elsewhere()).unwrap_or_default()
    }

    /// A session has found this out. A host's latest counts, but for a rate that was not found out.
    pub(super) fn remember(&self, host: IpAddr, mut learned: Learned, now: Instant) {
        let mut entries = self.entries();
        if let Some(at) = entries.iter().position(|entry| entry.host == host) {
            let before = entries.swap_remove(at);
            if now.duration_since(before.at) <= AGE_MAX {
                learned.bytes_per_s = learned.bytes_per_s.or(before.learned.bytes_per_s);
            }
        } else if entries.len() == HOSTS_MAX
            && let Some(oldest) = (0..entries.len()).min_by_key(|&at| entries[at].at)
        {
            entries.swap_remove(oldest);
        }
        entries.push(Entry { host, learned, at: now });
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host that a stream leads to; none where it does not lead over IP.
pub(super) fn host_of(stream: BorrowedFd<'_>) -> Option<IpAddr> {
    let peer = rustix::net::getpeername(stream).ok().flatten()?;
    std::net::SocketAddr::try_from(peer).ok().map(|address| address.ip().to_canonical())
}

/// A source begins with what is known of its path. What takes down what it finds out; none for a
/// target, and for streams that lead to no host.
pub(super) fn begin(
    machines: &mut Machines,
    streams: &Streams,
    lore: Lore,
) -> Option<Box<dyn FnOnce(Learned) + Send>> {
    let Machines::Source(sender) = machines else { return None };
    let host = streams.sockets().next().and_then(host_of);
    sender.recall(lore.recall(host, Instant::now()));
    let host = host?;
    Some(Box::new(move |learned| lore.remember(host, learned, Instant::now())))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::compress::policy::Policy;
    use crate::machine::{PeerConfig, TimeLimits};
    use crate::sender::{Sender, SenderConfig};

    fn source() -> Machines {
        Machines::Source(Box::new(Sender::new(SenderConfig {
            devices: Vec::new(),
            peer: PeerConfig { streams: 1, silence_ns: 1 },
            session: 1,
            chunk_bytes: 4096,
            workers: 1,
            slots_per_device: 8,
            policy: Policy::Adaptive,
            path_bytes_per_s: None,
            precopy_poll_ns: 1,
            limits: TimeLimits::only_cancel(1),
        })))
    }

    fn rate_of(machines: &Machines) -> Option<u64> {
        match machines {
            Machines::Source(sender) => sender.learned().bytes_per_s,
            Machines::Target(_) => None,
        }
    }

    #[test]
    fn a_source_begins_with_what_is_known_and_leaves_what_it_finds_out() {
        let lore = Lore::default();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let stream =
            || Streams::from(vec![OwnedFd::from(TcpStream::connect(address).expect("it"))]);
        let known = || lore.recall(Some(address.ip()), Instant::now()).bytes_per_s;
        let mut first = source();
        let take = begin(&mut first, &stream(), lore.clone()).expect("it leads to a host");
        assert_eq!((rate_of(&first), known()), (None, None));
        take(rate(7));
        assert_eq!(known(), Some(7));
        let mut next = source();
        assert!(begin(&mut next, &stream(), lore.clone()).is_some());
        assert_eq!(rate_of(&next), Some(7));
        let (local, _peer) = UnixStream::pair().expect("sockets");
        let mut other = source();
        assert!(begin(&mut other, &vec![OwnedFd::from(local)].into(), lore.clone()).is_none());
        assert_eq!(rate_of(&other), None);
    }

    fn host(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn rate(bytes_per_s: u64) -> Learned {
        let mut learned = Learned::default();
        learned.bytes_per_s = Some(bytes_per_s);
        learned
    }

    #[test]
    fn a_path_is_known_by_its_host_and_for_a_while() {
        let (lore, start) = (Lore::default(), Instant::now());
        assert_eq!(lore.recall(Some(host(1)), start).bytes_per_s, None);
        lore.remember(host(1), rate(100), start);
        lore.remember(host(2), rate(200), start);
        let known = |last, now| lore.recall(Some(host(last)), now).bytes_per_s;
        assert_eq!(
            (known(1, start), known(2, start), known(3, start)),
            (Some(100), Some(200), None)
        );
        assert_eq!(lore.recall(None, start).bytes_per_s, None, "a stream of the VMM's");
        // One that has found out nothing of the path changes nothing about it.
        lore.remember(host(1), Learned::default(), start + AGE_MAX);
        assert_eq!(known(1, start + AGE_MAX), Some(100));
        lore.remember(host(1), rate(300), start + AGE_MAX);
        assert_eq!(known(1, start + AGE_MAX), Some(300));
        assert_eq!(known(2, start + AGE_MAX + Duration::from_nanos(1)), None);
        // What is too old comes to nobody in this way, either.
        let late = start + 2 * AGE_MAX + Duration::from_nanos(1);
        lore.remember(host(1), Learned::default(), late);
        assert_eq!(known(1, late), None);
    }

    #[test]
    fn no_more_hosts_are_remembered_than_may_be() {
        let (lore, start) = (Lore::default(), Instant::now());
        for last in 0..=HOSTS_MAX as u8 {
            let at = start + Duration::from_secs(last.into());
            lore.remember(host(last), rate(u64::from(last) + 1), at);
        }
        assert_eq!(lore.entries().len(), HOSTS_MAX);
        let known = |last| lore.recall(Some(host(last)), start).bytes_per_s;
        assert_eq!((known(0), known(1)), (None, Some(2)), "the oldest went");
    }
}
