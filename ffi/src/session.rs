//! Sessions: made, commanded and freed. Their events and results are in `event`, `wait`, `report` and
//! `stats`.

use std::ffi::{c_char, c_int};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use vfio_ferry::limits::{DEVICES_MAX, MESSAGE_BYTES_MAX, STREAMS_MAX};
use vfio_ferry::{
    DeviceId, Host, SourceDevice, SourceSession, StreamProtection, Streams, TargetDevice,
    TargetSession, TlsRecords, UsageError,
};

use crate::device::{DeviceInner, Use, vferry_device};
use crate::failure::{Failure, guarded};
use crate::hosts::{AnyReport, AnySession};
use crate::options::{self, vferry_options};
use crate::raw::{self, Handle};
use crate::status::vferry_status::{self, *};
use crate::streams::vferry_streams;
use crate::values::unknown;

/// One migration on this host: one or more devices over one or more streams.
///
/// It runs on threads of its own and never calls back. The caller fetches events
/// (`vferry_session_poll`, `vferry_session_wait`) until VFERRY_EVENT_FINISHED, and tells a source when
/// its vCPUs have stopped (`vferry_session_switchover`).
///
/// Made by `vferry_session_source` or `vferry_session_target`, freed by `vferry_session_free`. All
/// calls may be made from any thread, but one thread should fetch the events.
pub struct vferry_session {
    _opaque: [u8; 0],
}

#[derive(Debug)]
pub(crate) struct SessionInner {
    pub(crate) session: AnySession,
    /// The bytes of the event that was fetched last.
    pub(crate) payload: Mutex<Bytes>,
    /// VFERRY_EVENT_FINISHED was fetched.
    pub(crate) over: AtomicBool,
    report: OnceLock<AnyReport>,
    /// Let go of after the session: fields are dropped in their order.
    _uses: Vec<Use>,
}

impl Handle for vferry_session {
    type Inner = SessionInner;
    const WHAT: &'static str = "session";
}

impl SessionInner {
    /// The report of a session that has ended.
    pub(crate) fn report(&self) -> Result<&AnyReport, Failure> {
        if let Some(report) = self.report.get() {
            return Ok(report);
        }
        let message = "the session has not ended; fetch events until VFERRY_EVENT_FINISHED";
        let report =
            self.session.report().ok_or_else(|| Failure::new(VFERRY_ERR_NOT_ENDED, message))?;
        Ok(self.report.get_or_init(|| report))
    }

    pub(crate) fn new(session: AnySession, uses: Vec<Use>) -> SessionInner {
        SessionInner {
            session,
            payload: Mutex::new(Bytes::new()),
            over: AtomicBool::new(false),
            report: OnceLock::new(),
            _uses: uses,
        }
    }

    fn running(&self) -> Result<&AnySession, Failure> {
        if self.session.has_ended() {
            return Err(Failure::new(VFERRY_ERR_ENDED, "the session has ended"));
        }
        Ok(&self.session)
    }
}

/// The arguments that both hosts' sessions have.
struct Parts<'a> {
    options: vfio_ferry::Options,
    devices: Vec<&'a DeviceInner>,
    uses: Vec<Use>,
}

/// Duplicates of the caller's fds: if no session is made, the caller still has its own.
///
/// # Safety
/// `fds` is NULL or has as many members as is said.
unsafe fn duplicates(fds: *const c_int, count: usize) -> Result<Vec<OwnedFd>, Failure> {
    if !(1..=STREAMS_MAX).contains(&count) {
        return Err(unknown("session with streams:", count));
    }
    // SAFETY: the caller's array.
    let fds = unsafe { raw::array(fds, count, "fds") }?;
    fds.iter().map(|&fd| raw::duplicate(fd, "a stream")).collect()
}

/// Takes the fds over, once there is a session that has their duplicates.
///
/// # Safety
/// As [`duplicates`], and the caller does not use the fds any more.
unsafe fn close_fds(fds: *const c_int, count: usize) -> Result<(), Failure> {
    // SAFETY: the caller's array.
    for &fd in unsafe { raw::array(fds, count, "fds") }? {
        // SAFETY: the caller gives its fds away to a session that was made.
        drop(unsafe { raw::adopt(fd, "a stream") });
    }
    Ok(())
}

