//! `send` and `receive`: one side each, with real devices.
//!
//! Two hosts share no clock. The sender's downtime therefore ends when it hears of the target's
//! RUNNING: longer than the true one by the way back. The state is verified by the engine's own
//! digest, which the target has checked before it lets the device run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Failure, input, link};
use crate::cli::{RealArgs, ReceiveArgs, SendArgs};
use crate::contender::{Contender, Side};
use crate::device::{Watch, Watched};
use crate::engine::{self, EngineOptions, Inputs, MigrationDevice};
use crate::net;
use crate::process::usage;
use crate::report::json::JsonFile;
use crate::report::run::{Outcome, Run, Runs};
use crate::report::table;

/// Runs `send`.
pub(crate) fn send(args: &SendArgs) -> Result<(), Failure> {
    let side = RealSide::open(Side::Source, &args.devices, &args.real)?;
    let link = link(&args.real.link)?;
    let streams = net::connect(args.connect, args.real.streams, &link)
        .map_err(|error| input(&format!("--connect {}", args.connect), error))?;
    side.run(streams, &args.real)
}

/// Runs `receive`.
pub(crate) fn receive(args: &ReceiveArgs) -> Result<(), Failure> {
    let side = RealSide::open(Side::Target, &args.devices, &args.real)?;
    let link = link(&args.real.link)?;
    let listening = format!("--listen {}", args.listen);
    let listener = net::listen(args.listen).map_err(|error| input(&listening, error))?;
    eprintln!("listening on {}", args.listen);
    let streams = net::accept(&listener, args.real.streams, &link)
        .map_err(|error| input(&listening, error))?;
    side.run(streams, &args.real)
}

/// The devices of this side.
struct RealSide {
    side: Side,
    devices: Vec<Arc<dyn MigrationDevice>>,
    watches: Vec<Arc<Watch>>,
    json: JsonFile,
}

impl RealSide {
    /// Opens everything that can be wrong before anything is connected or stopped.
    fn open(side: Side, paths: &[PathBuf], args: &RealArgs) -> Result<RealSide, Failure> {
        let mut devices: Vec<Arc<dyn MigrationDevice>> = Vec::new();
        let mut watches = Vec::new();
        for path in paths {
            let device = engine::open_device(path).map_err(|error| input("--device", error))?;
            let watch = Arc::<Watch>::default();
            devices.push(Arc::new(Watched::new(device, Arc::clone(&watch))));
            watches.push(watch);
        }
        let json =
            JsonFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
        Ok(RealSide { side, devices, watches, json })
    }

    fn run(self, streams: Vec<std::net::TcpStream>, args: &RealArgs) -> Result<(), Failure> {
        let failed = |error: String| Failure::Migration(error);
        let tcp_congestion = net::congestion_in_use(&streams).map_err(|e| failed(e.to_string()))?;
        let options = EngineOptions {
            policy: args.engine.policy,
            backend: args.engine.backend,
            chunk_bytes: args.engine.chunk.0 as usize,
            precopy: args.saving.precopy,
            on_reset: args.saving.on_reset,
        };
        let began_ns = usage::monotonic_ns();
        let cpu_before = usage::process_cpu_ns();
        let inputs = Inputs { devices: self.devices, streams, options };
        let outcome = Contender::Engine.run(self.side, inputs).map_err(failed)?;
        let ended_ns = usage::monotonic_ns();
        let stop_ns = self
            .watches
            .iter()
            .map(|watch| watch.stop_called_ns.load(Ordering::Relaxed))
            .filter(|&ns| ns > 0)
            .min();
        let rss = usage::peak_rss_bytes();
        let (rss_source_bytes, rss_target_bytes) = match self.side {
            Side::Source => (rss, 0),
            Side::Target => (0, rss),
        };
        let run = Run {
            outcome: if outcome.fault.is_none() { Outcome::Complete } else { Outcome::Aborted },
            message: outcome.fault,
            state_bytes: self.watches.iter().map(|it| it.bytes.load(Ordering::Relaxed)).sum(),
            wire_bytes: outcome.wire_bytes,
            // The target's own device stops long before the source's does.
            downtime_ns: match self.side {
                Side::Source => stop_ns.map_or(0, |stop_ns| ended_ns - stop_ns),
                Side::Target => 0,
            },
            total_ns: ended_ns - began_ns,
            transfer_ns: 0,
            phases_ns: outcome
                .phases
                .iter()
                .map(|(name, time)| ((*name).to_owned(), time.as_nanos() as u64))
                .collect(),
            cpu_ns: usage::process_cpu_ns() - cpu_before,
            device_cpu_ns: 0,
            rss_source_bytes,
            rss_target_bytes,
            backend: outcome.backend.to_owned(),
            tcp_congestion,
            resets: 0,
        };
        let runs = Runs::new(&[run]);
        println!("ferry-bench {}: {} device(s)\n", self.side.name(), self.watches.len());
        print!("{}", table::runs(&runs));
        self.json.write(&runs).map_err(|error| input("--json", error))?;
        match runs.message {
            None => Ok(()),
            Some(fault) => {
                Err(Failure::Migration(format!("the migration did not complete: {fault}")))
            }
        }
    }
}
