//! The events of a session, and how they cross.

use std::ffi::c_char;
use std::time::Duration;

use bytes::Bytes;
use vfio_ferry::{Completion, DeviceReport, Estimate, Fault, Notice, is_ready};

use crate::failure::guarded_or;
use crate::hosts::AnyReport;
use crate::outcome::{
    cause_number, ending_number, epoch_ending_number, observed_number, phase_number,
};
use crate::raw::{self, Sized32};
use crate::values::{VFERRY_DEVICE_NONE, VFERRY_TEXT_BYTES, VFERRY_VALUE_UNKNOWN, state_number};

/// In an event's flags, of VFERRY_EVENT_BEGIN: the device saves in PRE_COPY.
pub const VFERRY_EVENT_FLAG_PRECOPY: u32 = 1;
/// In an event's flags, of VFERRY_EVENT_BEGIN: the source's device has the P2P states.
pub const VFERRY_EVENT_FLAG_P2P: u32 = 2;
/// In an event's flags, of VFERRY_EVENT_ESTIMATE: all devices' initial data is loaded at the target.
pub const VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED: u32 = 4;
/// In an event's flags, of VFERRY_EVENT_ESTIMATE: waiting cannot make it better. Every device is
/// drained, and its initial data is loaded.
pub const VFERRY_EVENT_FLAG_CONVERGED: u32 = 8;
/// In an event's flags, of VFERRY_EVENT_DEVICE_CAME_BACK: as `home` in a `vferry_device_report`.
pub const VFERRY_EVENT_FLAG_HOME: u32 = 16;
/// In an event's flags, of VFERRY_EVENT_DEVICE_CAME_BACK: as `was_reset` in a
/// `vferry_device_report`.
pub const VFERRY_EVENT_FLAG_WAS_RESET: u32 = 32;

/// What an event is about, and which fields of `vferry_event` it fills in besides `size` and `type`.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_event_type {
    /// Both hosts have agreed on the streams: `wire_version`, and the most `bytes` of a frame.
    VFERRY_EVENT_CONNECTED = 1,
    /// A device entered a phase: `device`, `phase`.
    VFERRY_EVENT_PHASE = 2,
    /// The source announced a device, and its name is the expected one (target): `device`, `flags`,
    /// its name in `text`, its opaque part as the payload.
    VFERRY_EVENT_BEGIN = 3,
    /// The target has written a device's initial PRE_COPY data: `device`.
    VFERRY_EVENT_INITIAL_DATA_LOADED = 4,
    /// What the downtime would be now (source, in PRE_COPY): `flags`, `pending_bytes`,
    /// `stop_copy_bytes`, `state_bytes_per_s`, `downtime_ns`, `ratio`, `switchover_budget_ns`. A newer
    /// one replaces one that was not fetched.
    VFERRY_EVENT_ESTIMATE = 5,
    /// An epoch of a device ended: `device`, `epoch`, `phase`, `epoch_ending`, `cause`, `observed`,
    /// `os_error`, `state`, `bytes`, `text`. It says nothing about the session.
    VFERRY_EVENT_COMPLETION = 6,
    /// The source has let go, and RUNNING follows (target). An embedded device is not moved before
    /// that is wanted: one that runs until then counts as reset.
    VFERRY_EVENT_HANDED_OVER = 7,
    /// A message of the peer's embedder: the payload.
    VFERRY_EVENT_MESSAGE = 8,
    /// The session has ended: `ending`, `cause`, `observed`, `os_error`, `device`, `text`.
    /// `vferry_session_report` tells more. The last event, unless a device is late.
    VFERRY_EVENT_FINISHED = 9,
    /// A device whose driver had not answered when the session ended has been let go of since:
    /// `device`, `epoch`, `epoch_ending`, `state`, `bytes`, and in `flags` whether it is where it was
    /// found. Once a device, after VFERRY_EVENT_FINISHED.
    VFERRY_EVENT_DEVICE_CAME_BACK = 10,
    /// How fast the path is, found out with padding while there was nothing else to send (source):
    /// `path_bytes_per_s`, `latency_ns`. A source without PRE_COPY that waits for it, a few tenths of a
    /// second at most, switches over with what it says. It does not come on streams that the VMM
    /// carries, where the engine seals TLS records, where `vferry_options_set_path_rate` has said
    /// it, nor where there was always something to send. Since version 7.
    VFERRY_EVENT_PATH = 11,
}

