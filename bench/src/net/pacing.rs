//! SO_MAX_PACING_RATE, which neither rustix nor nix has a name for; nix's macro makes one.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

sockopt_impl!(
    /// Most bytes per second that the socket sends; the kernel takes an `unsigned long`.
    MaxPacingRate,
    Both,
    libc::SOL_SOCKET,
    libc::SO_MAX_PACING_RATE,
    usize
);

/// Lets a socket send at most so many bytes per second.
pub(super) fn limit(stream: &impl AsFd, bytes_per_s: u64) -> io::Result<()> {
    setsockopt(stream, MaxPacingRate, &(bytes_per_s as usize))?;
    Ok(())
}
