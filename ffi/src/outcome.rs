//! Where a device is in its migration, how that ended, why, and how it was seen.

use std::ffi::{CStr, c_char};

use vfio_ferry::{Cause, EpochEnding, Observation, Phase, SourceEnding, TargetEnding};

use crate::failure::Failure;
use crate::hosts::AnyReport;
use crate::values;

/// A device's progress in its migration.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_phase {
    /// None.
    VFERRY_PHASE_NONE = 0,
    /// The hosts agree on the streams. The device is untouched.
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
    /// The target has confirmed the loaded state; the source hands the device over.
    VFERRY_PHASE_HANDOVER = 7,
    /// The target's device goes to RUNNING.
    VFERRY_PHASE_RESUME = 8,
}

/// How a session ended on this host, and with that what the VMM does next; the table at the top of
/// this header has all of it.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_ending {
    /// It has not ended.
    VFERRY_ENDING_NONE = 0,
    /// Source: the target runs the devices. Destroy the VM here.
    VFERRY_ENDING_HANDED_OVER = 1,
    /// Source: nothing of the devices is left to the session. Those that the engine drives are where
    /// it found them; an embedded one is where its VMM left it, who brings it to RUNNING. Then resume
    /// the vCPUs.
    VFERRY_ENDING_RETURNED = 2,
    /// Source: some device is not where the session found it, or nobody knows. The devices' reports
    /// tell which (`home`). It may still come: VFERRY_EVENT_DEVICE_CAME_BACK. Bring it to RUNNING or
    /// reset it before the vCPUs are resumed.
    VFERRY_ENDING_NOT_RETURNED = 3,
    /// Source: the target was told to run, and the source never heard whether it does. Nothing may run
    /// here before it is certain that the target does not.
    VFERRY_ENDING_UNCONFIRMED = 4,
    /// Target: every device holds the whole state, and runs or, with VFERRY_EMBEDDED_STARTS_LATER, is
    /// in STOP. Start the vCPUs.
    VFERRY_ENDING_RUNNING = 5,
    /// Target: no device holds any of the state: each was reset, or was not touched.
    VFERRY_ENDING_BLANK = 6,
    /// Target: some device may hold a part of the state. Reset it before it is used.
    VFERRY_ENDING_NOT_BLANK = 7,
}

/// How an epoch of a device ended. For what becomes of the VM see `vferry_ending`.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_epoch_ending {
    /// It has not ended.
    VFERRY_EPOCH_NONE = 0,
    /// The target's device holds the whole state, and the source has handed it over.
    VFERRY_EPOCH_COMPLETE = 1,
    /// The source has handed the device over, and never heard whether it runs at the target.
    VFERRY_EPOCH_UNCONFIRMED = 2,
    /// The epoch was discarded, and the device's saving was started again in the next one.
    VFERRY_EPOCH_RESTARTED = 3,
    /// The epoch ended without a handover, and no other follows.
    VFERRY_EPOCH_ABORTED = 4,
}

/// What ended an epoch or a session.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum vferry_cause {
    /// Nothing: it was handed over.
    VFERRY_CAUSE_NONE = 0,
    /// The device was reset (guest FLR, hot reset, VFIO_DEVICE_RESET). It is in RUNNING again, and the
    /// state saved or loaded so far is worthless.
    VFERRY_CAUSE_DEVICE_RESET = 1,
    /// The device or its firmware failed to save or load. Its migration state did not change.
    VFERRY_CAUSE_DEVICE_FAILURE = 2,
    /// The device is in ERROR and needs a reset.
    VFERRY_CAUSE_DEVICE_ERROR = 3,
    /// The peer aborted. The text has its reason.
    VFERRY_CAUSE_PEER_ABORT = 4,
    /// The peer broke the protocol.
    VFERRY_CAUSE_PEER_MISBEHAVIOUR = 5,
    /// A stream broke, ended early, or was silent for too long.
    VFERRY_CAUSE_NETWORK = 6,
    /// The embedder cancelled.
    VFERRY_CAUSE_CANCELLED = 7,
    /// This host failed: memory, threads, ring.
    VFERRY_CAUSE_LOCAL = 8,
    /// A limit of the session's options was over. The text names it, and who owed what.
    VFERRY_CAUSE_TIME_LIMIT = 9,
}

/// How the cause was found.
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
    /// PRE_COPY to STOP_COPY gave a new data fd: the device had been reset in between.
    VFERRY_OBSERVED_UNEXPECTED_FD = 4,
    /// SET_STATE succeeded, but its data fd was dead at the first read.
    VFERRY_OBSERVED_DEAD_ON_ARRIVAL = 5,
    /// GET_STATE gave another state than the migration had set.
    VFERRY_OBSERVED_STATE_CHECK = 6,
    /// A write to the resume fd failed.
    VFERRY_OBSERVED_WRITE = 7,
    /// SET_STATE failed.
    VFERRY_OBSERVED_SET_STATE = 8,
    /// The peer said so.
    VFERRY_OBSERVED_PEER = 9,
    /// A stream of the session failed.
    VFERRY_OBSERVED_STREAM = 10,
    /// The embedder asked for it, or reported it.
    VFERRY_OBSERVED_EMBEDDER = 11,
    /// The engine itself reported it.
    VFERRY_OBSERVED_ENGINE = 12,
    /// The clock showed it.
    VFERRY_OBSERVED_CLOCK = 13,
}

