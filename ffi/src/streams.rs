//! Streams over TCP, for VMMs that have none of their own.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

use vfio_ferry::limits::STREAMS_MAX;

use crate::failure::{Failure, guarded};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, *};
use crate::values::unknown;
use crate::wait::{FOREVER, timeout};

/// A TCP socket that waits for a source's streams.
///
/// Made by `vferry_listener_new`, freed by `vferry_listener_free` at any time: the sessions whose
/// streams it accepted do not use it.
pub struct vferry_listener {
    _opaque: [u8; 0],
}

impl Handle for vferry_listener {
    type Inner = TcpListener;
    const WHAT: &'static str = "listener";
}

/// Gives fds to C.
fn give(streams: Vec<OwnedFd>, room: &mut [c_int]) {
    room.iter_mut().zip(streams).for_each(|(place, stream)| *place = stream.into_raw_fd());
}

/// Connects `count` streams to a target that uses `vferry_listener_accept`. Blocks, `timeout_ms` at
/// most after the host's name was resolved; VFERRY_ERR_TIMEOUT then. VFERRY_NO_LIMIT: for as long as
/// the kernel tries.
///
/// `address` is HOST:PORT, an IPv6 address in brackets. On success `fds` has `count` connected
/// sockets, which are the caller's, to be given to `vferry_session_source` or closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_connect(
    address: *const c_char,
    timeout_ms: i64,
    fds: *mut c_int,
    count: usize,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's string, as the header asks.
        let address = unsafe { raw::text(address, "address") }?;
        if !(1..=STREAMS_MAX).contains(&count) {
            return Err(unknown("session with streams:", count));
        }
        // SAFETY: the caller's array of this count, as the header asks.
        let room = unsafe { raw::room(fds, count, "fds") }?;
        let timeout = timeout(timeout_ms)?;
        give(vfio_ferry::connect_within(address, count, timeout)?, room);
        Ok(())
    })
}

/// Listens on `address`, which is IP:PORT, with port 0 for any that is free. On success `*listener`
/// is the caller's, to be freed by `vferry_listener_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_listener_new(
    address: *const c_char,
    listener: Option<&mut MaybeUninit<*mut vferry_listener>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(listener, "listener")?;
        // SAFETY: the caller's string, as the header asks.
        let address = unsafe { raw::text(address, "address") }?;
        let bound = TcpListener::bind(address).map_err(|error| {
            let status = if error.raw_os_error().is_some() {
                VFERRY_ERR_CONNECTION
            } else {
                VFERRY_ERR_ADDRESS
            };
            Failure::system(status, format!("cannot listen on {address}"), error)
        })?;
        place.write(raw::handle(bound));
        Ok(())
    })
}

/// Frees a listener and sets the variable to NULL. Does nothing where it, or `listener`, is NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_listener_free(listener: Option<&mut *mut vferry_listener>) {
    guarded(|| {
        drop(raw::take(listener));
        Ok(())
    });
}

/// Tells the port of the listening socket.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_listener_port(
    listener: Option<&vferry_listener>,
    port: Option<&mut MaybeUninit<u16>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(port, "port")?;
        let address = raw::inner(listener)?.local_addr();
        let address = address.map_err(|error| {
            Failure::system(VFERRY_ERR_CONNECTION, "the listener's address", error)
        })?;
        place.write(address.port());
        Ok(())
    })
}

/// Gives the listening socket, which is readable when a source connects; for poll, epoll or an event
/// loop. It belongs to the listener: do not close it.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_listener_fd(
    listener: Option<&vferry_listener>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(fd, "fd")?;
        place.write(raw::inner(listener)?.as_raw_fd());
        Ok(())
    })
}

/// Accepts all streams of one session, as many as its source announces. Blocks until they have
/// connected, `timeout_ms` at most; VFERRY_ERR_TIMEOUT then. VFERRY_ERR_PEER_PROTOCOL where
/// something else than a source connects.
///
/// `fds` has room for `capacity` fds; VFERRY_STREAMS_MAX is always enough. On success the first
/// `*count` are connected sockets, which are the caller's, to be given to `vferry_session_target`
/// or closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_listener_accept(
    listener: Option<&mut vferry_listener>,
    timeout_ms: i64,
    fds: *mut c_int,
    capacity: usize,
    count: Option<&mut MaybeUninit<usize>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(count, "count")?;
        let listener = raw::inner(listener)?;
        let timeout = timeout(timeout_ms)?;
        if capacity == 0 {
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, "there is no room for a stream"));
        }
        // SAFETY: the caller's array of this capacity, as the header asks.
        let room = unsafe { raw::room(fds, capacity.min(STREAMS_MAX), "fds") }?;
        let streams = vfio_ferry::accept(listener, timeout.unwrap_or(FOREVER))?;
        let found = streams.len();
        if found > room.len() {
            let message = format!("the source has {found} streams; there is room for {capacity}");
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, message));
        }
        give(streams, room);
        place.write(found);
        Ok(())
    })
}
