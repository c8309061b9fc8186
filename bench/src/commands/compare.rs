//! `compare`: the engine and its peers do the same work in turns, so that the host's other load falls
//! on all alike.

use std::collections::BTreeMap;

use super::{Failure, Road, check_device, input, many, road, say_what_it_takes, test_device};
use crate::cli::CompareArgs;
use crate::console::say;
use crate::peers;
use crate::process::message::RunSpec;
use crate::process::pair;
use crate::report::json::{CompareReport, ReportFile};
use crate::report::progress::Progress;
use crate::report::run::{Run, Runs, per_second};
use crate::report::table::{Table, duration};
use crate::spec::{Contender, Rate, Size};

/// Runs the command.
pub(crate) fn run(args: &CompareArgs) -> Result<(), Failure> {
    check_device(&args.device)?;
    let road = road(&args.link, args.shaper)?;
    let spec = spec(args, &road);
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let here = contenders();
    say_what_it_takes(&spec, u64::from(args.runs) * here.len() as u64);
    let contenders = rounds(&spec, &road, &here, args.runs);
    say!(
        "ferry-bench compare: {} of {} state, {}, 1 stream, STOP_COPY, {}, {}{}\n\n",
        spec.state,
        spec.data,
        many(spec.devices.into(), "device"),
        many(args.runs as usize, "round"),
        congestion(&contenders),
        spec.link.rate.map_or_else(String::new, |rate| format!(", link {rate}")),
    );
    say!("{}", table(&contenders));
    say!(
        "\n  transfer: from where the stopped device can be read to the last byte written on the \
         target; medians\n  ratio: of the transfer to vfio-ferry's, more than 1 is slower\n"
    );
    if let Some(words) = &road.words {
        say!("  link: {words}\n");
    }
    let report = CompareReport {
        link: road.words.as_deref(),
        verified: contenders.iter().all(|(_, runs)| runs.verified),
        contenders: contenders.iter().map(|(it, runs)| (it.name(), runs)).collect(),
        transfer_ratio_to_engine: ratios(&contenders),
        spec: &spec,
    };
    json.write("compare", &report).map_err(|error| input("--json", error))?;
    let faults: Vec<String> = contenders
        .iter()
        .filter(|(_, runs)| !runs.verified)
        .map(|(it, runs)| {
            format!("{}: {}", it.name(), runs.message.as_deref().unwrap_or("not verified"))
        })
        .collect();
    if faults.is_empty() { Ok(()) } else { Err(Failure::Migration(faults.join("; "))) }
}

/// The congestion control of the connections, as the kernel reports it.
fn congestion(contenders: &[(Contender, Runs)]) -> &str {
    let mut names = contenders.iter().map(|(_, runs)| runs.tcp_congestion.as_str());
    names.find(|name| !name.is_empty()).unwrap_or("no connection")
}

/// Those that can run here; a line for each that cannot.
fn contenders() -> Vec<Contender> {
    let mut here = Vec::new();
    for contender in Contender::ALL {
        match peers::missing(contender) {
            None => here.push(contender),
            Some(why) => say!("{} is left out: {why}\n", contender.name()),
        }
    }
    here
}

/// A B C D A B C D ...
fn rounds(spec: &RunSpec, road: &Road, here: &[Contender], rounds: u32) -> Vec<(Contender, Runs)> {
    let expected_bytes = spec.state.0.saturating_mul(u64::from(spec.devices));
    let steps = u64::from(rounds) * here.len() as u64;
    let mut progress = Progress::new(expected_bytes.saturating_mul(steps));
    let mut runs: Vec<Vec<Run>> = here.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (&contender, runs) in here.iter().zip(&mut runs) {
            progress.begin(format!("round {round} of {rounds}, {}", contender.name()));
            let spec = RunSpec { contender, ..spec.clone() };
            runs.push(Run::new(&pair::run(&spec, road.room.as_ref(), &mut |bytes| {
                progress.at(bytes)
            })));
            progress.end(expected_bytes);
        }
    }
    here.iter().copied().zip(runs.iter().map(|runs| Runs::new(runs))).collect()
}

fn ratios(contenders: &[(Contender, Runs)]) -> BTreeMap<&'static str, f64> {
    let transfer = |wanted: Contender| {
        let found = contenders.iter().find(|(it, runs)| *it == wanted && runs.runs > 0);
        found.map(|(_, runs)| runs.transfer_ns.median as f64)
    };
    let Some(engine) = transfer(Contender::Engine) else { return BTreeMap::new() };
    contenders.iter().filter_map(|&(it, _)| Some((it.name(), transfer(it)? / engine))).collect()
}

fn table(contenders: &[(Contender, Runs)]) -> String {
    let ratios = ratios(contenders);
    let mut table = Table::default();
    table.row([
        "",
        "transfer",
        "rate",
        "ratio",
        "downtime",
        "on the wire",
        "cpu",
        "(device)",
        "memory",
        "verified",
    ]);
    for (contender, runs) in contenders {
        let name = contender.name();
        if runs.runs == 0 {
            table.row([name, "-", "-", "-", "-", "-", "-", "-", "-", "no"]);
            continue;
        }
        let transfer = runs.transfer_ns.median;
        table.row([
            name.to_owned(),
            duration(transfer),
            Rate(per_second(runs.state_bytes, transfer)).to_string(),
            ratios.get(name).map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
            duration(runs.downtime_ns.median),
            Size(runs.wire_bytes).to_string(),
            duration(runs.cpu_ns),
            duration(runs.device_cpu_ns),
            Size(runs.peak_rss_bytes).to_string(),
            if runs.verified { many(runs.runs, "run") } else { "no".to_owned() },
        ]);
    }
    table.text()
}

/// One stream: the peers know no more.
fn spec(args: &CompareArgs, road: &Road) -> RunSpec {
    test_device(&args.device, &args.engine, road.link.clone())
}
