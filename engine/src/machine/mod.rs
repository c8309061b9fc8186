//! What the two pure machines, [`sender`](crate::sender) and [`receiver`](crate::receiver), have in
//! common: their vocabulary (events in, actions out), and what is the same on both hosts.
//!
//! A machine has no fd, clock, thread or memory. Time comes in as nanoseconds with each event,
//! memory is known by slot numbers, devices and streams by theirs. What runs the actions and
//! reports the events is [`drive`](crate::drive); in tests it is a simulated world under one seed.
//!
//! | file | what it holds |
//! |---|---|
//! | `event`, `request`, `action`, `notice` | the vocabulary |
//! | `turn` | one event's turn: its time, and the actions that it causes |
//! | `time` | the limits that the embedder gave |
//! | `waits` | every deadline of a machine, as one table |
//! | `arcs` | how a table of stages is read |
//! | `device`, `report` | a device as both hosts see it: its line, its phase; what became of it |
//! | `line` | one request and one data fd of a device at a time, and the first thing that went wrong |
//! | `recovery` | a device's way back to RUNNING |
//! | `peer` | the streams, and whether the peer is still there |
//! | `progress` | what a device is owed, and since when that has not moved |
//! | `slots` | who holds which slot of the arena |

mod action;
pub(crate) mod arcs;
mod device;
mod event;
mod line;
mod notice;
mod peer;
mod progress;
mod recovery;
mod report;
mod request;
mod slots;
mod time;
mod turn;
mod waits;

pub use action::{Action, ChunkKey, Outgoing};
pub use event::{Command, EncodeResult, Event, ReadResult, WriteResult};
pub use notice::{Estimate, Notice};
pub use peer::PeerConfig;
pub use report::DeviceReport;
pub use request::{Reply, Request};
pub use slots::SlotBudget;
pub use time::{NO_LIMIT_NS, TimeLimits, limit_ns};

pub(crate) use arcs::{Arc, Fd, Next, On, Stages};
pub(crate) use device::{Core, Found, State};
pub(crate) use line::Line;
pub(crate) use peer::Peer;
pub(crate) use progress::{Owed, Progress};
pub(crate) use recovery::{Goal, Way};
pub(crate) use request::state_of;
pub(crate) use time::over;
pub(crate) use turn::Turn;
pub(crate) use waits::{Wait, Waits};

/// A pure machine as the drive and the simulated world see it.
pub trait Machine {
    /// Takes one event at time `now_ns` and appends what is to be done.
    fn handle(&mut self, now_ns: u64, event: Event, actions: &mut Vec<Action>);

    /// Whether the session is given up or over: nobody waits for a device's answer any more.
    fn is_ending(&self) -> bool;

    /// When [`Event::Tick`] is due, on the same clock.
    fn deadline_ns(&self) -> Option<u64>;

    /// What became of each device so far.
    fn reports(&self) -> Vec<DeviceReport>;

    /// Whether everything that the peer is to be told has gone out, or no stream is left for it.
    fn has_told(&self) -> bool;

    /// Slots that are out; 0 once everything has come back.
    fn slots_out(&self) -> usize;
}
