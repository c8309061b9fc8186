//! The tables as pinned, and the diagram as printed.

use super::*;
use crate::machine::arcs::tests::{check_diagram, check_grid};
use std::fmt::Write;

const STAGES: [Stage; 13] = [
    Expected, Begun, Loading, Verified, Stopped, Loaded, HandedOver, Resuming, Quiet, Running,
    Discarding, Recovering, Gone,
];

fn wants() -> String {
    let mut text = String::from(
        "\n# What a device is asked next. Columns: whole, empty, p2p, may run (high bit \
         first).\n# `.` nothing, L RESUMING, S STOP, P RUNNING_P2P, R RUNNING, g GET_STATE\n",
    );
    for stage in STAGES {
        let letters = (0..16).map(|bits: u32| {
            let bit = |number: u32| bits >> number & 1 == 1;
            let (whole, empty, p2p, may_run) = (bit(3), bit(2), bit(1), bit(0));
            match want(stage, View { whole, empty, p2p, may_run }) {
                None => '.',
                Some(Request::SetState(DeviceState::Resuming)) => 'L',
                Some(Request::SetState(DeviceState::Stop)) => 'S',
                Some(Request::SetState(DeviceState::RunningP2p)) => 'P',
                Some(Request::SetState(DeviceState::Running)) => 'R',
                Some(Request::GetState) => 'g',
                other => panic!("{other:?}"),
            }
        });
        let _ = writeln!(text, "{} {stage:?}", letters.collect::<String>());
    }
    text
}

#[test]
fn the_tables_are_as_pinned() {
    check_grid(&STAGES, &wants(), "../tests/vectors/receiver_stages.txt");
}

#[test]
fn the_diagram_is_the_table() {
    check_diagram::<Stage>(include_str!("../stage.rs"));
}
