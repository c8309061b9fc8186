//! The command line of `grid`.

use std::path::PathBuf;

use clap::Args;

use super::{HostArgs, LinkArgs, devices, runs, streams};
use crate::grid::Axes;
use crate::spec::{DataFdChoice, DataKind, Entrant, Rate, ShaperChoice, Size, UnitError};

/// Options of `grid`. Lists have commas.
#[derive(Debug, Clone, Args)]
pub(crate) struct GridArgs {
    /// Sizes of a device's state [default: 64KiB,1MiB,16MiB,64MiB,256MiB,1GiB].
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    state: Vec<Size>,
    /// Rates of the link, or none [default: none,10Gbit,2.5Gbit,1Gbit].
    #[arg(long, value_name = "RATES", value_delimiter = ',', value_parser = link_rate)]
    link: Vec<LinkRate>,
    /// Kinds of content [default: zero,structured,random,elf].
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    data: Vec<DataKind>,
    /// The engine's policies and the peers [default: all].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    contender: Vec<Entrant>,
    /// So many rounds in each cell; by default from 5 on until every median holds, 25 at most.
    #[arg(long, value_name = "N", value_parser = runs())]
    rounds: Option<u32>,
    /// A small grid of one round, to see that it runs: a few seconds.
    #[arg(long)]
    quick: bool,
    /// Keep finished cells in this file, and do not run those again that are in it.
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,
    /// Write the report to this file as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw it to this file, as SVG: throughput over the link, a line a contender.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    /// How many devices migrate at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = devices())]
    pub(crate) devices: u16,
    /// What each device's data fd is.
    #[arg(long, value_name = "KIND", default_value = "memory")]
    pub(crate) data_fd: DataFdChoice,
    /// The engine saves in PRE_COPY first; the peers cannot.
    #[arg(long)]
    pub(crate) precopy: bool,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// TCP congestion control of every connection; the host's own default if absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
    /// What holds the links' rates.
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    pub(crate) shaper: ShaperChoice,
    /// TCP connections of the engine's sessions.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = streams())]
    pub(crate) streams: u16,
}

/// A rate, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LinkRate(Option<Rate>);

fn link_rate(text: &str) -> Result<LinkRate, String> {
    match text {
        "none" => Ok(LinkRate(None)),
        text => text
            .parse()
            .map(|rate| LinkRate(Some(rate)))
            .map_err(|error: UnitError| error.to_string()),
    }
}

impl GridArgs {
    /// What is run.
    pub(crate) fn axes(&self) -> Axes {
        const MIB: u64 = 1 << 20;
        const GBIT: u64 = 125_000_000;
        let states: &[u64] = match self.quick {
            true => &[64 << 10, MIB],
            false => &[64 << 10, MIB, 16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB],
        };
        let links: &[Option<u64>] = match self.quick {
            true => &[None, Some(GBIT)],
            false => &[None, Some(10 * GBIT), Some(GBIT * 5 / 2), Some(GBIT)],
        };
        let data: &[DataKind] = match self.quick {
            true => &[DataKind::Structured],
            false => &[DataKind::Zero, DataKind::Structured, DataKind::Random, DataKind::Elf],
        };
        let links_default = links.iter().map(|&link| link.map(Rate)).collect();
        Axes {
            states: or(self.state.clone(), states.iter().map(|&bytes| Size(bytes)).collect()),
            links: or(self.link.iter().map(|link| link.0).collect(), links_default),
            data: or(self.data.clone(), data.to_vec()),
        }
    }

    /// Who takes part.
    pub(crate) fn contenders(&self) -> Vec<Entrant> {
        or(self.contender.clone(), Entrant::ALL.to_vec())
    }

    /// At least and at most so many rounds a cell.
    pub(crate) fn rounds(&self) -> (u32, u32) {
        match (self.rounds, self.quick) {
            (Some(rounds), _) => (rounds, rounds),
            (None, true) => (1, 1),
            (None, false) => (5, 25),
        }
    }

    /// The connections of a cell.
    pub(crate) fn link(&self, rate: Option<Rate>) -> LinkArgs {
        LinkArgs { link: rate, congestion: self.congestion.clone() }
    }
}

fn or<T>(chosen: Vec<T>, default: Vec<T>) -> Vec<T> {
    if chosen.is_empty() { default } else { chosen }
}
