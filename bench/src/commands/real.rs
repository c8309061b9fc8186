//! `send` and `receive`: one side each, with real devices; without any see `hosts.rs`.
//!
//! Two hosts share no clock. The sender's downtime therefore ends when the target's running
//! frame arrives: longer than the true one by the way back. The state is verified by the engine's own
//! digest, which the target has checked before it lets the device run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::path::{connect, protection};
use super::{Failure, input, link, many};
use crate::carriers;
use crate::cli::{HostArgs, ReceiveArgs, SendArgs};
use crate::clock;
use crate::console::{self, say};
use crate::device::{Watch, Watched};
use crate::engine::{self, EngineOptions, Inputs, MigrationDevice, Streams};
use crate::net;
use crate::outcome::SideOutcome;
use crate::process::pulse::with_pulse;
use crate::process::usage;
use crate::report::json::ReportFile;
use crate::report::progress::Progress;
use crate::report::run::{Outcome, Run, Runs};
use crate::report::table;
use crate::spec::{Contender, Limits, Policy, Side};

/// Runs `send`.
pub(crate) fn send(args: &SendArgs) -> Result<(), Failure> {
    let link = link(&args.link)?;
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let connecting = format!("--connect {}", args.connect);
    let addresses = net::resolve(&args.connect).map_err(|error| input(&connecting, error))?;
    let protection = protection(Side::Source, &args.path, Some(&args.connect))?;
    engine::check_path(&addresses, &protection).map_err(|error| input(&connecting, error))?;
    let devices = RealDevices::open(&args.device)?;
    let streams = connect(&addresses, args.streams, &link, protection)
        .map_err(|error| input(&connecting, error))?;
    let options = EngineOptions {
        policy: args.engine.policy,
        precopy: args.saving.precopy,
        on_reset: args.saving.on_reset.unwrap_or_default(),
        ..options(&args.engine.host, args.limits, args.path.plaintext)
    };
    let title = format!("ferry-bench send: {} to {}", devices.words(), args.connect);
    migrate(Side::Source, devices, streams, options, &title, json)
}

/// Runs `receive`.
pub(crate) fn receive(args: &ReceiveArgs) -> Result<(), Failure> {
    let link = link(&args.link)?;
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let listening = format!("--listen {}", args.listen);
    let protection = protection(Side::Target, &args.path, None)?;
    let door = engine::listen(args.listen, protection).map_err(|error| input(&listening, error))?;
    let devices = RealDevices::open(&args.device)?;
    console::complain(format_args!("listening on {}", door.local_addr()));
    let streams = engine::accept(&door).map_err(Failure::Migration)?;
    if let Some(strangers) = engine::turned_away(&door) {
        console::complain(format_args!("turned away: {strangers}"));
    }
    // Nobody else is let in: who still knocks is told so.
    drop(door);
    net::adopt(&streams, &link).map_err(|error| Failure::Migration(error.to_string()))?;
    let title = format!("ferry-bench receive: {} on {}", devices.words(), args.listen);
    migrate(
        Side::Target,
        devices,
        streams,
        options(&args.host, args.limits, args.path.plaintext),
        &title,
        json,
    )
}

/// What either side chooses; the rest means nothing on a target.
pub(super) fn options(args: &HostArgs, limits: Limits, plaintext: bool) -> EngineOptions {
    EngineOptions {
        policy: Policy::Adaptive,
        backend: args.backend,
        chunk_bytes: args.chunk.0 as usize,
        precopy: false,
        on_reset: Default::default(),
        limits,
        latencies: Vec::new(),
        plaintext,
    }
}

/// The devices of this side.
struct RealDevices {
    devices: Vec<Arc<dyn MigrationDevice>>,
    watches: Vec<Arc<Watch>>,
}

impl RealDevices {
    /// Opens what can be wrong before anything is connected or stopped.
    fn open(paths: &[PathBuf]) -> Result<RealDevices, Failure> {
        let mut all = RealDevices { devices: Vec::new(), watches: Vec::new() };
        for path in paths {
            let device = engine::open_device(path).map_err(|error| input("--device", error))?;
            let watch = Arc::<Watch>::default();
            all.devices.push(Arc::new(Watched::new(device, Arc::clone(&watch))));
            all.watches.push(watch);
        }
        Ok(all)
    }

