//! Device states, capabilities and arcs of VFIO migration v2 as tables.
//!
//! ```text
//!                      RESUMING
//!                         |
//!        STOP_COPY ----- STOP ------------ RUNNING        without P2P
//!            ^            |                   |
//!            |            +-- RUNNING_P2P ----+           with P2P, instead
//!            |                    |           |
//!            +----------- PRE_COPY_P2P --- PRE_COPY       with PRE_COPY (and P2P)
//!            +------------------------------- "           with PRE_COPY, no P2P
//! ```
//! Every line goes both ways except those into STOP_COPY from PRE_COPY and PRE_COPY_P2P. From
//! `include/uapi/linux/vfio.h`, enum vfio_device_mig_state: any other pair of states is a
//! combination of these arcs, the shortest one with no saving state inside it. The kernel's own
//! answer (`vfio_mig_get_next_state`) to every question is in `tests/vectors/vfio_arcs.txt`; the
//! search here is checked against it.

use std::fmt;

/// `enum vfio_device_mig_state`; the numbers are the UAPI's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum DeviceState {
    /// The device has failed and must be reset.
    Error = 0,
    /// Stopped; the internal state does not change.
    Stop = 1,
    /// Running normally.
    Running = 2,
    /// Stopped, and its state can be read from the data fd.
    StopCopy = 3,
    /// Stopped, and its state can be written to the data fd.
    Resuming = 4,
    /// Running, except that it starts no DMA to other devices.
    RunningP2p = 5,
    /// Running, and its state can be read while it changes.
    PreCopy = 6,
    /// PRE_COPY without DMA to other devices.
    PreCopyP2p = 7,
}

impl DeviceState {
    /// All states; the place in the list is the UAPI's number.
    pub const ALL: [DeviceState; 8] = [
        DeviceState::Error,
        DeviceState::Stop,
        DeviceState::Running,
        DeviceState::StopCopy,
        DeviceState::Resuming,
        DeviceState::RunningP2p,
        DeviceState::PreCopy,
        DeviceState::PreCopyP2p,
    ];

    /// Whether the device saves in this state: what vfio.h calls the saving group.
    pub fn is_saving(self) -> bool {
        matches!(self, DeviceState::StopCopy | DeviceState::PreCopy | DeviceState::PreCopyP2p)
    }

    /// Whether this is PRE_COPY or PRE_COPY_P2P.
    pub fn is_precopy(self) -> bool {
        matches!(self, DeviceState::PreCopy | DeviceState::PreCopyP2p)
    }

    /// Whether the guest can make the device do anything in this state.
    pub fn is_running(self) -> bool {
        self.is_precopy() || matches!(self, DeviceState::Running | DeviceState::RunningP2p)
    }

    /// The name used in reports and in the kernel's documentation.
    pub fn name(self) -> &'static str {
        match self {
            DeviceState::Error => "ERROR",
            DeviceState::Stop => "STOP",
            DeviceState::Running => "RUNNING",
            DeviceState::StopCopy => "STOP_COPY",
            DeviceState::Resuming => "RESUMING",
            DeviceState::RunningP2p => "RUNNING_P2P",
            DeviceState::PreCopy => "PRE_COPY",
            DeviceState::PreCopyP2p => "PRE_COPY_P2P",
        }
    }
}

impl fmt::Display for DeviceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A number that is no state of this UAPI: a kernel newer than this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the kernel gave device state {0}, which this version does not know")]
pub struct UnknownState(pub u32);

impl TryFrom<u32> for DeviceState {
    type Error = UnknownState;

    fn try_from(number: u32) -> Result<DeviceState, UnknownState> {
        DeviceState::ALL.get(number as usize).copied().ok_or(UnknownState(number))
    }
}

