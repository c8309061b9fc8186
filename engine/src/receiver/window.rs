//! One device's frames put in order: what has arrived at or after the next sequence, and how far
//! the source may go.

use std::collections::BTreeMap;

use crate::ids::{Epoch, Sequence, SlotId};
use crate::outcome::Breach;
use crate::wire::{DataHeader, DevicePlace, Encoding, Frame};

/// Frames at the start of an epoch, by which the source measures the path.
const PROMPT_UP_TO: Sequence = Sequence(16);

/// A source that has had no credit for so long is told of each frame that is done with: it must see
/// that a slow path moves.
const SLOW_NS: u64 = 100_000_000;

/// What stands at one place of the window.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A chunk whose body is on its way or being decompressed.
    Coming(DataHeader),
    /// A chunk that can be written: from this slot, or zeros.
    Chunk(DataHeader, Option<SlotId>),
    /// A frame that is not data.
    Frame(Frame),
}

#[derive(Debug)]
pub(super) struct Window {
    /// How many sequences may be under way at once: the slots that the device owns.
    size: u64,
    /// The next sequence to be taken out.
    next: Sequence,
    /// Sequences below this one are done with: written, or acted on.
    done: Sequence,
    /// First sequence that the source may not send.
    granted: Sequence,
    granted_ns: u64,
    /// Credit is given as soon as everything that arrived is done with.
    prompt: bool,
    entries: BTreeMap<Sequence, Entry>,
}

impl Window {
    /// An epoch's window: only its first frame is allowed until more is granted.
    pub(super) fn new(size: u64) -> Window {
        Window {
            size,
            next: Sequence(0),
            done: Sequence(0),
            granted: Sequence(1),
            granted_ns: 0,
            prompt: true,
            entries: BTreeMap::new(),
        }
    }

    /// The window of an epoch that a discard frame has opened: that frame is taken, and done with.
    pub(super) fn opened(size: u64) -> Window {
        Window { next: Sequence(1), done: Sequence(1), ..Window::new(size) }
    }

    /// How many slots the device owns.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Puts an entry at its place.
    pub(super) fn insert(&mut self, place: DevicePlace, entry: Entry) -> Result<(), Breach> {
        if place.sequence >= self.granted {
            return Err(Breach::OutOfCredit { place, up_to: self.granted });
        }
        if place.sequence < self.next || self.entries.contains_key(&place.sequence) {
            return Err(Breach::Duplicate { place });
        }
        self.entries.insert(place.sequence, entry);
        Ok(())
    }

    /// A chunk that was coming can be written now.
    pub(super) fn arrived(&mut self, header: DataHeader, slot: SlotId) {
        self.prompt = header.encoding == Encoding::Zstd || header.place.sequence < PROMPT_UP_TO;
        self.entries.insert(header.place.sequence, Entry::Chunk(header, Some(slot)));
    }

    /// The entry that is next, if it is there.
    pub(super) fn peek(&self) -> Option<&Entry> {
        self.entries.get(&self.next)
    }

    /// Whether the body of the next entry is on its way.
    pub(super) fn is_coming(&self) -> bool {
        matches!(self.peek(), Some(Entry::Coming(_)))
    }

    /// Whether nothing has arrived, or is arriving, beyond what was taken out.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the next entry out.
    pub(super) fn take(&mut self) -> Option<Entry> {
        let entry = self.entries.remove(&self.next)?;
        self.next = self.next.next();
        Some(entry)
    }

    /// One more sequence is done with.
    pub(super) fn finish_one(&mut self) {
        self.done = self.done.next();
    }

    /// How far the source may go now, if that is worth a frame: when half of the window is free
    /// again, or when it would otherwise stand still. The source measures the path by credits, and
    /// with few frames in flight half a window is too coarse: at the start, and while frames come
    /// compressed, there is a credit whenever all that has arrived is done with. Raw chunks come
    /// fast; a credit for each would cost time, unless the path is slow.
    pub(super) fn grant(&mut self, now_ns: u64) -> Option<Sequence> {
        let up_to = Sequence(self.done.0 + self.size);
        let gained = up_to.0.saturating_sub(self.granted.0);
        let idle = self.granted == self.done
            || (self.prompt && self.next == self.done && self.entries.is_empty());
        let slow = now_ns.saturating_sub(self.granted_ns) >= SLOW_NS;
        if gained == 0 || (gained < self.size.div_ceil(2) && !idle && !slow) {
            return None;
        }
        (self.granted, self.granted_ns) = (up_to, now_ns);
        Some(up_to)
    }

