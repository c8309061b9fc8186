//! Sizes (`64KiB`, `1.5GiB`), rates (`10Gbit`, `800MB/s`, `1GiB`) and times (`300ms`, `none`) as a
//! person writes them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Size(pub u64);

/// A number of bytes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Rate(pub u64);

/// How long something may take; [`Duration::MAX`] is for ever, which a person writes as `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub Duration);

/// Why a size, a rate or a time was refused. The text is the rest of a sentence about the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// There is no number where one was expected.
    #[error("expected a number such as {example}")]
    NoNumber {
        /// A value that would have been accepted.
        example: &'static str,
    },
    /// The letters after the number mean nothing here.
    #[error("unknown unit `{unit}`, expected {expected}")]
    UnknownUnit {
        /// What was written.
        unit: String,
        /// What could have been written.
        expected: &'static str,
    },
    /// More than 64 bits hold.
    #[error("the value is too large")]
    TooLarge,
    /// Zero, or a fraction of a byte or of a nanosecond.
    #[error("the value must be greater than zero")]
    Zero,
}

const SIZE_UNITS: &str = "B, KiB, MiB, GiB, TiB, kB, MB, GB or TB";
const TIME_UNITS: &str = "ms, s, min or h, or the word none";
const RATE_UNITS: &str = "kbit, Mbit, Gbit, kB, MB, GB, KiB, MiB or GiB, each with /s or without";

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Size, UnitError> {
        let (number, unit) = split(text, "256MiB")?;
        let scale = byte_scale(unit).ok_or_else(|| UnitError::UnknownUnit {
            unit: unit.to_owned(),
            expected: SIZE_UNITS,
        })?;
        number.times(scale, 1).map(Size)
    }
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Rate, UnitError> {
        let (number, unit) = split(text, "10Gbit")?;
        let unknown = || UnitError::UnknownUnit { unit: unit.to_owned(), expected: RATE_UNITS };
        let per_second = unit.strip_suffix("/s");
        let bits = per_second.unwrap_or(unit).to_ascii_lowercase();
        match bits.as_str() {
            "bit" | "bps" => number.times(1, 8),
            "kbit" | "kbps" => number.times(1_000, 8),
            "mbit" | "mbps" => number.times(1_000_000, 8),
            "gbit" | "gbps" => number.times(1_000_000_000, 8),
            // A rate in bytes must say so: `10` and `10G` could be either.
            _ => {
                let bytes = per_second.unwrap_or(unit);
                let scale =
                    byte_scale(bytes).filter(|_| bytes.ends_with('B')).ok_or_else(unknown)?;
                number.times(scale, 1)
            }
        }
        .map(Rate)
    }
}

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Time, UnitError> {
        if text.trim() == "none" {
            return Ok(Time(Duration::MAX));
        }
        let (number, unit) = split(text, "300ms")?;
        let scale = match unit {
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "min" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => {
                let (unit, expected) = (unit.to_owned(), TIME_UNITS);
                return Err(UnitError::UnknownUnit { unit, expected });
            }
        };
        number.times(scale, 1).map(|ns| Time(Duration::from_nanos(ns)))
    }
}

fn byte_scale(unit: &str) -> Option<u64> {
    Some(match unit {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return None,
    })
}

/// A decimal number: `digits / 10^places`.
#[derive(Clone, Copy)]
struct Decimal {
    digits: u64,
    places: u32,
}

impl Decimal {
    fn times(self, scale: u64, divisor: u64) -> Result<u64, UnitError> {
        let divisor = u128::from(divisor) * 10u128.pow(self.places);
        let value = u128::from(self.digits) * u128::from(scale) / divisor;
        match u64::try_from(value) {
            Ok(0) => Err(UnitError::Zero),
            Ok(value) => Ok(value),
            Err(_) => Err(UnitError::TooLarge),
        }
    }
}

