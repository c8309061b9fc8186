//! What the commands do, and how they may fail.

pub(crate) mod compare;
pub(crate) mod downtime;
pub(crate) mod faults;
pub(crate) mod grid;
mod hosts;
mod path;
mod real;
mod rounds;

use crate::cli::{EngineArgs, LinkArgs, ReceiveArgs, SendArgs, TestDeviceArgs};
use crate::console::say;
use crate::data::Content;
use crate::net;
use crate::process::message::RunSpec;
use crate::process::room::{self, Room};
use crate::report::machine;
use crate::spec::{
    Contender, DataFdChoice, DataKind, Limits, Link, OnResetChoice, Rate, Shaper, ShaperChoice,
    Size,
};

/// Runs `send`: real devices, or test devices where none is named.
pub(crate) fn send(args: &SendArgs) -> Result<(), Failure> {
    match args.device.is_empty() {
        true => hosts::send(args),
        false => real::send(args),
    }
}

/// Runs `receive`, likewise.
pub(crate) fn receive(args: &ReceiveArgs) -> Result<(), Failure> {
    match args.device.is_empty() {
        true => hosts::receive(args),
        false => real::receive(args),
    }
}

/// Why the program does not end with status 0. The text is one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What was asked for cannot be done: status 2.
    #[error("{0}")]
    Input(String),
    /// A migration failed, or the states differ: status 1.
    #[error("{0}")]
    Migration(String),
}

impl Failure {
    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self {
            Failure::Input(_) => 2,
            Failure::Migration(_) => 1,
        }
    }
}

/// Bad input, with the option that it came from.
fn input(option: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Input(format!("{option}: {error}"))
}

/// So many of something, in words.
fn many(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// What the migrations of a command go over.
pub(crate) struct Road {
    /// What every connection gets.
    pub(crate) link: Link,
    /// Where both processes are, if not here.
    pub(crate) room: Option<Room>,
    /// What holds the rate, and what of it is not held; none without a rate.
    pub(crate) words: Option<String>,
}

/// A road as it was asked for, or the best that this user can have.
fn road(args: &LinkArgs, choice: ShaperChoice) -> Result<Road, Failure> {
    let mut link = link(args)?;
    let Some(rate) = link.rate else { return Ok(Road { link, room: None, words: None }) };
    let (room, why_not) = match choice {
        ShaperChoice::Pacing => (None, String::new()),
        ShaperChoice::Auto | ShaperChoice::Namespaces => match Room::open(rate) {
            Ok(room) => (Some(room), String::new()),
            Err(error) if choice == ShaperChoice::Namespaces => {
                return Err(input("--shaper namespaces", error));
            }
            Err(error) => (None, format!(" (no network namespaces: {error})")),
        },
    };
    let words = match &room {
        Some(_) => {
            link.shaper = Shaper::Namespaces;
            let burst = room::burst(rate);
            format!("{rate}, a token bucket between two network namespaces; {burst} go at once")
        }
        None => format!("{rate}, {PACING}{why_not}"),
    };
    Ok(Road { link, room, words: Some(words) })
}

/// What a person must know of a paced link.
pub(crate) const PACING: &str =
    "paced by each socket: NOT kept for what each stream sends first, some 200 KiB";

fn link(args: &LinkArgs) -> Result<Link, Failure> {
    if let Some(name) = &args.congestion {
        net::check_congestion(name)
            .map_err(|error| input(&format!("--congestion {name}"), error))?;
    }
    Ok(Link { rate: args.link, congestion: args.congestion.clone(), shaper: Shaper::Pacing })
}

/// Says what so many migrations will take, before the first of them, if a person would want to know.
fn say_what_it_takes(spec: &RunSpec, migrations: u64) {
    let bytes = u128::from(spec.state.0) * u128::from(spec.devices) * u128::from(migrations);
    let of_devices = spec.device_rate.map(|rate| rate.0.saturating_mul(spec.devices.into()));
    let known = [spec.link.rate.map(|rate| rate.0), of_devices].into_iter().flatten().min();
    // Zeros and what compresses need less of a link; nothing is known of that here.
    let rate = known.unwrap_or(u64::MAX).min(USUAL_BYTES_PER_S);
    let seconds = bytes / u128::from(rate);
    if seconds < WORTH_SAYING_S {
        return;
    }
    let migrations = many(usize::try_from(migrations).unwrap_or(usize::MAX), "migration");
    let each = Size(spec.state.0.saturating_mul(spec.devices.into()));
    let rate = Rate(rate);
    say!(
        "{migrations} of {each} take {} at {rate}; --state and --runs make it less\n\n",
        long(seconds)
    );
}

/// What moves through a path of two processes on one host, roughly.
const USUAL_BYTES_PER_S: u64 = 1_000_000_000;
/// What takes less is not worth a line.
const WORTH_SAYING_S: u128 = 120;

/// A time that takes patience.
fn long(seconds: u128) -> String {
    match seconds {
        0..7200 => format!("{} minutes", seconds.div_ceil(60)),
        7200..172_800 => format!("{} hours", seconds.div_ceil(3600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    }
}

/// Finds out here, once, what every process of every run would find out.
fn check_device(args: &TestDeviceArgs) -> Result<(), Failure> {
    let data = &args.data;
    if matches!(data, DataKind::File(_)) {
        Content::new(data).map_err(|error| input(&format!("--data {data}"), error))?;
    }
    if args.data_fd == DataFdChoice::Memory {
        let cannot = "reads and writes of memory cannot wait; --data-fd pipe can";
        if args.device_rate.is_some() {
            return Err(input("--device-rate", cannot));
        }
        if args.save_latency.is_some() {
            return Err(input("--save-latency", cannot));
        }
        check_memory(args.state.0, args.devices, 2)?;
    }
    Ok(())
}

/// Whether the host has memory for so many copies of the devices' states.
fn check_memory(state_bytes: u64, devices: u16, copies: u64) -> Result<(), Failure> {
    let takes = state_bytes.saturating_mul(devices.into()).saturating_mul(copies);
    let available = machine::memory_bytes("MemAvailable");
    if available > 0 && takes > available {
        let text =
            format!("takes {} of memory, and {} are available", Size(takes), Size(available));
        return Err(input("--data-fd memory", text));
    }
    Ok(())
}

/// A run of the engine with a test device, over one stream, in STOP_COPY alone.
fn test_device(device: &TestDeviceArgs, engine: &EngineArgs, link: Link) -> RunSpec {
    RunSpec {
        contender: Contender::Engine,
        state: device.state,
        data: device.data.clone(),
        devices: device.devices,
        streams: 1,
        device_rate: device.device_rate,
        data_fd: device.data_fd,
        save_latency: device.save_latency,
        set_state_latency: device.set_state_latency.clone(),
        dirty_rate: None,
        reset_at: None,
        link,
        policy: engine.policy,
        backend: engine.host.backend,
        chunk: engine.host.chunk,
        precopy: false,
        on_reset: OnResetChoice::Abort,
        limits: Limits::default(),
        timeline: false,
        tls: false,
        latencies: Vec::new(),
        tls_user_space: false,
    }
}
