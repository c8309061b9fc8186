//! Streams whose bytes the VMM carries itself.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd};

use vfio_ferry::{Channel, Moved};

use crate::failure::{Failure, guarded};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, *};

/// A stream whose bytes the VMM carries itself: it pulls what the session sends, and pushes what came
/// from the peer's VMM.
///
/// The bytes may be cut anywhere, and must reach the peer whole and in order. No call blocks. A socket
/// buffer in each direction holds what was not pulled or not received yet: a VMM that does not pull
/// slows the engine down.
///
/// Made by `vferry_channel_new`, freed by `vferry_channel_free` at any time. All calls may be made
/// from any thread.
pub struct vferry_channel {
    _opaque: [u8; 0],
}

impl Handle for vferry_channel {
    type Inner = Channel;
    const WHAT: &'static str = "channel";
}

fn moved(result: std::io::Result<Moved>, none: vferry_status) -> Result<usize, Failure> {
    match result {
        Ok(Moved::Bytes(bytes)) => Ok(bytes),
        Ok(Moved::NotNow) => Err(Failure::not_now(none)),
        Ok(Moved::Over) => Err(Failure::not_now(VFERRY_ERR_ENDED)),
        Err(error) => Err(Failure::system(VFERRY_ERR_SYSTEM, "the channel's socket", error)),
    }
}

/// Makes a channel. On success `*channel` is the caller's, to be freed by `vferry_channel_free`, and
/// `*stream_fd` is the session's end of it, to be given to `vferry_session_source` or
/// `vferry_session_target` as one of its streams, or closed.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_channel_new(
    channel: Option<&mut MaybeUninit<*mut vferry_channel>>,
    stream_fd: Option<&mut MaybeUninit<c_int>>,
) -> vferry_status {
    guarded(|| {
        let channel = raw::out(channel, "channel")?;
        let stream_fd = raw::out(stream_fd, "stream_fd")?;
        let (ours, theirs) = Channel::new()
            .map_err(|error| Failure::system(VFERRY_ERR_SYSTEM, "a pair of sockets", error))?;
        channel.write(raw::handle(ours));
        stream_fd.write(theirs.into_raw_fd());
        Ok(())
    })
}

/// Frees a channel and sets the variable to NULL. Does nothing where it, or `channel`, is NULL. A
/// session that still runs takes it for a broken stream.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_channel_free(channel: Option<&mut *mut vferry_channel>) {
    guarded(|| {
        drop(raw::take(channel));
        Ok(())
    });
}

/// Takes up to `capacity` bytes for the peer. On success `*pulled` of them are in `buffer`, at least
/// one.
///
/// VFERRY_ERR_EMPTY when there are none at this moment; VFERRY_ERR_ENDED when the session has closed
/// the stream and everything was pulled: then the peer's VMM has to call `vferry_channel_close`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_channel_pull(
    channel: Option<&mut vferry_channel>,
    buffer: *mut u8,
    capacity: usize,
    pulled: Option<&mut MaybeUninit<usize>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(pulled, "pulled")?;
        let channel = raw::inner(channel)?;
        if capacity == 0 {
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, "there is no room for a byte"));
        }
        // SAFETY: the caller's buffer of this capacity, as the header asks.
        let room = unsafe { raw::room(buffer, capacity, "buffer") }?;
        place.write(moved(channel.pull(room), VFERRY_ERR_EMPTY)?);
        Ok(())
    })
}

/// Gives up to `count` bytes from the peer to the session. On success `*pushed` of them were taken, at
/// least one unless `count` is 0; push the rest again.
///
/// VFERRY_ERR_FULL when there is no room at this moment; VFERRY_ERR_ENDED when the session has closed
/// the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_channel_push(
    channel: Option<&mut vferry_channel>,
    bytes: *const u8,
    count: usize,
    pushed: Option<&mut MaybeUninit<usize>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(pushed, "pushed")?;
        let channel = raw::inner(channel)?;
        // SAFETY: the caller's array of this count, as the header asks.
        let bytes = unsafe { raw::array(bytes, count, "bytes") }?;
        let taken = if count == 0 { 0 } else { moved(channel.push(bytes), VFERRY_ERR_FULL)? };
        place.write(taken);
        Ok(())
    })
}

/// Says that nothing more will be pushed: the peer has closed its stream, or the VMM's own channel
/// broke. What was not pulled yet still can be. A session that still runs takes it for a broken
/// stream.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_channel_close(channel: Option<&mut vferry_channel>) -> vferry_status {
    guarded(|| {
        raw::inner(channel)?.close();
        Ok(())
    })
}

/// Gives an fd that is readable while a pull would not return VFERRY_ERR_EMPTY, and writable while a
/// push would not return VFERRY_ERR_FULL. For poll, epoll or an event loop. It belongs to the
/// channel: do not read, write or close it.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_channel_fd(
    channel: Option<&vferry_channel>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(fd, "fd")?;
        place.write(raw::inner(channel)?.fd().as_raw_fd());
        Ok(())
    })
}
