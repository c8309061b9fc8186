//! Who runs a side: the engine, or one of its peers.

use crate::engine::{self, Inputs};
use crate::outcome::SideOutcome;
use crate::peers;
use crate::spec::{Contender, Side};

/// Runs one side.
pub(crate) fn run(contender: Contender, side: Side, inputs: Inputs) -> Result<SideOutcome, String> {
    match (contender, side) {
        (Contender::Engine, Side::Source) => engine::run_source(inputs),
        (Contender::Engine, Side::Target) => engine::run_target(inputs),
        (Contender::QemuMain, side) => peers::run(&peers::QemuMain, side, inputs),
        (Contender::QemuMultifd, side) => peers::run(&peers::QemuMultifd, side, inputs),
        (Contender::Snapshot, side) => peers::run(&peers::Snapshot, side, inputs),
        (Contender::Pipeline, side) => peers::run(&peers::Pipeline::default(), side, inputs),
        (Contender::TokioUring, side) => peers::run(&peers::TokioLoop, side, inputs),
    }
}