const EPOCH_ENDINGS: [EpochEnding; 4] =
    [EpochEnding::Complete, EpochEnding::Unconfirmed, EpochEnding::Restarted, EpochEnding::Aborted];

pub(crate) fn phase_number(phase: Phase) -> u32 {
    values::place(&Phase::ALL, &phase)
}

pub(crate) fn epoch_ending_number(ending: EpochEnding) -> u32 {
    values::place(&EPOCH_ENDINGS, &ending)
}

pub(crate) fn ending_number(report: &AnyReport) -> u32 {
    match report {
        AnyReport::Source(report) => source_ending(&report.ending) as u32,
        AnyReport::Target(report) => target_ending(&report.ending) as u32,
    }
}

fn source_ending(ending: &SourceEnding) -> vferry_ending {
    match ending {
        SourceEnding::HandedOver => vferry_ending::VFERRY_ENDING_HANDED_OVER,
        SourceEnding::Returned(_) => vferry_ending::VFERRY_ENDING_RETURNED,
        SourceEnding::NotReturned(_) => vferry_ending::VFERRY_ENDING_NOT_RETURNED,
        SourceEnding::Unconfirmed(_) => vferry_ending::VFERRY_ENDING_UNCONFIRMED,
    }
}

fn target_ending(ending: &TargetEnding) -> vferry_ending {
    match ending {
        TargetEnding::Running => vferry_ending::VFERRY_ENDING_RUNNING,
        TargetEnding::Blank(_) => vferry_ending::VFERRY_ENDING_BLANK,
        TargetEnding::NotBlank(_) => vferry_ending::VFERRY_ENDING_NOT_BLANK,
    }
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
const ENDINGS: [&CStr; 8] = [
    c"none",
    c"handed_over",
    c"returned",
    c"not_returned",
    c"unconfirmed",
    c"running",
    c"blank",
    c"not_blank",
];
const EPOCH_NAMES: [&CStr; 5] = [c"none", c"complete", c"unconfirmed", c"restarted", c"aborted"];
const CAUSES: [&CStr; 10] = [
    c"none",
    c"device_reset",
    c"device_failure",
    c"device_error",
    c"peer_abort",
    c"peer_misbehaviour",
    c"network",
    c"cancelled",
    c"local",
    c"time_limit",
];
const OBSERVED: [&CStr; 14] = [
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
    c"clock",
];
/// The name of a `vferry_phase`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_phase_text(phase: u32) -> *const c_char {
    values::name(&PHASES, phase.into())
}

/// The name of a `vferry_ending`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_ending_text(ending: u32) -> *const c_char {
    values::name(&ENDINGS, ending.into())
}

/// The name of a `vferry_epoch_ending`. Static, never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn vferry_epoch_ending_text(ending: u32) -> *const c_char {
    values::name(&EPOCH_NAMES, ending.into())
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
    use vfio_ferry::Fault;

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
        EPOCH_ENDINGS.iter().for_each(|&x| says(&EPOCH_NAMES, epoch_ending_number(x), x.name()));
    }

    #[test]
    fn a_sessions_ending_is_its_own() {
        let why = || Fault::session(Cause::Cancelled, Observation::Embedder, "why");
        let source = [
            SourceEnding::HandedOver,
            SourceEnding::Returned(why()),
            SourceEnding::NotReturned(why()),
            SourceEnding::Unconfirmed(why()),
        ];
        let target =
            [TargetEnding::Running, TargetEnding::Blank(why()), TargetEnding::NotBlank(why())];
        let source = source.iter().map(|ending| (source_ending(ending) as u32, ending.name()));
        let target = target.iter().map(|ending| (target_ending(ending) as u32, ending.name()));
        for (index, (number, name)) in source.chain(target).enumerate() {
            assert_eq!(number, index as u32 + 1);
            says(&ENDINGS, number, name);
        }
    }

    #[test]
    fn the_headers_numbers_are_these() {
        use vferry_observed::*;
        assert_eq!(phase_number(Phase::Resume), vferry_phase::VFERRY_PHASE_RESUME as u32);
        let aborted = vferry_epoch_ending::VFERRY_EPOCH_ABORTED as u32;
        assert_eq!(epoch_ending_number(EpochEnding::Aborted), aborted);
        assert_eq!(cause_number(Cause::Network), vferry_cause::VFERRY_CAUSE_NETWORK as u32);
        assert_eq!(observed_number(Observation::Write), VFERRY_OBSERVED_WRITE as u32);
        assert!(phase(0).is_err() && phase(9).is_err());
    }
}
