//! How things end.

use std::fmt;

/// How one epoch of one device ended on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EpochEnding {
    /// The target's device holds the whole state and runs; the source has let go of its own.
    Complete,
    /// The source was told that the state is loaded, handed over, and then lost the target before
    /// it heard of RUNNING. The device stays in STOP here.
    Unconfirmed,
    /// The epoch was discarded, and the device's saving was started again in the next one.
    Restarted,
    /// The epoch ended without a handover, and no other follows.
    Aborted,
}

impl EpochEnding {
    /// The name used in reports and JSON.
    pub fn name(self) -> &'static str {
        match self {
            EpochEnding::Complete => "complete",
            EpochEnding::Unconfirmed => "unconfirmed",
            EpochEnding::Restarted => "restarted",
            EpochEnding::Aborted => "aborted",
        }
    }
}

impl fmt::Display for EpochEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
