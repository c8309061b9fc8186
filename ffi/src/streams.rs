//! Streams over TCP, for VMMs that have none of their own.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use vfio_ferry::limits::STREAMS_MAX;
use vfio_ferry::{Acceptor, ConnectOptions, Error, Streams};

use crate::door::{self, vferry_canceller, vferry_door};
use crate::failure::{Failure, guarded, guarded_or};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, *};
use crate::values::unknown;
use crate::wait::timeout;

/// A TCP socket that lets sources in: one session after another, or several at once, whoever else
/// connects. Each connection has a short time to say what session it belongs to; what does not become a
/// session is dropped and counted (`vferry_listener_turned_away`). A source whose session is not taken is
/// told so, and its session ends with VFERRY_CAUSE_PEER_ABORT.
///
/// It has no thread: it works while somebody calls. All calls may be made from any thread. Made by
/// `vferry_listener_new` or `vferry_listener_new_with`, freed by `vferry_listener_free` when no call has
/// it any more: the sessions whose streams it accepted do not use it.
pub struct vferry_listener {
    _opaque: [u8; 0],
}

impl Handle for vferry_listener {
    type Inner = Acceptor;
    const WHAT: &'static str = "listener";
}

/// Gives fds to C.
fn give(streams: Vec<OwnedFd>, room: &mut [c_int]) {
    room.iter_mut().zip(streams).for_each(|(place, stream)| *place = stream.into_raw_fd());
}

/// The connected streams of one session. Since version 5.
///
/// Made by `vferry_listener_take` or `vferry_connect_with`; freed by `vferry_streams_free`, or given to
/// `vferry_session_source_over` or `vferry_session_target_over`.
pub struct vferry_streams {
    _opaque: [u8; 0],
}

impl Handle for vferry_streams {
    type Inner = Streams;
    const WHAT: &'static str = "streams";
}

/// How many streams there are: 1 to VFERRY_STREAMS_MAX; 0 for NULL. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_streams_count(streams: Option<&vferry_streams>) -> usize {
    guarded_or(0, || raw::inner(streams).map_or(0, Streams::count))
}

/// Copies where a stream leads to, IP:PORT, to `buffer`, which has room for `capacity` bytes; 64 are
/// always enough. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_streams_peer(
    streams: Option<&vferry_streams>,
    stream: usize,
    buffer: *mut c_char,
    capacity: usize,
) -> vferry_status {
    guarded(|| {
        let peers = raw::inner(streams)?.peers();
        let peer = peers.get(stream).ok_or_else(|| unknown("stream", stream))?.to_string();
        if peer.len() >= capacity {
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, "there is no room for a peer"));
        }
        // SAFETY: the caller's buffer of this capacity, as the header asks.
        raw::fill_text(&peer, unsafe { raw::room(buffer, capacity, "buffer") }?);
        Ok(())
    })
}

/// Copies SHA-256 of the SubjectPublicKeyInfo that the peer has shown on every stream, 32 bytes, to
/// `key`. VFERRY_ERR_EMPTY where the streams are not guarded by TLS. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_streams_peer_key(
    streams: Option<&vferry_streams>,
    key: *mut u8,
) -> vferry_status {
    guarded(|| {
        let Some(found) = raw::inner(streams)?.peer_key() else {
            return Err(Failure::not_now(VFERRY_ERR_EMPTY));
        };
        // SAFETY: the caller's 32 bytes, as the header asks.
        unsafe { raw::room(key, found.len(), "key") }?.copy_from_slice(&found);
        Ok(())
    })
}

/// Copies the 16 bytes that name the session, which its source has said, to `session`: of streams that a
/// listener gave. VFERRY_ERR_EMPTY of others. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_streams_session(
    streams: Option<&vferry_streams>,
    session: *mut u8,
) -> vferry_status {
    guarded(|| {
        let Some(number) = raw::inner(streams)?.session() else {
            return Err(Failure::not_now(VFERRY_ERR_EMPTY));
        };
        // SAFETY: the caller's 16 bytes, as the header asks.
        unsafe { raw::room(session, 16, "session") }?.copy_from_slice(&number.to_le_bytes());
        Ok(())
    })
}

/// Closes the streams and sets the variable to NULL. Does nothing where it, or `streams`, is NULL. Since
/// version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_streams_free(streams: Option<&mut *mut vferry_streams>) {
    guarded(|| {
        drop(raw::take(streams));
        Ok(())
    });
}

fn check_count(count: usize) -> Result<(), Failure> {
    match (1..=STREAMS_MAX).contains(&count) {
        true => Ok(()),
        false => Err(unknown("session with streams:", count)),
    }
}

/// Connects `count` streams to a target on this host that uses `vferry_listener_accept`. Blocks,
/// `timeout_ms` at most after the host's name was resolved; VFERRY_ERR_TIMEOUT then. VFERRY_NO_LIMIT: for
/// as long as the kernel tries. To another host: `vferry_connect_with`; VFERRY_ERR_PLAINTEXT here, since
/// version 5.
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
        check_count(count)?;
        // SAFETY: the caller's array of this count, as the header asks.
        let room = unsafe { raw::room(fds, count, "fds") }?;
        let timeout = timeout(timeout_ms)?;
        give(vfio_ferry::connect_within(address, count, timeout)?, room);
        Ok(())
    })
}

