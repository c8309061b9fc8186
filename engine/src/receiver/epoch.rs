//! One epoch of one device on the target: everything that is worthless once the source discards it.
//! It is born with its begin or discard frame and replaced whole.

use super::window::Window;
use super::{Receiver, Stage};
use crate::ids::{DeviceId, Epoch as Number, SlotId};
use crate::machine::State;
use crate::outcome::Breach;
use crate::wire::{DataHeader, DataPhase, Kind, Total};

/// Nothing of an epoch comes after its end.
pub(super) const AFTER_END: Breach =
    Breach::Unexpected { kind: Kind::DATA, what: "the device's end was sent before it" };

/// See the module's text.
#[derive(Debug)]
pub(super) struct Epoch {
    pub(super) state: State,
    pub(super) window: Window,
    /// Writes that are with the resume fd's thread.
    pub(super) writes: usize,
    /// Bytes handed to that thread.
    offset: u64,
    /// What the last phase frame said.
    phase: Option<DataPhase>,
    /// The end frame was taken, and its sums are right.
    ended: bool,
}

/// What a closed epoch leaves behind.
#[must_use]
pub(super) struct Closed {
    /// Slots of chunks that will not be written.
    pub(super) slots: Vec<SlotId>,
    /// What was written of it.
    pub(super) state: State,
}

impl Receiver {
    /// The one gate for what answers for an epoch: whether it is only still coming back, because
    /// its epoch was discarded or the session is not active any more.
    pub(super) fn is_stale(&self, device: DeviceId, epoch: Number) -> bool {
        self.stage != Stage::Active || self.devices[device.index()].epoch.state.number != epoch
    }
}

impl Epoch {
    /// An epoch of a device that owns so many slots; only its first frame is allowed until more is
    /// granted.
    pub(super) fn new(number: Number, slots: u64) -> Epoch {
        Epoch {
            state: State::new(number),
            window: Window::new(slots),
            writes: 0,
            offset: 0,
            phase: None,
            ended: false,
        }
    }

    /// The epoch that a discard frame opens.
    pub(super) fn after_discard(number: Number, slots: u64) -> Epoch {
        Epoch { window: Window::opened(slots), ..Epoch::new(number, slots) }
    }

    /// The epoch is over.
    pub(super) fn close(mut self) -> Closed {
        Closed { slots: self.window.clear(), state: self.state }
    }

    /// Whether the end was reached.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the end was reached and all is written.
    pub(super) fn is_whole(&self) -> bool {
        self.ended && self.writes == 0
    }

    /// A chunk is next in order: whether it may be written.
    pub(super) fn writing(&mut self, header: &DataHeader) -> Result<(), Breach> {
        let (found, expected) = (header.offset, self.offset);
        if found != expected {
            return Err(Breach::Offset { place: header.place, found, expected });
        }
        if self.phase.is_none() {
            let what = "nobody said which phase it comes from";
            return Err(Breach::Unexpected { kind: Kind::DATA, what });
        }
        self.offset += u64::from(header.raw_bytes);
        self.writes += 1;
        Ok(())
    }

    /// A phase frame. Each phase comes once, and never back: a device that was stopped does not
    /// start to run again. False if it may not come now.
    pub(super) fn enter(&mut self, phase: DataPhase) -> bool {
        let fits = self.phase != Some(DataPhase::StopCopy) && self.phase != Some(phase);
        if fits {
            self.phase = Some(phase);
        }
        fits
    }

    /// The end frame, with what the source has sent.
    pub(super) fn end(&mut self, device: DeviceId, found: Total) -> Result<(), Breach> {
        let expected = self.state.total();
        if found != expected {
            return Err(Breach::Total { device, found, expected });
        }
        if !self.window.is_empty() {
            return Err(AFTER_END);
        }
        self.ended = true;
        Ok(())
    }
}
