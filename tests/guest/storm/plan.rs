//! What is to happen in a round: chosen by the seed, the moments of resets included.

use std::time::Duration;

use vfio_ferry::outcome::{Fallback, Host, OnReset};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::vfio::state::DeviceState;

use super::tally::Way;

/// A thread that spins so long after a signal, at most, still hits a call of a few microseconds.
const NEAR_US: u64 = 60;

/// One round.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) precopy: bool,
    pub(super) on_reset: OnReset,
    pub(super) backend: BackendChoice,
    pub(super) strikes: Vec<Strike>,
    /// How long the guest runs on once the device is ready to be stopped.
    pub(super) dwell: Duration,
    /// Cancelled so long after the start, instead of being stopped.
    pub(super) cancel_after: Option<Duration>,
}

/// A reset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Strike {
    pub(super) host: Host,
    pub(super) when: When,
    /// So long after that moment.
    pub(super) delay: Duration,
}

/// The moment that a reset is reckoned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// The sessions are started.
    Start,
    /// PRE_COPY is done with; the device is stopped only after the reset.
    BeforeSwitchover,
    /// The embedder cancels at the same time.
    Cancel,
    /// The engine calls SET_STATE, and the reset comes beside it.
    Setting(DeviceState),
    /// The engine is about to look whether the device is still in the state that it left it in;
    /// it looks only after the reset.
    BeforeCheck,
}

/// What the resets of a round are aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    Anywhere,
    Switchover,
    Abort,
    NewFd,
    Resuming,
}

impl Aim {
    /// Where a reset must strike to be seen in a way.
    pub(super) fn at(way: Way) -> Aim {
        match way {
            Way::InUse => Aim::Anywhere,
            Way::AtSwitchover => Aim::Switchover,
            Way::WhileAborting => Aim::Abort,
            Way::DeadOnArrival => Aim::NewFd,
            Way::SilentInResuming => Aim::Resuming,
        }
    }
}

impl Plan {
    /// No reset at all.
    pub(super) fn quiet() -> Plan {
        Plan {
            precopy: true,
            on_reset: OnReset::Abort,
            backend: BackendChoice::IoUring,
            strikes: Vec::new(),
            dwell: Duration::ZERO,
            cancel_after: None,
        }
    }

    /// Any round; one that nobody disturbs takes about `typical`.
    pub(super) fn random(rng: &mut fastrand::Rng, typical: Duration) -> Plan {
        let aim = match rng.u32(0..100) {
            0..60 => Aim::Anywhere,
            60..70 => Aim::Switchover,
            70..80 => Aim::Abort,
            80..90 => Aim::NewFd,
            _ => Aim::Resuming,
        };
        Plan::aimed(rng, aim, typical)
    }

    /// A round whose resets have an aim.
    pub(super) fn aimed(rng: &mut fastrand::Rng, aim: Aim, typical: Duration) -> Plan {
        let within = |rng: &mut fastrand::Rng, max: Duration| {
            Duration::from_nanos(rng.u64(0..=max.as_nanos() as u64))
        };
        let strike = |host, when, delay| Strike { host, when, delay };
        let mut plan = Plan {
            precopy: rng.u32(0..10) < 7,
            on_reset: any_policy(rng),
            backend: any_backend(rng),
            dwell: if rng.bool() { Duration::ZERO } else { within(rng, typical / 2) },
            ..Plan::quiet()
        };
        let near = within(rng, Duration::from_micros(NEAR_US));
        plan.strikes = match aim {
            Aim::Anywhere => (0..rng.usize(0..=3))
                .map(|_| {
                    let host = if rng.u32(0..5) == 0 { Host::Target } else { Host::Source };
                    strike(host, When::Start, within(rng, typical))
                })
                .collect(),
            Aim::Switchover => {
                plan.precopy = true;
                vec![strike(Host::Source, When::BeforeSwitchover, Duration::ZERO)]
            }
            Aim::Abort => {
                plan.cancel_after = Some(within(rng, typical));
                vec![strike(Host::Source, When::Cancel, near)]
            }
            Aim::NewFd => {
                let state = if plan.precopy { DeviceState::PreCopy } else { DeviceState::StopCopy };
                vec![strike(Host::Source, When::Setting(state), near)]
            }
            Aim::Resuming if rng.bool() => {
                vec![strike(Host::Target, When::BeforeCheck, Duration::ZERO)]
            }
            Aim::Resuming => {
                vec![strike(Host::Target, When::Setting(DeviceState::Resuming), near * 10)]
            }
        };
        plan
    }
}

fn any_policy(rng: &mut fastrand::Rng) -> OnReset {
    match rng.u32(0..4) {
        0 => OnReset::Abort,
        1 => OnReset::StopCopy,
        2 => OnReset::Restart { attempts: rng.u32(1..4), then: Fallback::Abort },
        _ => OnReset::Restart { attempts: rng.u32(1..4), then: Fallback::StopCopy },
    }
}

fn any_backend(rng: &mut fastrand::Rng) -> BackendChoice {
    if rng.u32(0..4) == 0 { BackendChoice::Syscalls } else { BackendChoice::IoUring }
}
