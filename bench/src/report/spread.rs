//! A value over several runs.

use serde::{Serialize, Serializer};

/// Median, least and most. Of some ten runs, no other quantile says anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Spread {
    /// The [`median`].
    pub(crate) median: u64,
    /// The least.
    pub(crate) min: u64,
    /// The most.
    pub(crate) max: u64,
}

impl Spread {
    /// Over the values of the runs; zero if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = u64>) -> Spread {
        let values: Vec<u64> = values.into_iter().collect();
        Spread {
            min: values.iter().copied().min().unwrap_or(0),
            max: values.iter().copied().max().unwrap_or(0),
            median: median(values),
        }
    }
}

/// The middle value, or the mean of the two in the middle: the only kind of median in any report.
/// Zero of nothing.
pub(crate) fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    let (half, is_odd) = (values.len() / 2, values.len() % 2 == 1);
    match (values.get(half), is_odd) {
        (None, _) => 0,
        (Some(&middle), true) => middle,
        (Some(&upper), false) => values[half - 1].midpoint(upper),
    }
}

/// Pairs in order, as an object.
pub(crate) fn as_map<T: Serialize, S: Serializer>(
    pairs: &[(String, T)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, spread)| (name, spread)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_and_in_any_order() {
        let spread = Spread::of([7, 1, 1_000_003]);
        assert_eq!(spread, Spread { median: 7, min: 1, max: 1_000_003 });
        assert_eq!(Spread::of([4, 1, 2, 9]).median, 3);
        assert_eq!(Spread::of([u64::MAX, u64::MAX]).median, u64::MAX);
        assert_eq!(Spread::of([5]), Spread { median: 5, min: 5, max: 5 });
        assert_eq!(Spread::of([]), Spread::default());
    }
}
