//! `send` and `receive` without a real device: what would the downtime be, between these two hosts?
//!
//! As with real devices, the hosts share no clock: the sender's downtime ends when the target's word that it
//! runs arrives. The states are verified as ever, by digests that the devices of both hosts take.

use std::net::{SocketAddr, TcpListener, TcpStream};

use super::path::{connect, protection};
use super::real::{figures, options};
use super::{Failure, check_device, check_memory, input, link, many, test_device};
use crate::carriers;
use crate::cli::{ReceiveArgs, SendArgs};
use crate::clock;
use crate::console::{self, say};
use crate::data::Content;
use crate::device;
use crate::engine::{self, EngineOptions, Inputs, Protection, Streams};
use crate::net;
use crate::process::agent::engine_options;
use crate::process::control::Control;
use crate::process::doubles::Doubles;
use crate::process::entrance::{self, Places};
use crate::process::message::{RunSpec, SideReport};
use crate::process::pair::PairReport;
use crate::process::pulse::with_pulse;
use crate::process::usage;
use crate::report::json::{DowntimeReport, ReportFile};
use crate::report::progress::Progress;
use crate::report::run::{Outcome, Run, Runs, judge};
use crate::report::table;
use crate::spec::{Contender, DataFdChoice, Side};

/// Runs `send`.
pub(crate) fn send(args: &SendArgs) -> Result<(), Failure> {
    check_device(&args.test)?;
    let spec = spec(args)?;
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let connecting = format!("--connect {}", args.connect);
    let addresses = net::resolve(&args.connect).map_err(|error| input(&connecting, error))?;
    let protection = protection(Side::Source, &args.path, Some(&args.connect))?;
    engine::check_path(&addresses, &protection).map_err(|error| input(&connecting, error))?;
    let options = EngineOptions { plaintext: args.path.plaintext, ..engine_options(&spec) };
    let content =
        Content::new(&spec.data).map_err(|error| input(&format!("--data {}", spec.data), error))?;
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        let doubles = Doubles::new(&spec, Side::Source, &content);
        doubles.prepare().map_err(|error| input("--data-fd", error))?;
        let mut control = Control::new(connect_control(&addresses, &connecting)?)
            .map_err(|error| input(&connecting, error))?;
        control.greet(&spec, number, args.runs).map_err(|error| input(&connecting, error))?;
        let streams = connect(&addresses, spec.streams, &spec.link, protection.clone())
            .map_err(|error| input(&connecting, error))?;
        let run = migrate(Side::Source, &spec, options.clone(), &doubles, streams, &mut control)?;
        let complete = run.outcome == Outcome::Complete;
        runs.push(run);
        if !complete {
            break;
        }
    }
    let title = format!("ferry-bench send: {} to {}", words(&spec), args.connect);
    report("send", &title, &spec, args.runs, &runs, json)
}

/// Runs `receive`.
pub(crate) fn receive(args: &ReceiveArgs) -> Result<(), Failure> {
    let link = link(&args.link)?;
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let listening = format!("--listen {}", args.listen);
    let protection = protection(Side::Target, &args.path, None)?;
    // What a session would refuse later.
    engine::listen(SocketAddr::new(args.listen.ip(), 0), protection.clone())
        .map_err(|error| input(&listening, error))?;
    let listener = net::listen(args.listen).map_err(|error| input(&listening, error))?;
    let address = listener.local_addr().map_err(|error| input(&listening, error))?;
    console::complain(format_args!("listening on {address}, with a test device"));
    let (mut runs, places) = (Vec::new(), Places::default());
    let (spec, count) = loop {
        let (mut control, mut spec, number, count) = next_sender(&listener, &places)?;
        spec.link = link.clone();
        spec.timeline = false;
        let doubles = Doubles::new(&spec, Side::Target, &Content::zero());
        let ready = ready(&spec, &doubles, &protection);
        let is_ready = ready.is_ok();
        control.welcome(ready.clone()).map_err(|error| Failure::Migration(error.to_string()))?;
        if !is_ready {
            ready.map_err(Failure::Input)?;
        }
        let streams =
            engine::accept_at(&listener, protection.clone()).map_err(Failure::Migration)?;
        net::adopt(&streams, &link).map_err(|error| Failure::Migration(error.to_string()))?;
        let options = options(&args.host, args.limits, args.path.plaintext);
        let run = migrate(Side::Target, &spec, options, &doubles, streams, &mut control)?;
        let complete = run.outcome == Outcome::Complete;
        runs.push(run);
        if number >= count || !complete {
            break (spec, count);
        }
    };
    let title = format!("ferry-bench receive: {} on {address}", words(&spec));
    report("receive", &title, &spec, count, &runs, json)
}

/// Waits for a sender with a test device; who is none is told of and let go.
fn next_sender(
    listener: &TcpListener,
    places: &Places,
) -> Result<(Control, RunSpec, u32, u32), Failure> {
    let stranger = |from, why: &str| console::complain(format_args!("{from} is let go: {why}"));
    let (control, hello) = entrance::next_sender(listener, places, stranger)
        .map_err(|error| Failure::Migration(error.to_string()))?;
    Ok((control, hello.spec, hello.run, hello.runs))
}

