//! From completion entries to completions.
//!
//! ```text
//!            +-- a piece of a send or receive; interrupted unasked; SEND_ZC refused +
//!            v                                                                     |
//! submit -> Transfer --- EAGAIN ---> Poll --- ready ---> Transfer                  |
//!            |   +-----------------------------------------------------------------+
//!            +-> outcome --- every notification in ---> Done
//! ```
//! A cancelled operation goes no arrow back: EAGAIN, ready and short become ECANCELED.

use std::time::Instant;

use io_uring::cqueue;

use super::{Progress, Step, UringRing, zero_copy};
use crate::errno;
use crate::ring::table::{Flight, INTERRUPTIONS_MAX, Key};
use crate::ring::{Done, FileKind, OpKind};

/// What follows a completion entry.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Transfer,
    Poll,
    Outcome(Result<usize, i32>),
}

impl UringRing {
    /// Takes a completion entry of an operation.
    pub(super) fn complete(&mut self, key: Key, result: i32, flags: u32, done: &mut Vec<Done>) {
        let Some((flight, file)) = self.table.flight(key) else {
            debug_assert!(false, "a completion of no operation in flight: {key:?}");
            return;
        };
        if cqueue::notif(flags) {
            flight.state.notifications = flight.state.notifications.saturating_sub(1);
            if self.zero_copy.notified(result) {
                file.state.zero_copy = false;
            }
        } else {
            flight.state.notifications += u32::from(cqueue::more(flags));
            if flight.state.step == (Step::Transfer { zero_copy: true })
                && zero_copy::refused(-result)
            {
                tracing::debug!(errno = -result, "SEND_ZC is refused; using plain sends");
                file.state.zero_copy = false;
            }
            if is_refused_whole(flight, result) && file.state.whole_sends {
                tracing::debug!("MSG_WAITALL is refused; short sends are resumed");
                file.state.whole_sends = false;
                if !flight.cancelled {
                    return self.queue_transfer(key);
                }
            }
            match flight.op.kind {
                OpKind::Send if result > 0 => file.state.sends.moved(Instant::now()),
                OpKind::Recv if result > 0 => file.state.receives.moved(Instant::now()),
                _ => {}
            }
            match next(flight, file.kind, result) {
                Next::Transfer => return self.queue_transfer(key),
                Next::Poll => return self.queue_poll(key),
                Next::Outcome(outcome) => flight.state.outcome = Some(outcome),
            }
        }
        if let Progress { outcome: Some(outcome), notifications: 0, .. } = flight.state {
            done.extend(self.table.finish(key, outcome));
        }
    }
}

/// Whether the kernel may have refused a send for being asked for as a whole.
fn is_refused_whole(flight: &Flight<Progress>, result: i32) -> bool {
    flight.state.step == (Step::Transfer { zero_copy: false })
        && flight.op.kind == OpKind::Send
        && -result == errno::EOPNOTSUPP
}

/// Decides what follows, from the result of the operation's current step.
fn next(flight: &mut Flight<Progress>, kind: FileKind, result: i32) -> Next {
    let again = if flight.cancelled { Err(errno::ECANCELED) } else { Ok(Next::Transfer) };
    let again = again.unwrap_or_else(|errno| Next::Outcome(Err(errno)));
    let Ok(moved) = usize::try_from(result) else {
        return after_error(flight, kind, -result, again);
    };
    if flight.op.kind == OpKind::HangUp {
        return Next::Outcome(Ok(moved));
    }
    if flight.state.step == Step::Poll {
        return again;
    }
    flight.state.interruptions = 0;
    match flight.op.kind {
        OpKind::Read | OpKind::TryRead | OpKind::Write | OpKind::HangUp => Next::Outcome(Ok(moved)),
        // A stream socket takes something or says why not.
        OpKind::Send if moved == 0 => Next::Outcome(Err(errno::EPIPE)),
        OpKind::Recv if moved == 0 => Next::Outcome(Ok(flight.moved)),
        OpKind::Send | OpKind::Recv => {
            flight.moved += moved;
            match flight.moved >= flight.op.enough {
                true => Next::Outcome(Ok(flight.moved)),
                false => again,
            }
        }
    }
}

