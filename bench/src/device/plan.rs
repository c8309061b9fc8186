//! What a double is like, and which faults it is to have.

use std::io;
use std::time::Duration;

use crate::data::{Content, Origin};
use crate::engine::{Capabilities, DeviceState};
use crate::spec::Rate;

/// What the data fd is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduit {
    /// A pipe: the engine finds an fd with `->poll`, as mlx5's. A thread fills or empties it.
    Pipe,
    /// A memory file: no `->poll`, as with every other driver. Holds its state in memory.
    File,
    /// The same, filled and emptied outside of the migration: see [`Double::prepare`]. Its reads and
    /// writes cannot wait: it has no rate and no latency of a save.
    ///
    /// [`Double::prepare`]: super::Double::prepare
    Memory,
}

/// How long SET_STATE takes on one arc, or on all arcs to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArcLatency {
    /// Where the arc begins; none means anywhere.
    pub from: Option<DeviceState>,
    /// Where it ends.
    pub to: DeviceState,
    /// How long the driver is in it.
    pub time: Duration,
}

/// How a drained PRE_COPY data fd answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// ENOMSG: mlx5, virtio.
    NoMsg,
    /// 0 bytes: mtty, hisi, qat.
    Zero,
}

/// One release of PRE_COPY data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// How much.
    pub bytes: u64,
    /// It comes with VFIO_PRECOPY_INFO_REINIT and counts as initial data.
    pub reinit: bool,
}

/// When the device resets itself, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResetAt {
    /// Once half of PRE_COPY's initial data was read, if the device is not stopped by then.
    HalfOfInitial,
    /// Once so many bytes of a session were read; the read that reaches them is lost.
    Read(u64),
    /// Inside SET_STATE from PRE_COPY to STOP_COPY, before the arc.
    Stopping,
    /// Once half of what was left at the stop was read.
    HalfOfRest,
    /// Once so many bytes of a session were written; the write succeeds, and nobody is told.
    Written(u64),
}

/// What a device is like. [`Default`] is a source with P2P and PRE_COPY on a pipe.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Which of a host's devices it is: another index, other bytes.
    pub index: u8,
    /// What VFIO_DEVICE_FEATURE_MIGRATION says.
    pub capabilities: Capabilities,
    /// What the data fd is.
    pub conduit: Conduit,
    /// How a drained PRE_COPY fd answers.
    pub drained: Drained,
    /// What the state looks like.
    pub content: Content,
    /// Bytes of initial PRE_COPY data.
    pub initial_bytes: u64,
    /// How fast the running device changes what PRE_COPY has saved; then there are no rounds.
    pub dirty_rate: Option<Rate>,
    /// What `precopy_info` releases, one round at a time, each once the one before is read.
    pub rounds: Vec<Round>,
    /// A round is announced by one `precopy_info` and readable only after the next.
    pub lags: bool,
    /// Bytes that only STOP_COPY gives, after the rounds that were not released before.
    pub rest_bytes: u64,
    /// How fast the device gives or takes its state; without one, as fast as it can.
    pub device_rate: Option<Rate>,
    /// How long the device's firmware takes for a save: after the device was stopped, or PRE_COPY
    /// data was asked for, nothing can be read for as long. Pipes only.
    pub save_latency: Duration,
    /// How long SET_STATE takes on an arc; the first that fits counts.
    pub arc_latencies: Vec<ArcLatency>,
    /// Reads are cut short at seeded places, pieces of at most this many bytes.
    pub piece_bytes: Option<u64>,
    /// The data fd neither gives nor takes anything after so many bytes.
    pub stalls_at: Option<u64>,
    /// The driver does not come back from the read or write that reaches so many bytes before
    /// [`release`](super::Double::release): no cancel gets it out of there.
    pub sticks_at: Option<u64>,
    /// SET_STATE to this state blocks until [`release`](super::Double::release).
    pub holds: Option<DeviceState>,
    /// When it resets itself.
    pub reset_at: Option<ResetAt>,
    /// Bytes that must have been written before RESUMING can be left (target).
    pub expects_bytes: u64,
    /// What was written is kept, to be looked at (target); its digest always is.
    pub keeps: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            index: 0,
            capabilities: Capabilities { p2p: true, precopy: true },
            conduit: Conduit::Pipe,
            drained: Drained::NoMsg,
            content: Content::structured(),
            initial_bytes: 0,
            dirty_rate: None,
            rounds: Vec::new(),
            lags: false,
            rest_bytes: 1 << 20,
            device_rate: None,
            save_latency: Duration::ZERO,
            arc_latencies: Vec::new(),
            piece_bytes: None,
            stalls_at: None,
            sticks_at: None,
            holds: None,
            reset_at: None,
            expects_bytes: 0,
            keeps: false,
        }
    }
}

impl Plan {
    /// Bytes of the whole state, whichever way it comes out; what a dirty rate adds comes on top.
    pub fn total_bytes(&self) -> u64 {
        let rounds: u64 = self.rounds.iter().map(|round| round.bytes).sum();
        self.initial_bytes + rounds + self.rest_bytes
    }

    /// The whole state, as a device gives it that was never reset. Fails where its content is a
    /// file that cannot be read.
    pub fn state(&self) -> io::Result<Vec<u8>> {
        let mut state = vec![0; self.total_bytes() as usize];
        let origin = Origin { device: self.index, generation: 0 };
        self.content.fill(origin, 0, &mut state)?;
        Ok(state)
    }

    /// How long SET_STATE takes on a direct arc.
    pub(super) fn latency(&self, from: DeviceState, to: DeviceState) -> Duration {
        let fits = |it: &&ArcLatency| it.to == to && it.from.is_none_or(|it| it == from);
        self.arc_latencies.iter().find(fits).map_or(Duration::ZERO, |it| it.time)
    }

    /// The device that this one's state goes to.
    pub fn target(&self) -> Plan {
        Plan {
            capabilities: self.capabilities,
            conduit: self.conduit,
            expects_bytes: self.total_bytes(),
            ..Plan::default()
        }
    }
}
