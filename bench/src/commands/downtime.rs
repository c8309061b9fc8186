//! `downtime`: migrate test devices between two processes, several times, and report.

use super::{
    Failure, Road, check_device, input, many, road, rounds, say_what_it_takes, test_device,
};
use crate::cli::DowntimeArgs;
use crate::console::say;
use crate::process::message::RunSpec;
use crate::process::pair;
use crate::report::json::{DowntimeReport, ReportFile};
use crate::report::progress::Progress;
use crate::report::reset::{self, Reset, Round};
use crate::report::run::{Outcome, Run, Runs};
use crate::report::timeline::Timeline;
use crate::report::{plot, table};
use crate::spec::{DataFdChoice, ResetAt};

/// Runs the command.
pub(crate) fn run(args: &DowntimeArgs) -> Result<(), Failure> {
    check_device(&args.device)?;
    check_reset(args)?;
    let road = road(&args.link, args.shaper)?;
    let spec = spec(args, &road);
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let plot = ReportFile::create(args.plot.as_deref()).map_err(|error| input("--plot", error))?;
    let each = spec.reset_at.map_or(1, |at| rounds::migrations(at, spec.on_reset));
    say_what_it_takes(&spec, each * u64::from(args.runs));
    let (runs, reset) = match spec.reset_at {
        None => (migrate(&spec, &road, args.runs), None),
        Some(at) => {
            let rounds = rounds::go(&spec, &road, args.runs);
            let reset = Reset::new(at, spec.on_reset, &rounds);
            let fault = rounds.iter().find_map(Round::fault);
            let runs: Vec<Run> = rounds.into_iter().map(|round| round.chosen).collect();
            (runs, Some((reset, fault)))
        }
    };
    let shown = middle(&runs);
    let runs = Runs::new(&runs);
    say!("{}\n\n", title(&spec, args.runs));
    if runs.runs > 0 {
        say!("{}", table::runs(&runs));
    }
    if let Some(words) = &road.words {
        say!("  {:<12} {words}\n", "link");
    }
    let section = reset.as_ref().map(|(reset, _)| reset);
    let report =
        DowntimeReport { runs: &runs, reset: section, link: road.words.as_deref(), spec: &spec };
    json.write("downtime", &report).map_err(|error| input("--json", error))?;
    if let Some(timeline) = shown {
        let picture = plot::timeline(&title(&spec, args.runs), &timeline);
        let picture = picture.map_err(|error| input("--plot", error))?;
        plot.put(picture.as_bytes()).map_err(|error| input("--plot", error))?;
    }
    if runs.verified {
        say!(
            "  {:<12} {} of {}: source and target digests are equal\n",
            "verified",
            runs.runs,
            many(args.runs as usize, "run")
        );
    }
    if runs.outcome == Outcome::Refused {
        return Err(failure(&runs));
    }
    if let Some((reset, fault)) = &reset {
        let gap = if runs.runs > 0 { "\n" } else { "" };
        say!("{gap}{}", reset::text(reset, spec.devices));
        return fault.clone().map_or(Ok(()), |fault| Err(Failure::Migration(fault)));
    }
    if runs.verified {
        return Ok(());
    }
    Err(failure(&runs))
}

/// What happened in the run whose downtime is in the middle, if it was recorded.
fn middle(runs: &[Run]) -> Option<Timeline> {
    let mut recorded: Vec<&Run> = runs.iter().filter(|run| run.timeline.is_some()).collect();
    recorded.sort_by_key(|run| run.downtime_ns);
    recorded.get(recorded.len() / 2)?.timeline.clone()
}

fn failure(runs: &Runs) -> Failure {
    let reason = runs.message.as_deref().unwrap_or("no reason was given");
    match runs.outcome {
        Outcome::Refused => Failure::Input(reason.to_owned()),
        Outcome::Mismatch => Failure::Migration(format!("the loaded state differs: {reason}")),
        _ => Failure::Migration(format!("the migration did not complete: {reason}")),
    }
}

/// Migrates so often; stops after the first migration that does not complete.
fn migrate(spec: &RunSpec, road: &Road, count: u32) -> Vec<Run> {
    let expected_bytes = spec.state.0.saturating_mul(u64::from(spec.devices));
    let mut progress = Progress::new(expected_bytes.saturating_mul(u64::from(count)));
    let mut runs = Vec::new();
    let mut spec = spec.clone();
    for number in 1..=count {
        progress.begin(format!("run {number} of {count}"));
        let run = Run::new(&pair::run(&spec, road.room.as_ref(), &mut |bytes| progress.at(bytes)));
        progress.end(expected_bytes);
        let complete = run.outcome == Outcome::Complete;
        spec.latencies.clone_from(&run.latencies);
        runs.push(run);
        if !complete {
            break;
        }
    }
    runs
}

/// A reset that cannot come is bad input.
fn check_reset(args: &DowntimeArgs) -> Result<(), Failure> {
    let Some(at) = args.reset_at else {
        return match args.saving.on_reset {
            Some(_) => {
                Err(input("--on-reset", "says what follows a reset; --reset-at says when it is"))
            }
            None => Ok(()),
        };
    };
    let option = format!("--reset-at {at}");
    match at {
        ResetAt::PreCopy | ResetAt::Stop if !args.saving.precopy => {
            Err(input(&option, "there is no PRE_COPY to be left without --precopy"))
        }
        ResetAt::Bytes(size) if !args.saving.precopy && size > args.device.state => {
            Err(input(&option, format!("the state has only {}", args.device.state)))
        }
        _ => Ok(()),
    }
}

fn spec(args: &DowntimeArgs, road: &Road) -> RunSpec {
    RunSpec {
        streams: args.streams,
        dirty_rate: args.dirty_rate,
        reset_at: args.reset_at,
        precopy: args.saving.precopy,
        on_reset: args.saving.on_reset.unwrap_or_default(),
        limits: args.limits,
        timeline: args.plot.is_some(),
        tls: args.tls,
        tls_user_space: args.tls_user_space,
        ..test_device(&args.device, &args.engine, road.link.clone())
    }
}

fn title(spec: &RunSpec, runs: u32) -> String {
    let mut parts = vec![
        format!("{} of {} state", spec.state, spec.data),
        many(spec.devices.into(), "device"),
        many(spec.streams.into(), "stream"),
        spec.policy.to_string(),
        if spec.precopy { "PRE_COPY and STOP_COPY" } else { "STOP_COPY" }.to_owned(),
    ];
    if let Some(rate) = spec.link.rate {
        parts.push(format!("link {rate}"));
    }
    if let Some(rate) = spec.dirty_rate {
        parts.push(format!("dirty {rate}"));
    }
    if let Some(rate) = spec.device_rate {
        parts.push(format!("device {rate}"));
    }
    if spec.data_fd == DataFdChoice::Memory {
        parts.push("in memory".to_owned());
    }
    if spec.tls {
        parts.push("TLS".to_owned());
    }
    parts.extend(spec.save_latency.map(|time| format!("save {time}")));
    parts.extend(spec.set_state_latency.iter().map(|arc| format!("SET_STATE {arc}")));
    parts.push(many(runs as usize, "run"));
    format!("ferry-bench downtime: {}", parts.join(", "))
}
