//! A value over several runs.

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Median, 99th percentile and maximum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    /// Median.
    pub(crate) p50: u64,
    /// 99th percentile.
    pub(crate) p99: u64,
    /// Maximum.
    pub(crate) max: u64,
}

/// Significant digits that a histogram keeps.
const DIGITS: u8 = 3;

impl Spread {
    /// Over the values of the runs; zero if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = u64>) -> Spread {
        let Ok(mut histogram) = Histogram::<u64>::new(DIGITS) else { return Spread::default() };
        for value in values {
            // A histogram without bounds grows as needed, so that this cannot fail.
            let _ = histogram.record(value);
        }
        Spread {
            p50: histogram.value_at_quantile(0.50),
            p99: histogram.value_at_quantile(0.99),
            max: histogram.max(),
        }
    }
}

/// Pairs in order, as an object.
pub(crate) fn as_map<S: Serializer>(
    pairs: &[(String, Spread)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, spread)| (name, spread)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_three_digits() {
        let spread = Spread::of((1..=100).map(|run| run * 1_000_000));
        let near = |value: u64, expected: u64| value.abs_diff(expected) <= expected / 1000;
        assert!(near(spread.p50, 50_000_000), "{spread:?}");
        assert!(near(spread.p99, 99_000_000), "{spread:?}");
        assert!(near(spread.max, 100_000_000), "{spread:?}");
        assert_eq!(Spread::of([]), Spread::default());
    }
}
