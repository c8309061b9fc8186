//! What no session can be made of, found out before anything is started: devices and streams that
//! are given twice, fds that are no streams, devices that are not where a migration begins.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl, fstat};
use rustix::io::Errno;
use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};

use crate::door::{Streams, is_loopback};
use crate::drive::guarded;
use crate::error::{Error, UsageError};
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::{Capabilities, DeviceState};

/// A device as it was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning {
    pub(super) capabilities: Capabilities,
    pub(super) state: DeviceState,
}

/// Asks a device what it can do and where it is. Code of the embedder's that panics has failed.
pub(super) fn ask(name: &str, device: &Arc<dyn MigrationDevice>) -> Result<Beginning, Error> {
    let name = || name.to_owned();
    let panicked = |said| Err(io::Error::other(format!("its code panicked: {said}")));
    let capabilities = guarded(|| device.capabilities()).unwrap_or_else(panicked);
    let capabilities = match capabilities {
        Ok(capabilities) => capabilities,
        Err(source) if source.raw_os_error() == Some(Errno::NOTTY.raw_os_error()) => {
            return Err(Error::NotMigratable { name: name() });
        }
        Err(source) => return Err(Error::Device { name: name(), source }),
    };
    let panicked = |said| Err(io::Error::other(format!("its code panicked: {said}")));
    let state = guarded(|| device.state_at_start()).unwrap_or_else(panicked);
    match state.map_err(|source| Error::Device { name: name(), source })? {
        state @ (DeviceState::Running | DeviceState::Stop) => Ok(Beginning { capabilities, state }),
        other => Err(Error::DeviceState { name: name(), state: other.name() }),
    }
}

/// Checks that no device is there twice: one would be moved by two threads at once.
pub(super) fn check_devices<'a>(
    devices: impl Iterator<Item = (&'a str, &'a Arc<dyn MigrationDevice>)>,
) -> Result<(), UsageError> {
    let devices: Vec<_> = devices.collect();
    for (place, (first, one)) in devices.iter().enumerate() {
        for (second, other) in &devices[place + 1..] {
            if is_same_device(one, other) {
                let (first, second) = ((*first).to_owned(), (*second).to_owned());
                return Err(UsageError::SameDevice { first, second });
            }
        }
    }
    Ok(())
}

fn is_same_device(one: &Arc<dyn MigrationDevice>, other: &Arc<dyn MigrationDevice>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
        || match (device_fd(one), device_fd(other)) {
            (Some(one), Some(other)) => is_same_open_file(one, other).unwrap_or(false),
            _ => false,
        }
}

fn device_fd(device: &Arc<dyn MigrationDevice>) -> Option<BorrowedFd<'_>> {
    guarded(|| device.device_fd()).ok().flatten()
}

/// Whether two descriptors are duplicates of one: they are when they share the flags that belong to
/// the open file. For a moment O_NONBLOCK is turned over, which means nothing to a VFIO device.
fn is_same_open_file(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let place = |fd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    let (before, others) = (fcntl_getfl(one)?, fcntl_getfl(other)?);
    if place(one)? != place(other)? || before != others {
        return Ok(false);
    }
    fcntl_setfl(one, before ^ OFlags::NONBLOCK)?;
    let after = fcntl_getfl(other);
    fcntl_setfl(one, before)?;
    Ok(after? != others)
}

/// Checks that each stream is a connected stream socket, and none of them there twice.
pub(super) fn check_streams<'a>(
    streams: impl Iterator<Item = BorrowedFd<'a>>,
) -> Result<(), UsageError> {
    let mut seen = Vec::new();
    for (index, stream) in streams.enumerate() {
        if let Err(why) = check_stream(stream) {
            return Err(UsageError::Stream { index, why });
        }
        // A socket has its own number, whatever its descriptors.
        let Ok(socket) = fstat(stream).map(|stat| (stat.st_dev, stat.st_ino)) else {
            return Err(UsageError::Stream { index, why: "cannot be asked what it is" });
        };
        if let Some(first) = seen.iter().position(|other| *other == socket) {
            return Err(UsageError::SameStream { first, second: index });
        }
        seen.push(socket);
    }
    Ok(())
}

/// Checks that no stream leaves this host in plaintext without anybody having asked for it. What is no
/// IP does not leave it.
pub(super) fn check_protection(streams: &Streams, plaintext: bool) -> Result<(), UsageError> {
    if plaintext || streams.may_leave() {
        return Ok(());
    }
    for stream in streams.sockets() {
        let peer = rustix::net::getpeername(stream).ok().flatten();
        let Some(Ok(peer)) = peer.map(SocketAddr::try_from) else { continue };
        if !is_loopback(peer.ip()) {
            return Err(UsageError::Plaintext { address: peer.to_string() });
        }
    }
    Ok(())
}

