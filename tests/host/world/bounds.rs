//! Whatever grows has a bound: frames that wait at the source, discards at the target, and what
//! their embedders are told.

use vfio_ferry::ids::{DeviceId, Epoch};
use vfio_ferry::limits::{DISCARDS_MAX, FRAMES_QUEUED_MAX};
use vfio_ferry::machine::{Event, ReadResult};
use vfio_ferry::outcome::EpochEnding;
use vfio_ferry::wire::DataHeader;

use super::check::{Check, ensure};
use super::schedule::{HostId, SOURCE};
use super::world::World;

/// Reads that were under way when enough frames waited.
const UNDER_WAY: usize = 4;

impl World {
    /// A chunk has come out of a source's device.
    pub(crate) fn note_chunk(&mut self, h: HostId, event: &Event) -> Check {
        let Event::Read { device, epoch, result: ReadResult::Chunk { .. }, .. } = event else {
            return Ok(());
        };
        // What is still read of a discarded epoch is dropped, and of no session that is given up.
        if self.sides[h].real.look().is_ending() {
            return Ok(());
        }
        let waiting = &mut self.sides[h].device(*device).waiting;
        if *epoch > waiting.0 {
            *waiting = (*epoch, 0);
        }
        waiting.1 += usize::from(*epoch == waiting.0);
        let frames = waiting.1;
        self.coverage.frames_waiting = self.coverage.frames_waiting.max(frames as u64);
        ensure!(
            frames <= FRAMES_QUEUED_MAX + UNDER_WAY,
            "frames that wait have a bound",
            "{device}: {frames}"
        );
        Ok(())
    }

    /// A chunk leaves.
    pub(crate) fn note_departure(&mut self, h: HostId, header: &DataHeader) {
        let waiting = &mut self.sides[h].device(header.place.device).waiting;
        if waiting.0 == header.place.epoch {
            waiting.1 = waiting.1.saturating_sub(1);
        }
    }

    /// An embedder was told that an epoch was discarded.
    pub(crate) fn check_discards(&self, h: HostId, id: DeviceId, epoch: Epoch) -> Check {
        let told = self.sides[h].completions.iter();
        let restarts = told.filter(|c| c.device == id && c.ending == EpochEnding::Restarted);
        let count = restarts.count();
        ensure!(
            count <= DISCARDS_MAX as usize,
            "discards have a bound",
            "{}: {count} of {id}, the last was {epoch}",
            if h == SOURCE { "source" } else { "target" }
        );
        Ok(())
    }
}