fn after_error(flight: &mut Flight<Progress>, kind: FileKind, errno: i32, again: Next) -> Next {
    let parks = kind != FileKind::Blocking && flight.op.kind != OpKind::TryRead;
    let refused =
        flight.state.step == (Step::Transfer { zero_copy: true }) && zero_copy::refused(errno);
    match errno {
        errno::EAGAIN if parks && again == Next::Transfer => Next::Poll,
        errno::EAGAIN if parks => again,
        errno::EINTR | errno::ERESTARTSYS
            if !flight.cancelled && flight.state.interruptions < INTERRUPTIONS_MAX =>
        {
            flight.state.interruptions += 1;
            Next::Transfer
        }
        _ if refused => again,
        _ if errno::is_interruption(errno) => Next::Outcome(Err(errno)),
        // What arrived is told first, and hides the error behind it.
        _ if flight.moved > 0 && flight.op.kind == OpKind::Recv => Next::Outcome(Ok(flight.moved)),
        _ => Next::Outcome(Err(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Buffer;
    use crate::ring::{FileId, Op, Token};

    const TRANSFER: Step = Step::Transfer { zero_copy: false };
    const ZERO_COPY: Step = Step::Transfer { zero_copy: true };
    const CANCELLED: Next = Next::Outcome(Err(errno::ECANCELED));

    /// Operations on ten bytes, four of which are done where that can be.
    fn flight(kind: &str, step: Step, cancelled: bool) -> Flight<Progress> {
        let (file, buffer, range) = (FileId(0), Buffer::Small(vec![0; 10]), 0..10);
        let op = match kind {
            "read" => Op::read(file, buffer, range),
            "write" => Op::write(file, buffer, range),
            "send" => Op::send(file, buffer, range),
            _ => Op::recv(file, buffer, range),
        };
        let moved = if matches!(kind, "send" | "recv") { 4 } else { 0 };
        let state = Progress { step, ..Progress::default() };
        Flight { token: Token(0), op, moved, cancelled, away: false, state }
    }

    fn after(kind: &str, step: Step, cancelled: bool, result: i32) -> Next {
        let file = match kind {
            "read" | "write" => FileKind::Pollable,
            _ => FileKind::Socket,
        };
        next(&mut flight(kind, step, cancelled), file, result)
    }

    #[test]
    fn an_operation_goes_on_until_it_is_done() {
        for kind in ["read", "write", "send", "recv"] {
            assert_eq!(after(kind, TRANSFER, false, -errno::EAGAIN), Next::Poll);
            assert_eq!(after(kind, Step::Poll, false, 1), Next::Transfer);
            assert_eq!(after(kind, TRANSFER, false, -errno::EINTR), Next::Transfer);
            assert_eq!(after(kind, TRANSFER, false, -errno::ERESTARTSYS), Next::Transfer);
        }
        for kind in ["read", "write"] {
            assert_eq!(after(kind, TRANSFER, false, 3), Next::Outcome(Ok(3)));
            assert_eq!(after(kind, TRANSFER, false, 0), Next::Outcome(Ok(0)));
        }
        for kind in ["send", "recv"] {
            assert_eq!(after(kind, TRANSFER, false, 3), Next::Transfer);
            assert_eq!(after(kind, TRANSFER, false, 6), Next::Outcome(Ok(10)));
        }
        assert_eq!(after("recv", TRANSFER, false, 0), Next::Outcome(Ok(4)));
        assert_eq!(after("recv", TRANSFER, false, -errno::ECONNRESET), Next::Outcome(Ok(4)));
        assert_eq!(after("send", TRANSFER, false, -errno::EPIPE), Next::Outcome(Err(errno::EPIPE)));
    }

    #[test]
    fn a_cancelled_operation_begins_nothing_any_more() {
        for kind in ["read", "write", "send", "recv"] {
            assert_eq!(after(kind, TRANSFER, true, -errno::EAGAIN), CANCELLED);
            assert_eq!(after(kind, Step::Poll, true, 1), CANCELLED);
            for errno in [errno::EINTR, errno::ERESTARTSYS, errno::ECANCELED] {
                assert_eq!(after(kind, TRANSFER, true, -errno), Next::Outcome(Err(errno)));
                assert_eq!(after(kind, Step::Poll, true, -errno), Next::Outcome(Err(errno)));
            }
        }
        for kind in ["send", "recv"] {
            assert_eq!(after(kind, TRANSFER, true, 3), CANCELLED);
            assert_eq!(after(kind, TRANSFER, true, 6), Next::Outcome(Ok(10)));
        }
        assert_eq!(after("read", TRANSFER, true, 3), Next::Outcome(Ok(3)));
        assert_eq!(after("send", ZERO_COPY, true, -errno::EOPNOTSUPP), CANCELLED);
    }

    #[test]
    fn the_driver_is_believed_about_its_errors() {
        for errno in [errno::ENODEV, errno::ENOMSG, errno::EINVAL, errno::EIO, errno::EOPNOTSUPP] {
            for kind in ["read", "write"] {
                assert_eq!(after(kind, TRANSFER, false, -errno), Next::Outcome(Err(errno)));
            }
        }
        let mut blocking = flight("read", TRANSFER, false);
        let eagain = Next::Outcome(Err(errno::EAGAIN));
        assert_eq!(next(&mut blocking, FileKind::Blocking, -errno::EAGAIN), eagain);
    }

    #[test]
    fn a_refused_zero_copy_send_is_sent_plainly() {
        for errno in [errno::EINVAL, errno::EOPNOTSUPP, errno::ENOMEM] {
            assert_eq!(after("send", ZERO_COPY, false, -errno), Next::Transfer);
            assert_eq!(after("send", TRANSFER, false, -errno), Next::Outcome(Err(errno)));
        }
        assert_eq!(
            after("send", ZERO_COPY, false, -errno::EPIPE),
            Next::Outcome(Err(errno::EPIPE))
        );
    }

    #[test]
    fn interruptions_without_a_cancel_come_to_an_end() {
        let mut flight = flight("read", TRANSFER, false);
        for _ in 0..INTERRUPTIONS_MAX {
            assert_eq!(next(&mut flight, FileKind::Blocking, -errno::EINTR), Next::Transfer);
        }
        let believed = Next::Outcome(Err(errno::EINTR));
        assert_eq!(next(&mut flight, FileKind::Blocking, -errno::EINTR), believed);
    }
}
