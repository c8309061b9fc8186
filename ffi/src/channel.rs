//! Streams whose bytes the VMM carries itself.

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, IntoRawFd};

use vfio_ferry::{Channel, FrameError, FrameFault, Moved, Passed, limits};

use crate::failure::{Failure, guarded, guarded_or};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, *};

/// A stream whose bytes the VMM carries itself: it pulls what the session sends, and pushes what came
/// from the peer's VMM.
///
/// The bytes may be cut anywhere, and must reach the peer whole and in order. No call blocks. A socket
/// buffer in each direction holds what was not pulled or not received yet: a VMM that does not pull
/// slows the engine down.
///
/// A VMM whose own channel has several lanes carries whole frames instead, which may overtake each
/// other: `vferry_channel_pull_frame` at one host, `vferry_channel_push_frame` at the other. Each
/// direction is the VMM's choice, the same at both hosts.
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

/// Bytes of the longest frame. A buffer of so many takes any frame. Since version 7.
pub const VFERRY_FRAME_BYTES_MAX: usize = 4194368;

const _: () = assert!(VFERRY_FRAME_BYTES_MAX == limits::FRAME_BYTES_MAX);

impl From<FrameError> for Failure {
    fn from(error: FrameError) -> Failure {
        let fault = match error {
            FrameError::Fault(fault) => fault,
            FrameError::System(error) => {
                return Failure::system(VFERRY_ERR_SYSTEM, "the channel's socket", error);
            }
        };
        let status = match fault {
            FrameFault::Mixed => VFERRY_ERR_MIXED,
            FrameFault::Room { .. } => VFERRY_ERR_BUFFER_TOO_SMALL,
            _ => VFERRY_ERR_PEER_PROTOCOL,
        };
        Failure::new(status, fault.to_string())
    }
}

fn moved(
    result: Result<Moved, impl Into<FrameError>>,
    none: vferry_status,
) -> Result<usize, Failure> {
    match result.map_err(Into::into)? {
        Moved::Bytes(bytes) => Ok(bytes),
        Moved::NotNow => Err(Failure::not_now(none)),
        Moved::Over => Err(Failure::not_now(VFERRY_ERR_ENDED)),
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
/// the stream; VFERRY_ERR_MIXED where whole frames were pushed before.
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

/// Takes one whole frame for the peer, to be given to its `vferry_channel_push_frame` by whatever way:
/// frames may overtake each other.
///
/// `*have` says how many of its bytes are in `buffer` already: 0 of a new frame. On success it is the
/// frame's length, and the whole frame is in `buffer`. VFERRY_ERR_EMPTY when it is not whole at this
/// moment: call again with the same `buffer` and `*have`, which may have grown, and which is written
/// in any case. VFERRY_ERR_ENDED when the session has closed the stream and everything was pulled.
/// VFERRY_ERR_BUFFER_TOO_SMALL when the frame is longer than `capacity`: call again with a longer
/// buffer that begins with the same bytes; VFERRY_FRAME_BYTES_MAX is always enough.
/// VFERRY_ERR_PEER_PROTOCOL when the bytes in `buffer` do not begin a frame, as after a
/// `vferry_channel_pull` that ended inside of one. One thread at a time pulls. Since version 7.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_channel_pull_frame(
    channel: Option<&mut vferry_channel>,
    buffer: *mut u8,
    capacity: usize,
    have: Option<&mut usize>,
) -> vferry_status {
    guarded(|| {
        let have = have.ok_or_else(|| raw::null("have"))?;
        let channel = raw::inner(channel)?;
        // SAFETY: the caller's buffer of this capacity, as the header asks.
        let room = unsafe { raw::room(buffer, capacity, "buffer") }?;
        if *have > capacity {
            let message = format!("{have} bytes are more than {capacity}");
            return Err(Failure::new(VFERRY_ERR_RANGE, message));
        }
        *have = moved(channel.pull_frame(room, have), VFERRY_ERR_EMPTY)?;
        Ok(())
    })
}

/// Gives the session one whole frame that was pulled at the peer by `vferry_channel_pull_frame`. The
/// frames of a channel may come in any order and from any thread: one that comes before its turn is
/// copied, and waits in memory for those before it. They have a bound, which an honest peer cannot
/// exceed (`vferry_channel_hold_at_most`).
///
/// On success the frame was taken; call `vferry_channel_flush` then. VFERRY_ERR_ENDED when the session
/// has closed the stream. VFERRY_ERR_PEER_PROTOCOL for what is no frame, comes twice, is too far ahead,
/// or is more than the bound: the session sees a broken stream, and nothing more is taken.
/// VFERRY_ERR_MIXED where bytes were pushed before. A frame that never comes is noticed by the session,
/// as a silent peer (`vferry_options_set_peer_silence_ms`). Since version 7.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_channel_push_frame(
    channel: Option<&vferry_channel>,
    bytes: *const u8,
    count: usize,
) -> vferry_status {
    guarded(|| {
        let channel = raw::inner(channel)?;
        // SAFETY: the caller's array of this count, as the header asks.
        let frame = unsafe { raw::array(bytes, count, "bytes") }?;
        match channel.push_frame(frame)? {
            Passed::On | Passed::Waits => Ok(()),
            Passed::Over => Err(Failure::not_now(VFERRY_ERR_ENDED)),
        }
    })
}

/// Passes frames on to the session that were pushed and are in order. VFERRY_ERR_FULL when some wait
/// for room: call again when the channel's fd is writable. A session makes room as long as its peer
/// keeps to its credit, however slow the device is. VFERRY_ERR_ENDED when the session has closed the
/// stream. Since version 7.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_channel_flush(channel: Option<&vferry_channel>) -> vferry_status {
    guarded(|| match raw::inner(channel)?.flush()? {
        Passed::On => Ok(()),
        Passed::Waits => Err(Failure::not_now(VFERRY_ERR_FULL)),
        Passed::Over => Err(Failure::not_now(VFERRY_ERR_ENDED)),
    })
}

/// Sets how many bytes of frames may wait in memory for an earlier one: 8388736 to 1077936128, by
/// default 37748736, which suits sessions with the default memory
/// (`vferry_options_set_memory_bytes`); otherwise the session's memory and 4 MiB. Since version 7.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_channel_hold_at_most(
    channel: Option<&vferry_channel>,
    bytes: usize,
) -> vferry_status {
    guarded(|| {
        let channel = raw::inner(channel)?;
        let (least, most) = (limits::FRAMES_HELD_MIN, limits::FRAMES_HELD_MAX);
        if !(least..=most).contains(&bytes) {
            let message = format!("{bytes} bytes: {least} to {most} may be held");
            return Err(Failure::new(VFERRY_ERR_RANGE, message));
        }
        channel.hold_at_most(bytes);
        Ok(())
    })
}

/// How many bytes of frames were pushed and are not with the session yet. 0 for NULL. Since version 7.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_channel_held_bytes(channel: Option<&vferry_channel>) -> usize {
    guarded_or(0, || raw::inner(channel).map_or(0, Channel::held_bytes))
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
