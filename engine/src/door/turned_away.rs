//! The strangers: counted by reason, the last ones by name, and logged without flooding the log.

use std::collections::VecDeque;
use std::net::SocketAddr;

use crate::limits;

/// Why a connection did not become a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It said no whole hello in time.
    Silent,
    /// It was closed before its session was complete, or while that waited to be taken.
    Closed,
    /// It said something else than a hello.
    NotAHello,
    /// Its hello asks for what no session can have.
    BadHello,
    /// Its hello names a session, and does not fit what that session's other streams said.
    Misfit,
    /// The other streams of its session did not come in time.
    Incomplete,
    /// It had to make room: more connections were there than may be held.
    Crowded,
    /// Its session is not the one that was expected.
    Unexpected,
    /// It is not protected, and comes from another host.
    Unprotected,
    /// Its session was complete, and as many wait as may; or the acceptor was closed.
    Busy,
    /// It is not who it has to be, or its certificate is not valid today (TLS).
    Untrusted,
    /// Its handshake failed, or it spoke something else (TLS).
    NoHandshake,
}

impl Reason {
    /// All reasons, in declaration order.
    pub const ALL: [Reason; 12] = [
        Reason::Silent,
        Reason::Closed,
        Reason::NotAHello,
        Reason::BadHello,
        Reason::Misfit,
        Reason::Incomplete,
        Reason::Crowded,
        Reason::Unexpected,
        Reason::Unprotected,
        Reason::Busy,
        Reason::Untrusted,
        Reason::NoHandshake,
    ];

    /// The name used in logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Silent => "silent",
            Reason::Closed => "closed",
            Reason::NotAHello => "not_a_hello",
            Reason::BadHello => "bad_hello",
            Reason::Misfit => "misfit",
            Reason::Incomplete => "incomplete",
            Reason::Crowded => "crowded",
            Reason::Unexpected => "unexpected",
            Reason::Unprotected => "unprotected",
            Reason::Busy => "busy",
            Reason::Untrusted => "untrusted",
            Reason::NoHandshake => "no_handshake",
        }
    }

    /// What a connection that has said a good hello is told. A stranger who knows how to say one
    /// learns from it what he knows: that nobody talks to him.
    pub(super) fn words(self) -> &'static str {
        match self {
            Reason::Incomplete | Reason::Misfit | Reason::Closed => {
                "the session's streams did not all arrive, or do not fit together"
            }
            Reason::Crowded | Reason::Busy => "the target takes no more sessions now; try again",
            _ => "the target does not take this session",
        }
    }
}

/// A connection that was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stranger {
    /// Where it came from.
    pub peer: SocketAddr,
    /// Why it had to go.
    pub reason: Reason,
}

/// Every connection that was turned away: numbers by reason, and the last
/// [`limits::STRANGERS_KEPT`] one by one.
#[derive(Debug, Clone, Default)]
pub struct TurnedAway {
    counts: [u64; Reason::ALL.len()],
    last: VecDeque<Stranger>,
}

impl TurnedAway {
    /// How many were, for this reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize]
    }

    /// How many were, in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The last ones, the oldest first.
    pub fn last(&self) -> impl ExactSizeIterator<Item = &Stranger> {
        self.last.iter()
    }

    pub(super) fn add(&mut self, stranger: Stranger) {
        self.counts[stranger.reason as usize] += 1;
        if self.last.len() == limits::STRANGERS_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(stranger);
        // Ten thousand of them must not be ten thousand lines: the first ones, then at each power of 2.
        let total = self.total();
        if total <= limits::STRANGERS_KEPT as u64 || total.is_power_of_two() {
            let Stranger { peer, reason } = stranger;
            tracing::warn!(%peer, reason = reason.name(), total, "a connection was turned away");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_place_and_what_is_kept_has_a_bound() {
        let mut away = TurnedAway::default();
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            for port in 0..=index as u16 {
                away.add(Stranger { peer: ([192, 0, 2, 1], port).into(), reason });
            }
            assert_eq!(away.count(reason), index as u64 + 1);
        }
        assert_eq!(away.total(), 78);
        assert_eq!(away.last().len(), limits::STRANGERS_KEPT);
        assert!(away.last().all(|last| last.reason as usize >= 8), "the oldest went");
    }
}