impl<'a> Parts<'a> {
    /// # Safety
    /// `devices` is NULL or has as many members as is said.
    unsafe fn new(
        host: Host,
        options: Option<&vferry_options>,
        (devices, device_count): (*const *mut vferry_device, usize),
    ) -> Result<Parts<'a>, Failure> {
        let options = options::copy(options)?;
        if !(1..=DEVICES_MAX).contains(&device_count) {
            return Err(unknown("session with devices:", device_count));
        }
        // SAFETY: the caller's array; a pointer that may be NULL is an optional reference.
        let devices = unsafe {
            raw::array(devices.cast::<Option<&vferry_device>>(), device_count, "devices")
        }?;
        let devices =
            devices.iter().map(|device| raw::inner(*device)).collect::<Result<Vec<_>, _>>()?;
        let uses = devices.iter().map(|device| device.take_for(host)).collect::<Result<_, _>>()?;
        Ok(Parts { options, devices, uses })
    }

    fn source(&self, streams: impl Into<Streams>) -> Result<AnySession, Failure> {
        let device = |device: &&DeviceInner| SourceDevice {
            name: device.name.clone(),
            device: device.behind(),
            options: device.options(),
        };
        let devices = self.devices.iter().map(device).collect();
        let session = SourceSession::start(devices, streams, self.options.clone())?;
        Ok(AnySession::Source(session))
    }

    fn target(&self, streams: impl Into<Streams>) -> Result<AnySession, Failure> {
        let device = |device: &&DeviceInner| TargetDevice {
            name: device.name.clone(),
            device: device.behind(),
        };
        let devices = self.devices.iter().map(device).collect();
        let session = TargetSession::start(devices, streams, self.options.clone())?;
        Ok(AnySession::Target(session))
    }

    fn finish(mut self, session: AnySession, place: &mut MaybeUninit<*mut vferry_session>) {
        self.uses.iter_mut().for_each(Use::started);
        place.write(raw::handle(SessionInner::new(session, self.uses)));
    }
}

/// Starts to migrate devices to the target at the other end of the streams.
///
/// `options` may be NULL for all defaults. `devices` are `device_count` devices (1 to
/// VFERRY_DEVICES_MAX), numbered in their order; the target has the same names in the same order.
/// `fds` are `stream_count` connected stream sockets (1 to VFERRY_STREAMS_MAX), all to one target. What
/// is something else, or given twice, is VFERRY_ERR_BAD_FD; a device that is given twice is
/// VFERRY_ERR_DEVICE_IN_USE, whatever its names. A device that the engine drives is in RUNNING, or in
/// STOP where the VM is paused: it then stays there until the switchover, and comes back to STOP.
/// VFERRY_ERR_DEVICE_STATE otherwise. Each is asked for that here, on the caller's thread, which takes
/// as long as its driver does.
///
/// On success `*session` is the caller's, to be freed by `vferry_session_free`, and the fds are the
/// session's, which closes them at its end; the caller does not use the numbers again. On failure
/// the fds are still the caller's, and the devices are unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_source(
    options: Option<&vferry_options>,
    devices: *const *mut vferry_device,
    device_count: usize,
    fds: *const c_int,
    stream_count: usize,
    session: Option<&mut MaybeUninit<*mut vferry_session>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(session, "session")?;
        // SAFETY: the caller's array, as the header asks.
        let parts = unsafe { Parts::new(Host::Source, options, (devices, device_count)) }?;
        // SAFETY: the same.
        let streams = unsafe { duplicates(fds, stream_count) }?;
        let session = parts.source(streams)?;
        // SAFETY: the same; they are given away to a session that was made.
        unsafe { close_fds(fds, stream_count) }?;
        parts.finish(session, place);
        Ok(())
    })
}

/// Starts to load devices from the source at the other end of the streams. As
/// `vferry_session_source` otherwise. The vCPUs must be stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_target(
    options: Option<&vferry_options>,
    devices: *const *mut vferry_device,
    device_count: usize,
    fds: *const c_int,
    stream_count: usize,
    session: Option<&mut MaybeUninit<*mut vferry_session>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(session, "session")?;
        // SAFETY: the caller's array, as the header asks.
        let parts = unsafe { Parts::new(Host::Target, options, (devices, device_count)) }?;
        // SAFETY: the same.
        let streams = unsafe { duplicates(fds, stream_count) }?;
        let session = parts.target(streams)?;
        // SAFETY: the same; they are given away to a session that was made.
        unsafe { close_fds(fds, stream_count) }?;
        parts.finish(session, place);
        Ok(())
    })
}

