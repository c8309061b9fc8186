//! Requests: what a machine asks of a device, and the device's answers.

use std::fmt;

#[cfg(doc)]
use super::Action;
use crate::vfio::device::PrecopyInfo;
use crate::vfio::state::DeviceState;

/// Something only a control thread may do: it can block for as long as the driver does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// SET_STATE.
    SetState(DeviceState),
    /// GET_STATE, asked twice, the second answer kept: the first may be stale after a deferred
    /// reset.
    GetState,
    /// VFIO_MIG_GET_PRECOPY_INFO on the attached data fd.
    PrecopyInfo,
    /// MIG_DATA_SIZE.
    StopCopyLength,
    /// VFIO_DEVICE_RESET.
    Reset,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::SetState(state) => write!(f, "SET_STATE({state})"),
            Request::GetState => f.write_str("GET_STATE"),
            Request::PrecopyInfo => f.write_str("VFIO_MIG_GET_PRECOPY_INFO"),
            Request::StopCopyLength => f.write_str("MIG_DATA_SIZE"),
            Request::Reset => f.write_str("VFIO_DEVICE_RESET"),
        }
    }
}

/// The answer to a [`Request`] that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// SET_STATE: whether the kernel gave a data fd. The fd waits for [`Action::Attach`] or
    /// [`Action::DropFd`].
    Set {
        /// There is a new fd.
        fd: bool,
    },
    /// GET_STATE.
    State(DeviceState),
    /// VFIO_MIG_GET_PRECOPY_INFO.
    Info(PrecopyInfo),
    /// MIG_DATA_SIZE, in bytes.
    Length(u64),
    /// VFIO_DEVICE_RESET returned.
    Reset,
}

/// What GET_STATE has found, if it could be asked.
pub(crate) fn state_of(answer: Result<Reply, i32>) -> Option<DeviceState> {
    match answer {
        Ok(Reply::State(state)) => Some(state),
        _ => None,
    }
}
