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
        self.tls.part(&self.socket);
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
