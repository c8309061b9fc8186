//! The arcs of a device with PRE_COPY and without P2P (`vfio_mig_get_next_state`): RUNNING <->
//! PRE_COPY -> STOP_COPY <-> STOP <-> RUNNING, and STOP <-> RESUMING.

use crate::engine::DeviceState::{self, PreCopy, Resuming, Running, Stop, StopCopy};

/// The next state on the shortest way; none if there is no legal one.
pub(super) fn next(from: DeviceState, to: DeviceState) -> Option<DeviceState> {
    Some(match (from, to) {
        (Running, PreCopy) | (PreCopy, StopCopy) => to,
        // Leads into saving through saving.
        (StopCopy, PreCopy) => return None,
        (PreCopy, Running | Stop | Resuming) => Running,
        (Stop, StopCopy | Resuming | Running) => to,
        (Stop, PreCopy) => Running,
        (Running | StopCopy | Resuming, Stop | StopCopy | Resuming | Running | PreCopy) => Stop,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(mut from: DeviceState, to: DeviceState) -> Option<Vec<DeviceState>> {
        let mut way = Vec::new();
        while from != to {
            from = next(from, to)?;
            way.push(from);
            assert!(way.len() < 5, "{way:?} goes round in circles");
        }
        Some(way)
    }

    #[test]
    fn ways_are_the_kernels() {
        assert_eq!(way(Running, StopCopy), Some(vec![Stop, StopCopy]));
        assert_eq!(way(PreCopy, StopCopy), Some(vec![StopCopy]));
        assert_eq!(way(PreCopy, Stop), Some(vec![Running, Stop]));
        assert_eq!(way(StopCopy, Running), Some(vec![Stop, Running]));
        assert_eq!(way(Resuming, Running), Some(vec![Stop, Running]));
        assert_eq!(way(Resuming, StopCopy), Some(vec![Stop, StopCopy]));
        assert_eq!(way(StopCopy, PreCopy), None);
        assert_eq!(way(Running, DeviceState::RunningP2p), None);
        assert_eq!(way(Running, DeviceState::Error), None);
    }

    #[test]
    fn every_way_ends() {
        for from in [Running, Stop, StopCopy, Resuming, PreCopy] {
            for to in [Running, Stop, StopCopy, Resuming, PreCopy] {
                assert_eq!(way(from, to).is_none(), (from, to) == (StopCopy, PreCopy));
            }
        }
    }
}