/// VFIO_MIGRATION_STOP_COPY. vfio-bindings has these flags too; floor 1 repeats them so that it
/// needs nothing, and `uapi` asserts that they agree.
pub(crate) const FLAG_STOP_COPY: u64 = 1 << 0;
/// VFIO_MIGRATION_P2P.
pub(crate) const FLAG_P2P: u64 = 1 << 1;
/// VFIO_MIGRATION_PRE_COPY.
pub(crate) const FLAG_PRE_COPY: u64 = 1 << 2;

/// What VFIO_DEVICE_FEATURE_MIGRATION says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Capabilities {
    /// VFIO_MIGRATION_P2P: RUNNING_P2P exists.
    pub p2p: bool,
    /// VFIO_MIGRATION_PRE_COPY: PRE_COPY exists.
    pub precopy: bool,
}

impl Capabilities {
    /// All four sets.
    pub const ALL: [Capabilities; 4] = [
        Capabilities { p2p: false, precopy: false },
        Capabilities { p2p: true, precopy: false },
        Capabilities { p2p: false, precopy: true },
        Capabilities { p2p: true, precopy: true },
    ];

    /// From the feature's `flags`. None without VFIO_MIGRATION_STOP_COPY: vfio.h makes that flag
    /// the base of the protocol. Flags of newer kernels are ignored.
    pub fn from_flags(flags: u64) -> Option<Capabilities> {
        (flags & FLAG_STOP_COPY != 0).then_some(Capabilities {
            p2p: flags & FLAG_P2P != 0,
            precopy: flags & FLAG_PRE_COPY != 0,
        })
    }

    /// The feature's `flags`.
    pub fn flags(self) -> u64 {
        FLAG_STOP_COPY
            | if self.p2p { FLAG_P2P } else { 0 }
            | if self.precopy { FLAG_PRE_COPY } else { 0 }
    }

    /// Whether SET_STATE may name this state at all on such a device.
    pub fn has(self, state: DeviceState) -> bool {
        match state {
            DeviceState::Error => false,
            DeviceState::RunningP2p => self.p2p,
            DeviceState::PreCopy => self.precopy,
            DeviceState::PreCopyP2p => self.p2p && self.precopy,
            _ => true,
        }
    }
}

/// The capability sets under which an arc is direct: bit `p2p + 2 * precopy`.
#[derive(Clone, Copy)]
struct Sets(u8);

impl Sets {
    const NONE: Sets = Sets(1 << 0);
    const P2P: Sets = Sets(1 << 1);
    const PRECOPY: Sets = Sets(1 << 2);
    const BOTH: Sets = Sets(1 << 3);
    const ALL: Sets = Sets(0b1111);

    const fn or(self, other: Sets) -> Sets {
        Sets(self.0 | other.0)
    }

    fn contain(self, caps: Capabilities) -> bool {
        self.0 & (1 << (u8::from(caps.p2p) + 2 * u8::from(caps.precopy))) != 0
    }
}

/// The direct arcs: what a driver implements as one step (vfio.h, and the comment at the top of
/// `vfio_mig_get_next_state`).
const ARCS: [(DeviceState, DeviceState, Sets); 18] = {
    use DeviceState::*;
    [
        (Stop, StopCopy, Sets::ALL),
        (StopCopy, Stop, Sets::ALL),
        (Stop, Resuming, Sets::ALL),
        (Resuming, Stop, Sets::ALL),
        (Running, Stop, Sets::NONE.or(Sets::PRECOPY)),
        (Stop, Running, Sets::NONE.or(Sets::PRECOPY)),
        (Running, RunningP2p, Sets::P2P.or(Sets::BOTH)),
        (RunningP2p, Running, Sets::P2P.or(Sets::BOTH)),
        (RunningP2p, Stop, Sets::P2P.or(Sets::BOTH)),
        (Stop, RunningP2p, Sets::P2P.or(Sets::BOTH)),
        (Running, PreCopy, Sets::PRECOPY.or(Sets::BOTH)),
        (PreCopy, Running, Sets::PRECOPY.or(Sets::BOTH)),
        (PreCopy, StopCopy, Sets::PRECOPY),
        (PreCopy, PreCopyP2p, Sets::BOTH),
        (PreCopyP2p, PreCopy, Sets::BOTH),
        (PreCopyP2p, RunningP2p, Sets::BOTH),
        (RunningP2p, PreCopyP2p, Sets::BOTH),
        (PreCopyP2p, StopCopy, Sets::BOTH),
    ]
};

