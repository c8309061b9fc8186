//! The command line. No arguments at all mean `downtime` with its defaults.

mod grid;

pub(crate) use grid::GridArgs;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::engine::limits;
use crate::spec::{
    ArcTime, BackendChoice, DataFdChoice, DataKind, Limits, OnResetChoice, Policy, Rate, ResetAt,
    ShaperChoice, Size, Time, UnitError,
};

/// Measures the downtime of a VFIO device migration.
///
/// Without arguments: 256 MiB of a test device's state, ten times, from one process to another. No
/// device, no privileges and no set-up are needed for it.
#[derive(Debug, Parser)]
#[command(
    name = "ferry-bench",
    version,
    args_conflicts_with_subcommands = true,
    after_help = EXIT_STATUS
)]
pub(crate) struct Cli {
    /// What to do; `downtime` if absent.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The options of `downtime`, which may be given without naming it.
    #[command(flatten)]
    pub(crate) downtime: DowntimeArgs,
}

const EXIT_STATUS: &str = "\
Exit status:
  0  every migration went as was chosen, and every loaded state was verified
  1  a migration failed, or a state differs; one line on standard error says why
  2  what was asked for cannot be done; one line on standard error says why";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Migrate a test device between two processes and print the downtime by phase (the default).
    Downtime(DowntimeArgs),
    /// Migrate the same state with the engine and with what other programs do today.
    Compare(CompareArgs),
    /// Migrate every state over every link by every contender, in turns.
    Grid(GridArgs),
    /// Send real devices, or test devices, to a host that runs `ferry-bench receive`.
    Send(SendArgs),
    /// Receive them from a host that runs `ferry-bench send`.
    Receive(ReceiveArgs),
    /// Show what becomes of the guest when things go wrong: every fault that a driver, a peer, the
    /// network or a host can show, through real processes and test devices.
    Faults(FaultsArgs),
    /// One side of a run, started by `downtime` and `compare`.
    #[command(hide = true)]
    Agent,
    /// A network namespace, held by `downtime` and `compare`.
    #[command(hide = true)]
    Room {
        /// Bytes per second.
        rate: Option<u64>,
    },
    /// One host of a fault's run, started by `faults`.
    #[command(hide = true)]
    FaultHost,
}

/// Options of `downtime`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct DowntimeArgs {
    /// How often to migrate; each time with two new processes.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = runs())]
    pub(crate) runs: u32,
    /// Write the report to this file as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Draw one migration to this file, as SVG: what each stage, device and stream did when.
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: TestDeviceArgs,
    /// How fast the running device changes what PRE_COPY has already saved.
    #[arg(long, value_name = "RATE", requires = "precopy")]
    pub(crate) dirty_rate: Option<Rate>,
    /// Reset the first device at a phase (pre_copy, stop, stop_copy, load) or after so many bytes.
    ///
    /// pre_copy: half-way through the initial data. stop: between PRE_COPY and STOP_COPY.
    /// stop_copy: half-way through the rest. load: on the target, unseen, when all is written; this
    /// always ends in an abort.
    ///
    /// The report then shows what the reset cost: each run is a migration without it, one with it,
    /// and one that is aborted and started again as a whole. The exit status is 0 if what
    /// --on-reset says is what happened; an abort that was chosen is no failure.
    #[arg(long, value_name = "PHASE|BYTES")]
    pub(crate) reset_at: Option<ResetAt>,
    #[command(flatten)]
    pub(crate) saving: SavingArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// What holds the rate of --link.
    #[arg(long, value_name = "WHAT", default_value = "auto", help_heading = "The connections")]
    pub(crate) shaper: ShaperChoice,
    /// Guard the streams by TLS 1.3, with throw-away certificates: what does that cost?
    #[arg(long, help_heading = "The connections")]
    pub(crate) tls: bool,
    /// With --tls: the engine seals and opens the records, even where the kernel could.
    #[arg(long, requires = "tls", help_heading = "The connections")]
    pub(crate) tls_user_space: bool,
    /// TCP connections of the session.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = streams())]
    pub(crate) streams: u16,
}

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CompareArgs {
    /// How often each contender migrates the state.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = runs())]
    pub(crate) runs: u32,
    /// Write the report to this file as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) device: TestDeviceArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// What holds the rate of --link.
    #[arg(long, value_name = "WHAT", default_value = "auto", help_heading = "The connections")]
    pub(crate) shaper: ShaperChoice,
}

/// Options of `faults`.
#[derive(Debug, Clone, Args)]
#[command(after_help = FAULTS_EXIT_STATUS)]
pub(crate) struct FaultsArgs {
    /// Only faults whose names have this in them; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Vec<String>,
    /// Print the faults' names and what they are, and run none.
    #[arg(long)]
    pub(crate) list: bool,
    /// Write the report to this file as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// The system calls that the engine uses.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) backend: BackendChoice,
    /// How often each fault is run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = runs())]
    pub(crate) repeat: u32,
    /// How many are run at a time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
}

const FAULTS_EXIT_STATUS: &str = "\
Exit status:
  0  every run was as promised
  1  a promise was not kept; the table says which
  2  what was asked for cannot be done; one line on standard error says why";

