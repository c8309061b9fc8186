//! Every bounded wait of the drive's threads: who waits, for what, until when, and what follows.
//! A new one is a variant and a row here, and its bound a constant. The machines' own are theirs.

use std::time::Duration;

/// How long a session that has ended waits for its peer to close.
pub(super) const LINGER: Duration = Duration::from_millis(500);
/// How long operations on the streams are waited for, before and after connections are aborted.
pub(super) const CLOSE: Duration = Duration::from_millis(100);
/// The pace of the published figures. A copy is 250 KB of histograms: so it costs nothing that
/// could be measured.
pub(super) const FIGURES_EVERY: Duration = Duration::from_millis(100);
/// The pause between two writes of which the first answered EAGAIN.
pub(super) const WRITE_PAUSE: Duration = Duration::from_millis(1);
/// Most EAGAINs in a row from one write.
pub(super) const WRITE_AGAIN_MAX: u32 = 1000;
/// Most SET_STATEs for one request.
pub(super) const SET_STATE_MAX: u32 = 10;

/// What a thread of the drive may wait for with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The driver holds an operation on a data fd that is to be closed.
    Detach,
    /// The session has ended: what was sent is still on its way to the peer.
    Linger,
    /// The streams are closed: the kernel still holds operations on them.
    Close,
    /// Something was measured that is not published.
    Figures,
    /// The driver takes nothing just now. A resume fd cannot be polled for writability.
    Write,
    /// A signal interrupted a SET_STATE that has changed nothing.
    SetState,
}

/// A wait in words, for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitRow {
    /// The wait's name.
    pub wait: &'static str,
    /// Who waits.
    pub who: &'static str,
    /// For what.
    pub for_what: &'static str,
    /// Until when; named options are those of [`Options`](crate::session::Options).
    pub until: &'static str,
    /// What follows when that does not come.
    pub then: &'static str,
}

impl Wait {
    /// All waits, as a session meets them.
    pub const ALL: [Wait; 6] =
        [Wait::SetState, Wait::Write, Wait::Figures, Wait::Detach, Wait::Linger, Wait::Close];

    /// The wait in words.
    pub const fn row(self) -> WaitRow {
        let (wait, who, for_what, until, then) = match self {
            Wait::SetState => (
                "set state",
                "ferry-ctl-N",
                "SET_STATE, where EINTR has left the device in the state that it was in",
                "10 calls",
                "the machine takes the EINTR for the driver's answer",
            ),
            Wait::Write => (
                "write",
                "ferry-fd-N on the target",
                "the driver to take more of a chunk, where it answers EAGAIN",
                "1000 EAGAINs in a row, 1 ms apart",
                "the write has failed with EAGAIN",
            ),
            Wait::Figures => (
                "figures",
                "ferry-net",
                "nothing: figures are published at a pace",
                "100 ms after the last copy",
                "the next copy is published",
            ),
            Wait::Detach => (
                "detach",
                "ferry-net, for a data fd's thread that was told to end",
                "the operation that the driver holds, which was cancelled",
                "`cancel_bound` / 2",
                "the device is reported as stuck; thread, slot and fd stay with the driver until it \
                 returns",
            ),
            Wait::Linger => (
                "linger",
                "ferry-net, once the machine has ended",
                "the peer to close every stream, so that a reset of the connection loses nothing \
                 that was sent",
                "500 ms",
                "the streams are closed from this end",
            ),
            Wait::Close => (
                "close",
                "ferry-net, at the session's end",
                "the kernel to complete what is in flight on the streams, which are shut down",
                "100 ms, twice",
                "the first time connections are aborted, which drops unacknowledged bytes; the \
                 second time the ring is closed, which waits for the kernel without a bound",
            ),
        };
        WaitRow { wait, who, for_what, until, then }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_tell_the_bounds_that_are_kept() {
        let ms = |bound: Duration| format!("{} ms", bound.as_millis());
        for (wait, bound) in [
            (Wait::SetState, format!("{SET_STATE_MAX} calls")),
            (Wait::Write, format!("{WRITE_AGAIN_MAX} EAGAINs in a row, {} apart", ms(WRITE_PAUSE))),
            (Wait::Figures, format!("{} after", ms(FIGURES_EVERY))),
            (Wait::Linger, ms(LINGER)),
            (Wait::Close, format!("{}, twice", ms(CLOSE))),
        ] {
            assert!(wait.row().until.starts_with(&bound), "{wait:?}: {bound}");
        }
    }
}
