//! How things end: a session on either host, and one epoch of one device.

use std::fmt;

use super::Fault;

/// How a session ended on the source: what the VMM does next.
#[must_use = "it says which host may run the guest"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceEnding {
    /// The target runs the devices: destroy the VM here.
    HandedOver,
    /// Every device is where it was found: resume the vCPUs.
    Returned(Fault),
    /// Some device is not back where it was found, or nobody knows: the report says which.
    NotReturned(Fault),
    /// The target was told to run and never confirmed it: a person must find out whether it
    /// does. The devices are in STOP here, or on their way there.
    Unconfirmed(Fault),
}

/// How a session ended on the target: what the VMM does next.
#[must_use = "it says whether the guest may run here"]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetEnding {
    /// Every device holds the whole state and runs, or is in STOP where the VMM starts it later.
    Running,
    /// Nothing of the state is left in any device: each was reset, or was never touched.
    Blank(Fault),
    /// Some device may hold part of the state: it must be reset before anyone uses it.
    NotBlank(Fault),
}

/// How one epoch of one device ended on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EpochEnding {
    /// The target's device holds the whole state and runs; the source has let go of its own.
    Complete,
    /// The source handed over and lost the target before it heard that the device runs there. The
    /// device stays in STOP here.
    Unconfirmed,
    /// The epoch was discarded, and the device's saving was started again in the next one.
    Restarted,
    /// The epoch ended without a handover, and no other follows.
    Aborted,
}

impl SourceEnding {
    /// The name used in reports and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            SourceEnding::HandedOver => "handed_over",
            SourceEnding::Returned(_) => "returned",
            SourceEnding::NotReturned(_) => "not_returned",
            SourceEnding::Unconfirmed(_) => "unconfirmed",
        }
    }

    /// Why, unless it was handed over.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            SourceEnding::HandedOver => None,
            SourceEnding::Returned(fault)
            | SourceEnding::NotReturned(fault)
            | SourceEnding::Unconfirmed(fault) => Some(fault),
        }
    }
}

impl TargetEnding {
    /// The name used in reports and JSON.
    pub fn name(&self) -> &'static str {
        match self {
            TargetEnding::Running => "running",
            TargetEnding::Blank(_) => "blank",
            TargetEnding::NotBlank(_) => "not_blank",
        }
    }

    /// Why, unless the devices run.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            TargetEnding::Running => None,
            TargetEnding::Blank(fault) | TargetEnding::NotBlank(fault) => Some(fault),
        }
    }
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

/// The name, and why.
fn write(f: &mut fmt::Formatter<'_>, name: &str, fault: Option<&Fault>) -> fmt::Result {
    match fault {
        Some(fault) => write!(f, "{name}: {fault}"),
        None => f.write_str(name),
    }
}

impl fmt::Display for SourceEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.name(), self.fault())
    }
}

impl fmt::Display for TargetEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.name(), self.fault())
    }
}

impl fmt::Display for EpochEnding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
