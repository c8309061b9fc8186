//! How long what may take, as far as it was chosen.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::units::Time;

/// The engine's limits of time; what is absent is the engine's default. `none` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Args)]
#[command(next_help_heading = "The limits")]
pub(crate) struct Limits {
    /// How long the guest may stand still until the state is handed over; then the migration is given
    /// up and the guest runs on at the source. No limit if absent.
    #[arg(long, value_name = "TIME")]
    pub(crate) switchover_budget: Option<Time>,
    /// How long the handshake may take.
    #[arg(long, value_name = "TIME")]
    pub(crate) handshake_limit: Option<Time>,
    /// How long what a driver or the peer owes may make no progress.
    #[arg(long, value_name = "TIME")]
    pub(crate) stall_limit: Option<Time>,
    /// How long the source waits, after the handover, for the target's word that it runs.
    #[arg(long, value_name = "TIME")]
    pub(crate) confirm_limit: Option<Time>,
    /// How long a migration that is given up may take to its end.
    #[arg(long, value_name = "TIME")]
    pub(crate) cancel_bound: Option<Time>,
    /// How long a source may send nothing before its switchover (target).
    #[arg(skip)]
    pub(crate) idle_limit: Option<Time>,
    /// How long the peer may be silent.
    #[arg(skip)]
    pub(crate) peer_silence: Option<Time>,
}
