//! A data fd as the peers use it: blocking reads and writes, each told to the device.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::engine::MigrationDevice;

/// A data fd and its device.
pub(crate) struct DataFd<'a> {
    device: &'a dyn MigrationDevice,
    fd: OwnedFd,
}

impl<'a> DataFd<'a> {
    pub(super) fn new(device: &'a dyn MigrationDevice, fd: OwnedFd) -> DataFd<'a> {
        DataFd { device, fd }
    }

    /// One read; 0 is the end of the stream.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.fd, &mut *buffer) {
                Err(Errno::INTR) => {}
                result => {
                    return self.device.observe(self.fd.as_fd(), result.map_err(io::Error::from));
                }
            }
        }
    }

    /// Writes all.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Err(Errno::INTR) => {}
                result => {
                    let written =
                        self.device.observe(self.fd.as_fd(), result.map_err(io::Error::from))?;
                    bytes = &bytes[written..];
                }
            }
        }
        Ok(())
    }
}