/// Whether `from -> to` is one step of a driver.
pub fn is_direct(from: DeviceState, to: DeviceState, caps: Capabilities) -> bool {
    ARCS.iter().any(|&(a, b, sets)| (a, b) == (from, to) && sets.contain(caps))
}

/// Whether the request must never reach the kernel: STOP_COPY -> PRE_COPY and PRE_COPY_P2P. The
/// protocol blocks them, and Linux before 6.12.96 spins on them for ever with the device's
/// `state_mutex` held instead of answering EINVAL.
pub fn forbidden(from: DeviceState, to: DeviceState) -> bool {
    from == DeviceState::StopCopy && to.is_precopy()
}

/// The steps that SET_STATE(`to`) takes a device in `from` through, without `from` and with `to`:
/// empty if it is there already. None where the kernel answers EINVAL: an arc of ERROR, a state
/// that the device lacks, or a [`forbidden`] pair. A failing SET_STATE may leave the device in any
/// of these states, or in `from`.
pub fn path(from: DeviceState, to: DeviceState, caps: Capabilities) -> Option<Vec<DeviceState>> {
    if !caps.has(from) || !caps.has(to) || forbidden(from, to) {
        return None;
    }
    // Breadth first, so that the first path to arrive is a shortest one. Saving states are left
    // out inside a path unless it stays among them (PRE_COPY -> PRE_COPY_P2P -> STOP_COPY).
    let inside_saving = from.is_saving() && to.is_saving();
    let mut paths = vec![(from, Vec::new())];
    let mut seen = [false; DeviceState::ALL.len()];
    seen[from as usize] = true;
    let mut next = 0;
    while let Some((state, steps)) = paths.get(next).cloned() {
        if state == to {
            return Some(steps);
        }
        next += 1;
        for (_, step, _) in ARCS.iter().filter(|(a, _, sets)| *a == state && sets.contain(caps)) {
            let inside = *step != to;
            if seen[*step as usize] || (inside && step.is_saving() && !inside_saving) {
                continue;
            }
            seen[*step as usize] = true;
            let mut steps = steps.clone();
            steps.push(*step);
            paths.push((*step, steps));
        }
    }
    None
}

/// The first step of [`path`]: what `vfio_mig_get_next_state` computes. `to` itself if the device
/// is there already; none where the kernel answers EINVAL.
pub fn next_state(from: DeviceState, to: DeviceState, caps: Capabilities) -> Option<DeviceState> {
    path(from, to, caps).map(|steps| steps.first().copied().unwrap_or(to))
}

