//! O_NONBLOCK on a data fd, for as long as a ring uses it.
//!
//! The flag belongs to the open file description, which the embedder and others may share. Who
//! sets it must own that and put it back; a flag that was there before stays.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// The flag, set by us; dropping this takes it off again.
#[derive(Debug)]
pub(super) struct Nonblock {
    fd: Arc<OwnedFd>,
}

impl Nonblock {
    /// Sets the flag. None: it was set already, and is not ours to take off.
    pub(super) fn set(fd: &Arc<OwnedFd>) -> io::Result<Option<Nonblock>> {
        let flags = fcntl_getfl(&**fd)?;
        if flags.contains(OFlags::NONBLOCK) {
            return Ok(None);
        }
        fcntl_setfl(&**fd, flags | OFlags::NONBLOCK)?;
        Ok(Some(Nonblock { fd: Arc::clone(fd) }))
    }
}

impl Drop for Nonblock {
    fn drop(&mut self) {
        // Read again: the other flags may have changed meanwhile. A failure leaves the flag on and
        // nothing can be done about it here.
        let restored = fcntl_getfl(&*self.fd)
            .and_then(|flags| fcntl_setfl(&*self.fd, flags - OFlags::NONBLOCK));
        if let Err(errno) = restored {
            tracing::warn!(%errno, "O_NONBLOCK could not be taken off a data fd");
        }
    }
}
