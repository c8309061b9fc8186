//! The slots that are with the drive: one is here, or with whoever works on it, never in two
//! places.

use crate::buffers::Slot;
use crate::ids::SlotId;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Slots(Vec<Option<Slot>>);

impl Slots {
    /// All slots of an arena, in the order of their numbers.
    pub(super) fn new(slots: Vec<Slot>) -> Slots {
        Slots(slots.into_iter().map(Some).collect())
    }

    /// Takes a slot out, to be worked on. The machine names none that is elsewhere.
    pub(super) fn take(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.0[id.index()].take();
        debug_assert!(slot.is_some(), "{id} is elsewhere");
        slot
    }

    /// Takes a slot back.
    pub(super) fn put(&mut self, slot: Slot) -> SlotId {
        let id = slot.id();
        debug_assert!(self.0[id.index()].is_none(), "{id} is in two places");
        self.0[id.index()] = Some(slot);
        id
    }
}
