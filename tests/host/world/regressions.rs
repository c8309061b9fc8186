//! Seeds that have found something, and what. They run first.

pub(crate) const REGRESSIONS: &[(u64, &str)] = &[(
    50_398,
    "a read that failed on a discarded session's fd killed the session after it, whose reads then \
     gave 0: the world's fault, no driver does that",
)];

/// The same with a hostile peer.
pub(crate) const HOSTILE: &[(u64, &str)] = &[];
