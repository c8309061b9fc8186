//! The tables as pinned, and the diagram as printed.

use super::*;
use crate::machine::arcs::tests::{check_diagram, check_grid};
use std::fmt::Write;

const STAGES: [Stage; 12] = [
    Idle, Held, PreCopy, Quiet, StopCopy, Sent, Loaded, Leaving, Gone, Restarting, Reusing,
    Recovering,
];

fn view(bits: u32) -> View {
    let bit = |number: u32| bits >> number & 1 == 1;
    View {
        switchover: bit(7),
        p2p: bit(6),
        may_stop: bit(5),
        precopy: bit(4),
        length_asked: bit(3),
        info_due: bit(2),
        read_out: bit(1),
        open: bit(0),
    }
}

/// A letter for each request; a row holds 16 views.
fn wants() -> String {
    let mut text = String::from(
        "\n# What a device is asked next. Rows: switchover, p2p, may stop, precopy (high bit \
         first);\n# columns: length asked, info due, read out, fd open. `.` nothing, R \
         RUNNING_P2P, Q\n# PRE_COPY_P2P, S STOP_COPY, P PRE_COPY, T STOP, l MIG_DATA_SIZE, i \
         PRECOPY_INFO, g GET_STATE\n",
    );
    for stage in STAGES {
        let _ = writeln!(text, "{stage:?}");
        for row in 0..16 {
            let letters = (0..16).map(|column| match want(stage, view(row << 4 | column)) {
                None => '.',
                Some(Request::SetState(DeviceState::RunningP2p)) => 'R',
                Some(Request::SetState(DeviceState::PreCopyP2p)) => 'Q',
                Some(Request::SetState(DeviceState::StopCopy)) => 'S',
                Some(Request::SetState(DeviceState::PreCopy)) => 'P',
                Some(Request::SetState(DeviceState::Stop)) => 'T',
                Some(Request::StopCopyLength) => 'l',
                Some(Request::PrecopyInfo) => 'i',
                Some(Request::GetState) => 'g',
                other => panic!("{other:?}"),
            });
            let _ = writeln!(text, "  {row:04b} {}", letters.collect::<String>());
        }
    }
    text
}

#[test]
fn the_tables_are_as_pinned() {
    check_grid(&STAGES, &wants(), "../tests/vectors/sender_stages.txt");
}

#[test]
fn the_diagram_is_the_table() {
    check_diagram::<Stage>(include_str!("../stage.rs"));
}
