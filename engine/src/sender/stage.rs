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

use crate::machine::{Arc, Fd, Next, On, Request, next};
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

/// Every way from one stage to another.
pub(super) const ARCS: &[Arc<Stage>] = &[
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

impl Stage {
    /// Where this leads, if it may happen here.
    pub(super) fn after(self, on: On) -> Option<Stage> {
        match next(ARCS, self, on, false, false) {
            Next::To(stage) => Some(stage),
            Next::UnexpectedFd | Next::None => None,
        }
    }

    /// Where SET_STATE(`state`) leads that gave a data fd, or none, while one is open, or none.
    pub(super) fn after_set(self, state: DeviceState, given: bool, open: bool) -> Next<Stage> {
        next(ARCS, self, On::Set(state), given, open)
    }

    /// Whether the device, if it has the P2P states, may still start DMA to others, or will again.
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
    /// No device of those is loud any more.
    pub(super) all_quiet: bool,
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
        Held | PreCopy if see.switchover => set(DeviceState::StopCopy),
        Quiet if see.all_quiet => set(DeviceState::StopCopy),
        Held if see.precopy => set(DeviceState::PreCopy),
        Held if !see.length_asked => Some(Request::StopCopyLength),
        PreCopy if see.info_due => Some(Request::PrecopyInfo),
        StopCopy if see.read_out => Some(Request::GetState),
        Leaving if !see.open => set(DeviceState::Stop),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::arcs::{diagram, grid, pinned};
    use std::fmt::Write;

    const STAGES: [Stage; 12] = [
        Idle, Held, PreCopy, Quiet, StopCopy, Sent, Loaded, Leaving, Gone, Restarting, Reusing,
        Recovering,
    ];

    fn view(bits: u32) -> View {
        let bit = |number: u32| bits >> number & 1 == 1;
        View {
            switchover: bit(7),
            p2p: bit(6),
            all_quiet: bit(5),
            precopy: bit(4),
            length_asked: bit(3),
            info_due: bit(2),
            read_out: bit(1),
            open: bit(0),
        }
    }

    /// A letter for each request; a row holds 16 views.
    fn wants() -> String {
        let mut text = String::from(
            "\n# What a device is asked next. Rows: switchover, p2p, all quiet, precopy (high bit \
             first);\n# columns: length asked, info due, read out, fd open. `.` nothing, R \
             RUNNING_P2P, Q\n# PRE_COPY_P2P, S STOP_COPY, P PRE_COPY, T STOP, l MIG_DATA_SIZE, i \
             PRECOPY_INFO, g GET_STATE\n",
        );
        for stage in STAGES {
            let _ = writeln!(text, "{stage:?}");
            for row in 0..16 {
                let letters = (0..16).map(|column| match want(stage, view(row << 4 | column)) {
                    None => '.',
                    Some(Request::SetState(DeviceState::RunningP2p)) => 'R',
                    Some(Request::SetState(DeviceState::PreCopyP2p)) => 'Q',
                    Some(Request::SetState(DeviceState::StopCopy)) => 'S',
                    Some(Request::SetState(DeviceState::PreCopy)) => 'P',
                    Some(Request::SetState(DeviceState::Stop)) => 'T',
                    Some(Request::StopCopyLength) => 'l',
                    Some(Request::PrecopyInfo) => 'i',
                    Some(Request::GetState) => 'g',
                    other => panic!("{other:?}"),
                });
                let _ = writeln!(text, "  {row:04b} {}", letters.collect::<String>());
            }
        }
        text
    }

    #[test]
    fn the_tables_are_as_pinned() {
        let text = grid(&STAGES, ARCS) + &wants();
        pinned("../tests/vectors/sender_stages.txt", &text);
    }

    #[test]
    fn the_diagram_is_the_table() {
        let diagram = diagram(ARCS);
        let shown = include_str!("stage.rs").lines().filter_map(|line| line.strip_prefix("//! "));
        let shown: Vec<&str> = shown.filter(|line| line.contains(" --")).collect();
        let rows: Vec<&str> = diagram.lines().take(shown.len()).collect();
        assert_eq!(shown, rows);
        let after = ARCS.iter().position(|arc| arc.on == On::Discard).expect("a discard");
        assert_eq!(shown.len(), after, "what leads to the handover is shown");
    }
}