/// An event. Set `size` to sizeof(vferry_event) before the call. Fields that do not belong to its
/// type are 0, VFERRY_DEVICE_NONE, VFERRY_VALUE_UNKNOWN or VFERRY_STATE_UNKNOWN.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct vferry_event {
    /// In: the caller's sizeof. Out: the bytes that were filled in.
    pub size: u32,
    /// A `vferry_event_type`. Ignore unknown ones: later versions have more.
    pub r#type: u32,
    /// The device's number, or VFERRY_DEVICE_NONE.
    pub device: u32,
    /// The device's saving session, counted from 0. A discard starts the next one.
    pub epoch: u32,
    /// A `vferry_phase`.
    pub phase: u32,
    /// A `vferry_ending`: how the session ended.
    pub ending: u32,
    /// A `vferry_epoch_ending`: how the device's epoch ended.
    pub epoch_ending: u32,
    /// A `vferry_cause`: why, unless it was handed over.
    pub cause: u32,
    /// A `vferry_observed`: how the cause was found.
    pub observed: u32,
    /// The kernel's errno; 0 where there was none. 512 is ERESTARTSYS, which some drivers leak.
    pub os_error: i32,
    /// A `vferry_state`: the device's state, as the kernel or the VMM said last.
    pub state: i32,
    /// VFERRY_EVENT_FLAG_ bits.
    pub flags: u32,
    /// The agreed version of the wire.
    pub wire_version: u32,
    /// Zero.
    pub reserved: u32,
    /// Bytes of device state read (source) or written (target) in the epoch.
    pub bytes: u64,
    /// Bytes that `vferry_session_payload` has for this event.
    pub payload_bytes: u64,
    /// Bytes of PRE_COPY data that the devices report as unread, plus those read and not yet sent.
    pub pending_bytes: u64,
    /// Bytes of STOP_COPY data that the devices expect, or VFERRY_VALUE_UNKNOWN.
    pub stop_copy_bytes: u64,
    /// Measured bytes of state per second from device to device.
    pub state_bytes_per_s: u64,
    /// What the downtime would be now, in nanoseconds, or VFERRY_VALUE_UNKNOWN.
    pub downtime_ns: u64,
    /// Measured bytes of state over bytes on the wire.
    pub ratio: f64,
    /// A sentence for a person: what happened, and what to do about it.
    pub text: [c_char; VFERRY_TEXT_BYTES],
    /// The limit of the switchover, in nanoseconds, or VFERRY_VALUE_UNKNOWN where there is none. Since
    /// version 4.
    pub switchover_budget_ns: u64,
    /// What of `downtime_ns` are the devices' transitions and the way there and back; of
    /// VFERRY_EVENT_PATH, the way to the target's engine and back. In nanoseconds. Since version 6.
    pub latency_ns: u64,
    /// What one stream takes, in bytes per second on the wire. Since version 7.
    pub path_bytes_per_s: u64,
}

// SAFETY: repr(C), begins with the u32, and has only numbers.
unsafe impl Sized32 for vferry_event {
    const SIZE_MIN: usize = 624;
    const NAME: &'static str = "vferry_event";
    fn set_size(&mut self, size: u32) {
        self.size = size;
    }
}

