//! The enumerations of the header. They cross as plain integers, because what C passes may be any
//! number. Numbers are the engine's own order counted from 1, with 0 for "none", and a device's
//! states are the kernel's.

use std::ffi::{CStr, c_char};

use vfio_ferry::session::{Cause, DeviceState, Ending, Host, Observation, Phase, Step};

use crate::failure::Failure;
use crate::status::vferry_status::VFERRY_ERR_RANGE;

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
    /// Not known: it could not be read, or was not asked for.
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

/// Where in its migration a device is.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_phase {
    /// None.
    VFERRY_PHASE_NONE = 0,
    /// Streams are being agreed on; the device has not been touched.
    VFERRY_PHASE_CONNECT = 1,
    /// The device is entering its first saving state (source) or RESUMING (target).
    VFERRY_PHASE_START = 2,
    /// The guest runs and the device saves in PRE_COPY (source) or loads (target).
    VFERRY_PHASE_PRE_COPY = 3,
    /// From the call that stops the device until it is in STOP_COPY.
    VFERRY_PHASE_STOP = 4,
    /// The stopped device's last state is read and sent (source), or received and written (target).
    VFERRY_PHASE_STOP_COPY = 5,
    /// The source has sent everything; the target verifies and leaves RESUMING.
    VFERRY_PHASE_LOAD = 6,
    /// The target has confirmed; the source lets go.
    VFERRY_PHASE_HANDOVER = 7,
    /// The target's device goes to RUNNING.
    VFERRY_PHASE_RESUME = 8,
}

/// How a device's epoch, or a migration, ended on this host.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_ending {
    /// It has not.
    VFERRY_ENDING_NONE = 0,
    /// The target's device holds the whole state and runs; the source has let go.
    VFERRY_ENDING_COMPLETE = 1,
    /// The source let go after the target had confirmed the loaded state, and then lost the target
    /// before it heard of RUNNING. The device stays stopped here. It may be resumed only once it is
    /// certain that the target does not run it.
    VFERRY_ENDING_UNCONFIRMED = 2,
    /// The device's epoch was discarded, and its saving started again.
    VFERRY_ENDING_RESTARTED = 3,
    /// The device was not handed over.
    VFERRY_ENDING_ABORTED = 4,
}

/// Who or what ended an epoch or a migration.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_cause {
    /// Nothing: it completed.
    VFERRY_CAUSE_NONE = 0,
    /// The device was reset (guest FLR, hot reset, VFIO_DEVICE_RESET): it is in RUNNING again, and
    /// the state saved or loaded so far is worthless.
    VFERRY_CAUSE_DEVICE_RESET = 1,
    /// The device or its firmware failed to save or load; its state did not change.
    VFERRY_CAUSE_DEVICE_FAILURE = 2,
    /// The device is in ERROR and needs a reset.
    VFERRY_CAUSE_DEVICE_ERROR = 3,
    /// The peer aborted, and said why.
    VFERRY_CAUSE_PEER_ABORT = 4,
    /// The peer sent what the protocol does not allow.
    VFERRY_CAUSE_PEER_MISBEHAVIOUR = 5,
    /// A stream broke, ended early or stayed silent too long.
    VFERRY_CAUSE_NETWORK = 6,
    /// The embedder cancelled.
    VFERRY_CAUSE_CANCELLED = 7,
    /// This host could not go on: memory, threads, ring.
    VFERRY_CAUSE_LOCAL = 8,
}

/// How the cause came to be known.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_observed {
    /// There is no cause.
    VFERRY_OBSERVED_NONE = 0,
    /// A read of the data fd failed.
    VFERRY_OBSERVED_READ = 1,
    /// A poll of the data fd reported RDHUP or an error.
    VFERRY_OBSERVED_POLL = 2,
    /// VFIO_MIG_GET_PRECOPY_INFO failed.
    VFERRY_OBSERVED_PRECOPY_INFO = 3,
    /// PRE_COPY to STOP_COPY gave a new data fd: the session that it belonged to had died.
    VFERRY_OBSERVED_UNEXPECTED_FD = 4,
    /// SET_STATE succeeded, but the fd that it gave was already dead.
    VFERRY_OBSERVED_DEAD_ON_ARRIVAL = 5,
    /// The device's state was not what the migration had left it in.
    VFERRY_OBSERVED_STATE_CHECK = 6,
    /// A write to the resume fd failed.
    VFERRY_OBSERVED_WRITE = 7,
    /// SET_STATE failed.
    VFERRY_OBSERVED_SET_STATE = 8,
    /// The peer said so.
    VFERRY_OBSERVED_PEER = 9,
    /// A stream of the session showed it.
    VFERRY_OBSERVED_STREAM = 10,
    /// The embedder said or asked for it.
    VFERRY_OBSERVED_EMBEDDER = 11,
    /// This host's own mechanism reported it.
    VFERRY_OBSERVED_ENGINE = 12,
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

const ENDINGS: [Ending; 4] =
    [Ending::Complete, Ending::Unconfirmed, Ending::Restarted, Ending::Aborted];

/// The place in a list, counted from 1; 0 for what is not in it.
fn place<T: PartialEq>(list: &[T], value: &T) -> u32 {
    list.iter().position(|known| known == value).map_or(0, |index| index as u32 + 1)
}

