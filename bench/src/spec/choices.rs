//! The options that are one of a few words: data, policy, backend, resets.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::units::{Size, Time, UnitError};

/// What the test device's state looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DataKind {
    /// Nothing but zeros.
    Zero,
    /// Zero pages, descriptor tables, counters, sparse tables, some random pages.
    Structured,
    /// Incompressible.
    Random,
    /// A program: this one.
    Elf,
    /// A file's content, repeated or cut to the size of the state.
    File(PathBuf),
}

/// What the test device's data fd is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DataFdChoice {
    /// A pipe that a thread of the device fills or empties; it can be polled, as mlx5's can.
    #[default]
    Pipe,
    /// A file in memory that is filled before and looked at after the migration: a device that costs
    /// next to nothing. It needs memory for the whole state on either side.
    Memory,
}

/// How long SET_STATE takes on an arc of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ArcTime {
    /// The kernel's name of the state where it begins; any if absent.
    pub(crate) from: Option<String>,
    /// Where it ends.
    pub(crate) to: String,
    /// How long.
    pub(crate) time: Time,
}

/// What is to hold a link's rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShaperChoice {
    /// Namespaces where this user may make them, else pacing.
    #[default]
    Auto,
    /// A token bucket between two network namespaces, or nothing.
    Namespaces,
    /// SO_MAX_PACING_RATE, over loopback.
    Pacing,
}

/// What holds a link's rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Shaper {
    /// Every socket paces itself; its first packets go at once.
    #[default]
    Pacing,
    /// A token bucket between two network namespaces.
    Namespaces,
}

/// Raw or compressed, and who decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Policy {
    /// The engine decides per chunk.
    Adaptive,
    /// Never compress.
    Raw,
    /// Always compress, at this level.
    Zstd(i32),
}

/// How the engine makes its system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BackendChoice {
    /// io_uring where the kernel allows it, else plain system calls.
    Auto,
    /// io_uring or nothing.
    #[value(name = "io_uring", alias = "io-uring")]
    IoUring,
    /// Plain system calls.
    Syscalls,
}

/// What follows when the device is reset while it is being saved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnResetChoice {
    /// Abort the migration; the source's devices run again (default).
    #[default]
    Abort,
    /// Discard what was sent of that device, and start its saving again in PRE_COPY.
    Restart,
    /// Discard what was sent of that device, and send its whole state once it is stopped.
    StopCopy,
}

/// When the first test device is reset under the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ResetAt {
    /// Half-way through the initial data of PRE_COPY.
    PreCopy,
    /// Between the last PRE_COPY read and SET_STATE(STOP_COPY), which then gives a new fd.
    Stop,
    /// Half-way through the data of STOP_COPY.
    StopCopy,
    /// On the target, silently, after the last byte was written and before it leaves RESUMING.
    Load,
    /// When so many bytes have been read.
    Bytes(Size),
}

impl FromStr for DataKind {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<DataKind, Self::Err> {
        Ok(match text {
            "zero" => DataKind::Zero,
            "structured" => DataKind::Structured,
            "random" => DataKind::Random,
            "elf" => DataKind::Elf,
            path => DataKind::File(PathBuf::from(path)),
        })
    }
}

impl FromStr for ArcTime {
    type Err = String;

    fn from_str(text: &str) -> Result<ArcTime, String> {
        const STATES: [&str; 7] =
            ["RUNNING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P", "STOP", "STOP_COPY", "RESUMING"];
        let state = |name: &str| {
            let found = STATES.into_iter().find(|state| state.eq_ignore_ascii_case(name));
            let unknown = || format!("`{name}` is no state, expected one of {}", STATES.join(", "));
            found.map(str::to_owned).ok_or_else(unknown)
        };
        let (arc, time) = text
            .split_once('=')
            .ok_or_else(|| "expected STATE=TIME or STATE-STATE=TIME".to_owned())?;
        let (from, to) = match arc.split_once('-') {
            Some((from, to)) => (Some(state(from)?), state(to)?),
            None => (None, state(arc)?),
        };
        let time: Time = time.parse().map_err(|error: UnitError| error.to_string())?;
        if time.0 == Duration::MAX {
            return Err("a call that never returns is not a latency".to_owned());
        }
        Ok(ArcTime { from, to, time })
    }
}

