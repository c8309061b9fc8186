//! How a table of stages is read: where a device rests, what moves it on, and where to. Each host
//! has a table of its own, `ARCS` in its `stage.rs`; the diagrams in the documentation and the
//! pinned grids are printed from them.

use std::fmt;

use crate::vfio::state::DeviceState;

/// What moves a device from one stage to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// Its begin frame was queued (source) or is next in order (target).
    Begin,
    /// SET_STATE succeeded.
    Set(DeviceState),
    /// GET_STATE, asked because the stage wanted it, found this state.
    Found(DeviceState),
    /// The target has confirmed the whole state.
    Confirmed,
    /// The session was handed over.
    Handover,
    /// Its epoch was discarded: it is brought back.
    Discard,
    /// Its epoch was discarded, and SET_STATE has already opened the next one's data fd.
    Reuse,
    /// The old epoch's data fd is closed.
    Closed,
    /// It is back in RUNNING.
    Back,
    /// The session is given up.
    Abort,
}

/// The data fd that a SET_STATE must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fd {
    /// None.
    None,
    /// A new one.
    New,
    /// A new one, unless one is open already: the saving states share theirs.
    NewUnlessOpen,
    /// Whatever: it is not used.
    Ignored,
}

/// One row: from any of these stages, on this, to that one.
#[derive(Debug)]
pub(crate) struct Arc<S: 'static> {
    pub(crate) from: &'static [S],
    pub(crate) on: On,
    pub(crate) fd: Fd,
    pub(crate) to: S,
}

/// What a table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next<S> {
    /// The device is in this stage now.
    To(S),
    /// SET_STATE inside the saving states gave a new fd: the session that was open had died.
    UnexpectedFd,
    /// No row: this may not happen here.
    None,
}

/// The stages of one host's devices: their table.
pub(crate) trait Stages: Copy + PartialEq + fmt::Debug + 'static {
    /// Where a device begins.
    const FIRST: Self;
    /// Every way from one stage to another.
    const ARCS: &'static [Arc<Self>];

    /// Looks it up. `given`: SET_STATE gave a data fd; `open`: the device has one.
    fn next(self, on: On, given: bool, open: bool) -> Next<Self> {
        let fits = |arc: &&Arc<Self>| arc.on == on && arc.from.contains(&self);
        let Some(arc) = Self::ARCS.iter().find(fits) else { return Next::None };
        let right = match arc.fd {
            Fd::None => !given,
            Fd::New => given,
            Fd::NewUnlessOpen => given != open,
            Fd::Ignored => true,
        };
        match (right, given && open) {
            (true, _) => Next::To(arc.to),
            (false, true) => Next::UnexpectedFd,
            (false, false) => Next::None,
        }
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            On::Begin => f.write_str("begin"),
            On::Set(state) => write!(f, "SET_STATE({state})"),
            On::Found(state) => write!(f, "GET_STATE == {state}"),
            On::Confirmed => f.write_str("loaded frame"),
            On::Handover => f.write_str("handover"),
            On::Discard => f.write_str("discard"),
            On::Reuse => f.write_str("discard, new data fd"),
            On::Closed => f.write_str("old data fd closed"),
            On::Back => f.write_str("back in RUNNING"),
            On::Abort => f.write_str("abort"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
