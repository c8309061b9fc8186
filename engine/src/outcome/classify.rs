//! From what the kernel answered, and the device's state read twice, to a cause. One table.
//!
//! Source of the rows: the reset race of mlx5, virtio, xe and mtty (`*_state_mutex_unlock` applying
//! a deferred reset), `hisi_acc_vf_disable_fds`, `qat_vf_*`, and pds's asynchronous ERROR.
//!
//! After ENODEV the state tells: RUNNING means a reset (or one's own cancel), an unchanged state
//! means that firmware or the PF failed, ERROR means that the device must be reset.

use super::{Cause, Observation};
use crate::vfio::state::DeviceState;

/// What the engine was doing when the kernel answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Reading the data fd; `first` is the first read of a new fd.
    Read {
        /// No byte has come out of this fd yet.
        first: bool,
    },
    /// Polling the data fd.
    Poll,
    /// VFIO_MIG_GET_PRECOPY_INFO.
    PrecopyInfo,
    /// SET_STATE.
    SetState,
    /// SET_STATE inside the saving states gave a new fd.
    UnexpectedFd,
    /// GET_STATE before an arc that relies on it.
    StateCheck,
    /// Writing the resume fd.
    Write,
}

/// What was seen: the operation, its errno if it failed, whether the engine itself had cancelled,
/// and the state that the device should have and has, the latter read twice and the second kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DeviceAnswer {
    /// The operation.
    pub operation: Operation,
    /// The positive errno, or none where no call failed (an unexpected fd, a state check).
    pub errno: Option<i32>,
    /// The engine had asked for this operation to be cancelled.
    pub cancelled: bool,
    /// The state in which the migration had left the device.
    pub expected: DeviceState,
    /// The state that the device was found in; none if it could not be read.
    pub found: Option<DeviceState>,
}

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Finding {
    /// Who or what.
    pub cause: Cause,
    /// How it was seen.
    pub observed: Observation,
    /// For a person.
    pub message: &'static str,
}

/// Says what a device's answer means.
pub fn classify(answer: DeviceAnswer) -> Finding {
    let observed = match answer.operation {
        Operation::Read { first: true } => Observation::DeadOnArrival,
        Operation::Read { first: false } => Observation::Read,
        Operation::Poll => Observation::Poll,
        Operation::PrecopyInfo => Observation::PrecopyInfo,
        Operation::SetState => Observation::SetState,
        Operation::UnexpectedFd => Observation::UnexpectedFd,
        Operation::StateCheck => Observation::StateCheck,
        Operation::Write => Observation::Write,
    };
    let cause = match answer.found {
        _ if answer.cancelled => Cause::Cancelled,
        Some(DeviceState::Error) => Cause::DeviceError,
        Some(DeviceState::Running) if answer.expected != DeviceState::Running => Cause::DeviceReset,
        _ if answer.operation == Operation::UnexpectedFd => Cause::DeviceReset,
        _ => Cause::DeviceFailure,
    };
    Finding { cause, observed, message: "the device" }
}