impl fmt::Display for ArcTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.from.as_ref().map_or_else(String::new, |from| format!("{from}-"));
        write!(f, "{from}{} {}", self.to, self.time)
    }
}

/// The levels that zstd knows and that make sense for a migration.
const ZSTD_LEVELS: std::ops::RangeInclusive<i32> = -7..=22;

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Policy, String> {
        match text {
            "adaptive" => return Ok(Policy::Adaptive),
            "raw" => return Ok(Policy::Raw),
            _ => {}
        }
        let level = text
            .strip_prefix("zstd=")
            .ok_or_else(|| "expected adaptive, raw or zstd=LEVEL".to_owned())?;
        match level.parse() {
            Ok(level) if ZSTD_LEVELS.contains(&level) => Ok(Policy::Zstd(level)),
            _ => Err(format!(
                "expected a zstd level from {} to {}",
                ZSTD_LEVELS.start(),
                ZSTD_LEVELS.end()
            )),
        }
    }
}

impl FromStr for ResetAt {
    type Err = String;

    fn from_str(text: &str) -> Result<ResetAt, String> {
        Ok(match text.replace('-', "_").as_str() {
            "pre_copy" => ResetAt::PreCopy,
            "stop" => ResetAt::Stop,
            "stop_copy" => ResetAt::StopCopy,
            "load" => ResetAt::Load,
            _ => ResetAt::Bytes(text.parse().map_err(|error| {
                format!("expected pre_copy, stop, stop_copy, load or a size: {error}")
            })?),
        })
    }
}

impl fmt::Display for DataKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataKind::Zero => f.write_str("zero"),
            DataKind::Structured => f.write_str("structured"),
            DataKind::Random => f.write_str("random"),
            DataKind::Elf => f.write_str("elf"),
            DataKind::File(path) => write!(f, "{}", path.display()),
        }
    }
}

impl fmt::Display for ResetAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResetAt::PreCopy => "pre_copy",
            ResetAt::Stop => "stop",
            ResetAt::StopCopy => "stop_copy",
            ResetAt::Load => "load",
            ResetAt::Bytes(size) => return size.fmt(f),
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Adaptive => f.write_str("adaptive"),
            Policy::Raw => f.write_str("raw"),
            Policy::Zstd(level) => write!(f, "zstd={level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        assert_eq!("adaptive".parse(), Ok(Policy::Adaptive));
        assert_eq!("raw".parse(), Ok(Policy::Raw));
        assert_eq!("zstd=-5".parse(), Ok(Policy::Zstd(-5)));
        for bad in ["zstd", "zstd=", "zstd=x", "zstd=23", "lz4", ""] {
            assert!(bad.parse::<Policy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn resets() {
        assert_eq!("pre-copy".parse(), Ok(ResetAt::PreCopy));
        assert_eq!("stop_copy".parse(), Ok(ResetAt::StopCopy));
        assert_eq!("4MiB".parse(), Ok(ResetAt::Bytes(Size(4 << 20))));
        assert!("handover".parse::<ResetAt>().is_err());
        assert!("0".parse::<ResetAt>().is_err());
    }

    #[test]
    fn arcs() {
        let arc = |text: &str| text.parse::<ArcTime>().map(|arc| arc.to_string());
        assert_eq!(arc("stop_copy=100ms"), Ok("STOP_COPY 100 ms".to_owned()));
        assert_eq!(arc("RUNNING-stop=1.5s"), Ok("RUNNING-STOP 1.5 s".to_owned()));
        for bad in ["stop", "stop=", "halt=1ms", "stop-halt=1ms", "stop=none", "=1ms", "stop=5"] {
            assert!(arc(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn data() {
        assert_eq!("zero".parse(), Ok(DataKind::Zero));
        assert_eq!("./zero".parse(), Ok(DataKind::File("./zero".into())));
    }
}