/// As `vferry_session_source`, over streams that `vferry_connect_with` gave. On success `*streams`
/// is the session's, and is NULL afterwards; on failure too, and they are closed. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_source_over(
    options: Option<&vferry_options>,
    devices: *const *mut vferry_device,
    device_count: usize,
    streams: Option<&mut *mut vferry_streams>,
    session: Option<&mut MaybeUninit<*mut vferry_session>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(session, "session")?;
        let streams = raw::take(streams).ok_or_else(|| raw::null("streams"))?;
        // SAFETY: the caller's array, as the header asks.
        let parts = unsafe { Parts::new(Host::Source, options, (devices, device_count)) }?;
        let session = parts.source(*streams)?;
        parts.finish(session, place);
        Ok(())
    })
}

/// As `vferry_session_target`, over streams that `vferry_listener_take` gave. On success `*streams`
/// is the session's, and is NULL afterwards; on failure too, and they are closed. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_target_over(
    options: Option<&vferry_options>,
    devices: *const *mut vferry_device,
    device_count: usize,
    streams: Option<&mut *mut vferry_streams>,
    session: Option<&mut MaybeUninit<*mut vferry_session>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(session, "session")?;
        let streams = raw::take(streams).ok_or_else(|| raw::null("streams"))?;
        // SAFETY: the caller's array, as the header asks.
        let parts = unsafe { Parts::new(Host::Target, options, (devices, device_count)) }?;
        let session = parts.target(*streams)?;
        parts.finish(session, place);
        Ok(())
    })
}

/// Frees a session and sets the variable to NULL. Does nothing where it, or `session`, is NULL. No
/// other thread may be in a call with this session.
///
/// A session that has not ended is cancelled first, and its end is waited for: the cancel bound at
/// most, in every stage of either host, whatever a driver or the peer does. How it ended nobody can
/// ask any more, so a VMM that must know fetches VFERRY_EVENT_FINISHED before. One that has ended is
/// freed at once. A thread of the library's stays with the streams until the peer has closed them,
/// for half a second at most (`vferry_session_wait_closed` waits for it), and one with each operation
/// that is still blocked in a driver.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_free(session: Option<&mut *mut vferry_session>) {
    guarded(|| {
        drop(raw::take(session));
        Ok(())
    });
}

/// Says that the vCPUs are stopped (source): the session stops the devices, sends the rest of their
/// state, and hands over. Returns at once. VFERRY_ERR_WRONG_HOST on a target, VFERRY_ERR_ENDED once
/// the session has ended.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_switchover(session: Option<&mut vferry_session>) -> vferry_status {
    guarded(|| {
        raw::inner(session)?.running()?.source()?.switchover();
        Ok(())
    })
}

/// Cancels the migration. Returns at once, and may be called at any time. VFERRY_EVENT_FINISHED
/// follows within the cancel bound, even while an operation is blocked in a driver. After the handover
/// it undoes nothing: a source that has not heard by then that the target runs ends as
/// VFERRY_ENDING_UNCONFIRMED, a target whose devices do not run by then as VFERRY_ENDING_NOT_BLANK.
/// After the end it changes nothing.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_cancel(session: Option<&mut vferry_session>) -> vferry_status {
    guarded(|| {
        raw::inner(session)?.session.cancel();
        Ok(())
    })
}

/// Says that a device was reset, for example by the VMM itself for the guest's FLR (source). The
/// session then acts as if it had found the reset: see `vferry_device_set_on_reset`. Of an embedded
/// device `vferry_device_state_done` with VFERRY_STATE_RUNNING says the same: a reset that was told
/// in both ways, or found by the engine as well, counts once. Returns at once.
/// VFERRY_ERR_WRONG_HOST on a target, VFERRY_ERR_ENDED once the session has ended.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_device_was_reset(
    session: Option<&mut vferry_session>,
    device: u32,
) -> vferry_status {
    guarded(|| Ok(raw::inner(session)?.running()?.source()?.device_was_reset(DeviceId(device))?))
}

/// Sends up to VFERRY_MESSAGE_BYTES_MAX bytes to the peer's embedder, who gets them as
/// VFERRY_EVENT_MESSAGE. With one stream, messages arrive in their order. The bytes are copied. Returns
/// at once. VFERRY_ERR_ENDED once the session has ended.
///
/// VFERRY_ERR_FULL while VFERRY_MESSAGES_WAITING_MAX messages wait for the peer's engine to read them:
/// the message was not taken; send it again later. No event tells when there is room. A peer's
/// embedder that leaves more than VFERRY_MESSAGES_WAITING_MAX messages unfetched ends its session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_send(
    session: Option<&mut vferry_session>,
    bytes: *const u8,
    count: usize,
) -> vferry_status {
    guarded(|| {
        let session = raw::inner(session)?.running()?;
        if count > MESSAGE_BYTES_MAX {
            let (what, max) = ("a message", MESSAGE_BYTES_MAX);
            return Err(UsageError::TooLong { what, found: count, max }.into());
        }
        // SAFETY: the caller's array of this count, as the header asks.
        let bytes = unsafe { raw::array(bytes, count, "bytes") }?;
        Ok(session.send_message(Bytes::copy_from_slice(bytes))?)
    })
}

