//! Limits, and enumerations. These cross as plain integers, because C may pass any number. They are
//! the engine's own order counted from 1, with 0 for "none"; a device's states have the kernel's
//! numbers.

use std::ffi::{CStr, c_char};

use vfio_ferry::{DeviceState, Host, Step, limits};

use crate::failure::Failure;
use crate::status::vferry_status::VFERRY_ERR_RANGE;

/// Most streams of one session, and the room that `vferry_listener_accept` may need.
pub const VFERRY_STREAMS_MAX: usize = 64;
/// Most devices of one session.
pub const VFERRY_DEVICES_MAX: usize = 64;
/// Most bytes of one message, and of a device's opaque part.
pub const VFERRY_MESSAGE_BYTES_MAX: usize = 32768;
/// Most messages from one host that wait for the peer's engine, and most that wait at the peer for
/// its embedder.
pub const VFERRY_MESSAGES_WAITING_MAX: usize = 64;
/// Room for a text in an event, report or log line, the NUL included.
pub const VFERRY_TEXT_BYTES: usize = 512;
/// In a field for a device's number: no device, the whole session.
pub const VFERRY_DEVICE_NONE: u32 = 0xffff_ffff;
/// In a field for bytes or nanoseconds: not known.
pub const VFERRY_VALUE_UNKNOWN: u64 = 0xffff_ffff_ffff_ffff;
/// For a number of milliseconds that limits a wait: no limit.
pub const VFERRY_NO_LIMIT: i64 = -1;

const _: () = assert!(VFERRY_STREAMS_MAX == limits::STREAMS_MAX);
const _: () = assert!(VFERRY_DEVICES_MAX == limits::DEVICES_MAX);
const _: () = assert!(VFERRY_MESSAGE_BYTES_MAX == limits::MESSAGE_BYTES_MAX);
const _: () = assert!(VFERRY_MESSAGES_WAITING_MAX == limits::MESSAGES_WAITING_MAX);

/// Which host of a migration this is.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_host {
    /// The host that the device leaves.
    VFERRY_HOST_SOURCE = 1,
    /// The host that the device goes to.
    VFERRY_HOST_TARGET = 2,
}

/// A device's migration state: the numbers of `enum vfio_device_mig_state` in linux/vfio.h.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_state {
    /// Nobody knows: the call that would tell has failed, or has not returned.
    VFERRY_STATE_UNKNOWN = -1,
    /// The device has failed and must be reset.
    VFERRY_STATE_ERROR = 0,
    /// Stopped.
    VFERRY_STATE_STOP = 1,
    /// Running normally.
    VFERRY_STATE_RUNNING = 2,
    /// Stopped, and its state can be read from the data fd.
    VFERRY_STATE_STOP_COPY = 3,
    /// Stopped, and its state can be written to the data fd.
    VFERRY_STATE_RESUMING = 4,
    /// Running without DMA to other devices.
    VFERRY_STATE_RUNNING_P2P = 5,
    /// Running, and its state can be read while it changes.
    VFERRY_STATE_PRE_COPY = 6,
    /// PRE_COPY without DMA to other devices.
    VFERRY_STATE_PRE_COPY_P2P = 7,
}

/// A step that a chunk of state, or a request to a device, goes through.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_step {
    /// A chunk was read from the data fd, waiting for the device included.
    VFERRY_STEP_READ = 1,
    /// A chunk waited for a worker and was compressed.
    VFERRY_STEP_ENCODE = 2,
    /// A frame was sent: until the kernel had all of it.
    VFERRY_STEP_SEND = 3,
    /// A body was received: from its header until its last byte.
    VFERRY_STEP_RECEIVE = 4,
    /// A body waited for a worker and was decompressed.
    VFERRY_STEP_DECODE = 5,
    /// A chunk was written to the resume fd, waiting for the device included.
    VFERRY_STEP_WRITE = 6,
    /// A request to the device: SET_STATE, GET_STATE, GET_PRECOPY_INFO, RESET.
    VFERRY_STEP_CONTROL = 7,
}

