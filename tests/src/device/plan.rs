//! What a test device is like, and what is to befall it.

use vfio_ferry::vfio::state::{Capabilities, DeviceState};

use super::content::{Content, Kind};

/// What the data fd is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduit {
    /// A pipe: the engine finds an fd with `->poll`, as mlx5's.
    Pipe,
    /// A memory file: no `->poll`, as with every other driver. Holds its state in memory.
    File,
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
    /// Once so many bytes were read.
    Read(u64),
    /// Inside SET_STATE from PRE_COPY to STOP_COPY, before the arc.
    Stopping,
    /// Once so many bytes were written; the write succeeds, and nobody is told.
    Written(u64),
}

/// What a device is like. [`Default`] is a source with P2P and PRE_COPY on a pipe.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What VFIO_DEVICE_FEATURE_MIGRATION says.
    pub capabilities: Capabilities,
    /// What the data fd is.
    pub conduit: Conduit,
    /// How a drained PRE_COPY fd answers.
    pub drained: Drained,
    /// The state's bytes.
    pub content: Content,
    /// Bytes of initial PRE_COPY data.
    pub initial_bytes: u64,
    /// What `precopy_info` releases, one round at a time, each once the one before is read.
    pub rounds: Vec<Round>,
    /// A round is announced by one `precopy_info` and readable only after the next.
    pub lags: bool,
    /// Bytes that only STOP_COPY gives, after the rounds that were not released before.
    pub rest_bytes: u64,
    /// Reads are cut short at seeded places, pieces of at most this many bytes.
    pub piece_bytes: Option<u64>,
    /// The data fd neither gives nor takes anything after so many bytes.
    pub stalls_at: Option<u64>,
    /// The driver does not come back from the read or write that reaches so many bytes before
    /// [`release`](super::TestDevice::release): no cancel gets it out of there.
    pub sticks_at: Option<u64>,
    /// When it resets itself.
    pub reset_at: Option<ResetAt>,
    /// SET_STATE to this state blocks until [`release`](super::TestDevice::release).
    pub holds: Option<DeviceState>,
    /// Bytes that must have been written before RESUMING can be left (target).
    pub expects_bytes: u64,
    /// What was written is kept, to be looked at (target); its digest always is.
    pub keeps: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            capabilities: Capabilities { p2p: true, precopy: true },
            conduit: Conduit::Pipe,
            drained: Drained::NoMsg,
            content: Content { kind: Kind::Structured, seed: 1 },
            initial_bytes: 0,
            rounds: Vec::new(),
            lags: false,
            rest_bytes: 1 << 20,
            piece_bytes: None,
            stalls_at: None,
            sticks_at: None,
            reset_at: None,
            holds: None,
            expects_bytes: 0,
            keeps: false,
        }
    }
}

impl Plan {
    /// Bytes of the whole state, whichever way it comes out.
    pub fn total_bytes(&self) -> u64 {
        let rounds: u64 = self.rounds.iter().map(|round| round.bytes).sum();
        self.initial_bytes + rounds + self.rest_bytes
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