/// Whether a stream of a session, counted from 0, is guarded by TLS; and, of one that is, how it broke,
/// where the session only knows that it did: to `fault`, which has room for `capacity` bytes, with a NUL
/// after it; an empty text if it did not. VFERRY_TEXT_BYTES are enough. Since version 5.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_protection(
    session: Option<&vferry_session>,
    stream: usize,
    tls: Option<&mut MaybeUninit<bool>>,
    fault: *mut c_char,
    capacity: usize,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(tls, "tls")?;
        let protection = raw::inner(session)?.session.protection();
        let message = || format!("the session has no stream {stream}");
        let protection = protection
            .get(stream)
            .ok_or_else(|| Failure::new(VFERRY_ERR_UNKNOWN_NUMBER, message()))?;
        let (is_tls, broke) = match protection {
            StreamProtection::Tls { fault, .. } => (true, fault.as_ref().map(ToString::to_string)),
            _ => (false, None),
        };
        // SAFETY: the caller's buffer of this capacity, as the header asks.
        raw::fill_text(&broke.unwrap_or_default(), unsafe { raw::room(fault, capacity, "fault") }?);
        place.write(is_tls);
        Ok(())
    })
}

/// Whether the kernel seals and opens the records of a session's stream, counted from 0; else the library
/// does, on a thread of the stream's own. VFERRY_ERR_EMPTY where TLS does not guard it. Since version 6.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_tls_in_kernel(
    session: Option<&vferry_session>,
    stream: usize,
    in_kernel: Option<&mut MaybeUninit<bool>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(in_kernel, "in_kernel")?;
        let protection = raw::inner(session)?.session.protection();
        let message = || format!("the session has no stream {stream}");
        match protection.get(stream) {
            None => Err(Failure::new(VFERRY_ERR_UNKNOWN_NUMBER, message())),
            Some(StreamProtection::Tls { records, .. }) => {
                place.write(is_the_kernels(*records));
                Ok(())
            }
            Some(_) => Err(Failure::new(VFERRY_ERR_EMPTY, "TLS does not guard it")),
        }
    })
}

fn is_the_kernels(records: TlsRecords) -> bool {
    records == TlsRecords::Kernel
}

/// Gives an eventfd that is readable while an event waits; for poll, epoll or an event loop. It
/// belongs to the session: do not read, write or close it.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_session_event_fd(
    session: Option<&vferry_session>,
    fd: Option<&mut MaybeUninit<c_int>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(fd, "fd")?;
        place.write(raw::inner(session)?.session.event_fd().as_raw_fd());
        Ok(())
    })
}

/// Copies the payload of the event that was fetched last: a message, or a device's opaque part.
/// `buffer` has room for `capacity` bytes; the event's `payload_bytes` is how many are needed, and
/// `*count` how many were copied. VFERRY_ERR_BUFFER_TOO_SMALL, and nothing is written, where they do
/// not fit. The payload stays until the next event is fetched.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_payload(
    session: Option<&vferry_session>,
    buffer: *mut u8,
    capacity: usize,
    count: Option<&mut MaybeUninit<usize>>,
) -> vferry_status {
    guarded(|| {
        let place = raw::out(count, "count")?;
        let session = raw::inner(session)?;
        let payload = session.payload.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if payload.len() > capacity {
            let message = format!("{} bytes; there is room for {capacity}", payload.len());
            return Err(Failure::new(VFERRY_ERR_BUFFER_TOO_SMALL, message));
        }
        // SAFETY: the caller's buffer of this capacity, as the header asks.
        let room = unsafe { raw::room(buffer, payload.len(), "buffer") }?;
        room.copy_from_slice(&payload);
        place.write(payload.len());
        Ok(())
    })
}

impl SessionInner {
    /// Keeps what belongs to an event that is about to be given out.
    pub(crate) fn keep(&self, payload: Bytes) {
        *self.payload.lock().unwrap_or_else(PoisonError::into_inner) = payload;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_the_kernels_or_the_librarys() {
        assert!(is_the_kernels(TlsRecords::Kernel));
        assert!(!is_the_kernels(TlsRecords::UserSpace));
    }
}