pub(crate) fn phase_number(phase: Phase) -> u32 {
    place(&Phase::ALL, &phase)
}

pub(crate) fn ending_number(ending: Ending) -> u32 {
    place(&ENDINGS, &ending)
}

pub(crate) fn cause_number(cause: Cause) -> u32 {
    place(&Cause::ALL, &cause)
}

pub(crate) fn observed_number(observed: Observation) -> u32 {
    place(&Observation::ALL, &observed)
}

pub(crate) fn state_number(state: Option<DeviceState>) -> i32 {
    state.map_or(-1, |state| state as i32)
}

/// Looks a number of C's up in a list that counts from 1.
fn pick<T: Copy>(list: &[T], number: u32, what: &'static str) -> Result<T, Failure> {
    let index = (number as usize).checked_sub(1);
    index.and_then(|index| list.get(index)).copied().ok_or_else(|| unknown(what, number))
}

pub(crate) fn unknown(what: &'static str, number: impl std::fmt::Display) -> Failure {
    Failure::new(VFERRY_ERR_RANGE, format!("there is no {what} {number}"))
}

pub(crate) fn phase(number: u32) -> Result<Phase, Failure> {
    pick(&Phase::ALL, number, "phase")
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

fn name(names: &[&'static CStr], number: i64) -> *const c_char {
    let known = usize::try_from(number).ok().and_then(|index| names.get(index));
    known.copied().unwrap_or(c"unknown").as_ptr()
}

const PHASES: [&CStr; 9] = [
    c"none",
    c"connect",
    c"start",
    c"pre_copy",
    c"stop",
    c"stop_copy",
    c"load",
    c"handover",
    c"resume",
];
const ENDING_NAMES: [&CStr; 5] = [c"none", c"complete", c"unconfirmed", c"restarted", c"aborted"];
const CAUSES: [&CStr; 9] = [
    c"none",
    c"device_reset",
    c"device_failure",
    c"device_error",
    c"peer_abort",
    c"peer_misbehaviour",
    c"network",
    c"cancelled",
    c"local",
];
const OBSERVED: [&CStr; 13] = [
    c"none",
    c"read",
    c"poll",
    c"precopy_info",
    c"unexpected_fd",
    c"dead_on_arrival",
    c"state_check",
    c"write",
    c"set_state",
    c"peer",
    c"stream",
    c"embedder",
    c"engine",
];
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

/// The name of a `vferry_phase`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_phase_text(phase: u32) -> *const c_char {
    name(&PHASES, phase.into())
}

/// The name of a `vferry_ending`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_ending_text(ending: u32) -> *const c_char {
    name(&ENDING_NAMES, ending.into())
}

/// The name of a `vferry_cause`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_cause_text(cause: u32) -> *const c_char {
    name(&CAUSES, cause.into())
}

/// The name of a `vferry_observed`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_observed_text(observed: u32) -> *const c_char {
    name(&OBSERVED, observed.into())
}

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

    fn says(names: &[&CStr], number: u32, name: &str) {
        assert_eq!(names[number as usize].to_str(), Ok(name));
        assert_ne!(number, 0, "{name}");
    }

    #[test]
    fn numbers_and_names_are_the_engines() {
        assert_eq!(PHASES.len(), Phase::ALL.len() + 1);
        Phase::ALL.iter().for_each(|&x| says(&PHASES, phase_number(x), x.name()));
        assert_eq!(CAUSES.len(), Cause::ALL.len() + 1);
        Cause::ALL.iter().for_each(|&x| says(&CAUSES, cause_number(x), x.name()));
        assert_eq!(OBSERVED.len(), Observation::ALL.len() + 1);
        Observation::ALL.iter().for_each(|&x| says(&OBSERVED, observed_number(x), x.name()));
        ENDINGS.iter().for_each(|&x| says(&ENDING_NAMES, ending_number(x), x.name()));
        assert_eq!(STEPS.len(), Step::ALL.len() + 1);
        Step::ALL.iter().for_each(|x| says(&STEPS, place(&Step::ALL, x), x.name()));
        assert_eq!(STATES.len(), DeviceState::ALL.len());
        for state in DeviceState::ALL {
            assert_eq!(STATES[state as usize].to_str(), Ok(state.name()));
        }
    }

    #[test]
    fn the_headers_numbers_are_these() {
        use vferry_observed::*;
        assert_eq!(phase_number(Phase::Resume), vferry_phase::VFERRY_PHASE_RESUME as u32);
        assert_eq!(ending_number(Ending::Aborted), vferry_ending::VFERRY_ENDING_ABORTED as u32);
        assert_eq!(cause_number(Cause::Network), vferry_cause::VFERRY_CAUSE_NETWORK as u32);
        assert_eq!(observed_number(Observation::Write), VFERRY_OBSERVED_WRITE as u32);
        assert_eq!(step(vferry_step::VFERRY_STEP_CONTROL as u32).ok(), Some(Step::Control));
        assert_eq!(host(vferry_host::VFERRY_HOST_TARGET as u32).ok(), Some(Host::Target));
        let resuming = vferry_state::VFERRY_STATE_RESUMING as i32;
        assert_eq!(state(resuming).ok(), Some(DeviceState::Resuming));
        assert!(phase(0).is_err() && phase(9).is_err() && state(-1).is_err() && state(8).is_err());
    }
}