impl vferry_event {
    fn new(kind: vferry_event_type) -> vferry_event {
        vferry_event {
            size: 0,
            r#type: kind as u32,
            device: VFERRY_DEVICE_NONE,
            epoch: 0,
            phase: 0,
            ending: 0,
            epoch_ending: 0,
            cause: 0,
            observed: 0,
            os_error: 0,
            state: state_number(None),
            flags: 0,
            wire_version: 0,
            reserved: 0,
            bytes: 0,
            payload_bytes: 0,
            pending_bytes: 0,
            stop_copy_bytes: VFERRY_VALUE_UNKNOWN,
            state_bytes_per_s: 0,
            downtime_ns: VFERRY_VALUE_UNKNOWN,
            ratio: 0.0,
            text: [0; VFERRY_TEXT_BYTES],
            switchover_budget_ns: VFERRY_VALUE_UNKNOWN,
            latency_ns: 0,
            path_bytes_per_s: 0,
        }
    }

    /// Fills in why, if there is a why. The device is the session's, if it has one.
    fn fault(&mut self, fault: Option<&Fault>) {
        let why = Why::of(fault, &mut self.text);
        (self.cause, self.observed, self.os_error) = (why.cause, why.observed, why.os_error);
        if self.device == VFERRY_DEVICE_NONE {
            self.device = why.device;
        }
    }
}

/// A fault as it crosses.
pub(crate) struct Why {
    pub(crate) cause: u32,
    pub(crate) observed: u32,
    pub(crate) os_error: i32,
    pub(crate) device: u32,
}

impl Why {
    /// Its numbers, and its sentence in `text`.
    pub(crate) fn of(fault: Option<&Fault>, text: &mut [c_char]) -> Why {
        let Some(fault) = fault else {
            return Why { cause: 0, observed: 0, os_error: 0, device: VFERRY_DEVICE_NONE };
        };
        raw::fill_text(&fault.message, text);
        Why {
            cause: cause_number(fault.cause),
            observed: observed_number(fault.observed),
            os_error: fault.errno.unwrap_or(0),
            device: fault.device.map_or(VFERRY_DEVICE_NONE, |device| device.0),
        }
    }
}

/// The bits of what is so.
fn flags(all: [(bool, u32); 2]) -> u32 {
    all.into_iter().filter(|(is_so, _)| *is_so).map(|(_, bit)| bit).sum()
}

/// A notice as it crosses, with its payload. None for one that this ABI has no type for.
pub(crate) fn cross(notice: Notice) -> Option<(vferry_event, Bytes)> {
    use vferry_event_type::*;
    let mut payload = Bytes::new();
    let mut event = match notice {
        Notice::Connected { version, chunk_bytes } => vferry_event {
            wire_version: version.into(),
            bytes: chunk_bytes.into(),
            ..vferry_event::new(VFERRY_EVENT_CONNECTED)
        },
        Notice::Phase { device, phase } => vferry_event {
            device: device.0,
            phase: phase_number(phase),
            ..vferry_event::new(VFERRY_EVENT_PHASE)
        },
        Notice::Begin { device, begin } => {
            let mut event =
                vferry_event { device: device.0, ..vferry_event::new(VFERRY_EVENT_BEGIN) };
            event.flags = flags([
                (begin.precopy, VFERRY_EVENT_FLAG_PRECOPY),
                (begin.p2p, VFERRY_EVENT_FLAG_P2P),
            ]);
            raw::fill_text(&begin.name, &mut event.text);
            payload = begin.opaque;
            event
        }
        Notice::InitialDataLoaded { device } => {
            vferry_event { device: device.0, ..vferry_event::new(VFERRY_EVENT_INITIAL_DATA_LOADED) }
        }
        Notice::Estimate(estimate) => estimated(&estimate),
        Notice::Completion(completion) => completed(&completion),
        Notice::HandedOver => vferry_event::new(VFERRY_EVENT_HANDED_OVER),
        Notice::Message(message) => {
            payload = message;
            vferry_event::new(VFERRY_EVENT_MESSAGE)
        }
        Notice::CameBack(report) => came_back(&report),
        Notice::Path { bytes_per_s, round_trip_ns } => vferry_event {
            path_bytes_per_s: bytes_per_s,
            latency_ns: round_trip_ns,
            ..vferry_event::new(VFERRY_EVENT_PATH)
        },
        _ => return None,
    };
    event.payload_bytes = payload.len() as u64;
    Some((event, payload))
}

