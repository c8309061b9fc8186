//! The rate cap: SO_MAX_PACING_RATE, which has a name in nix only as a macro to make one with. The
//! kernel keeps to it for TCP, in its own timers or in sch_fq; other sockets take the option and
//! ignore it.

use std::os::fd::BorrowedFd;

use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use rustix::net::AddressFamily;
use rustix::net::sockopt::socket_domain;

use crate::error::{Error, UsageError};

sockopt_impl!(
    /// Most bytes per second that the socket sends; the kernel takes an `unsigned long`.
    MaxPacingRate,
    Both,
    libc::SOL_SOCKET,
    libc::SO_MAX_PACING_RATE,
    usize
);

/// Shares a rate among a session's streams.
pub(super) fn limit<'a>(
    streams: impl Iterator<Item = BorrowedFd<'a>>,
    bytes_per_s: u64,
) -> Result<(), Error> {
    let streams: Vec<_> = streams.collect();
    let network =
        |source| Error::Network { what: "the streams' rate cannot be limited".to_owned(), source };
    let share = usize::try_from(bytes_per_s / streams.len().max(1) as u64).unwrap_or(usize::MAX);
    for stream in streams {
        let domain = socket_domain(stream).map_err(|errno| network(errno.into()))?;
        if domain != AddressFamily::INET && domain != AddressFamily::INET6 {
            return Err(UsageError::Pacing.into());
        }
        setsockopt(&stream, MaxPacingRate, &share.max(1))
            .map_err(|errno| network(std::io::Error::from_raw_os_error(errno as i32)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, OwnedFd};

    #[test]
    fn tcp_streams_share_the_rate_and_others_are_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let stream = || OwnedFd::from(TcpStream::connect(address).expect("loopback"));
        let streams = [stream(), stream()];
        limit(streams.iter().map(AsFd::as_fd), 2_000_000).expect("TCP is paced");
        for stream in &streams {
            let rate = nix::sys::socket::getsockopt(stream, MaxPacingRate).expect("asked");
            assert_eq!(rate, 1_000_000);
        }
        let (_channel, other) = super::super::Channel::new().expect("sockets");
        assert!(matches!(
            limit([other.as_fd()].into_iter(), 1),
            Err(Error::Usage(UsageError::Pacing))
        ));
    }
}
