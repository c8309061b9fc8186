//! Where a device rests on the target, what moves it on, and what it is asked next.
//!
//! ```text
//! Expected --begin--> Begun
//! Begun Discarding --SET_STATE(RESUMING), data fd--> Loading
//! Loading --GET_STATE == RESUMING--> Verified
//! Verified --SET_STATE(STOP)--> Stopped
//! Stopped --GET_STATE == STOP--> Loaded
//! Loaded --handover--> HandedOver
//! HandedOver --GET_STATE == STOP--> Resuming
//! Resuming --SET_STATE(RUNNING_P2P)--> Quiet
//! Resuming Quiet --SET_STATE(RUNNING)--> Running
//! ```
//!
//! While a request is in flight the device still rests where it was: its line knows what is asked.

use crate::machine::{Arc, Fd, On, Request, Stages};
use crate::vfio::state::DeviceState;

/// Where a device rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its begin frame has not come.
    Expected,
    /// It is to go to RESUMING.
    Begun,
    /// Chunks are written to the resume fd. A reset in here is silent: only GET_STATE tells, before
    /// the arc to STOP hides it for good.
    Loading,
    /// All is written, and GET_STATE has still said RESUMING.
    Verified,
    /// The driver has taken the state in; GET_STATE must say STOP.
    Stopped,
    /// The source was told that the state is loaded.
    Loaded,
    /// The session was handed over. A reset since the state was loaded has left the device running
    /// and blank: GET_STATE must still say STOP.
    HandedOver,
    /// It is to go to RUNNING.
    Resuming,
    /// No DMA to other devices; waits until the other devices are as far.
    Quiet,
    /// It runs.
    Running,
    /// Its epoch was discarded: it is reset, and the slots of the old epoch are awaited.
    Discarding,
    /// It is reset because the session is given up.
    Recovering,
    /// Nothing more to do.
    Gone,
}

use Stage::{
    Begun, Discarding, Expected, Gone, HandedOver, Loaded, Loading, Quiet, Recovering, Resuming,
    Running, Stopped, Verified,
};

const fn arc(from: &'static [Stage], on: On, fd: Fd, to: Stage) -> Arc<Stage> {
    Arc { from, on, fd, to }
}

/// From where an epoch may be discarded: the device has begun and was not handed over.
const ACTIVE: &[Stage] = &[Begun, Loading, Verified, Stopped, Loaded, Discarding];

impl Stages for Stage {
    const FIRST: Stage = Expected;
    const ARCS: &'static [Arc<Stage>] = &[
        arc(&[Expected], On::Begin, Fd::None, Begun),
        arc(&[Begun, Discarding], On::Set(DeviceState::Resuming), Fd::New, Loading),
        arc(&[Loading], On::Found(DeviceState::Resuming), Fd::None, Verified),
        arc(&[Verified], On::Set(DeviceState::Stop), Fd::None, Stopped),
        arc(&[Stopped], On::Found(DeviceState::Stop), Fd::None, Loaded),
        arc(&[Loaded], On::Handover, Fd::None, HandedOver),
        arc(&[HandedOver], On::Found(DeviceState::Stop), Fd::None, Resuming),
        arc(&[Resuming], On::Set(DeviceState::RunningP2p), Fd::None, Quiet),
        arc(&[Resuming, Quiet], On::Set(DeviceState::Running), Fd::None, Running),
        arc(ACTIVE, On::Discard, Fd::None, Discarding),
        arc(&[Expected], On::Abort, Fd::None, Gone),
        arc(ACTIVE, On::Abort, Fd::None, Recovering),
        arc(&[HandedOver, Resuming, Quiet, Running], On::Abort, Fd::None, Recovering),
        arc(&[Recovering], On::Back, Fd::None, Gone),
    ];
}

impl Stage {
    /// Whether the device is stopped still: another one that ran would write to it.
    pub(super) fn is_stopped(self) -> bool {
        matches!(self, HandedOver | Resuming)
    }
}

/// What decides over a device's next request, beside its stage.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct View {
    /// Its end was reached, and everything is written.
    pub(super) whole: bool,
    /// No slot of an old epoch is out.
    pub(super) empty: bool,
    /// It goes by way of RUNNING_P2P, because there are others.
    pub(super) p2p: bool,
    /// It would write to none that is stopped: those that have the P2P states are quiet, and where it
    /// is one of these itself, those that have not run.
    pub(super) may_run: bool,
}

/// What a resting device is asked next.
pub(super) fn want(stage: Stage, see: View) -> Option<Request> {
    let set = |state| Some(Request::SetState(state));
    match stage {
        Begun => set(DeviceState::Resuming),
        Discarding if see.empty => set(DeviceState::Resuming),
        Loading if see.whole => Some(Request::GetState),
        Verified => set(DeviceState::Stop),
        Stopped | HandedOver => Some(Request::GetState),
        Resuming if see.p2p => set(DeviceState::RunningP2p),
        Resuming if see.may_run => set(DeviceState::Running),
        Quiet if see.may_run => set(DeviceState::Running),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
