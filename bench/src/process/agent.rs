//! One side of a run: what the hidden command `agent` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use super::message::{DeviceReport, Event, RunSpec, SideReport, Task};
use super::pulse::with_pulse;
use super::room::Place;
use super::sampler::Sampler;
use super::usage;
use crate::carriers;
use crate::clock;
use crate::data::Content;
use crate::device::{self, ArcLatency, Conduit, Double, Plan, ResetAt, Watch, Watched};
use crate::engine::{Capabilities, DeviceState, EngineOptions, Inputs, MigrationDevice};
use crate::net;
use crate::spec::{self, ArcTime, DataFdChoice, Side};

/// Reads a task, does it, and reports. An error is the parent's having gone.
pub(crate) fn run() -> io::Result<()> {
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    input.read_line(&mut line)?;
    let task: Task = serde_json::from_str(&line)?;
    // As long as there is no other thread.
    let entered = task.place.map_or(Ok(()), Place::enter);
    end_with_parent(input);
    let result = match entered {
        Ok(()) => migrate(task),
        Err(error) => Err(format!("the network namespace: {error}")),
    };
    let event = match result {
        Ok(report) => Event::Done(Box::new(report)),
        Err(message) => Event::Refused(message),
    };
    tell(&event)
}

/// A parent that dies closes the pipe: nobody would read the report, and a blocked migration must
/// not outlive it.
fn end_with_parent(mut input: BufReader<io::Stdin>) {
    thread::spawn(move || {
        let _ = input.read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
}

fn tell(event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut output = io::stdout().lock();
    output.write_all(&line)?;
    output.flush()
}

/// A test device and the watch on it.
struct Bench {
    device: Arc<Double>,
    watch: Arc<Watch>,
}

fn migrate(task: Task) -> Result<SideReport, String> {
    let Task { spec, place, connect } = task;
    let side = if connect.is_some() { Side::Source } else { Side::Target };
    let content =
        Content::new(&spec.data).map_err(|error| format!("--data {}: {error}", spec.data))?;
    let benches: Vec<Bench> = (0..spec.devices)
        .map(|index| Bench {
            device: Arc::new(Double::new(plan(&spec, side, index, &content))),
            watch: Arc::new(Watch::new(spec.timeline)),
        })
        .collect();
    for bench in &benches {
        bench.device.prepare().map_err(|error| format!("the test device: {error}"))?;
    }
    let cpu_before = clock::process_cpu_ns();
    let streams = match connect {
        Some(address) => net::connect(&[address], spec.streams, &spec.link)
            .map_err(|error| format!("cannot connect to {address}: {error}"))?,
        None => accept(&spec, place).map_err(|error| format!("cannot listen: {error}"))?,
    };
    let tcp_congestion = net::congestion_in_use(&streams).map_err(|error| error.to_string())?;
    let samples = spec.timeline && side == Side::Source;
    let sampler =
        samples.then(|| Sampler::start(&streams)).transpose().map_err(|e| e.to_string())?;
    let inputs = Inputs {
        devices: benches.iter().map(Bench::watched).collect(),
        streams,
        options: engine_options(&spec),
    };
    let mut told = 0;
    let tell_progress = || {
        let bytes = benches.iter().map(|bench| bench.watch.bytes.load(Ordering::Relaxed)).sum();
        if bytes != told {
            told = bytes;
            // If the parent has gone, `end_with_parent` ends this process.
            let _ = tell(&Event::Progress(bytes));
        }
    };
    let outcome = with_pulse(tell_progress, || carriers::run(spec.contender, side, inputs));
    let streams = sampler.map(Sampler::end).unwrap_or_default();
    let outcome = outcome?;
    // Before the devices are asked for digests, which some of them only take now.
    let cpu_ns = clock::process_cpu_ns() - cpu_before;
    Ok(SideReport {
        devices: benches.iter().map(Bench::report).collect(),
        fault: outcome.fault,
        told: outcome.told,
        discarded_bytes: outcome.discarded_bytes,
        ended_ns: outcome.ended_ns,
        phases_ns: outcome
            .phases
            .iter()
            .map(|(name, time)| ((*name).to_owned(), time.as_nanos() as u64))
            .collect(),
        wire_bytes: outcome.wire_bytes,
        backend: outcome.backend.to_owned(),
        tcp_congestion,
        cpu_ns,
        forecast_ns: outcome.forecast_ns,
        streams,
        device_cpu_ns: device::cpu_used_ns(),
        peak_rss_bytes: usage::peak_rss_bytes(),
    })
}

fn accept(spec: &RunSpec, place: Option<Place>) -> io::Result<Vec<TcpStream>> {
    let address = place.map_or(Ipv4Addr::LOCALHOST, |_| Place::listens_at());
    let listener = net::listen((address, 0).into())?;
    tell(&Event::Listening(listener.local_addr()?))?;
    net::accept(&listener, spec.streams, &spec.link)
}

/// Three quarters of the state are PRE_COPY's initial data.
fn plan(spec: &RunSpec, side: Side, index: u16, content: &Content) -> Plan {
    let initial_bytes = spec.state.0 / 4 * 3;
    let of_target = spec.reset_at == Some(spec::ResetAt::Load);
    let is_its = index == 0 && of_target == (side == Side::Target);
    let reset_at = spec.reset_at.filter(|_| is_its).map(|at| match at {
        spec::ResetAt::PreCopy => ResetAt::HalfOfInitial,
        spec::ResetAt::Stop => ResetAt::Stopping,
        spec::ResetAt::StopCopy => ResetAt::HalfOfRest,
        spec::ResetAt::Bytes(size) => ResetAt::Read(size.0),
        spec::ResetAt::Load => ResetAt::Written(spec.state.0),
    });
    Plan {
        index: index as u8,
        capabilities: Capabilities { p2p: false, precopy: true },
        content: content.clone(),
        initial_bytes,
        dirty_rate: spec.dirty_rate,
        rest_bytes: spec.state.0 - initial_bytes,
        conduit: match spec.data_fd {
            DataFdChoice::Pipe => Conduit::Pipe,
            DataFdChoice::Memory => Conduit::Memory,
        },
        device_rate: spec.device_rate,
        save_latency: spec.save_latency.map_or(Duration::ZERO, |time| time.0),
        arc_latencies: spec.set_state_latency.iter().filter_map(arc_latency).collect(),
        reset_at,
        expects_bytes: if side == Side::Target { spec.state.0 } else { 0 },
        ..Plan::default()
    }
}

/// The command line has checked the names.
fn arc_latency(arc: &ArcTime) -> Option<ArcLatency> {
    let state = |name: &String| DeviceState::ALL.into_iter().find(|state| state.name() == name);
    let from = match &arc.from {
        Some(name) => Some(state(name)?),
        None => None,
    };
    Some(ArcLatency { from, to: state(&arc.to)?, time: arc.time.0 })
}

/// The engine's options of a run.
fn engine_options(spec: &RunSpec) -> EngineOptions {
    EngineOptions {
        policy: spec.policy,
        backend: spec.backend,
        chunk_bytes: spec.chunk.0 as usize,
        precopy: spec.precopy,
        on_reset: spec.on_reset,
        limits: spec.limits,
        plaintext: false,
    }
}

impl Bench {
    fn watched(&self) -> Arc<dyn MigrationDevice> {
        let device: Arc<dyn MigrationDevice> = self.device.clone();
        Arc::new(Watched::new(device, Arc::clone(&self.watch)))
    }

    fn report(&self) -> DeviceReport {
        let read = |time: &AtomicU64| time.load(Ordering::Relaxed);
        let passed = self.device.passed();
        DeviceReport {
            started_ns: read(&self.watch.started_ns),
            stop_called_ns: read(&self.watch.stop_called_ns),
            stop_copy_ns: read(&self.watch.stop_copy_ns),
            last_transfer_ns: read(&self.watch.last_transfer_ns),
            running_ns: read(&self.watch.running_ns),
            bytes: passed.bytes,
            digest: passed.digest.map(|digest| format!("{digest:032x}")),
            all_bytes: read(&self.watch.bytes),
            resets: self.device.resets(),
            reset_ns: self.device.planned_reset_ns(),
            record: self
                .watch
                .record
                .as_ref()
                .map(|record| record.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            state: self.device.state().map_or_else(|e| e.to_string(), |state| state.to_string()),
        }
    }
}