    fn words(&self) -> String {
        many(self.devices.len(), "device")
    }
}

fn migrate(
    side: Side,
    devices: RealDevices,
    streams: Streams,
    options: EngineOptions,
    title: &str,
    json: ReportFile,
) -> Result<(), Failure> {
    let failed = |error: String| Failure::Migration(error);
    let tcp_congestion = net::congestion_in_use(&streams).map_err(|e| failed(e.to_string()))?;
    let streams_used = many(streams.count(), "stream");
    let cpu_before = clock::process_cpu_ns();
    let RealDevices { devices, watches } = devices;
    let inputs = Inputs { devices, streams, options };
    let mut progress = Progress::of_unknown(side.name());
    let bytes = || watches.iter().map(|watch| watch.bytes.load(Ordering::Relaxed)).sum();
    let outcome =
        with_pulse(|| progress.at(bytes()), || carriers::run(Contender::Engine, side, inputs));
    drop(progress);
    let mut run = figures(side, &watches, outcome.map_err(failed)?);
    run.tcp_congestion = tcp_congestion;
    run.cpu_ns = clock::process_cpu_ns() - cpu_before;
    let runs = Runs::new(&[run]);
    let command = match side {
        Side::Source => "send",
        Side::Target => "receive",
    };
    say!("{title}, {streams_used}\n\n");
    if runs.runs > 0 {
        say!("{}", table::runs(&runs));
        say!("  {:<12} the target's digest of the loaded state is the source's\n", "verified");
    }
    json.write(command, &runs).map_err(|error| input("--json", error))?;
    match runs.message {
        None => Ok(()),
        Some(fault) => Err(failed(format!("the migration did not complete: {fault}"))),
    }
}

/// What the devices' own clocks and counts, and the engine's, come to.
pub(super) fn figures(side: Side, watches: &[Arc<Watch>], outcome: SideOutcome) -> Run {
    let first = |time: fn(&Watch) -> u64| {
        watches.iter().map(|watch| time(watch)).filter(|&ns| ns > 0).min().unwrap_or(0)
    };
    let since = |ns: u64| if ns > 0 { outcome.ended_ns.saturating_sub(ns) } else { 0 };
    let rss = usage::peak_rss_bytes();
    let (rss_source_bytes, rss_target_bytes, downtime_ns) = match side {
        Side::Source => (rss, 0, since(first(|it| it.stop_called_ns.load(Ordering::Relaxed)))),
        // The target's own device stops long before the source's does.
        Side::Target => (0, rss, 0),
    };
    let read_bytes: Vec<u64> = watches.iter().map(|it| it.bytes.load(Ordering::Relaxed)).collect();
    let restarts = outcome.told.iter().filter(|told| told.ending == "restarted").count();
    Run {
        outcome: if outcome.fault.is_none() { Outcome::Complete } else { Outcome::Aborted },
        message: outcome.fault,
        state_bytes: outcome.state_bytes,
        wire_bytes: outcome.wire_bytes,
        downtime_ns,
        forecast_ns: outcome.forecast_ns,
        latencies: outcome.latencies,
        total_ns: since(first(|it| it.started_ns.load(Ordering::Relaxed))),
        transfer_ns: 0,
        phases_ns: outcome
            .phases
            .iter()
            .map(|(name, time)| ((*name).to_owned(), time.as_nanos() as u64))
            .collect(),
        cpu_ns: 0,
        device_cpu_ns: 0,
        rss_source_bytes,
        rss_target_bytes,
        backend: outcome.backend.to_owned(),
        protection: outcome.protection.to_owned(),
        tcp_congestion: String::new(),
        resets: restarts as u32,
        read_bytes,
        discarded_bytes: outcome.discarded_bytes,
        reset: None,
        source_runs: false,
        timeline: None,
    }
}
