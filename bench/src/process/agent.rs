//! One side of a run: what the hidden command `agent` does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;

use super::doubles::Doubles;
use super::message::{Event, RunSpec, SideReport, Task};
use super::pulse::with_pulse;
use super::room::Place;
use super::sampler::Sampler;
use super::usage;
use crate::carriers;
use crate::clock;
use crate::data::Content;
use crate::device;
use crate::engine::{self, EngineOptions, Inputs, Protection, Streams, Tls};
use crate::net;
use crate::spec::{Shaper, Side};

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

fn migrate(task: Task) -> Result<SideReport, String> {
    let Task { spec, place, connect, identity } = task;
    let side = if connect.is_some() { Side::Source } else { Side::Target };
    let content =
        Content::new(&spec.data).map_err(|error| format!("--data {}: {error}", spec.data))?;
    let doubles = Doubles::new(&spec, side, &content);
    doubles.prepare().map_err(|error| format!("the test device: {error}"))?;
    let cpu_before = clock::process_cpu_ns();
    let tls = identity.map(|identity| identity.tls(side)).transpose()?;
    let tls = tls.map(|tls| tls.with_kernel(!spec.tls_user_space));
    let streams = match connect {
        Some(address) => connect_to(address, &spec, tls)
            .map_err(|error| format!("cannot connect to {address}: {error}"))?,
        None => accept(&spec, place, tls).map_err(|error| format!("cannot listen: {error}"))?,
    };
    let tcp_congestion = net::congestion_in_use(&streams).map_err(|error| error.to_string())?;
    let samples = spec.timeline && side == Side::Source;
    let sampler =
        samples.then(|| Sampler::start(&streams)).transpose().map_err(|e| e.to_string())?;
    let inputs = Inputs { devices: doubles.watched(), streams, options: engine_options(&spec) };
    let mut told = 0;
    let tell_progress = || {
        let bytes = doubles.bytes();
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
        devices: doubles.report(),
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
        protection: outcome.protection.to_owned(),
        tcp_congestion,
        cpu_ns,
        forecast_ns: outcome.forecast_ns,
        latencies: outcome.latencies,
        streams,
        device_cpu_ns: device::cpu_used_ns(),
        peak_rss_bytes: usage::peak_rss_bytes(),
    })
}

fn connect_to(address: SocketAddr, spec: &RunSpec, tls: Option<Tls>) -> Result<Streams, String> {
    let failed = |error: io::Error| error.to_string();
    let Some(tls) = tls else {
        let streams = net::connect(&[address], spec.streams, &spec.link).map_err(failed)?;
        return Ok(engine::plain(streams));
    };
    let streams = engine::connect_tls(&[address], spec.streams, tls)?;
    net::adopt(&streams, &spec.link).map_err(failed)?;
    Ok(streams)
}

fn accept(spec: &RunSpec, place: Option<Place>, tls: Option<Tls>) -> Result<Streams, String> {
    let failed = |error: io::Error| error.to_string();
    let address = place.map_or(Ipv4Addr::LOCALHOST, |_| Place::listens_at());
    let listener = net::listen((address, 0).into()).map_err(failed)?;
    let listening = listener.local_addr().map_err(failed)?;
    tell(&Event::Listening(listening)).map_err(failed)?;
    let Some(tls) = tls else {
        let streams = net::accept(&listener, spec.streams, &spec.link).map_err(failed)?;
        return Ok(engine::plain(streams));
    };
    let streams = engine::accept_at(&listener, Protection::Tls(tls))?;
    net::adopt(&streams, &spec.link).map_err(failed)?;
    Ok(streams)
}

/// The engine's options of a run.
pub(crate) fn engine_options(spec: &RunSpec) -> EngineOptions {
    EngineOptions {
        policy: spec.policy,
        backend: spec.backend,
        chunk_bytes: spec.chunk.0 as usize,
        precopy: spec.precopy,
        on_reset: spec.on_reset,
        limits: spec.limits,
        latencies: spec.latencies.clone(),
        // What is between two namespaces of our own does not leave this host.
        plaintext: spec.link.shaper == Shaper::Namespaces,
    }
}
