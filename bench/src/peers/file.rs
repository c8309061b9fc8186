//! A data fd as the peers use it: blocking reads and writes, each told to the device.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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

    /// The fd, for who reads and writes in another way. Each result is to be [observed](Self::observe).
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What the device makes of a read's or a write's result.
    pub(super) fn observe(&self, result: io::Result<usize>) -> io::Result<usize> {
        self.device.observe(self.fd.as_fd(), result)
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
