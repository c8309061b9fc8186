//! A running session: what both hosts have in common.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::SessionEvent;
use super::embedded::EmbeddedDevice;
use super::side::{ReportOf, Side};
use crate::door::{Guard, StreamProtection};
use crate::drive::{Input, Running, deadline};
use crate::error::UsageError;
use crate::limits;
use crate::machine::Command;
use crate::metrics::Metrics;
use crate::outcome::Cause;

/// A migration that runs on this host: a [`SourceSession`](super::SourceSession) or a
/// [`TargetSession`](super::TargetSession). See the [crate](crate) for how one is used.
///
/// All methods may be called from any thread. Dropping a session that has not ended cancels it and
/// waits, within the cancel bound, until it has; a device whose driver answers later than that is
/// brought back when it does.
#[derive(Debug)]
pub struct Session<S: Side> {
    pub(super) running: Running,
    pub(super) devices: usize,
    pub(super) embedded: Vec<Option<Arc<EmbeddedDevice>>>,
    pub(super) streams: usize,
    pub(super) guards: Vec<Option<Guard>>,
    pub(super) side: PhantomData<S>,
}

impl<S: Side> Session<S> {
    /// How many streams it was made with.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// How each stream is guarded, in their order; and of one that TLS guards, how it broke.
    pub fn protection(&self) -> Vec<StreamProtection> {
        self.guards.iter().map(|guard| StreamProtection::of(guard.as_ref())).collect()
    }

    /// The next event, if one waits. Never blocks.
    pub fn poll_event(&self) -> Option<SessionEvent> {
        self.running.outbox.poll()
    }

    /// Waits for the next event: for ever without a timeout. None when the timeout is over, and
    /// after the last event was fetched: that is [`SessionEvent::Finished`], or, where the report
    /// says that drivers are late, the last device's
    /// [`Notice::CameBack`](super::Notice::CameBack).
    pub fn wait_event(&self, timeout: Option<Duration>) -> Option<SessionEvent> {
        self.running.outbox.wait(timeout.and_then(deadline))
    }

    /// An eventfd that is readable while an event waits; for poll, epoll or an event loop. It
    /// belongs to the session: do not read, write or close it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.running.outbox.event_fd()
    }

    /// Gives the migration up. Returns at once; [`SessionEvent::Finished`] follows within the
    /// cancel bound, even while a driver holds an operation. After the handover nothing is undone: a
    /// source waits half of the bound for the target's word and ends as unconfirmed without it, a
    /// target whose devices do not run by then ends as not blank.
    pub fn cancel(&self) {
        self.command(Command::Cancel);
    }

    /// Carries a message to the peer's embedder, unchanged and in order with other messages where
    /// there is one stream.
    ///
    /// What the peer's engine has not taken waits here, at most [`limits::MESSAGES_WAITING_MAX`]
    /// messages; the session's end drops them. There is room again as the peer reads. No event says
    /// when: a peer that reads nothing for long ends the session.
    ///
    /// # Errors
    /// [`UsageError::TooLong`] beyond [`limits::MESSAGE_BYTES_MAX`], [`UsageError::Full`] while as
    /// many messages wait as may.
    pub fn send_message(&self, message: Bytes) -> Result<(), UsageError> {
        let (what, max) = ("a message", limits::MESSAGE_BYTES_MAX);
        if message.len() > max {
            return Err(UsageError::TooLong { what, found: message.len(), max });
        }
        if self.running.message_budget.take() {
            self.command(Command::Message(message));
        } else if !self.has_ended() {
            return Err(UsageError::Full { max: limits::MESSAGES_WAITING_MAX });
        }
        Ok(())
    }

    /// Whether the session has ended: [`report`](Self::report) has something to say.
    pub fn has_ended(&self) -> bool {
        self.running.report.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What was measured so far, at most a tenth of a second old while the session runs; what the
    /// report says once it has ended.
    pub fn metrics(&self) -> Metrics {
        if let Some(ended) = &*self.running.report.lock().unwrap_or_else(PoisonError::into_inner) {
            return ended.metrics().clone();
        }
        self.running.metrics.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the session ended, once [`SessionEvent::Finished`] was there to be fetched.
    pub fn report(&self) -> Option<ReportOf<S>> {
        let ended = self.running.report.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = ended.as_ref().and_then(S::report).cloned()?;
        // The machine knows only that a stream broke.
        let broken = self.guards.iter().flatten().find_map(|guard| guard.fault());
        if let (Some(broken), Some(fault)) = (broken, S::fault_mut(&mut report.ending))
            && fault.cause == Cause::Network
        {
            fault.message = format!("{}; TLS: {broken}", fault.message);
        }
        Some(report)
    }

    /// Waits for the end, throwing away events that were not fetched. Nothing more is waited for:
    /// neither a driver that is late, of whose device nobody hears any more, nor the streams.
    pub fn finish(self) -> ReportOf<S> {
        self.running.outbox.wait_finished();
        match self.report() {
            Some(report) => report,
            None => unreachable!("a report is written before the last event"),
        }
    }

    /// Waits until the session has ended and its streams are closed; false if the timeout is over
    /// first. For a process that exits right after the end: until then the system may drop what the
    /// peer has not read, the last word of this host among it. It takes half a second at most where
    /// the peer does not close its end.
    pub fn wait_closed(&self, timeout: Duration) -> bool {
        let deadline = deadline(timeout);
        self.running.closing.wait(deadline)
            && self.guards.iter().flatten().all(|guard| guard.wait_closed(deadline))
    }

    pub(super) fn command(&self, command: Command) {
        self.running.inbox.send(Input::Command(command));
    }
}

impl<S: Side> Drop for Session<S> {
    fn drop(&mut self) {
        self.cancel();
        self.running.outbox.wait_finished();
    }
}
