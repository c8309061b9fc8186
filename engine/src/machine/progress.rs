//! Whether what a device is owed makes progress. Life is not progress: a peer that answers pings and
//! a driver that has not crashed may still let a guest stand still for ever.

use std::fmt;

use super::{Request, Turn, Wait, Waits};

/// How often the limit of one step the peer is waited for: what it owes may take it so many calls of
/// its driver in a row, of which it says nothing. One that stalls is given up by its own host, which
/// says why.
const PEER_STEPS: u64 = 5;

/// What a device is owed, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owed {
    /// The driver, or an embedded device's VMM, has not answered this.
    Answer(Request),
    /// The driver has not given back a read in STOP_COPY.
    Read,
    /// The driver has not given back a write.
    Write,
    /// The peer grants no credit for frames that wait.
    Credit,
    /// The streams take no frames.
    Path,
    /// The target has not said that the initial data is loaded.
    InitialData,
    /// The target has not said that the state is loaded.
    Loaded,
    /// The source sends none of the state, though the device is stopped there.
    State,
    /// The source has sent what comes after, and not what comes before.
    Missing,
    /// The source has begun to send a frame.
    Body,
    /// All devices are loaded, and the source does not hand over.
    Handover,
}

impl Owed {
    /// The peer owes it, and not this host's driver.
    pub(crate) fn is_by_peer(self) -> bool {
        !matches!(self, Owed::Answer(_) | Owed::Read | Owed::Write)
    }

    /// What has been owed for longer than its limit.
    pub(crate) fn overdue(self) -> String {
        if self.is_by_peer() {
            format!("for {PEER_STEPS} times that, {self}")
        } else {
            self.to_string()
        }
    }

    /// How long no progress is put up with.
    fn limit_ns(self, stall_ns: u64) -> u64 {
        let steps = if self.is_by_peer() { PEER_STEPS } else { 1 };
        stall_ns.saturating_mul(steps)
    }
}

impl fmt::Display for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owed::Answer(request) => write!(f, "the driver has not returned from {request}"),
            Owed::Read => f.write_str("the driver has not given back a read in STOP_COPY"),
            Owed::Write => f.write_str("the driver has not given back a write of the state"),
            Owed::Credit => f.write_str("the target does not take the frames that wait for it"),
            Owed::Path => f.write_str("the streams do not take the frames that wait for them"),
            Owed::InitialData => f.write_str("the target has not loaded the initial data"),
            Owed::Loaded => f.write_str("the target has not loaded the state"),
            Owed::State => f.write_str("the source has stopped the device and sends no state"),
            Owed::Missing => f.write_str("a frame of the source is missing, and later ones came"),
            Owed::Body => f.write_str("the source has begun to send a frame, and does not end it"),
            Owed::Handover => f.write_str("all devices are loaded, and the source lets none go"),
        }
    }
}

/// What one device is owed, and since when it has not moved.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    owed: Option<Owed>,
    moved: bool,
    waits: Waits,
}

impl Progress {
    /// Something of what is owed has come.
    pub(crate) fn moved(&mut self) {
        self.moved = true;
    }

    /// What the device is owed after this turn.
    pub(crate) fn look(&mut self, turn: &Turn, owed: Option<Owed>, stall_ns: u64) {
        if !std::mem::take(&mut self.moved) && owed == self.owed {
            return;
        }
        self.owed = owed;
        match owed {
            Some(owed) => self.waits.set(Wait::Stall, turn.after(owed.limit_ns(stall_ns))),
            None => self.waits.stop(Wait::Stall),
        }
    }

    /// What has made no progress for too long.
    pub(crate) fn over(&mut self, turn: &Turn) -> Option<Owed> {
        self.waits.take_due(turn.now_ns)?;
        self.owed
    }

    /// What is owed now.
    pub(crate) fn owed(&self) -> Option<Owed> {
        self.owed
    }

    /// When [`over`](Self::over) has something to say.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.waits.deadline_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::NO_LIMIT_NS;

    /// At this time.
    fn at<T>(now_ns: u64, then: impl FnOnce(&mut Turn) -> T) -> T {
        then(&mut Turn::new(now_ns, &mut Vec::new()))
    }

    #[test]
    fn what_does_not_move_is_over_and_what_moves_is_not() {
        let mut progress = Progress::default();
        at(0, |turn| progress.look(turn, Some(Owed::Write), 100));
        at(50, |turn| progress.look(turn, Some(Owed::Write), 100));
        assert_eq!(progress.deadline_ns(), Some(100), "nothing has moved");
        progress.moved();
        at(60, |turn| progress.look(turn, Some(Owed::Write), 100));
        assert_eq!(at(159, |turn| progress.over(turn)), None);
        assert_eq!(at(160, |turn| progress.over(turn)), Some(Owed::Write));
        at(170, |turn| progress.look(turn, None, 100));
        assert_eq!(progress.deadline_ns(), None, "nothing is owed");
    }

    #[test]
    fn the_peer_has_several_steps_and_another_debt_begins_anew() {
        let mut progress = Progress::default();
        at(0, |turn| progress.look(turn, Some(Owed::Credit), 100));
        assert_eq!(progress.deadline_ns(), Some(500));
        at(80, |turn| progress.look(turn, Some(Owed::Path), 100));
        assert_eq!(progress.deadline_ns(), Some(580));
        progress.moved();
        at(90, |turn| progress.look(turn, Some(Owed::Path), NO_LIMIT_NS));
        assert_eq!(progress.deadline_ns(), None, "no limit");
    }
}
