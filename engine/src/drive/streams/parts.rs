//! Frames that are under way: on a slow path a long frame takes its time, and that its bytes move is
//! to be known before its end.

use super::receiving::Receiving;
use super::{StreamEvent, Streams};
use crate::drive::owner::{Owner, Way};
use crate::drive::waits::PARTS_EVERY;
use crate::ids::StreamId;

const EVERY_NS: u64 = PARTS_EVERY.as_nanos() as u64;

/// What was told of the operation in flight, and what of the bytes before it was not.
#[derive(Debug, Default)]
pub(super) struct Part {
    told: usize,
    untold: usize,
}

impl Part {
    /// The operation has ended, and with it a frame, or what is told otherwise.
    pub(super) fn end(&mut self) {
        *self = Part::default();
    }

    /// The operation has ended, and the frame goes on.
    pub(super) fn go_on(&mut self, moved: usize) {
        self.untold += moved.saturating_sub(self.told);
        self.told = 0;
    }

    /// So many bytes of the operation have moved: what is to be told now.
    fn take(&mut self, moved: usize) -> Option<u32> {
        let bytes = self.untold + moved.saturating_sub(self.told);
        (self.told, self.untold) = (moved, 0);
        u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)
    }
}

impl Streams {
    /// When parts are to be looked for: while a frame is under way.
    pub(in crate::drive) fn deadline_ns(&self) -> Option<u64> {
        let under_way = |stream: &super::Stream| {
            let comes = matches!(
                stream.receiving,
                Receiving::Control(_) | Receiving::Data { .. } | Receiving::Skip { .. }
            );
            stream.send_since_ns.is_some() || comes || stream.owes_end
        };
        let any = !self.closing && self.streams.iter().any(under_way);
        any.then_some(self.looked_ns + EVERY_NS)
    }

    /// Tells what has moved since the last time, if that is long enough ago.
    pub(in crate::drive) fn look_for_parts(&mut self, now_ns: u64) {
        if now_ns < self.looked_ns + EVERY_NS {
            return;
        }
        self.looked_ns = now_ns;
        let ring = self.ring.borrow();
        for (index, entry) in self.streams.iter_mut().enumerate() {
            let stream = StreamId(index as u16);
            for way in [Way::Out, Way::In] {
                let (part, sent) = match way {
                    Way::Out => (&mut entry.going, true),
                    Way::In => (&mut entry.coming, false),
                };
                if let Some(bytes) = part.take(ring.moved(Owner::Stream(stream, way).token())) {
                    self.events.push_back(StreamEvent::Part { stream, sent, bytes });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_told_once_whatever_operation_brought_it() {
        let mut part = Part::default();
        assert_eq!((part.take(0), part.take(100), part.take(100)), (None, Some(100), None));
        // The next operation counts from the start.
        part.go_on(1000);
        assert_eq!((part.take(0), part.take(50), part.take(70)), (Some(900), Some(50), Some(20)));
        // Two that nobody has looked at between.
        part.go_on(1000);
        part.go_on(1000);
        assert_eq!(part.take(5), Some(930 + 1000 + 5));
        // Another frame.
        part.end();
        assert_eq!((part.take(0), part.take(3)), (None, Some(3)));
    }
}
