//! Our own kernel test device (`tests/kmod/ferry_dev`): its knobs, statistics and faults in sysfs.

use std::fmt::Display;
use std::fs;
use std::str::FromStr;

use crate::checks::{Failure, Outcome, ensure};
use crate::mdev::{Mdev, write};

const PARENT: &str = "/sys/class/ferry_dev/ferry_dev";

/// What a device can do, as the driver's types name it.
pub(crate) const FULL: &str = "ferry_dev-full";
pub(crate) const STOP_COPY: &str = "ferry_dev-stop_copy";
pub(crate) const P2P: &str = "ferry_dev-p2p";
pub(crate) const PRE_COPY: &str = "ferry_dev-pre_copy";

/// A test device.
#[derive(Debug)]
pub(crate) struct FerryDev {
    pub(crate) mdev: Mdev,
}

impl FerryDev {
    /// Makes one of a type, with its knobs set.
    pub(crate) fn create(kind: &str, knobs: &[(&str, &str)]) -> Outcome<FerryDev> {
        FerryDev { mdev: Mdev::create(PARENT, kind)? }.with(knobs)
    }

    /// Makes one that another process is going to open.
    pub(crate) fn closed(kind: &str, knobs: &[(&str, &str)]) -> Outcome<FerryDev> {
        FerryDev { mdev: Mdev::closed(PARENT, kind)? }.with(knobs)
    }

    fn with(self, knobs: &[(&str, &str)]) -> Outcome<FerryDev> {
        for (knob, value) in knobs {
            self.knob(knob, value)?;
        }
        Ok(self)
    }

    /// What a knob is set to.
    pub(crate) fn knob_value(&self, name: &str) -> Outcome<String> {
        let text = fs::read_to_string(self.mdev.folder().join("knobs").join(name))?;
        Ok(text.trim().to_owned())
    }

    /// Sets a knob.
    pub(crate) fn knob(&self, name: &str, value: impl Display) -> Outcome {
        write(&self.mdev.folder().join("knobs").join(name), &value.to_string())
    }

    /// Writes one of the control files.
    pub(crate) fn control(&self, name: &str, value: impl Display) -> Outcome {
        write(&self.mdev.folder().join("control").join(name), &value.to_string())
    }

    /// Reads a statistic.
    pub(crate) fn stat<T: FromStr>(&self, name: &str) -> Outcome<T> {
        let text = fs::read_to_string(self.mdev.folder().join("stats").join(name))?;
        text.trim().parse().map_err(|_| Failure(format!("{name} is {text:?}")))
    }

    /// The checksum of the state's bytes.
    pub(crate) fn state_crc(&self) -> Outcome<String> {
        self.stat("state_crc")
    }

    /// What an engine must leave behind on any device: no data fd open, and none of them ever read
    /// or written twice at a time.
    pub(crate) fn left_alone(&self) -> Outcome {
        for name in ["open_data_fds", "concurrent_reads", "concurrent_writes"] {
            let found: u64 = self.stat(name)?;
            ensure!(found == 0, "{name} is {found}");
        }
        Ok(())
    }
}