/// Connects `count` streams to a target's listener, guarded as `door` says; NULL: on this host only.
/// `timeout_ms` is as in `vferry_connect`. `cancel` may be NULL; once it is cancelled this returns
/// VFERRY_ERR_CANCELLED, at once unless the host's name is being resolved. On success `*streams` is the
/// caller's. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_connect_with(
    address: *const c_char,
    door: Option<&vferry_door>,
    timeout_ms: i64,
    cancel: Option<&vferry_canceller>,
    count: usize,
    streams: Option<&mut MaybeUninit<*mut vferry_streams>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(streams, "streams")?;
        // SAFETY: the caller's string, as the header asks.
        let address = unsafe { raw::text(address, "address") }?;
        check_count(count)?;
        let options = ConnectOptions {
            protection: door::copy(door)?.protection,
            timeout: timeout(timeout_ms)?.unwrap_or(Duration::MAX),
            cancel: door::canceller(cancel)?,
        };
        place.write(raw::handle(vfio_ferry::connect_with(address, count, &options)?));
        Ok(())
    })
}

/// Listens on `address`, which is IP:PORT, with port 0 for any that is free. It is one of this host's:
/// 127.0.0.1 or `[::1]`; VFERRY_ERR_PLAINTEXT otherwise, since version 5. To be reached from others:
/// `vferry_listener_new_with`. On success `*listener` is the caller's, to be freed by
/// `vferry_listener_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_listener_new(
    address: *const c_char,
    listener: Option<&mut MaybeUninit<*mut vferry_listener>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(listener, "listener")?;
        // SAFETY: the caller's string, as the header asks.
        let address = unsafe { raw::text(address, "address") }?;
        place.write(listen(address, None)?);
        Ok(())
    })
}

/// As `vferry_listener_new`, guarded and bounded as `door` says; NULL: by the defaults. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_listener_new_with(
    address: *const c_char,
    door: Option<&vferry_door>,
    listener: Option<&mut MaybeUninit<*mut vferry_listener>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(listener, "listener")?;
        // SAFETY: the caller's string, as the header asks.
        let address = unsafe { raw::text(address, "address") }?;
        place.write(listen(address, door)?);
        Ok(())
    })
}

fn listen(address: &str, door: Option<&vferry_door>) -> Result<*mut vferry_listener, Failure> {
    let acceptor = Acceptor::bind(address, door::copy(door)?).map_err(|error| match error {
        Error::Network { source, .. } => {
            let status = match source.raw_os_error() {
                Some(_) => VFERRY_ERR_CONNECTION,
                None => VFERRY_ERR_ADDRESS,
            };
            Failure::system(status, format!("cannot listen on {address}"), source)
        }
        other => other.into(),
    })?;
    Ok(raw::handle(acceptor))
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
        place.write(raw::inner(listener)?.local_addr().port());
        Ok(())
    })
}

/// Gives an fd that is readable when there is something to do: then `vferry_listener_take` or
/// `vferry_listener_accept`, with a timeout of 0, does it, and gives a session once one is complete. For
/// poll, epoll or an event loop. It belongs to the listener: do not read, write or close it.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_listener_fd(
    listener: Option<&vferry_listener>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(fd, "fd")?;
        place.write(raw::inner(listener)?.fd().as_raw_fd());
        Ok(())
    })
}

/// Accepts all streams of one session, as many as its source announces. Blocks until they have
/// connected, `timeout_ms` at most; VFERRY_ERR_TIMEOUT then. Whatever else connects meanwhile is turned
/// away, and does not end this.
///
/// `fds` has room for `capacity` fds; VFERRY_STREAMS_MAX is always enough. Where it is too small the
/// session stays, and the next call gives it. On success the first `*count` are connected sockets, which
/// are the caller's, to be given to `vferry_session_target` or closed. What the session's door said is
/// not known of them: where that was plaintext, `vferry_options_set_plaintext` says it again.
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
        let acceptor = raw::inner(listener)?;
        let timeout = timeout(timeout_ms)?;
        if capacity == 0 {
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, "there is no room for a stream"));
        }
        // SAFETY: the caller's array of this capacity, as the header asks.
        let room = unsafe { raw::room(fds, capacity.min(STREAMS_MAX), "fds") }?;
        let streams = acceptor.wait(timeout.unwrap_or(Duration::MAX), None)?;
        let found = streams.count();
        if found > room.len() {
            acceptor.give_back(streams);
            let message = format!("the source has {found} streams; there is room for {capacity}");
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, message));
        }
        let fds = streams.into_fds().map_err(Error::System)?;
        give(fds, room);
        place.write(found);
        Ok(())
    })
}

/// Gives the next session that is complete, and waits for it, `timeout_ms` at most; VFERRY_ERR_TIMEOUT
/// then. `cancel` may be NULL; once it is cancelled this returns VFERRY_ERR_CANCELLED. On success
/// `*streams` is the caller's. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_listener_take(
    listener: Option<&vferry_listener>,
    timeout_ms: i64,
    cancel: Option<&vferry_canceller>,
    streams: Option<&mut MaybeUninit<*mut vferry_streams>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(streams, "streams")?;
        let acceptor = raw::inner(listener)?;
        let timeout = timeout(timeout_ms)?.unwrap_or(Duration::MAX);
        let cancel = door::canceller(cancel)?;
        place.write(raw::handle(acceptor.wait(timeout, cancel.as_ref())?));
        Ok(())
    })
}

/// Tells how many connections were turned away so far for a reason (`enum vferry_reason`);
/// VFERRY_REASON_ANY: in all. The log has them by name. Since version 5.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_listener_turned_away(
    listener: Option<&vferry_listener>,
    reason: u32,
    count: Option<&mut MaybeUninit<u64>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(count, "count")?;
        let turned_away = raw::inner(listener)?.turned_away();
        place.write(match door::reason(reason)? {
            Some(reason) => turned_away.count(reason),
            None => turned_away.total(),
        });
        Ok(())
    })
}
