//! The results of a session that has ended.

use std::ffi::c_char;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vfio_ferry::{Latencies, Report, SessionEvent};

use crate::event::Why;
use crate::failure::{Failure, guarded};
use crate::hosts::AnyReport;
use crate::options::backend_number;
use crate::outcome::{ending_number, epoch_ending_number};
use crate::raw::{self, Sized32};
use crate::session::vferry_session;
use crate::status::vferry_status::{self, *};
use crate::values::{VFERRY_TEXT_BYTES, VFERRY_VALUE_UNKNOWN, state_number};
use crate::wait::Deadline;

/// A session that has ended. Set `size` to sizeof(vferry_report) before the call.
///
/// Times are nanoseconds of CLOCK_MONOTONIC, which the processes of one host share; 0 for what did
/// not happen on this host. The downtime is from the source's `stop_called_ns` to the target's
/// `running_ns`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_report {
    /// In: the caller's sizeof. Out: the bytes that were filled in.
    pub size: u32,
    /// A `vferry_ending`.
    pub ending: u32,
    /// A `vferry_cause`: why, unless it was handed over.
    pub cause: u32,
    /// A `vferry_observed`: how the cause was found.
    pub observed: u32,
    /// The errno that the kernel gave; 0 where there was none.
    pub os_error: i32,
    /// The device that the cause concerns, or VFERRY_DEVICE_NONE.
    pub device: u32,
    /// How the engine did its I/O: VFERRY_BACKEND_IO_URING or VFERRY_BACKEND_SYSCALLS.
    pub backend: u32,
    /// Devices of the session.
    pub devices: u32,
    /// Streams of the session.
    pub streams: u32,
    /// Zero.
    pub reserved: u32,
    /// When the session's thread started.
    pub started_ns: u64,
    /// When both hosts had agreed on the streams.
    pub connected_ns: u64,
    /// When the first call was made that stops a device (source).
    pub stop_called_ns: u64,
    /// When the last device was in RUNNING (target).
    pub running_ns: u64,
    /// When the session ended.
    pub finished_ns: u64,
    /// Bytes of state of all devices and epochs.
    pub state_bytes: u64,
    /// Bytes on the wire, the larger direction.
    pub wire_bytes: u64,
    /// The cause in a sentence for a person; empty if it was handed over.
    pub text: [c_char; VFERRY_TEXT_BYTES],
    /// Why system calls were used where io_uring was asked for; empty otherwise.
    pub fallback: [c_char; VFERRY_TEXT_BYTES],
}

/// One device of a session that has ended. Set `size` to
/// sizeof(vferry_device_report) before the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_device_report {
    /// In: the caller's sizeof. Out: the bytes that were filled in.
    pub size: u32,
    /// The device's number.
    pub device: u32,
    /// Its last epoch: how often its saving was restarted.
    pub epoch: u32,
    /// A `vferry_epoch_ending`: how its last epoch ended.
    pub epoch_ending: u32,
    /// A `vferry_state`: the device's state, as the kernel or the VMM said last. Of an embedded device
    /// that was handed over it is unknown: its VMM knows.
    pub state: i32,
    /// Not 0: an operation is still blocked in the driver. A thread, its buffers and the data fd are
    /// kept until it returns.
    pub stuck: u32,
    /// Bytes of state in the last epoch.
    pub bytes: u64,
    /// Digest of the state in the last epoch: the same on both hosts.
    pub digest: [u8; 16],
    /// Bytes of state in discarded epochs.
    pub discarded_bytes: u64,
    /// Bytes of its frames on the wire (source).
    pub wire_bytes: u64,
    /// Chunks of zeros, sent as a header only (source).
    pub zero_chunks: u64,
    /// Chunks that were sent uncompressed (source).
    pub raw_chunks: u64,
    /// Chunks that were sent compressed (source).
    pub zstd_chunks: u64,
    /// Frames of discarded epochs that arrived late and were dropped (target).
    pub late_frames: u64,
    /// Not 0: the device is where the session found it, RUNNING or STOP (target: and without any of
    /// the state). An embedded device of the source: nothing of the engine's holds it, and it is its
    /// VMM that brings it back. 0 where it was not brought there, or not yet, and where it was handed
    /// over. Since version 4.
    pub home: u32,
    /// Not 0: it was reset on its way back, as `vferry_device_set_reset_to_return` has allowed
    /// (source). Since version 4.
    pub was_reset: u32,
    /// From the switchover until the first byte of STOP_COPY was read, in nanoseconds, or
    /// VFERRY_VALUE_UNKNOWN (source): for `vferry_device_set_latencies` of the next migration. Since
    /// version 6.
    pub stop_ns: u64,
    /// From when the target had done with the last byte until its word that the state is loaded, in the
    /// same way. Since version 6.
    pub load_ns: u64,
    /// From the handover until the target's word that the device runs, in the same way. Since version
    /// 6.
    pub run_ns: u64,
}

// SAFETY: repr(C), begins with the u32, and has only numbers.
unsafe impl Sized32 for vferry_report {
    const SIZE_MIN: usize = 1120;
    const NAME: &'static str = "vferry_report";
    fn set_size(&mut self, size: u32) {
        self.size = size;
    }
}

// SAFETY: repr(C), begins with the u32, and has only numbers.
unsafe impl Sized32 for vferry_device_report {
    const SIZE_MIN: usize = 96;
    const NAME: &'static str = "vferry_device_report";
    fn set_size(&mut self, size: u32) {
        self.size = size;
    }
}

