//! Who may hold how many slots of the arena. The pool's size is a sum with a named consumer for
//! each term, so a stage that needs a slot always finds one once the stages before it move on.

use crate::ids::SlotId;
use crate::limits;

/// The free slots of one side of a session.
///
/// Both sides use the same sum:
///
/// ```text
/// devices * per_device   chunks read but not yet on the wire (sender); the window of frames that
///                        the source may have in flight or unwritten (receiver)
/// + workers * 2          the other side of a compression or decompression: one that runs and one
///                        that waits for each worker
/// ```
#[derive(Debug)]
pub struct SlotBudget {
    free: Vec<SlotId>,
    total: usize,
    per_device: usize,
    spares: usize,
    spares_used: usize,
}

impl SlotBudget {
    /// How many slots a session of this shape wants for each device: twice what can be under way
    /// in workers and streams, shared by the devices.
    pub fn per_device(devices: usize, workers: usize, streams: usize) -> usize {
        let wanted = 2 * workers + 2 * streams + 4;
        wanted.div_ceil(devices.max(1)).max(limits::SLOTS_PER_DEVICE_MIN)
    }

    /// The sum.
    pub fn total(devices: usize, per_device: usize, workers: usize) -> usize {
        devices * per_device + workers * 2
    }

    /// All slots free.
    pub fn new(devices: usize, per_device: usize, workers: usize) -> SlotBudget {
        let total = Self::total(devices, per_device, workers);
        let free = (0..total).rev().map(|id| SlotId(id as u32)).collect();
        SlotBudget { free, total, per_device, spares: workers * 2, spares_used: 0 }
    }

    /// How many slots one device may hold.
    pub fn device_share(&self) -> usize {
        self.per_device
    }

    /// A slot for a device that holds `held` of its share.
    pub fn take_for_device(&mut self, held: usize) -> Option<SlotId> {
        if held < self.per_device { self.free.pop() } else { None }
    }

    /// A slot for the other side of a compression or decompression.
    pub fn take_spare(&mut self) -> Option<SlotId> {
        if self.spares_used == self.spares {
            return None;
        }
        let slot = self.free.pop()?;
        self.spares_used += 1;
        Some(slot)
    }

    /// A device's slot comes back.
    pub fn put(&mut self, slot: SlotId) {
        debug_assert!(!self.free.contains(&slot), "{slot} came back twice");
        self.free.push(slot);
    }

    /// One of the two slots of a compression comes back; the other takes its place with the device.
    pub fn put_spare(&mut self, slot: SlotId) {
        self.spares_used -= 1;
        self.put(slot);
    }

    /// Slots that are out.
    pub fn out(&self) -> usize {
        self.total - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_consumer_of_the_sum_finds_its_slot() {
        let (devices, workers) = (3, 2);
        let mut budget = SlotBudget::new(devices, 4, workers);
        let mut taken = Vec::new();
        for _ in 0..devices {
            for held in 0..4 {
                taken.push(budget.take_for_device(held).expect("share"));
            }
            assert_eq!(budget.take_for_device(4), None);
        }
        for _ in 0..workers * 2 {
            taken.push(budget.take_spare().expect("spare"));
        }
        assert_eq!(budget.take_spare(), None);
        assert_eq!(budget.out(), SlotBudget::total(devices, 4, workers));
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), budget.out(), "no slot was given twice");
    }

    #[test]
    fn shares_never_fall_below_the_pipeline() {
        assert_eq!(SlotBudget::per_device(1, 2, 1), 10);
        assert_eq!(SlotBudget::per_device(64, 2, 1), limits::SLOTS_PER_DEVICE_MIN);
    }
}
