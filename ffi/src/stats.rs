//! The figures of a session, while it runs and afterwards.

use vfio_ferry::{Metrics, Phase, Step};

use crate::failure::{Failure, guarded};
use crate::outcome;
use crate::raw::{self, Sized32};
use crate::session::vferry_session;
use crate::status::vferry_status::{self, *};
use crate::values;

/// Sums for one device, all epochs. Set `size` to sizeof(vferry_device_stats) before the call. Times
/// of operations that overlap are added up.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_device_stats {
    /// In: the caller's sizeof. Out: the bytes that were filled in.
    pub size: u32,
    /// The device's number.
    pub device: u32,
    /// Bytes of state read (source) or written (target).
    pub state_bytes: u64,
    /// Bytes of its data frames on the wire.
    pub wire_bytes: u64,
    /// Time in which its data fd was read or written.
    pub device_ns: u64,
    /// Time in which its chunks waited for a worker or were with one.
    pub worker_ns: u64,
    /// Time in which its frames were sent or received.
    pub link_ns: u64,
}

/// Sums for one stream. Set `size` to sizeof(vferry_stream_stats) before the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_stream_stats {
    /// In: the caller's sizeof. Out: the bytes that were filled in.
    pub size: u32,
    /// The stream's number: its place among the fds that the session was made with.
    pub stream: u32,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Frames sent.
    pub sent_frames: u64,
    /// Frames received.
    pub received_frames: u64,
    /// Time in which a send was under way.
    pub send_ns: u64,
}

/// The durations of something that happens often. Set `size` to sizeof(vferry_duration_stats) before
/// the call. Nanoseconds, exact to 1 %; 0 where it did not happen.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_duration_stats {
    /// In: the caller's sizeof. Out: the bytes that were filled in.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// How often it happened.
    pub count: u64,
    /// The shortest.
    pub min_ns: u64,
    /// The mean.
    pub mean_ns: u64,
    /// Half of them took at most this.
    pub p50_ns: u64,
    /// 99 of 100 took at most this.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

macro_rules! sized {
    ($($type:ident, $bytes:literal;)*) => {$(
        // SAFETY: repr(C), begins with the u32, and has only numbers.
        unsafe impl Sized32 for $type {
            const SIZE_MIN: usize = $bytes;
            const NAME: &'static str = stringify!($type);
            fn set_size(&mut self, size: u32) {
                self.size = size;
            }
        }
        const _: () = assert!(size_of::<$type>() == $type::SIZE_MIN);
    )*};
}

sized! {
    vferry_device_stats, 48;
    vferry_stream_stats, 48;
    vferry_duration_stats, 56;
}

fn metrics(session: Option<&vferry_session>) -> Result<Metrics, Failure> {
    Ok(raw::inner(session)?.session.metrics())
}

/// Fills in the sums of one device so far. Never blocks. While the session runs they may be a tenth
/// of a second old.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_device_stats(
    session: Option<&vferry_session>,
    device: u32,
    stats: *mut vferry_device_stats,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(stats) }?;
        let found = device_stats(&metrics(session)?, device);
        place.write(found.ok_or_else(|| none("device", device))?);
        Ok(())
    })
}

/// Fills in the sums of one stream so far. As `vferry_session_device_stats` otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_stream_stats(
    session: Option<&vferry_session>,
    stream: u32,
    stats: *mut vferry_stream_stats,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(stats) }?;
        let found = stream_stats(&metrics(session)?, stream);
        place.write(found.ok_or_else(|| none("stream", stream))?);
        Ok(())
    })
}

/// Fills in how long the chunks of all devices took at a `vferry_step`. As
/// `vferry_session_device_stats` otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_step_stats(
    session: Option<&vferry_session>,
    step: u32,
    stats: *mut vferry_duration_stats,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(stats) }?;
        let metrics = metrics(session)?;
        place.write(step_stats(&metrics, values::step(step)?));
        Ok(())
    })
}

/// Fills in how long the devices spent in a `vferry_phase`: one value each time that a device left
/// it. As `vferry_session_device_stats` otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vferry_session_phase_stats(
    session: Option<&vferry_session>,
    phase: u32,
    stats: *mut vferry_duration_stats,
) -> vferry_status {
    guarded(|| {
        // SAFETY: the caller's struct, as the header asks.
        let place = unsafe { raw::struct_out(stats) }?;
        let metrics = metrics(session)?;
        place.write(phase_stats(&metrics, outcome::phase(phase)?));
        Ok(())
    })
}

pub(crate) fn device_stats(metrics: &Metrics, device: u32) -> Option<vferry_device_stats> {
    let found = metrics.devices.get(device as usize)?;
    Some(vferry_device_stats {
        size: 0,
        device,
        state_bytes: found.state_bytes,
        wire_bytes: found.wire_bytes,
        device_ns: found.device_ns,
        worker_ns: found.worker_ns,
        link_ns: found.link_ns,
    })
}

pub(crate) fn stream_stats(metrics: &Metrics, stream: u32) -> Option<vferry_stream_stats> {
    let found = metrics.streams.get(stream as usize)?;
    Some(vferry_stream_stats {
        size: 0,
        stream,
        sent_bytes: found.sent_bytes,
        received_bytes: found.received_bytes,
        sent_frames: found.sent_frames,
        received_frames: found.received_frames,
        send_ns: found.send_ns,
    })
}

/// The type of a histogram is not this crate's to name.
macro_rules! durations {
    ($found:expr) => {{
        let found = $found;
        vferry_duration_stats {
            size: 0,
            reserved: 0,
            count: found.len(),
            min_ns: found.min(),
            mean_ns: found.mean() as u64,
            p50_ns: found.value_at_quantile(0.5),
            p99_ns: found.value_at_quantile(0.99),
            max_ns: found.max(),
        }
    }};
}

pub(crate) fn step_stats(metrics: &Metrics, step: Step) -> vferry_duration_stats {
    durations!(metrics.step(step))
}

pub(crate) fn phase_stats(metrics: &Metrics, phase: Phase) -> vferry_duration_stats {
    durations!(metrics.phase(phase))
}

fn none(what: &str, number: u32) -> Failure {
    Failure::new(VFERRY_ERR_UNKNOWN_NUMBER, format!("the session has no {what} {number}"))
}
