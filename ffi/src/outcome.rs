//! Where a device is in its migration, how that ended, why, and how it was seen.

use std::ffi::{CStr, c_char};

use vfio_ferry::session::{Cause, Ending, Observation, Phase};

use crate::failure::Failure;
use crate::values;

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

const ENDINGS: [Ending; 4] =
    [Ending::Complete, Ending::Unconfirmed, Ending::Restarted, Ending::Aborted];

pub(crate) fn phase_number(phase: Phase) -> u32 {
    values::place(&Phase::ALL, &phase)
}

pub(crate) fn ending_number(ending: Ending) -> u32 {
    values::place(&ENDINGS, &ending)
}

pub(crate) fn cause_number(cause: Cause) -> u32 {
    values::place(&Cause::ALL, &cause)
}

pub(crate) fn observed_number(observed: Observation) -> u32 {
    values::place(&Observation::ALL, &observed)
}

pub(crate) fn phase(number: u32) -> Result<Phase, Failure> {
    values::pick(&Phase::ALL, number, "phase")
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
/// The name of a `vferry_phase`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_phase_text(phase: u32) -> *const c_char {
    values::name(&PHASES, phase.into())
}

/// The name of a `vferry_ending`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_ending_text(ending: u32) -> *const c_char {
    values::name(&ENDING_NAMES, ending.into())
}

/// The name of a `vferry_cause`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_cause_text(cause: u32) -> *const c_char {
    values::name(&CAUSES, cause.into())
}

/// The name of a `vferry_observed`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_observed_text(observed: u32) -> *const c_char {
    values::name(&OBSERVED, observed.into())
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
    }

    #[test]
    fn the_headers_numbers_are_these() {
        use vferry_observed::*;
        assert_eq!(phase_number(Phase::Resume), vferry_phase::VFERRY_PHASE_RESUME as u32);
        assert_eq!(ending_number(Ending::Aborted), vferry_ending::VFERRY_ENDING_ABORTED as u32);
        assert_eq!(cause_number(Cause::Network), vferry_cause::VFERRY_CAUSE_NETWORK as u32);
        assert_eq!(observed_number(Observation::Write), VFERRY_OBSERVED_WRITE as u32);
        assert!(phase(0).is_err() && phase(9).is_err());
    }
}