fn check_stream(fd: BorrowedFd<'_>) -> Result<(), &'static str> {
    match socket_type(fd) {
        Ok(SocketType::STREAM) => {}
        Ok(SocketType::DGRAM) => return Err("is a datagram socket"),
        Ok(SocketType::SEQPACKET) => return Err("is a socket of packets"),
        Ok(_) => return Err("is a socket of another type"),
        Err(Errno::NOTSOCK) => return Err("is no socket"),
        Err(_) => return Err("cannot be asked what it is"),
    }
    if socket_acceptconn(fd).unwrap_or(false) {
        return Err("is a listening socket");
    }
    match rustix::net::getpeername(fd) {
        Ok(_) => Ok(()),
        Err(_) => Err("is not connected"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::net::{AddressFamily, SocketFlags, socket_with, socketpair};

    use crate::vfio::device::PrecopyInfo;

    fn check(streams: &[OwnedFd]) -> Result<(), UsageError> {
        check_streams(streams.iter().map(AsFd::as_fd))
    }

    fn refused(stream: impl Into<OwnedFd>) -> String {
        let (good, _peer) = UnixStream::pair().expect("sockets");
        let error = check(&[good.into(), stream.into()]).expect_err("it is no stream");
        let UsageError::Stream { index: 1, why } = error else { panic!("{error}") };
        why.to_owned()
    }

    #[test]
    fn what_is_no_stream_is_refused_with_what_it_is() {
        assert_eq!(refused(File::open("/dev/null").expect("it is there")), "is no socket");
        assert_eq!(refused(rustix::pipe::pipe().expect("a pipe").0), "is no socket");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        assert_eq!(refused(udp), "is a datagram socket");
        assert_eq!(refused(UnixDatagram::pair().expect("sockets").0), "is a datagram socket");
        let packets =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        assert_eq!(refused(packets.expect("sockets").0), "is a socket of packets");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        assert_eq!(refused(listener), "is a listening socket");
        for family in [AddressFamily::INET, AddressFamily::UNIX] {
            let fresh = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
            assert_eq!(refused(fresh.expect("a socket")), "is not connected");
        }
    }

    #[test]
    fn connected_streams_are_taken_once_each() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let tcp =
            TcpStream::connect(listener.local_addr().expect("its address")).expect("loopback");
        let (one, other) = UnixStream::pair().expect("sockets");
        let streams = [tcp.into(), OwnedFd::from(one), other.into()];
        assert_eq!(check(&streams), Ok(()));
        let [tcp, one, other] = streams;
        let again = one.try_clone().expect("a duplicate");
        let twice = check(&[tcp, one, other, again]);
        assert_eq!(twice, Err(UsageError::SameStream { first: 1, second: 3 }));
    }

    #[test]
    fn two_handles_of_one_open_device_are_one_device() {
        let open = || OwnedFd::from(File::open("/dev/null").expect("it is there"));
        let device = |fd| -> Arc<dyn MigrationDevice> {
            Arc::new(crate::vfio::VfioDevice::from_fd(fd).expect("no opt-in is no error"))
        };
        let fd = open();
        let duplicate = fd.try_clone().expect("a duplicate");
        let devices = [device(fd), device(open()), device(duplicate)];
        let named = |places: &[usize]| {
            let named = |place: usize| (["a", "b", "c"][place], &devices[place]);
            check_devices(places.iter().map(|place| named(*place)))
        };
        assert_eq!(named(&[0, 1]), Ok(()));
        let same = UsageError::SameDevice { first: "a".to_owned(), second: "c".to_owned() };
        assert_eq!(named(&[0, 1, 2]), Err(same));
        let same = UsageError::SameDevice { first: "b".to_owned(), second: "b".to_owned() };
        assert_eq!(named(&[1, 0, 1]), Err(same));
    }

    #[test]
    fn an_open_file_is_known_by_its_duplicates_and_stays_as_it_was() {
        let open = || File::open("/dev/null").expect("it is there");
        let (one, other) = (open(), open());
        let same = one.try_clone().expect("a duplicate");
        let before = fcntl_getfl(&one).expect("flags");
        assert_eq!(is_same_open_file(one.as_fd(), other.as_fd()), Ok(false));
        assert_eq!(is_same_open_file(one.as_fd(), same.as_fd()), Ok(true));
        assert_eq!(fcntl_getfl(&one).expect("flags"), before);
        // One that does not block, too.
        fcntl_setfl(&one, before | OFlags::NONBLOCK).expect("flags");
        assert_eq!(is_same_open_file(one.as_fd(), same.as_fd()), Ok(true));
        assert_eq!(fcntl_getfl(&one).expect("flags"), before | OFlags::NONBLOCK);
    }

    /// A device that answers every question with this errno.
    struct Failing(Errno);

    impl Failing {
        fn answer<T>(&self) -> io::Result<T> {
            Err(self.0.into())
        }
    }

    impl MigrationDevice for Failing {
        fn capabilities(&self) -> io::Result<Capabilities> {
            self.answer()
        }
        fn state(&self) -> io::Result<DeviceState> {
            self.answer()
        }
        fn set_state(&self, _: DeviceState) -> io::Result<Option<OwnedFd>> {
            self.answer()
        }
        fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
            self.answer()
        }
        fn stop_copy_length(&self) -> io::Result<u64> {
            self.answer()
        }
        fn reset(&self) -> io::Result<()> {
            self.answer()
        }
    }

    #[test]
    fn a_device_that_cannot_migrate_is_told_from_one_that_fails() {
        let asked = |errno| {
            let device: Arc<dyn MigrationDevice> = Arc::new(Failing(errno));
            ask("net0", &device).expect_err("it takes no part")
        };
        let error = asked(Errno::NOTTY);
        assert!(matches!(&error, Error::NotMigratable { name } if name == "net0"), "{error}");
        let error = asked(Errno::IO);
        assert!(matches!(&error, Error::Device { name, .. } if name == "net0"), "{error}");
    }
}
