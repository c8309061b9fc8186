//! Which connections make a session: those whose hellos say the same, save the stream's number.

#![forbid(unsafe_code)]

use super::turned_away::Reason;
use crate::limits::{CHUNK_BYTES_MAX, DEVICES_MAX, STREAMS_MAX};
use crate::wire::{Hello, Offer, negotiate};

/// A session that is not complete.
#[derive(Debug)]
pub(super) struct Gathering {
    first: Hello,
    /// The key that every stream has to show; none where they are not protected.
    key: Option<[u8; 32]>,
    /// The connections by their streams' numbers.
    streams: Vec<Option<u64>>,
}

impl Gathering {
    /// The session of a hello that [`fits`].
    pub(super) fn new(first: Hello, key: Option<[u8; 32]>) -> Gathering {
        Gathering { first, key, streams: vec![None; usize::from(first.streams)] }
    }

    /// Adds a connection. True when all are there; [`Reason::Misfit`] where it is none of this
    /// session's, or its place is taken.
    pub(super) fn join(
        &mut self,
        hello: &Hello,
        key: Option<[u8; 32]>,
        connection: u64,
    ) -> Result<bool, Reason> {
        if key != self.key {
            return Err(Reason::Misfit);
        }
        hello.same_session(&self.first).map_err(|_| Reason::Misfit)?;
        match self.streams.get_mut(hello.stream.index()) {
            Some(place @ None) => *place = Some(connection),
            _ => return Err(Reason::Misfit),
        }
        Ok(self.streams.iter().all(Option::is_some))
    }

    /// Its connections so far, in the order of their streams.
    pub(super) fn connections(&self) -> impl Iterator<Item = u64> {
        self.streams.iter().filter_map(|connection| *connection)
    }
}

/// Whether any session of this engine could be made with it.
pub(super) fn fits(hello: &Hello) -> bool {
    negotiate(&Offer::new(STREAMS_MAX, DEVICES_MAX, CHUNK_BYTES_MAX), hello).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::StreamId;

    fn hello(streams: usize, stream: u16) -> Hello {
        Hello { stream: StreamId(stream), ..Offer::new(streams, 1, 4096).hello(7, StreamId(0)) }
    }

    #[test]
    fn a_session_is_complete_when_each_stream_is_there_once() {
        let mut gathering = Gathering::new(hello(3, 0), Some([1; 32]));
        assert_eq!(gathering.join(&hello(3, 2), Some([1; 32]), 30), Ok(false));
        assert_eq!(gathering.join(&hello(3, 0), Some([1; 32]), 10), Ok(false));
        assert_eq!(
            gathering.join(&hello(3, 2), Some([1; 32]), 31),
            Err(Reason::Misfit),
            "its place is taken"
        );
        assert_eq!(
            gathering.join(&hello(2, 1), Some([1; 32]), 32),
            Err(Reason::Misfit),
            "it counts otherwise"
        );
        assert_eq!(
            gathering.join(&hello(3, 1), Some([2; 32]), 33),
            Err(Reason::Misfit),
            "another key"
        );
        assert_eq!(gathering.join(&hello(3, 1), None, 34), Err(Reason::Misfit), "no key");
        assert_eq!(gathering.join(&hello(3, 1), Some([1; 32]), 20), Ok(true));
        assert_eq!(gathering.connections().collect::<Vec<_>>(), [10, 20, 30]);
    }

    #[test]
    fn what_no_session_can_have_does_not_fit() {
        assert!(fits(&hello(STREAMS_MAX, 63)));
        assert!(!fits(&hello(2, 2)));
        assert!(!fits(&Hello { streams: STREAMS_MAX as u16 + 1, ..hello(1, 0) }));
        assert!(!fits(&Hello { streams: 0, ..hello(1, 0) }));
        assert!(!fits(&Hello { devices: u32::MAX, ..hello(1, 0) }));
        assert!(!fits(&Hello { version_min: 9, version_max: 9, ..hello(1, 0) }));
    }
}
