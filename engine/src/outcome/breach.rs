//! What a peer can do wrong with frames that are well-formed by themselves.

use thiserror::Error;

use super::{Cause, Observation};
use crate::ids::{DeviceId, Epoch, Sequence, StreamId};
use crate::wire::{DevicePlace, Kind, Total, WireFault};

/// How a peer broke the protocol: in the bytes of one frame, or in what frames say together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Breach {
    /// The bytes of one frame.
    #[error(transparent)]
    Wire(#[from] WireFault),
    /// The stream ended inside a frame.
    #[error("{stream} ended after {found} of the {expected} bytes of a header or body")]
    Cut {
        /// The stream.
        stream: StreamId,
        /// Bytes that arrived.
        found: usize,
        /// Bytes that were to come.
        expected: usize,
    },
    /// A frame for a device that this side does not have.
    #[error("a {kind} frame for {device}, which this session does not have")]
    UnknownDevice {
        /// The frame's kind.
        kind: Kind,
        /// The number.
        device: DeviceId,
    },
    /// The device's name is not the one that this side has for it.
    #[error("{device} is named {found:?} by the source and {expected:?} here")]
    Name {
        /// The device.
        device: DeviceId,
        /// The source's name.
        found: String,
        /// This side's name.
        expected: String,
    },
    /// A frame of an epoch that has not begun.
    #[error("a {kind} frame of {found} of {device}, which is in {current}")]
    Epoch {
        /// The frame's kind.
        kind: Kind,
        /// The device.
        device: DeviceId,
        /// The frame's epoch.
        found: Epoch,
        /// The device's epoch.
        current: Epoch,
    },
    /// A frame beyond what this side has said it can take.
    #[error("{} sent {} {} but was only allowed up to {up_to}", place.device, place.epoch, place.sequence)]
    OutOfCredit {
        /// The frame's place.
        place: DevicePlace,
        /// First sequence that was not allowed.
        up_to: Sequence,
    },
    /// A place that was filled before.
    #[error("{} sent {} {} twice", place.device, place.epoch, place.sequence)]
    Duplicate {
        /// The frame's place.
        place: DevicePlace,
    },
    /// A chunk that does not begin where the one before it ended.
    #[error("the chunk at {} of {} says offset {found} where {expected} is next", place.sequence, place.device)]
    Offset {
        /// The frame's place.
        place: DevicePlace,
        /// The frame's offset.
        found: u64,
        /// Where the chunks before it end.
        expected: u64,
    },
    /// The bytes that arrived are not those that the header promised.
    #[error("the body of the chunk at {} of {} was damaged on the way", place.sequence, place.device)]
    BodyHash {
        /// The frame's place.
        place: DevicePlace,
    },
    /// The body did not decompress to what the header promised.
    #[error("the chunk at {} of {} does not decompress to what its header says: {what}", place.sequence, place.device)]
    Chunk {
        /// The frame's place.
        place: DevicePlace,
        /// What was wrong.
        what: &'static str,
    },
    /// The end's sums are not those of what arrived.
    #[error(
        "{device} ended with {} bytes, digest {}, but {} bytes, digest {} arrived",
        found.bytes, found.digest, expected.bytes, expected.digest
    )]
    Total {
        /// The device.
        device: DeviceId,
        /// What the peer says.
        found: Total,
        /// What this side has.
        expected: Total,
    },
    /// A frame with no place in the state that the session or the device is in.
    #[error("a {kind} frame has no place here: {what}")]
    Unexpected {
        /// The frame's kind.
        kind: Kind,
        /// Why not.
        what: &'static str,
    },
    /// More answers than a peer that reads what it asks for ever leaves waiting.
    #[error("more than {max} answers wait to be taken in by the peer")]
    Answers {
        /// The bound.
        max: usize,
    },
    /// More discards of one device than this side takes: each costs it a reset.
    #[error("{device} was discarded more than {max} times: its state never comes to an end")]
    Discards {
        /// The device.
        device: DeviceId,
        /// The bound.
        max: u32,
    },
    /// More messages for the embedder than it may leave waiting.
    #[error("more than {max} messages wait for the embedder")]
    Messages {
        /// The bound.
        max: usize,
    },
}

impl Breach {
    /// Who is at fault: the network where a stream was cut or a checksum shows damage, the peer
    /// otherwise.
    pub fn cause(&self) -> Cause {
        match self {
            Breach::Wire(fault) => fault.cause(),
            Breach::Cut { .. } | Breach::BodyHash { .. } => Cause::Network,
            _ => Cause::PeerMisbehaviour,
        }
    }

    /// Whether the stream's bytes show it, or only what the frames say.
    pub fn observation(&self) -> Observation {
        match self {
            Breach::Wire(_) | Breach::Cut { .. } | Breach::BodyHash { .. } => Observation::Stream,
            _ => Observation::Peer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Damage on the way is the network's; what a whole frame says is the peer's.
    #[test]
    fn the_network_is_at_fault_where_bytes_are_missing_or_damaged() {
        let (network, peer) = (Cause::Network, Cause::PeerMisbehaviour);
        let (stream, frames) = (Observation::Stream, Observation::Peer);
        let (kind, found, expected) = (Kind::DATA, 1, 2);
        let damaged = WireFault::BodyHash { kind, found, expected };
        let cut = Breach::Cut { stream: StreamId(0), found: 1, expected: 2 };
        let place = DevicePlace { device: DeviceId(0), epoch: Epoch(0), sequence: Sequence(1) };
        for (breach, cause, observation) in [
            (damaged.into(), network, stream),
            (WireFault::EncodingNotAgreed.into(), peer, stream),
            (cut, network, stream),
            (Breach::Duplicate { place }, peer, frames),
            (Breach::Unexpected { kind, what: "now" }, peer, frames),
        ] {
            let found: (Cause, Observation) = (breach.cause(), breach.observation());
            assert_eq!(found, (cause, observation), "{breach}");
        }
    }
}
