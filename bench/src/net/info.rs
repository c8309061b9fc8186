//! TCP_INFO, which neither rustix nor nix has a name for; nix's macro makes one.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// What the kernel knows of a connection. An older kernel leaves the last fields as zero.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// What the kernel knows of a connection.
pub(super) fn of(stream: &impl AsFd) -> io::Result<libc::tcp_info> {
    Ok(getsockopt(stream, TcpInfo)?)
}