fn split<'a>(text: &'a str, example: &'static str) -> Result<(Decimal, &'a str), UnitError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.contains('.') {
        return Err(UnitError::NoNumber { example });
    }
    let places = u32::try_from(fraction.len()).map_err(|_| UnitError::TooLarge)?;
    let digits = format!("{whole}{fraction}").parse().map_err(|_| UnitError::TooLarge)?;
    Ok((Decimal { digits, places }, unit.trim_start()))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, scale) = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
            .into_iter()
            .find(|(_, shift)| self.0 >= 1 << shift)
            .map_or(("B", 1), |(unit, shift)| (unit, 1u64 << shift));
        if self.0.is_multiple_of(scale) {
            write!(f, "{} {unit}", self.0 / scale)
        } else {
            write!(f, "{:.1} {unit}", self.0 as f64 / scale as f64)
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000_000 => write!(f, "{:.1} kB/s", self.0 as f64 / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB/s", self.0 as f64 / 1e6),
            _ => write!(f, "{:.2} GB/s", self.0 as f64 / 1e9),
        }
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Duration::MAX => f.write_str("none"),
            time if time < Duration::from_secs(1) => write!(f, "{} ms", time.as_millis()),
            time if time.subsec_nanos() == 0 => write!(f, "{} s", time.as_secs()),
            time => write!(f, "{:.1} s", time.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Result<u64, UnitError> {
        text.parse::<Size>().map(|size| size.0)
    }

    fn rate(text: &str) -> Result<u64, UnitError> {
        text.parse::<Rate>().map(|rate| rate.0)
    }

    #[test]
    fn sizes() {
        assert_eq!(size("1"), Ok(1));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("256 MiB"), Ok(268_435_456));
        assert_eq!(size("4GiB"), Ok(4_294_967_296));
        assert_eq!(size("1.5GiB"), Ok(1_610_612_736));
        assert_eq!(size("10MB"), Ok(10_000_000));
        assert_eq!(size("16777215TiB"), Ok(18_446_742_974_197_923_840));
    }

    #[test]
    fn rates() {
        assert_eq!(rate("10Gbit"), Ok(1_250_000_000));
        assert_eq!(rate("2.5Gbit"), Ok(312_500_000));
        assert_eq!(rate("2.5gbit/s"), Ok(312_500_000));
        assert_eq!(rate("25Gbps"), Ok(3_125_000_000));
        assert_eq!(rate("800MB/s"), Ok(800_000_000));
        for text in ["1GiB/s", "1GiB", "1 GiB/s", "1024MiB"] {
            assert_eq!(rate(text), Ok(1_073_741_824), "{text}");
        }
        assert_eq!(rate("800MB"), rate("800MB/s"));
    }

    #[test]
    fn refusals_name_the_fault() {
        assert_eq!(size("0"), Err(UnitError::Zero));
        assert_eq!(size("0.1B"), Err(UnitError::Zero));
        assert!(matches!(size("MiB"), Err(UnitError::NoNumber { .. })));
        assert!(matches!(size("-1MiB"), Err(UnitError::NoNumber { .. })));
        assert!(matches!(size("1.2.3MiB"), Err(UnitError::NoNumber { .. })));
        assert!(matches!(size("1MiBs"), Err(UnitError::UnknownUnit { .. })));
        assert_eq!(size("16777216TiB"), Err(UnitError::TooLarge));
        assert_eq!(size("99999999999999999999"), Err(UnitError::TooLarge));
        assert!(matches!(rate("10G"), Err(UnitError::UnknownUnit { .. })));
        assert!(matches!(rate("10G/s"), Err(UnitError::UnknownUnit { .. })));
        assert!(matches!(rate("10"), Err(UnitError::UnknownUnit { .. })));
        assert_eq!(rate("0Gbit"), Err(UnitError::Zero));
        let message = rate("10 parsecs").map_err(|error| error.to_string());
        assert!(message.is_err_and(|text| text.contains("parsecs") && text.contains("Gbit")));
    }

    #[test]
    fn times() {
        let ms = |text: &str| text.parse::<Time>().map(|time| time.0.as_millis());
        assert_eq!(ms("300ms"), Ok(300));
        assert_eq!(ms("1.5 s"), Ok(1500));
        assert_eq!((ms("2min"), ms("1h")), (Ok(120_000), Ok(3_600_000)));
        assert_eq!("none".parse(), Ok(Time(Duration::MAX)));
        assert_eq!(ms("0s"), Err(UnitError::Zero));
        for bad in ["300", "5 days", "never"] {
            assert!(ms(bad).is_err(), "{bad}");
        }
        let shown = |ms| Time(Duration::from_millis(ms)).to_string();
        assert_eq!([shown(300), shown(2000), shown(1500)], ["300 ms", "2 s", "1.5 s"]);
    }

    #[test]
    fn shown_as_a_person_would_write_it() {
        assert_eq!(Size(268_435_456).to_string(), "256 MiB");
        assert_eq!(Size(1_500).to_string(), "1.5 KiB");
        assert_eq!(Rate(1_250_000_000).to_string(), "1.25 GB/s");
    }
}
