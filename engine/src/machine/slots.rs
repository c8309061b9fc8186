//! Who holds how many slots of the arena. The pool's size is a sum with a named consumer for each
//! term, so a stage that needs a slot always finds one once the stages before it move on.

use crate::ids::{DeviceId, SlotId};
use crate::limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Nobody,
    Device(DeviceId),
    Worker,
}

/// The slots of one side of a session, and who holds each of them.
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
    holders: Vec<Holder>,
    held: Vec<usize>,
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
    pub(crate) fn new(devices: usize, per_device: usize, workers: usize) -> SlotBudget {
        let total = Self::total(devices, per_device, workers);
        SlotBudget {
            free: (0..total).rev().map(|id| SlotId(id as u32)).collect(),
            holders: vec![Holder::Nobody; total],
            held: vec![0; devices],
            per_device,
            spares: workers * 2,
            spares_used: 0,
        }
    }

    /// A slot of the device's share, if it has not used that up.
    pub(crate) fn take(&mut self, device: DeviceId) -> Option<SlotId> {
        if self.held[device.index()] >= self.per_device {
            return None;
        }
        let slot = self.free.pop()?;
        self.held[device.index()] += 1;
        self.holders[slot.index()] = Holder::Device(device);
        Some(slot)
    }

    /// A slot for the other side of a compression or decompression.
    pub(crate) fn take_spare(&mut self) -> Option<SlotId> {
        if self.spares_used == self.spares {
            return None;
        }
        let slot = self.free.pop()?;
        self.spares_used += 1;
        self.holders[slot.index()] = Holder::Worker;
        Some(slot)
    }

    /// A slot comes back, whoever held it.
    pub(crate) fn put(&mut self, slot: SlotId) {
        match std::mem::replace(&mut self.holders[slot.index()], Holder::Nobody) {
            Holder::Device(device) => self.held[device.index()] -= 1,
            Holder::Worker => self.spares_used -= 1,
            Holder::Nobody => {
                debug_assert!(false, "{slot} came back twice");
                return;
            }
        }
        self.free.push(slot);
    }

    /// A worker is through, and the device goes on with what it made: `made` takes the place of
    /// `slot`, which comes back.
    pub(crate) fn trade(&mut self, slot: SlotId, made: SlotId) {
        self.holders.swap(slot.index(), made.index());
        self.put(slot);
    }

    /// How many slots a device holds, those of its old epochs included.
    pub(crate) fn held(&self, device: DeviceId) -> usize {
        self.held[device.index()]
    }

    /// Compressions or decompressions that are with a worker.
    pub(crate) fn with_workers(&self) -> usize {
        self.spares_used
    }

    /// Slots that are out.
    pub(crate) fn out(&self) -> usize {
        self.holders.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_consumer_of_the_sum_finds_its_slots() {
        let (devices, workers) = (3, 2);
        let mut budget = SlotBudget::new(devices, 4, workers);
        let mut taken = Vec::new();
        for device in 0..devices as u32 {
            taken.extend((0..4).map(|_| budget.take(DeviceId(device)).expect("share")));
            assert_eq!(budget.take(DeviceId(device)), None);
        }
        taken.extend((0..4).map(|_| budget.take_spare().expect("spare")));
        assert_eq!((budget.take_spare(), budget.with_workers()), (None, 4));
        assert_eq!(budget.out(), 3 * 4 + 4);
        assert_eq!(budget.out(), SlotBudget::total(devices, 4, workers));
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), budget.out(), "no slot was given twice");
        taken.into_iter().for_each(|slot| budget.put(slot));
        assert_eq!((budget.out(), budget.with_workers()), (0, 0));
        assert!((0..devices as u32).all(|device| budget.held(DeviceId(device)) == 0));
    }

    #[test]
    fn what_a_worker_made_counts_for_the_device() {
        let mut budget = SlotBudget::new(1, 1, 1);
        let (slot, made) = (budget.take(DeviceId(0)), budget.take_spare());
        let (slot, made) = (slot.expect("share"), made.expect("spare"));
        budget.trade(slot, made);
        assert_eq!((budget.held(DeviceId(0)), budget.with_workers(), budget.out()), (1, 0, 1));
        budget.put(made);
        assert_eq!((budget.held(DeviceId(0)), budget.out()), (0, 0));
    }

    #[test]
    fn shares_never_fall_below_the_pipeline() {
        assert_eq!(SlotBudget::per_device(1, 2, 1), 10);
        assert_eq!(SlotBudget::per_device(1, 3, 1), 12);
        assert_eq!(SlotBudget::per_device(2, 3, 5), 10);
        assert_eq!(SlotBudget::per_device(64, 2, 1), limits::SLOTS_PER_DEVICE_MIN);
    }
}
