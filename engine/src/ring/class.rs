//! Which class a file is of, asked from the kernel and never assumed: drivers differ, and a wrong
//! guess blocks the ring's thread (O_NONBLOCK on a driver that ignores it) or parks a read that
//! should have reported ENOMSG (a blocking fd that has `->poll`).

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SocketType, sockopt};

use super::FileKind;

/// What files are asked with. It needs a descriptor, which is had before the files are there.
#[derive(Debug)]
pub struct Classes {
    epoll: OwnedFd,
}

impl Classes {
    /// Ready to be asked.
    pub fn new() -> io::Result<Classes> {
        Ok(Classes { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Finds out how reads and writes of `fd` are to be submitted. Changes nothing on it.
    ///
    /// A socket that is not a stream is refused with `InvalidInput`. Note that the files of a FUSE
    /// mount have `->poll` and so count as pollable, whatever their server does.
    pub fn class(&self, fd: BorrowedFd<'_>) -> io::Result<FileKind> {
        match sockopt::socket_type(fd) {
            Ok(SocketType::STREAM) => Ok(FileKind::Socket),
            Ok(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket")),
            Err(Errno::NOTSOCK) if self.has_poll(fd)? => Ok(FileKind::Pollable),
            Err(Errno::NOTSOCK) => Ok(FileKind::Blocking),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether the driver has `->poll`: epoll refuses files without it with EPERM, and says so
    /// before it looks at anything else.
    fn has_poll(&self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        match epoll::add(&self.epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN) {
            Ok(()) => {
                epoll::delete(&self.epoll, fd)?;
                Ok(true)
            }
            Err(Errno::PERM) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}