    /// Empties the window and returns the slots that were in it. Bodies still coming are not among
    /// them: they come back by their own events.
    pub(super) fn clear(&mut self) -> Vec<SlotId> {
        let entries = std::mem::take(&mut self.entries);
        entries
            .into_values()
            .filter_map(|entry| match entry {
                Entry::Chunk(_, slot) => slot,
                Entry::Coming(_) | Entry::Frame(_) => None,
            })
            .collect()
    }
}

/// Where frames of `found` stand against a device that is in `current`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Of an epoch that was discarded: dropped and counted.
    Late,
    Current,
    /// The next epoch, which only its discard frame may open.
    Next,
    TooNew,
}

pub(super) fn age(found: Epoch, current: Epoch) -> Age {
    if found < current {
        Age::Late
    } else if found == current {
        Age::Current
    } else if found == current.next() {
        Age::Next
    } else {
        Age::TooNew
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::DeviceId;

    fn place(sequence: u64) -> DevicePlace {
        DevicePlace { device: DeviceId(0), epoch: Epoch(0), sequence: Sequence(sequence) }
    }

    fn frame(sequence: u64) -> Entry {
        Entry::Frame(Frame::InitialDataSent(place(sequence)))
    }

    #[test]
    fn only_the_first_frame_is_free() {
        let mut window = Window::new(4);
        assert!(matches!(window.insert(place(1), frame(1)), Err(Breach::OutOfCredit { .. })));
        assert!(window.insert(place(0), frame(0)).is_ok());
        assert_eq!(window.grant(0), Some(Sequence(4)));
        assert_eq!(window.grant(0), None);
        assert!(window.insert(place(3), frame(3)).is_ok());
        assert!(matches!(window.insert(place(4), frame(4)), Err(Breach::OutOfCredit { .. })));
    }

    #[test]
    fn frames_come_out_in_order_and_once() {
        let mut window = Window::new(4);
        assert!(window.insert(place(0), frame(0)).is_ok());
        assert_eq!(window.take(), Some(frame(0)));
        window.finish_one();
        assert_eq!(window.grant(0), Some(Sequence(5)));
        for sequence in [3, 1, 2] {
            assert!(window.peek().is_none(), "the next one is not there");
            assert!(window.insert(place(sequence), frame(sequence)).is_ok());
            if sequence == 1 {
                assert_eq!(window.take(), Some(frame(1)));
            }
        }
        assert!(matches!(window.insert(place(1), frame(1)), Err(Breach::Duplicate { .. })));
        assert!(matches!(window.insert(place(3), frame(3)), Err(Breach::Duplicate { .. })));
        assert_eq!(window.take(), Some(frame(2)));
        assert_eq!(window.take(), Some(frame(3)));
        assert_eq!(window.take(), None);
    }

    #[test]
    fn credit_comes_in_halves_and_never_beyond_the_slots() {
        let mut window = Window { prompt: false, ..Window::new(8) };
        assert_eq!(window.grant(0), Some(Sequence(8)));
        for sequence in 0..8 {
            assert!(window.insert(place(sequence), frame(sequence)).is_ok());
            assert!(window.take().is_some());
        }
        let mut grants = Vec::new();
        for _ in 0..8 {
            window.finish_one();
            grants.extend(window.grant(0));
        }
        assert_eq!(grants, [Sequence(12), Sequence(16)]);
    }

    #[test]
    fn a_window_in_which_nothing_is_under_way_is_granted_at_once() {
        let mut window = Window::new(8);
        assert_eq!(window.grant(0), Some(Sequence(8)));
        assert!(window.insert(place(0), frame(0)).is_ok());
        assert!(window.insert(place(1), frame(1)).is_ok());
        assert!(window.take().is_some());
        window.finish_one();
        assert_eq!(window.grant(0), None);
        assert!(window.take().is_some());
        window.finish_one();
        assert_eq!(window.grant(0), Some(Sequence(10)));
    }

    #[test]
    fn on_a_slow_path_there_is_a_credit_for_each_frame() {
        let mut window = Window { prompt: false, ..Window::new(8) };
        assert_eq!(window.grant(0), Some(Sequence(8)));
        for sequence in 0..3 {
            assert!(window.insert(place(sequence), frame(sequence)).is_ok());
            assert!(window.take().is_some());
        }
        window.finish_one();
        assert_eq!(window.grant(SLOW_NS - 1), None);
        assert_eq!(window.grant(SLOW_NS), Some(Sequence(9)));
        assert_eq!(window.grant(2 * SLOW_NS), None, "nothing is done since");
    }
}