/// The place in a list, counted from 1; 0 for what is not in it.
pub(crate) fn place<T: PartialEq>(list: &[T], value: &T) -> u32 {
    list.iter().position(|known| known == value).map_or(0, |index| index as u32 + 1)
}

pub(crate) fn state_number(state: Option<DeviceState>) -> i32 {
    state.map_or(-1, |state| state as i32)
}

/// Looks a number of C's up in a list that counts from 1.
pub(crate) fn pick<T: Copy>(list: &[T], number: u32, what: &'static str) -> Result<T, Failure> {
    let index = (number as usize).checked_sub(1);
    index.and_then(|index| list.get(index)).copied().ok_or_else(|| unknown(what, number))
}

pub(crate) fn unknown(what: &'static str, number: impl std::fmt::Display) -> Failure {
    Failure::new(VFERRY_ERR_RANGE, format!("there is no {what} {number}"))
}

pub(crate) fn step(number: u32) -> Result<Step, Failure> {
    pick(&Step::ALL, number, "step")
}

pub(crate) fn host(number: u32) -> Result<Host, Failure> {
    pick(&[Host::Source, Host::Target], number, "host")
}

pub(crate) fn state(number: i32) -> Result<DeviceState, Failure> {
    let known = usize::try_from(number).ok().and_then(|index| DeviceState::ALL.get(index));
    known.copied().ok_or_else(|| unknown("device state", number))
}

pub(crate) fn name(names: &[&'static CStr], number: i64) -> *const c_char {
    let known = usize::try_from(number).ok().and_then(|index| names.get(index));
    known.copied().unwrap_or(c"unknown").as_ptr()
}

const STEPS: [&CStr; 8] =
    [c"none", c"read", c"encode", c"send", c"receive", c"decode", c"write", c"control"];
const STATES: [&CStr; 8] = [
    c"ERROR",
    c"STOP",
    c"RUNNING",
    c"STOP_COPY",
    c"RESUMING",
    c"RUNNING_P2P",
    c"PRE_COPY",
    c"PRE_COPY_P2P",
];

/// The name of a `vferry_step`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_step_text(step: u32) -> *const c_char {
    name(&STEPS, step.into())
}

/// The name of a `vferry_state`, as the kernel writes it. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_state_text(state: i32) -> *const c_char {
    name(&STATES, state.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_the_engines() {
        assert_eq!(STEPS.len(), Step::ALL.len() + 1);
        for (index, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(STEPS[index + 1].to_str(), Ok(step.name()));
            assert_eq!(self::step(index as u32 + 1).ok(), Some(step));
        }
        assert_eq!(STATES.len(), DeviceState::ALL.len());
        for state in DeviceState::ALL {
            assert_eq!(STATES[state as usize].to_str(), Ok(state.name()));
            assert_eq!(state_number(Some(state)), state as i32);
        }
        assert_eq!(state_number(None), vferry_state::VFERRY_STATE_UNKNOWN as i32);
    }

    #[test]
    fn the_headers_numbers_are_these() {
        assert_eq!(step(vferry_step::VFERRY_STEP_CONTROL as u32).ok(), Some(Step::Control));
        assert_eq!(host(vferry_host::VFERRY_HOST_SOURCE as u32).ok(), Some(Host::Source));
        assert_eq!(host(vferry_host::VFERRY_HOST_TARGET as u32).ok(), Some(Host::Target));
        let resuming = vferry_state::VFERRY_STATE_RESUMING as i32;
        assert_eq!(state(resuming).ok(), Some(DeviceState::Resuming));
        assert!(step(0).is_err() && step(8).is_err() && host(0).is_err() && host(3).is_err());
        assert!(state(-1).is_err() && state(8).is_err());
    }
}
