//! Seeds that have found something, and what. They run first.

pub(crate) const REGRESSIONS: &[(u64, &str)] = &[];

/// The same with a hostile peer.
pub(crate) const HOSTILE: &[(u64, &str)] = &[];
