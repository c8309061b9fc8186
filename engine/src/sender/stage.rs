//! Where a device rests on the source, what moves it on, and what it is asked next.
//!
//! ```text
//! Idle --begin--> Held
//! Held --SET_STATE(PRE_COPY), data fd--> PreCopy
//! Held --SET_STATE(RUNNING_P2P)--> Quiet
//! PreCopy --SET_STATE(PRE_COPY_P2P)--> Quiet
//! Held PreCopy Quiet --SET_STATE(STOP_COPY), data fd unless open--> StopCopy
//! StopCopy --GET_STATE == STOP_COPY--> Sent
//! Sent --loaded frame--> Loaded
//! Loaded --handover--> Leaving
//! Leaving --SET_STATE(STOP)--> Gone
//! ```
//!
//! While a request is in flight the device still rests where it was: its line knows what is asked.

use crate::machine::{Arc, Fd, On, Request, Stages};
use crate::vfio::state::DeviceState;

/// Where a device rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The session is not agreed on yet.
    Idle,
    /// Waits for the switchover without saving.
    Held,
    /// The guest runs, PRE_COPY data is read.
    PreCopy,
    /// No DMA to other devices; waits until the other devices are as far.
    Quiet,
    /// STOP_COPY data is read.
    StopCopy,
    /// All is sent or queued; the target has not confirmed.
    Sent,
    /// The target has confirmed.
    Loaded,
    /// The session was handed over: the data fd is being closed, the device put to STOP.
    Leaving,
    /// Nothing more to do.
    Gone,
    /// Its epoch was discarded: it is brought to RUNNING for the next one.
    Restarting,
    /// Its epoch was discarded, and SET_STATE has opened the next one's data fd, which waits for
    /// the old one to be closed.
    Reusing,
    /// It is brought to RUNNING because the session is given up.
    Recovering,
}

use Stage::{
    Gone, Held, Idle, Leaving, Loaded, PreCopy, Quiet, Recovering, Restarting, Reusing, Sent,
    StopCopy,
};

const fn arc(from: &'static [Stage], on: On, fd: Fd, to: Stage) -> Arc<Stage> {
    Arc { from, on, fd, to }
}

/// From where an epoch may be discarded: it has begun and was not handed over.
const ACTIVE: &[Stage] = &[Held, PreCopy, Quiet, StopCopy, Sent, Loaded, Restarting, Reusing];

impl Stages for Stage {
    const FIRST: Stage = Idle;
    const ARCS: &'static [Arc<Stage>] = &[
        arc(&[Idle], On::Begin, Fd::None, Held),
        arc(&[Held], On::Set(DeviceState::PreCopy), Fd::New, PreCopy),
        arc(&[Held], On::Set(DeviceState::RunningP2p), Fd::None, Quiet),
        arc(&[PreCopy], On::Set(DeviceState::PreCopyP2p), Fd::None, Quiet),
        arc(&[Held, PreCopy, Quiet], On::Set(DeviceState::StopCopy), Fd::NewUnlessOpen, StopCopy),
        arc(&[StopCopy], On::Found(DeviceState::StopCopy), Fd::None, Sent),
        arc(&[Sent], On::Confirmed, Fd::None, Loaded),
        arc(&[Loaded], On::Handover, Fd::None, Leaving),
        arc(&[Leaving], On::Set(DeviceState::Stop), Fd::Ignored, Gone),
        arc(ACTIVE, On::Discard, Fd::None, Restarting),
        arc(&[PreCopy, Quiet], On::Reuse, Fd::None, Reusing),
        arc(&[Restarting], On::Back, Fd::None, Held),
        arc(&[Reusing], On::Closed, Fd::None, StopCopy),
        arc(&[Idle], On::Abort, Fd::None, Gone),
        arc(ACTIVE, On::Abort, Fd::None, Recovering),
        arc(&[Leaving, Gone], On::Abort, Fd::None, Recovering),
        arc(&[Recovering], On::Back, Fd::None, Gone),
    ];
}

impl Stage {
    /// Whether the device may still start DMA to others, or will again.
    pub(super) fn is_loud(self) -> bool {
        matches!(self, Idle | Held | PreCopy | Restarting)
    }
}

/// What decides over a device's next request, beside its stage.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    /// The vCPUs are stopped.
    pub(super) switchover: bool,
    /// It goes by way of the P2P states, because there are others.
    pub(super) p2p: bool,
    /// No other device may still write to it: those that have the P2P states are quiet, and where it
    /// is one of these itself, those that have not have stopped.
    pub(super) may_stop: bool,
    /// It saves in PRE_COPY.
    pub(super) precopy: bool,
    /// MIG_DATA_SIZE has been asked.
    pub(super) length_asked: bool,
    /// PRECOPY_INFO is due.
    pub(super) info_due: bool,
    /// The fd's end was read, and no read is in flight.
    pub(super) read_out: bool,
    /// It has a data fd.
    pub(super) open: bool,
}

/// What a resting device is asked next.
pub(super) fn want(stage: Stage, see: View) -> Option<Request> {
    let set = |state| Some(Request::SetState(state));
    match stage {
        Held if see.switchover && see.p2p => set(DeviceState::RunningP2p),
        PreCopy if see.switchover && see.p2p => set(DeviceState::PreCopyP2p),
        Held | PreCopy if see.switchover && see.may_stop => set(DeviceState::StopCopy),
        Held | PreCopy if see.switchover => None,
        Quiet if see.may_stop => set(DeviceState::StopCopy),
        Held if see.precopy => set(DeviceState::PreCopy),
        Held if !see.length_asked => Some(Request::StopCopyLength),
        PreCopy if see.info_due => Some(Request::PrecopyInfo),
        StopCopy if see.read_out => Some(Request::GetState),
        Leaving if !see.open => set(DeviceState::Stop),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
