//! A session of either host, and its report: C has one type for both.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use bytes::Bytes;
use vfio_ferry::{
    Fault, Metrics, SessionEvent, SourceReport, SourceSession, StreamProtection, TargetReport,
    TargetSession, UsageError,
};

use crate::failure::Failure;
use crate::status::vferry_status::VFERRY_ERR_WRONG_HOST;

#[derive(Debug)]
pub(crate) enum AnySession {
    Source(SourceSession),
    Target(TargetSession),
}

#[derive(Debug)]
pub(crate) enum AnyReport {
    Source(SourceReport),
    Target(TargetReport),
}

/// The same of either host's session.
macro_rules! either {
    ($any:expr, $session:ident => $what:expr) => {
        match $any {
            AnySession::Source($session) => $what,
            AnySession::Target($session) => $what,
        }
    };
}

impl AnySession {
    /// For a call that only a source has.
    pub(crate) fn source(&self) -> Result<&SourceSession, Failure> {
        match self {
            AnySession::Source(session) => Ok(session),
            AnySession::Target(_) => {
                Err(Failure::new(VFERRY_ERR_WRONG_HOST, "the call belongs to the source's session"))
            }
        }
    }

    pub(crate) fn poll_event(&self) -> Option<SessionEvent> {
        either!(self, session => session.poll_event())
    }

    pub(crate) fn wait_event(&self, timeout: Option<Duration>) -> Option<SessionEvent> {
        either!(self, session => session.wait_event(timeout))
    }

    pub(crate) fn wait_closed(&self, timeout: Duration) -> bool {
        either!(self, session => session.wait_closed(timeout))
    }

    pub(crate) fn event_fd(&self) -> BorrowedFd<'_> {
        either!(self, session => session.event_fd())
    }

    pub(crate) fn cancel(&self) {
        either!(self, session => session.cancel());
    }

    pub(crate) fn send_message(&self, message: Bytes) -> Result<(), UsageError> {
        either!(self, session => session.send_message(message))
    }

    pub(crate) fn protection(&self) -> Vec<StreamProtection> {
        either!(self, session => session.protection())
    }

    pub(crate) fn has_ended(&self) -> bool {
        either!(self, session => session.has_ended())
    }

    pub(crate) fn metrics(&self) -> Metrics {
        either!(self, session => session.metrics())
    }

    pub(crate) fn report(&self) -> Option<AnyReport> {
        match self {
            AnySession::Source(session) => session.report().map(AnyReport::Source),
            AnySession::Target(session) => session.report().map(AnyReport::Target),
        }
    }
}

impl AnyReport {
    /// Why, unless it was handed over.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        match self {
            AnyReport::Source(report) => report.ending.fault(),
            AnyReport::Target(report) => report.ending.fault(),
        }
    }
}