const _: () = assert!(size_of::<vferry_report>() == vferry_report::SIZE_MIN);
const _: () = assert!(size_of::<vferry_device_report>() >= vferry_device_report::SIZE_MIN);

pub(crate) fn whole(report: &AnyReport) -> vferry_report {
    match report {
        AnyReport::Source(source) => filled(report, source),
        AnyReport::Target(target) => filled(report, target),
    }
}

fn filled<E>(any: &AnyReport, report: &Report<E>) -> vferry_report {
    let timeline = &report.timeline;
    let mut text = [0; VFERRY_TEXT_BYTES];
    let why = Why::of(any.fault(), &mut text);
    let mut found = vferry_report {
        size: 0,
        ending: ending_number(any),
        cause: why.cause,
        observed: why.observed,
        os_error: why.os_error,
        device: why.device,
        backend: backend_number(report.backend),
        devices: report.metrics.devices.len() as u32,
        streams: report.metrics.streams.len() as u32,
        reserved: 0,
        started_ns: timeline.started_ns,
        connected_ns: timeline.connected_ns.unwrap_or(0),
        stop_called_ns: timeline.stop_called_ns.unwrap_or(0),
        running_ns: timeline.running_ns.unwrap_or(0),
        finished_ns: timeline.finished_ns.unwrap_or(0),
        state_bytes: report.metrics.state_bytes(),
        wire_bytes: report.metrics.wire_bytes(),
        text,
        fallback: [0; VFERRY_TEXT_BYTES],
    };
    raw::fill_text(report.fallback.as_deref().unwrap_or(""), &mut found.fallback);
    found
}

pub(crate) fn one(report: &AnyReport, device: u32) -> Option<vferry_device_report> {
    let index = device as usize;
    let mut found = vferry_device_report {
        size: 0,
        device,
        epoch: 0,
        epoch_ending: 0,
        state: state_number(None),
        stuck: 0,
        bytes: 0,
        digest: [0; 16],
        discarded_bytes: 0,
        wire_bytes: 0,
        zero_chunks: 0,
        raw_chunks: 0,
        zstd_chunks: 0,
        late_frames: 0,
        home: 0,
        was_reset: 0,
        stop_ns: VFERRY_VALUE_UNKNOWN,
        load_ns: VFERRY_VALUE_UNKNOWN,
        run_ns: VFERRY_VALUE_UNKNOWN,
    };
    let side = match report {
        AnyReport::Source(report) => {
            let side = report.devices.get(index)?;
            [found.zero_chunks, found.raw_chunks, found.zstd_chunks] = side.chunks;
            found.wire_bytes = side.wire_bytes;
            found.was_reset = side.was_reset.into();
            let Latencies { stop, load, run } = side.latencies;
            [found.stop_ns, found.load_ns, found.run_ns] = [stop, load, run].map(nanoseconds);
            side
        }
        AnyReport::Target(report) => {
            let side = report.devices.get(index)?;
            found.late_frames = side.late_frames;
            side
        }
    };
    found.discarded_bytes = side.discarded_bytes;
    found.epoch = side.epoch.0;
    found.epoch_ending = side.ending.map_or(0, epoch_ending_number);
    found.bytes = side.total.bytes;
    found.digest = side.total.digest.0.to_be_bytes();
    found.stuck = side.stuck.into();
    found.state = state_number(side.state);
    found.home = side.home.into();
    Some(found)
}

fn nanoseconds(time: Option<Duration>) -> u64 {
    let ns = time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    ns.unwrap_or(VFERRY_VALUE_UNKNOWN)
}

/// Fills in the report of a session that has ended: as soon as VFERRY_EVENT_FINISHED can be fetched.
/// Never blocks. VFERRY_ERR_NOT_ENDED before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_report(
    session: Option<&vferry_session>,
    report: *mut vferry_report,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(report) }?;
        place.write(whole(raw::inner(session)?.report()?));
        Ok(())
    })
}

/// Fills in the report of one device, as it was when the session ended: of one that was late
/// VFERRY_EVENT_DEVICE_CAME_BACK says what it is now. As `vferry_session_report` otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_device_report(
    session: Option<&vferry_session>,
    device: u32,
    report: *mut vferry_device_report,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(report) }?;
        let found = one(raw::inner(session)?.report()?, device);
        let message = || Failure::new(VFERRY_ERR_UNKNOWN_NUMBER, format!("no device {device}"));
        place.write(found.ok_or_else(message)?);
        Ok(())
    })
}

/// Waits for the session's end, `timeout_ms` at most, and fills the report in. It drops the events
/// that come meanwhile. VFERRY_ERR_TIMEOUT when the session has not ended by then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_finish(
    session: Option<&mut vferry_session>,
    timeout_ms: i64,
    report: *mut vferry_report,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(report) }?;
        let session = raw::inner(session)?;
        let deadline = Deadline::after(timeout_ms)?;
        while !session.is_over() {
            let left = deadline.left();
            match session.session.wait_event(left) {
                Some(SessionEvent::Finished) => session.over.store(true, Ordering::Release),
                Some(_) => {}
                None if left.is_none() => break,
                None if left.is_some_and(|left| left.is_zero()) => {
                    return Err(Failure::not_now(VFERRY_ERR_TIMEOUT));
                }
                None => {}
            }
        }
        place.write(whole(session.report()?));
        Ok(())
    })
}
