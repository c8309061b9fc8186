//! Who takes part in a grid: the engine with a policy, or a peer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Contender, Policy};

/// One of a grid's contenders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entrant {
    /// The engine.
    Engine(Policy),
    /// Another program.
    Peer(Contender),
}

impl Entrant {
    /// All that the project measures itself by.
    pub(crate) const ALL: [Entrant; 10] = [
        Entrant::Engine(Policy::Adaptive),
        Entrant::Engine(Policy::Raw),
        Entrant::Engine(Policy::Zstd(-5)),
        Entrant::Engine(Policy::Zstd(1)),
        Entrant::Engine(Policy::Zstd(3)),
        Entrant::Peer(Contender::QemuMain),
        Entrant::Peer(Contender::QemuMultifd),
        Entrant::Peer(Contender::Snapshot),
        Entrant::Peer(Contender::Pipeline),
        Entrant::Peer(Contender::TokioUring),
    ];

    /// Who carries.
    pub(crate) fn contender(self) -> Contender {
        match self {
            Entrant::Engine(_) => Contender::Engine,
            Entrant::Peer(contender) => contender,
        }
    }

    /// The engine with one choice for all chunks.
    pub(crate) fn is_fixed(self) -> bool {
        matches!(self, Entrant::Engine(Policy::Raw | Policy::Zstd(_)))
    }
}

impl FromStr for Entrant {
    type Err = String;

    fn from_str(text: &str) -> Result<Entrant, String> {
        let peers = Contender::ALL.into_iter().filter(|&it| it != Contender::Engine);
        if let Some(peer) = peers.clone().find(|peer| peer.name() == text) {
            return Ok(Entrant::Peer(peer));
        }
        let names: Vec<&str> = peers.map(Contender::name).collect();
        let policy: Result<Policy, String> = text.parse();
        policy.map(Entrant::Engine).map_err(|error| format!("{error}, or {}", names.join(", ")))
    }
}

impl fmt::Display for Entrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entrant::Engine(policy) => policy.fmt(f),
            Entrant::Peer(contender) => f.write_str(contender.name()),
        }
    }
}

impl Serialize for Entrant {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Entrant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Entrant, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_shown() {
        for entrant in Entrant::ALL {
            assert_eq!(entrant.to_string().parse(), Ok(entrant));
        }
        let error = "vfio-ferry".parse::<Entrant>().err().unwrap_or_default();
        assert!(error.contains("adaptive") && error.contains("tokio-uring"), "{error}");
    }
}