/// Options of `send`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SendArgs {
    /// The device's path in sysfs, e.g. /sys/bus/pci/devices/0000:5e:00.1 or
    /// /sys/bus/mdev/devices/UUID; several times for several devices. Without one, test devices go to a
    /// `receive` without one: what would the downtime be on this network?
    #[arg(long, value_name = "PATH")]
    pub(crate) device: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) test: TestDeviceArgs,
    /// How fast the running test device changes what PRE_COPY has already saved.
    #[arg(long, value_name = "RATE", requires = "precopy", conflicts_with = "device")]
    pub(crate) dirty_rate: Option<Rate>,
    /// How often to migrate the test devices.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = runs())]
    pub(crate) runs: u32,
    /// Where `ferry-bench receive` listens, as HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    pub(crate) connect: String,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// Write the report to this file as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) saving: SavingArgs,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
    /// TCP connections of the session.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = streams())]
    pub(crate) streams: u16,
}

/// Options of `receive`. Everything else is the sender's choice.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReceiveArgs {
    /// The device's path in sysfs; as many, and in the same order, as on the sending side. Without one,
    /// test devices as the sender wants them.
    #[arg(long, value_name = "PATH")]
    pub(crate) device: Vec<PathBuf>,
    /// The address and port to listen on, e.g. 127.0.0.1:7000.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) path: PathArgs,
    /// Write the report to this file as JSON too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) link: LinkArgs,
}

/// The test device.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The test device")]
pub(crate) struct TestDeviceArgs {
    /// Size of each device's state.
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub(crate) state: Size,
    /// Its content: zero, structured, random, elf (this program), or a file to take it from.
    #[arg(long, value_name = "KIND|FILE", default_value = "structured")]
    pub(crate) data: DataKind,
    /// How many devices migrate at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = devices())]
    pub(crate) devices: u16,
    /// How fast each device gives and takes its state; as fast as it can if absent.
    #[arg(long, value_name = "RATE")]
    pub(crate) device_rate: Option<Rate>,
    /// What each device's data fd is.
    #[arg(long, value_name = "KIND", default_value = "pipe")]
    pub(crate) data_fd: DataFdChoice,
    /// How long each device takes for a save: nothing can be read for as long after it was stopped,
    /// or asked for PRE_COPY data.
    #[arg(long, value_name = "TIME", value_parser = latency)]
    pub(crate) save_latency: Option<Time>,
    /// How long SET_STATE takes on an arc, e.g. RUNNING-STOP=5ms, or to a state, e.g.
    /// RESUMING=20ms; several times for several arcs.
    #[arg(long, value_name = "ARC=TIME")]
    pub(crate) set_state_latency: Vec<ArcTime>,
}

/// How the engine works on the source.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The engine")]
pub(crate) struct EngineArgs {
    /// adaptive: raw or compressed, decided for each chunk; raw; or zstd=LEVEL.
    #[arg(long, value_name = "POLICY", default_value = "adaptive")]
    pub(crate) policy: Policy,
    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// How the engine works on either host.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The engine")]
pub(crate) struct HostArgs {
    /// The system calls that the engine uses.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) backend: BackendChoice,
    /// Most bytes of one read, and of one frame.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = chunk)]
    pub(crate) chunk: Size,
}

/// How the device is saved.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The engine")]
pub(crate) struct SavingArgs {
    /// Save in PRE_COPY while the device runs, before it is stopped.
    #[arg(long)]
    pub(crate) precopy: bool,
    /// What follows when a device is reset while it is saved.
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_reset: Option<OnResetChoice>,
}

/// The connections.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The connections")]
pub(crate) struct LinkArgs {
    /// Send no faster than this, all streams together.
    #[arg(long, value_name = "RATE")]
    pub(crate) link: Option<Rate>,
    /// TCP congestion control of every connection; the host's own default if absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) congestion: Option<String>,
}

/// What guards the streams on their way.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The connections")]
pub(crate) struct PathArgs {
    /// Let the streams leave this host without protection: whoever is on their path can read and change
    /// the guest. Only where the path is guarded otherwise.
    #[arg(long)]
    pub(crate) plaintext: bool,
    /// Guard the streams by TLS 1.3, with certificates on both sides, from a folder as QEMU's
    /// tls-creds-x509 has it: ca-cert.pem, and client-cert.pem, client-key.pem on the sending host,
    /// server-cert.pem, server-key.pem on the receiving one.
    #[arg(long, value_name = "FOLDER", conflicts_with = "plaintext")]
    pub(crate) tls_creds: Option<PathBuf>,
    /// The name in the other host's certificate. By default a receiver has to have the name that it is
    /// connected to by, and a sender may have any that the authority knows.
    #[arg(long, value_name = "NAME", requires = "tls_creds")]
    pub(crate) tls_name: Option<String>,
}

fn runs() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=10_000)
}

fn streams() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=limits::STREAMS_MAX as i64)
}

fn devices() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..=limits::DEVICES_MAX as i64)
}

fn latency(text: &str) -> Result<Time, String> {
    let time: Time = text.parse().map_err(|error: UnitError| error.to_string())?;
    match time.0 {
        Duration::MAX => Err("a save that never ends is not a latency".to_owned()),
        _ => Ok(time),
    }
}

fn chunk(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error: UnitError| error.to_string())?;
    let (least, most) = (limits::CHUNK_BYTES_MIN as u64, limits::CHUNK_BYTES_MAX as u64);
    if !(least..=most).contains(&size.0) {
        return Err(format!("expected a size from {} to {}", Size(least), Size(most)));
    }
    Ok(size)
}

/// Clap's errors are paragraphs; the contract is one line.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first: Vec<&str> =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    first.join(" ").trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests;
