//! The arcs of a device: the kernel's `vfio_mig_get_next_state`, written down apart from the engine's
//! own table, and like it checked against the kernel's answers.

use crate::engine::Capabilities;
use crate::engine::DeviceState::{
    self, PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy,
};

/// The next state on the kernel's way; none where it answers EINVAL.
pub(super) fn next(from: DeviceState, to: DeviceState, caps: Capabilities) -> Option<DeviceState> {
    if !caps.has(from) || !caps.has(to) {
        return None;
    }
    // Between RUNNING and STOP.
    let halfway = |other| if caps.p2p { RunningP2p } else { other };
    Some(match (from, to) {
        // Leads into saving through saving.
        (StopCopy, PreCopy | PreCopyP2p) => return None,
        (Stop, StopCopy | Resuming) => to,
        (Stop, Stop) => Stop,
        (Stop, _) => halfway(Running),
        (StopCopy, StopCopy) | (Resuming, Resuming) => to,
        (StopCopy | Resuming, _) => Stop,
        (Running, Running | PreCopy) => to,
        (Running, _) => halfway(Stop),
        (RunningP2p, RunningP2p | Running | PreCopyP2p) => to,
        (RunningP2p, PreCopy) => Running,
        (RunningP2p, _) => Stop,
        (PreCopy, PreCopy) => PreCopy,
        (PreCopy, StopCopy | PreCopyP2p) if caps.p2p => PreCopyP2p,
        (PreCopy, StopCopy) => StopCopy,
        (PreCopy, _) => Running,
        (PreCopyP2p, PreCopyP2p | PreCopy | StopCopy) => to,
        (PreCopyP2p, _) => RunningP2p,
        (DeviceState::Error, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_the_kernels() {
        let state = |name: &str| {
            let found = DeviceState::ALL.into_iter().find(|state| state.name() == name);
            found.unwrap_or_else(|| panic!("{name} is no state"))
        };
        let vector = include_str!("../../../tests/vectors/vfio_arcs.txt");
        let rows = vector.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let mut count = 0;
        for row in rows {
            let words: Vec<&str> = row.split(' ').collect();
            let [caps, from, to, answer] = words[..] else { panic!("{row}") };
            let caps =
                Capabilities { p2p: caps.contains("p2p"), precopy: caps.contains("precopy") };
            let expected = (answer != "EINVAL").then(|| state(answer));
            assert_eq!(next(state(from), state(to), caps), expected, "{row}");
            count += 1;
        }
        assert_eq!(count, 4 * 8 * 8);
    }
}
