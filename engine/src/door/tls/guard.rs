//! How a connection goes on after its handshake: its records are the kernel's, or ours.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use super::pump::Pumped;
use super::secured::Secured;
use crate::error::TlsFault;
use crate::kernel_tls::{Ended, KernelTls};

/// A connection after its handshake.
pub(in crate::door) enum Finished {
    Kernel(Box<InKernel>),
    Secured(Box<Secured>),
}

/// A connection whose records the kernel seals and opens. Its socket is used as any other.
#[derive(Debug)]
pub(in crate::door) struct InKernel {
    pub(in crate::door) socket: OwnedFd,
    pub(in crate::door) tls: Arc<KernelTls>,
    pub(in crate::door) peer_key: [u8; 32],
}

impl InKernel {
    pub(super) fn new(socket: OwnedFd, tls: KernelTls, peer_key: [u8; 32]) -> InKernel {
        InKernel { socket, tls: Arc::new(tls), peer_key }
    }

    /// Says that nothing follows, without waiting.
    pub(in crate::door) fn part(&self) {
        let _ = self.tls.part(&self.socket);
    }

    /// What a receive that failed with this errno, or gave the end, came to.
    pub(in crate::door) fn fault(&self, errno: Option<i32>) -> TlsFault {
        match self.tls.why(&self.socket, errno) {
            Ended::Parted => TlsFault::Cut,
            Ended::Broken(fault) => fault,
        }
    }
}

/// What is known of a protected stream while its session runs, and later.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    Kernel(Arc<KernelTls>),
    Pumped(Arc<Pumped>),
}

impl Guard {
    /// How TLS broke, if it did.
    pub(crate) fn fault(&self) -> Option<&TlsFault> {
        match self {
            Guard::Kernel(tls) => tls.fault(),
            Guard::Pumped(pumped) => pumped.fault(),
        }
    }

    /// Waits until the connection is closed; false if the time is over first. One that is the engine's
    /// own socket is closed with the session's streams.
    pub(crate) fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        match self {
            Guard::Kernel(_) => true,
            Guard::Pumped(pumped) => pumped.wait_closed(deadline),
        }
    }

    /// Where the kernel does it.
    pub(crate) fn kernel(&self) -> Option<&Arc<KernelTls>> {
        match self {
            Guard::Kernel(tls) => Some(tls),
            Guard::Pumped(_) => None,
        }
    }
}

impl AsFd for InKernel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustix::io::Errno;
    use rustix::net::{RecvFlags, SendFlags, recv, send};

    use super::*;
    use crate::door::tls::credentials::throw_away as credentials;
    use crate::door::tls::{Credentials, Handshake, Progress, Tls, Trust};

    /// Both ends of a connection over TCP, after their handshakes.
    fn connected(kernel: bool) -> [Finished; 2] {
        let (ours, theirs) = (credentials(), credentials());
        let pin = |of: &Credentials| Trust::Keys(vec![of.key_hash().expect("a key")]);
        let sides = [Tls::source(&ours, &pin(&theirs)), Tls::target(&theirs, &pin(&ours))];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let here = TcpStream::connect(listener.local_addr().expect("an address")).expect("there");
        let sockets = [here, listener.accept().expect("here").0].map(OwnedFd::from);
        let mut ends = sides.map(|tls| {
            Handshake::new(&tls.expect("credentials").with_kernel(kernel)).expect("a handshake")
        });
        let mut is_done = [false; 2];
        while is_done != [true; 2] {
            for (end, (socket, is_done)) in ends.iter_mut().zip(sockets.iter().zip(&mut is_done)) {
                *is_done = end.turn(socket).expect("a good peer") == Progress::Done;
            }
        }
        let mut sockets = sockets.into_iter();
        ends.map(|end| end.finish(sockets.next().expect("one each")).expect("keys"))
    }

    /// In a kernel that has TLS, which `tests/run vm kernel-tls` says by FERRY_TLS; in any other the
    /// engine does it.
    #[test]
    fn the_kernel_takes_the_keys_where_it_can_and_may() {
        assert!(connected(false).iter().all(|end| matches!(end, Finished::Secured(_))));
        let [here, there] = connected(true);
        let (here, there) = match (here, there) {
            (Finished::Kernel(here), Finished::Kernel(there)) => (here, there),
            (Finished::Secured(_), Finished::Secured(_)) => {
                let expected = std::env::var("FERRY_TLS");
                return assert_ne!(expected.as_deref(), Ok("kernel"), "it took no keys");
            }
            _ => panic!("one kernel, and two answers"),
        };
        assert_ne!(std::env::var("FERRY_TLS").as_deref(), Ok("user_space"), "it took the keys");
        assert_ne!(here.peer_key, there.peer_key);

        // A send is a record, and one of 40,000 bytes is three.
        let bytes = [7; 40_000];
        assert_eq!(here.tls.records_sent(&here), Some(0));
        for length in [1, 2, bytes.len()] {
            assert_eq!(send(&here, &bytes[..length], SendFlags::NOSIGNAL), Ok(length));
        }
        assert_eq!(here.tls.records_sent(&here), Some(5));
        assert!(!here.tls.is_used_up(&here, u64::MAX / 2), "it is asked, and far from its end");
        let mut opened = Vec::new();
        while opened.len() < bytes.len() + 3 {
            let mut room = [0; 50_000];
            let (got, _) = recv(&there, &mut room[..], RecvFlags::empty()).expect("opened");
            assert!(got > 0, "it goes on");
            opened.extend_from_slice(&room[..got]);
        }
        assert_eq!(opened, [7; 40_003]);

        // An end that was said, said once, and one that was not.
        assert!(here.tls.part(&here) && here.tls.part(&here));
        let mut byte = [0];
        let took = recv(&there, &mut byte[..], RecvFlags::empty());
        assert_eq!(took.map(|(bytes, _)| bytes), Err(Errno::IO));
        assert_eq!(there.tls.why(&there, Some(Errno::IO.raw_os_error())), Ended::Parted);
        drop(there);
        while here.fault(None) != TlsFault::Cut {
            std::thread::yield_now();
        }
    }
}