/// Whether SET_STATE(`to`) on a device in `from` returns a data fd: the path ends by entering
/// PRE_COPY or PRE_COPY_P2P from outside the saving states, STOP_COPY from STOP, or RESUMING.
/// A path inside the saving states goes on with the session and the fd that there already are.
/// So an fd where this says false tells that the device was not in `from`: it had been reset.
pub fn opens_data_fd(from: DeviceState, to: DeviceState, caps: Capabilities) -> bool {
    let Some(steps) = path(from, to, caps) else { return false };
    let last = steps.iter().rev().nth(1).copied().unwrap_or(from);
    match to {
        _ if steps.is_empty() => false,
        DeviceState::Resuming => true,
        _ => to.is_saving() && !last.is_saving(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceState::*;

    fn state(name: &str) -> DeviceState {
        DeviceState::ALL.into_iter().find(|state| state.name() == name).expect("a state's name")
    }

    /// The rows of the kernel's own grid.
    fn grid() -> Vec<(Capabilities, DeviceState, DeviceState, Option<DeviceState>)> {
        include_str!("../../../tests/vectors/vfio_arcs.txt")
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let &[caps, from, to, next] = words.as_slice() else { panic!("row {line:?}") };
                let caps =
                    Capabilities { p2p: caps.contains("p2p"), precopy: caps.contains("precopy") };
                (caps, state(from), state(to), (next != "EINVAL").then(|| state(next)))
            })
            .collect()
    }

    #[test]
    fn next_state_agrees_with_the_kernel_in_every_cell() {
        let grid = grid();
        assert_eq!(grid.len(), 4 * 8 * 8);
        for (caps, from, to, next) in grid {
            assert_eq!(next_state(from, to, caps), next, "{from} -> {to} with {caps:?}");
        }
    }

    #[test]
    fn path_is_the_kernels_steps_one_after_another() {
        let grid = grid();
        let ask = |caps, from, to| {
            let row = grid.iter().find(|row| (row.0, row.1, row.2) == (caps, from, to));
            row.expect("every cell is in the grid").3
        };
        for &(caps, from, to, next) in &grid {
            let Some(steps) = path(from, to, caps) else {
                assert_eq!(next, None, "{from} -> {to} with {caps:?}");
                continue;
            };
            let mut at = from;
            for &step in &steps {
                assert_eq!(ask(caps, at, to), Some(step), "{from} -> {to} at {at}");
                assert!(is_direct(at, step, caps), "{at} -> {step} with {caps:?}");
                at = step;
            }
            assert_eq!(at, to);
        }
    }

    #[test]
    fn a_data_fd_comes_exactly_where_vfio_h_says() {
        // Spelled out from vfio.h, not computed: per set, the targets that open an fd by source.
        for caps in Capabilities::ALL {
            for from in DeviceState::ALL.into_iter().filter(|&from| caps.has(from)) {
                for to in DeviceState::ALL.into_iter().filter(|&to| caps.has(to)) {
                    let opens = match (from, to) {
                        (Resuming, Resuming) => false,
                        (_, Resuming) => true,
                        (Stop | Running | RunningP2p | Resuming, StopCopy) => true,
                        (Stop | Running | RunningP2p | Resuming, PreCopy | PreCopyP2p) => true,
                        _ => false,
                    };
                    assert_eq!(opens_data_fd(from, to, caps), opens, "{from} -> {to} {caps:?}");
                }
            }
        }
    }

    #[test]
    fn the_reset_at_switchover_can_be_told() {
        for caps in Capabilities::ALL.into_iter().filter(|caps| caps.precopy) {
            assert!(!opens_data_fd(PreCopy, StopCopy, caps));
            assert!(opens_data_fd(Running, StopCopy, caps));
        }
    }

    #[test]
    fn only_stop_copy_to_precopy_is_forbidden() {
        for from in DeviceState::ALL {
            for to in DeviceState::ALL {
                let expected = matches!((from, to), (StopCopy, PreCopy) | (StopCopy, PreCopyP2p));
                assert_eq!(forbidden(from, to), expected);
            }
        }
    }

    #[test]
    fn numbers_and_flags_are_the_uapis() {
        for (number, state) in DeviceState::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, number);
            assert_eq!(DeviceState::try_from(number as u32), Ok(state));
        }
        assert_eq!(DeviceState::try_from(8), Err(UnknownState(8)));
        assert_eq!(DeviceState::try_from(u32::MAX), Err(UnknownState(u32::MAX)));
        for caps in Capabilities::ALL {
            assert_eq!(Capabilities::from_flags(caps.flags()), Some(caps));
            assert_eq!(Capabilities::from_flags(caps.flags() | 1 << 40), Some(caps));
        }
        assert_eq!(Capabilities::from_flags(6), None);
    }
}
