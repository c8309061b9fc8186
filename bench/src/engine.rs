//! THE SEAM: the only file of this crate that names the engine.
//!
//! Everything else speaks of [`Inputs`] and [`SideOutcome`]. The peers of `compare` have the same
//! two functions, so that the engine and its peers are run, timed and verified alike: the clock and
//! the byte counts that the report is made of are taken at the device (`device::watch`), the
//! durations of the phases come from here.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

pub(crate) use vfio_ferry::vfio::device::{MigrationDevice, PrecopyInfo};
pub(crate) use vfio_ferry::vfio::state::{Capabilities, DeviceState};

use crate::cli::{BackendChoice, OnResetChoice, Policy};

/// The engine's bounds that the command line checks against.
pub(crate) mod limits {
    /// Most devices in one session.
    pub(crate) const DEVICES_MAX: usize = 64;
    /// Most streams in one session.
    pub(crate) const STREAMS_MAX: usize = 64;
    /// Smallest chunk.
    pub(crate) const CHUNK_BYTES_MIN: usize = 4 << 10;
    /// Largest chunk.
    pub(crate) const CHUNK_BYTES_MAX: usize = 4 << 20;
}

/// What the embedder chooses for a session.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    /// Raw or compressed.
    pub(crate) policy: Policy,
    /// io_uring or plain system calls.
    pub(crate) backend: BackendChoice,
    /// Most bytes of one read and one frame.
    pub(crate) chunk_bytes: usize,
    /// Save in PRE_COPY first.
    pub(crate) precopy: bool,
    /// What follows a reset.
    pub(crate) on_reset: OnResetChoice,
}

/// What one side of a migration works on.
pub(crate) struct Inputs {
    /// The devices; number i here is number i on the other side.
    pub(crate) devices: Vec<Box<dyn MigrationDevice>>,
    /// Connected sockets, in no particular order; congestion control and pacing are set.
    pub(crate) streams: Vec<TcpStream>,
    /// The embedder's choices. The peers know only the first stream and no options.
    pub(crate) options: EngineOptions,
}

/// How one side of a migration went.
#[derive(Debug, Clone, Default)]
pub(crate) struct SideOutcome {
    /// The phases that this side went through, by the engine's names, in order.
    pub(crate) phases: Vec<(&'static str, Duration)>,
    /// Bytes that this side put on (source) or took from (target) the streams.
    pub(crate) wire_bytes: u64,
    /// What made the system calls: `io_uring` or `syscalls`.
    pub(crate) backend: &'static str,
    /// Why the migration did not complete; none if it did.
    pub(crate) fault: Option<String>,
}

const NOT_WIRED: &str = "the engine is not wired into the benchmark yet";

/// Migrates away: every device ends stopped if all went well, else in RUNNING.
pub(crate) fn run_source(_inputs: Inputs) -> Result<SideOutcome, String> {
    Err(NOT_WIRED.to_owned())
}

/// Takes the devices over: every device ends in RUNNING if all went well.
pub(crate) fn run_target(_inputs: Inputs) -> Result<SideOutcome, String> {
    Err(NOT_WIRED.to_owned())
}

/// Opens a real device by its sysfs path. The error's text follows the path in a message.
pub(crate) fn open_device(path: &Path) -> io::Result<Box<dyn MigrationDevice>> {
    std::fs::metadata(path)?;
    Err(io::Error::other(NOT_WIRED))
}
