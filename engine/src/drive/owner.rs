//! The session's one ring, and whose its operations are.

use std::cell::RefCell;
use std::rc::Rc;

use crate::ids::{DeviceId, StreamId};
use crate::ring::{Ring, Token};

/// The ring of streams and data fds. Borrowed for single calls only.
pub(super) type SharedRing = Rc<RefCell<Box<dyn Ring>>>;

/// Which way an operation moves bytes on a stream. Each has at most one operation for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

/// A data fd among those that its device has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DataFdId {
    pub(super) device: DeviceId,
    /// Counted from 0; far more than there may be epochs.
    pub(super) number: u32,
}

/// Whose an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Stream(StreamId, Way),
    /// A data fd's read or write.
    Data(DataFdId),
    /// A data fd's wait for its death.
    Watch(DataFdId),
}

/// Bits of a token from which on it says what kind of owner it has.
const KIND: u32 = 62;
const STREAM: u64 = 0;
const DATA: u64 = 1;
const WATCH: u64 = 2;

impl Owner {
    /// The name of the owner's operation on the ring.
    pub(super) fn token(self) -> Token {
        let data = |DataFdId { device, number }| u64::from(device.0) << 32 | u64::from(number);
        Token(match self {
            Owner::Stream(stream, way) => STREAM << KIND | u64::from(stream.0) << 1 | way as u64,
            Owner::Data(id) => DATA << KIND | data(id),
            Owner::Watch(id) => WATCH << KIND | data(id),
        })
    }

    /// The owner that a token names.
    pub(super) fn of(Token(token): Token) -> Owner {
        // A device's number is far below the kind's bits.
        let device = DeviceId((token >> 32) as u32 & 0xffff);
        let id = DataFdId { device, number: token as u32 };
        match token >> KIND {
            DATA => Owner::Data(id),
            WATCH => Owner::Watch(id),
            _ => {
                let way = if token & 1 == Way::Out as u64 { Way::Out } else { Way::In };
                Owner::Stream(StreamId((token >> 1) as u16), way)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{DEVICES_MAX, STREAMS_MAX};

    #[test]
    fn an_owner_is_known_by_its_token() {
        let mut tokens = Vec::new();
        let mut check = |owner: Owner| {
            assert_eq!(Owner::of(owner.token()), owner);
            tokens.push(owner.token());
        };
        for stream in [0, 1, STREAMS_MAX as u16] {
            for way in [Way::Out, Way::In] {
                check(Owner::Stream(StreamId(stream), way));
            }
        }
        for device in [0, 1, DEVICES_MAX as u32] {
            for number in [0, 1, u32::MAX] {
                let id = DataFdId { device: DeviceId(device), number };
                check(Owner::Data(id));
                check(Owner::Watch(id));
            }
        }
        let all = tokens.len();
        tokens.sort();
        tokens.dedup();
        assert_eq!(tokens.len(), all);
    }
}