/// What this host needs for the state that it is asked to take.
fn ready(spec: &RunSpec, doubles: &Doubles, protection: &Protection) -> Result<(), String> {
    match (spec.tls, matches!(protection, Protection::Tls(_))) {
        (true, false) => return Err("the receiver has no --tls-creds, the sender has".to_owned()),
        (false, true) => return Err("the sender has no --tls-creds, the receiver has".to_owned()),
        _ => {}
    }
    if spec.data_fd == DataFdChoice::Memory {
        check_memory(spec.state.0, spec.devices, 1).map_err(|failure| failure.to_string())?;
    }
    doubles.prepare().map_err(|error| error.to_string())
}

/// The receiver may not be there yet.
fn connect_control(addresses: &[SocketAddr], connecting: &str) -> Result<TcpStream, Failure> {
    let mut streams = net::connect(addresses, 1, &Default::default())
        .map_err(|error| input(connecting, error))?;
    Ok(streams.remove(0))
}

fn migrate(
    side: Side,
    spec: &RunSpec,
    options: EngineOptions,
    doubles: &Doubles,
    streams: Streams,
    control: &mut Control,
) -> Result<Run, Failure> {
    let failed = |error: String| Failure::Migration(error);
    let tcp_congestion = net::congestion_in_use(&streams).map_err(|e| failed(e.to_string()))?;
    let (cpu_before, device_cpu_before) = (clock::process_cpu_ns(), device::cpu_used_ns());
    let inputs = Inputs { devices: doubles.watched(), streams, options };
    let bytes = spec.state.0.saturating_mul(spec.devices.into());
    let mut progress = Progress::new(bytes);
    progress.begin(side.name().to_owned());
    let beat = || progress.at(doubles.bytes());
    let outcome = with_pulse(beat, || carriers::run(Contender::Engine, side, inputs));
    drop(progress);
    let outcome = outcome.map_err(failed)?;
    let cpu_ns = clock::process_cpu_ns() - cpu_before;
    let device_cpu_ns = device::cpu_used_ns() - device_cpu_before;
    let own = SideReport {
        fault: outcome.fault.clone(),
        devices: doubles.report(),
        peak_rss_bytes: usage::peak_rss_bytes(),
        ..SideReport::default()
    };
    let mut run = figures(side, &doubles.watches(), outcome);
    (run.tcp_congestion, run.cpu_ns, run.device_cpu_ns) = (tcp_congestion, cpu_ns, device_cpu_ns);
    (run.outcome, run.message) = match control.exchange(&own) {
        Ok(other) => {
            let (source, target) = match side {
                Side::Source => (own, other),
                Side::Target => (other, own),
            };
            let (source, target) = (Some(source), Some(target));
            judge(&PairReport { source, target, ..PairReport::default() })
        }
        // What this side knows by itself is more to the point.
        Err(_) if run.message.is_some() => (run.outcome, run.message),
        Err(error) => (Outcome::Failed, Some(format!("the other host's digests: {error}"))),
    };
    Ok(run)
}

fn report(
    command: &str,
    title: &str,
    spec: &RunSpec,
    count: u32,
    runs: &[Run],
    json: ReportFile,
) -> Result<(), Failure> {
    let runs = Runs::new(runs);
    say!("{title}, {}, {}\n\n", many(spec.streams.into(), "stream"), many(count as usize, "run"));
    if runs.runs > 0 {
        say!("{}", table::runs(&runs));
    }
    let link = spec.link.rate.map(|rate| format!("{rate}, {}", super::PACING));
    if let Some(words) = &link {
        say!("  {:<12} {words}\n", "link");
    }
    let report = DowntimeReport { runs: &runs, reset: None, link: link.as_deref(), spec };
    json.write(command, &report).map_err(|error| input("--json", error))?;
    if !runs.verified {
        let why = runs.message.as_deref().unwrap_or("no reason was given");
        let what = match runs.outcome {
            Outcome::Mismatch => "the loaded state differs",
            _ => "the migration did not complete",
        };
        return Err(Failure::Migration(format!("{what}: {why}")));
    }
    say!(
        "  {:<12} {} of {}: source and target digests are equal\n",
        "verified",
        runs.runs,
        many(count as usize, "run")
    );
    Ok(())
}

fn words(spec: &RunSpec) -> String {
    let devices = many(spec.devices.into(), "test device");
    format!("{} of {} state, {devices}", spec.state, spec.data)
}

fn spec(args: &SendArgs) -> Result<RunSpec, Failure> {
    Ok(RunSpec {
        streams: args.streams,
        dirty_rate: args.dirty_rate,
        precopy: args.saving.precopy,
        on_reset: args.saving.on_reset.unwrap_or_default(),
        limits: args.limits,
        tls: args.path.tls_creds.is_some(),
        latencies: Vec::new(),
        ..test_device(&args.test, &args.engine, link(&args.link)?)
    })
}
