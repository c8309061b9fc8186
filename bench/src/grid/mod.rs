//! The grid: every state, link, kind of data and contender, and what of it is one cell.

pub(crate) mod cell;
pub(crate) mod finished;
pub(crate) mod picture;
pub(crate) mod table;

use serde::{Deserialize, Serialize};

use crate::spec::{DataKind, Rate, Size};

/// Where a cell is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Bytes of each device's state.
    pub(crate) state: Size,
    /// The link's rate; none means loopback as fast as it is.
    pub(crate) link: Option<Rate>,
    /// The state's content.
    pub(crate) data: DataKind,
}

/// What is run.
#[derive(Debug, Clone)]
pub(crate) struct Axes {
    /// Sizes.
    pub(crate) states: Vec<Size>,
    /// Links.
    pub(crate) links: Vec<Option<Rate>>,
    /// Kinds of data.
    pub(crate) data: Vec<DataKind>,
}

impl Axes {
    /// Every cell, in the order in which they are run and shown: a link's are together, because its
    /// namespaces are made once.
    pub(crate) fn places(&self) -> Vec<Place> {
        let mut places = Vec::new();
        for &link in &self.links {
            for data in &self.data {
                for &state in &self.states {
                    places.push(Place { state, link, data: data.clone() });
                }
            }
        }
        places
    }
}

/// A link as a person writes it.
pub(crate) fn link_name(link: Option<Rate>) -> String {
    let bits = link.map(|rate| rate.0 as f64 * 8.0);
    match bits {
        None => "none".to_owned(),
        Some(bits) if bits >= 1e9 => format!("{} Gbit", round(bits / 1e9)),
        Some(bits) => format!("{} Mbit", round(bits / 1e6)),
    }
}

/// To three digits behind the point, and no more of them than there are.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_once_and_links_together() {
        let axes = Axes {
            states: vec![Size(1), Size(2)],
            links: vec![None, Some(Rate(9))],
            data: vec![DataKind::Zero, DataKind::Random],
        };
        let places = axes.places();
        assert_eq!(places.len(), 8);
        for place in &places {
            assert_eq!(places.iter().filter(|it| *it == place).count(), 1);
        }
        assert!(places[..4].iter().all(|place| place.link.is_none()));
    }

    #[test]
    fn links() {
        let name = |bits: u64| link_name(Some(Rate(bits / 8)));
        assert_eq!(link_name(None), "none");
        assert_eq!([name(10_000_000_000), name(2_500_000_000)], ["10 Gbit", "2.5 Gbit"]);
        assert_eq!(name(10_000_000), "10 Mbit");
    }
}