fn estimated(estimate: &Estimate) -> vferry_event {
    vferry_event {
        flags: flags([
            (estimate.initial_data_loaded, VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED),
            (estimate.converged, VFERRY_EVENT_FLAG_CONVERGED),
        ]),
        pending_bytes: estimate.pending_bytes,
        stop_copy_bytes: estimate.stop_copy_bytes.unwrap_or(VFERRY_VALUE_UNKNOWN),
        state_bytes_per_s: estimate.state_bytes_per_s,
        downtime_ns: estimate.downtime_ns.unwrap_or(VFERRY_VALUE_UNKNOWN),
        ratio: estimate.ratio,
        switchover_budget_ns: estimate.switchover_budget_ns.unwrap_or(VFERRY_VALUE_UNKNOWN),
        latency_ns: estimate.latency_ns,
        ..vferry_event::new(vferry_event_type::VFERRY_EVENT_ESTIMATE)
    }
}

fn came_back(report: &DeviceReport) -> vferry_event {
    vferry_event {
        device: report.device.0,
        epoch: report.epoch.0,
        epoch_ending: report.ending.map_or(0, epoch_ending_number),
        state: state_number(report.state),
        bytes: report.total.bytes,
        flags: flags([
            (report.home, VFERRY_EVENT_FLAG_HOME),
            (report.was_reset, VFERRY_EVENT_FLAG_WAS_RESET),
        ]),
        ..vferry_event::new(vferry_event_type::VFERRY_EVENT_DEVICE_CAME_BACK)
    }
}

fn completed(completion: &Completion) -> vferry_event {
    let mut event = vferry_event {
        device: completion.device.0,
        epoch: completion.epoch.0,
        phase: phase_number(completion.phase),
        epoch_ending: epoch_ending_number(completion.ending),
        state: state_number(completion.state),
        bytes: completion.bytes,
        ..vferry_event::new(vferry_event_type::VFERRY_EVENT_COMPLETION)
    };
    event.fault(completion.fault.as_ref());
    event
}

pub(crate) fn finished(report: &AnyReport) -> vferry_event {
    let mut event = vferry_event {
        ending: ending_number(report),
        ..vferry_event::new(vferry_event_type::VFERRY_EVENT_FINISHED)
    };
    event.fault(report.fault());
    event
}

/// Whether an estimate says that the vCPUs can be stopped now: all initial data is loaded at the
/// target, and the downtime would be `downtime_ns_max` at most. Where too little was sent to measure
/// a rate, the second condition is that no PRE_COPY data is pending. False for events other than
/// VFERRY_EVENT_ESTIMATE, and for NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_event_is_ready(
    event: Option<&vferry_event>,
    downtime_ns_max: u64,
) -> bool {
    guarded_or(false, || {
        let estimate = vferry_event_type::VFERRY_EVENT_ESTIMATE as u32;
        let Some(event) = event.filter(|event| event.r#type == estimate) else { return false };
        let known = |number: u64| (number != VFERRY_VALUE_UNKNOWN).then_some(number);
        let mut estimate = Estimate::default();
        estimate.initial_data_loaded = event.flags & VFERRY_EVENT_FLAG_INITIAL_DATA_LOADED != 0;
        estimate.pending_bytes = event.pending_bytes;
        estimate.downtime_ns = known(event.downtime_ns);
        is_ready(&estimate, Duration::from_nanos(downtime_ns_max))
    })
}

const _: () = assert!(size_of::<vferry_event>() >= vferry_event::SIZE_MIN);
