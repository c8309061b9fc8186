//! What can be done to a frame on its way, and what must come of it.

use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::outcome::{Breach, Cause, Fault};
use vfio_ferry::wire::Kind;

use crate::peer::{alter, kind};

/// A deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The stream ends inside the header.
    CutHeader,
    /// The stream ends inside the body.
    CutBody,
    /// A bit of the magic is flipped.
    FlipMagic,
    /// A bit of the header behind the magic is flipped.
    FlipHeader(usize),
    /// The body's last bit is flipped.
    FlipBody,
    /// The header, hash and all, announces a body of 4 GiB.
    Huge,
    /// The header is of a version that nobody speaks.
    Version,
    /// The frame before this one did not come.
    Lost,
    /// It has the number of the frame before it, which has come.
    Twice,
    /// A kind that nobody knows, in place of this frame.
    Mandatory,
    /// A frame that may be skipped comes before this one.
    Optional,
}

/// What must come of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: the migration completes.
    Nothing,
    /// A fault with this cause and this name.
    Fault(Cause, &'static str),
}

impl Mutation {
    /// All of them; header bits are taken here and there.
    pub const ALL: [Mutation; 14] = [
        Mutation::CutHeader,
        Mutation::CutBody,
        Mutation::FlipMagic,
        Mutation::FlipHeader(32),
        Mutation::FlipHeader(69),
        Mutation::FlipHeader(200),
        Mutation::FlipHeader(511),
        Mutation::FlipBody,
        Mutation::Huge,
        Mutation::Version,
        Mutation::Lost,
        Mutation::Twice,
        Mutation::Mandatory,
        Mutation::Optional,
    ];

    /// Whether it can be done to this frame.
    pub fn fits(self, frame: &[u8]) -> bool {
        let needs_body = matches!(self, Mutation::CutBody | Mutation::FlipBody);
        !needs_body || frame.len() > HEADER_BYTES
    }

    /// What travels in place of the frame.
    pub fn apply(self, frame: &[u8]) -> Vec<u8> {
        let mut bytes = frame.to_vec();
        let last = bytes.len() - 1;
        match self {
            Mutation::CutHeader => bytes.truncate(HEADER_BYTES - 1),
            Mutation::CutBody => bytes.truncate(last),
            Mutation::FlipMagic => bytes[0] ^= 1,
            Mutation::FlipHeader(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
            Mutation::FlipBody => bytes[last] ^= 0x80,
            Mutation::Huge => alter(&mut bytes, |header| header[8..12].fill(0xff)),
            Mutation::Version => alter(&mut bytes, |header| header[4] = 99),
            Mutation::Lost => alter(&mut bytes, |header| header[56] = 1),
            Mutation::Twice => alter(&mut bytes, |header| header[56..60].fill(0xff)),
            Mutation::Mandatory => alter(&mut bytes, |header| header[7] = 0x70),
            Mutation::Optional => {
                let mut unknown = crate::peer::bytes(&vfio_ferry::wire::Frame::Message(
                    bytes::Bytes::from_static(b"of a later version"),
                ));
                alter(&mut unknown, |header| header[6..8].copy_from_slice(&[0xff, 0x80]));
                bytes.splice(0..0, unknown);
            }
        }
        bytes
    }

    /// Whether the stream ends with it.
    pub fn ends_the_stream(self) -> bool {
        matches!(self, Mutation::CutHeader | Mutation::CutBody)
    }

    /// What must come of it.
    pub fn expected(self, frame: &[u8]) -> Expected {
        use Cause::{Network, PeerMisbehaviour};
        match self {
            Mutation::CutHeader | Mutation::CutBody => Expected::Fault(Network, "Cut"),
            Mutation::FlipMagic => Expected::Fault(PeerMisbehaviour, "BadMagic"),
            Mutation::FlipHeader(_) => Expected::Fault(Network, "HeaderHash"),
            Mutation::FlipBody if kind(frame) == Kind::DATA => {
                Expected::Fault(Network, "Data(BodyHash)")
            }
            Mutation::FlipBody => Expected::Fault(Network, "BodyHash"),
            Mutation::Huge => Expected::Fault(PeerMisbehaviour, "BodyTooLong"),
            Mutation::Version => Expected::Fault(PeerMisbehaviour, "Version"),
            Mutation::Lost | Mutation::Twice => Expected::Fault(Network, "Missing"),
            Mutation::Mandatory => Expected::Fault(PeerMisbehaviour, "UnknownKind"),
            Mutation::Optional => Expected::Nothing,
        }
    }
}

/// The name of what a fault found: of the [`Breach`], or of the wire fault in it.
pub fn name(fault: &Fault) -> String {
    let text = match &fault.breach {
        None => return "none".to_owned(),
        Some(Breach::Wire(wire)) => format!("{wire:?}"),
        Some(Breach::BodyHash { .. }) => return "Data(BodyHash)".to_owned(),
        Some(breach) => format!("{breach:?}"),
    };
    text.chars().take_while(|c| c.is_alphanumeric()).collect()
}

/// Checks a session's fault against what was expected.
pub fn assert_expected(expected: &Expected, fault: Option<&Fault>, what: &str) {
    match (expected, fault) {
        (Expected::Nothing, None) => {}
        (Expected::Fault(cause, breach), Some(fault)) => {
            assert_eq!((fault.cause, name(fault).as_str()), (*cause, *breach), "{what}: {fault}");
        }
        _ => panic!("{what}: expected {expected:?}, found {fault:?}"),
    }
}
