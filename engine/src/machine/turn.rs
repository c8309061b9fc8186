//! One event's turn at a machine.

use super::{Action, Notice};

/// The time of an event, and the actions that it causes.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// The event's time, in nanoseconds of the drive's clock.
    pub(crate) now_ns: u64,
    actions: &'a mut Vec<Action>,
}

impl<'a> Turn<'a> {
    /// A turn whose actions are appended to these.
    pub(crate) fn new(now_ns: u64, actions: &'a mut Vec<Action>) -> Turn<'a> {
        Turn { now_ns, actions }
    }

    /// So long after this event; [`NO_LIMIT_NS`](super::NO_LIMIT_NS) where that is never.
    pub(crate) fn after(&self, ns: u64) -> u64 {
        self.now_ns.saturating_add(ns)
    }

    /// Has something done.
    pub(crate) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Tells the embedder.
    pub(crate) fn tell(&mut self, notice: Notice) {
        self.act(Action::Notify(notice));
    }
}
