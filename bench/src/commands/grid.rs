//! `grid`: every state, link, kind of data and contender, in turns.

use serde::Serialize;

use super::{Failure, Road, check_memory, input, long, many, road};
use crate::cli::GridArgs;
use crate::console::say;
use crate::data::Content;
use crate::grid::cell::{Cell, Entry};
use crate::grid::finished::Finished;
use crate::grid::{Axes, Place, link_name, picture, table};
use crate::peers;
use crate::process::message::RunSpec;
use crate::process::pair;
use crate::report::json::ReportFile;
use crate::report::machine::Machine;
use crate::report::progress::Progress;
use crate::report::run::Run;
use crate::spec::{
    Contender, DataFdChoice, DataKind, Entrant, Limits, Link, OnResetChoice, Policy, Rate, Size,
};

/// The report.
#[derive(Serialize)]
struct Report<'a> {
    verified: bool,
    contenders: &'a [Entrant],
    /// What held the links' rates, in words.
    links: Vec<String>,
    settings: &'a Settings,
    cells: &'a [Cell],
}

/// What all cells of a grid have in common; a file of finished cells is of one of these.
#[derive(Serialize)]
struct Settings {
    devices: u16,
    streams: u16,
    chunk: Size,
    backend: String,
    data_fd: DataFdChoice,
    precopy: bool,
    congestion: Option<String>,
    shaper: String,
    build: String,
    host: String,
    kernel: String,
    cpus: usize,
}

/// Runs the command.
pub(crate) fn run(args: &GridArgs) -> Result<(), Failure> {
    let axes = axes(args)?;
    let places = axes.places();
    let contenders = contenders(args)?;
    let json = ReportFile::create(args.json.as_deref()).map_err(|error| input("--json", error))?;
    let plot = ReportFile::create(args.plot.as_deref()).map_err(|error| input("--plot", error))?;
    let settings = settings(args);
    let mut finished = Finished::open(args.resume.as_deref(), &settings)
        .map_err(|error| input("--resume", error))?;
    let done = places.iter().filter(|place| finished.find(place, &contenders).is_some()).count();
    say_what_it_takes(args, &places, &contenders, done);
    let mut cells = Vec::new();
    let mut links = Vec::new();
    let mut road: Option<Road> = None;
    for place in &places {
        let cell = match finished.find(place, &contenders) {
            Some(cell) => cell,
            None => {
                if road.as_ref().is_none_or(|road| road.link.rate != place.link) {
                    // The old one's namespaces go first.
                    drop(road.take());
                    road = Some(self::road(&args.link(place.link), args.shaper)?);
                }
                let Some(road) = &road else { unreachable!("made above") };
                let words = road.words.clone().unwrap_or_else(|| "none: loopback".to_owned());
                if !links.contains(&words) {
                    links.push(words);
                }
                let cell = run_cell(args, place, &contenders, road);
                finished.add(&cell).map_err(|error| input("--resume", error))?;
                cell
            }
        };
        cells.push(cell);
    }
    say!("{}{}{}", table::text(&cells, &contenders), table::legend(), table::summary(&cells));
    for words in &links {
        say!("  link: {words}\n");
    }
    let faults = faults(&cells);
    if plot.is_wanted() {
        let picture =
            picture::grid(&axes, &contenders, &cells).map_err(|error| input("--plot", error))?;
        plot.put(picture.as_bytes()).map_err(|error| input("--plot", error))?;
    }
    let verified = faults.is_empty();
    let report =
        Report { verified, contenders: &contenders, links, settings: &settings, cells: &cells };
    json.write("grid", &report).map_err(|error| input("--json", error))?;
    if verified { Ok(()) } else { Err(Failure::Migration(faults.join("; "))) }
}

fn faults(cells: &[Cell]) -> Vec<String> {
    let mut faults = Vec::new();
    for cell in cells {
        for entry in &cell.entries {
            if let Some(fault) = &entry.fault {
                let Place { state, link, data } = &cell.place;
                let link = link_name(*link);
                faults.push(format!(
                    "{} of {data}, link {link}, {}: {fault}",
                    state, entry.contender
                ));
            }
        }
    }
    faults
}

/// Rounds of all contenders, in an order that turns, until their medians hold.
fn run_cell(args: &GridArgs, place: &Place, contenders: &[Entrant], road: &Road) -> Cell {
    let mut entries: Vec<Entry> = contenders.iter().map(|&it| Entry::new(it)).collect();
    let (least, most) = args.rounds();
    let bytes = place.state.0.saturating_mul(args.devices.into());
    let mut progress = Progress::new(
        bytes.saturating_mul(u64::from(least)).saturating_mul(contenders.len() as u64),
    );
    let mut settled = false;
    // What each contender has measured of its device's transitions.
    let mut known = vec![Vec::new(); entries.len()];
    for round in 0..most {
        for turn in 0..entries.len() {
            let which = (round as usize + turn) % entries.len();
            let entry = &mut entries[which];
            if entry.fault.is_some() {
                continue;
            }
            progress.begin(format!(
                "{} of {}, link {}, round {}, {}",
                place.state,
                place.data,
                link_name(place.link),
                round + 1,
                entry.contender
            ));
            let spec = spec(args, place, entry.contender, road.link.clone());
            let spec = RunSpec { latencies: std::mem::take(&mut known[which]), ..spec };
            let report = pair::run(&spec, road.room.as_ref(), &mut |bytes| progress.at(bytes));
            let run = Run::new(&report);
            entry.add(&run);
            known[which] = run.latencies;
            progress.end(bytes);
        }
        settled = entries.iter().all(Entry::is_settled);
        if round + 1 >= least && settled {
            break;
        }
    }
    Cell { place: place.clone(), settled, entries }
}

fn spec(args: &GridArgs, place: &Place, entrant: Entrant, link: Link) -> RunSpec {
    RunSpec {
        contender: entrant.contender(),
        state: place.state,
        data: place.data.clone(),
        devices: args.devices,
        streams: match entrant {
            Entrant::Engine(_) => args.streams,
            Entrant::Peer(_) => 1,
        },
        device_rate: None,
        data_fd: args.data_fd,
        save_latency: None,
        set_state_latency: Vec::new(),
        dirty_rate: None,
        reset_at: None,
        link,
        policy: match entrant {
            Entrant::Engine(policy) => policy,
            Entrant::Peer(_) => Policy::Raw,
        },
        backend: args.host.backend,
        chunk: args.host.chunk,
        precopy: args.precopy && entrant.contender() == Contender::Engine,
        on_reset: OnResetChoice::Abort,
        limits: Limits::default(),
        timeline: false,
        tls: false,
        latencies: Vec::new(),
        tls_user_space: false,
    }
}

fn axes(args: &GridArgs) -> Result<Axes, Failure> {
    let axes = args.axes();
    for data in &axes.data {
        if matches!(data, DataKind::File(_)) {
            Content::new(data).map_err(|error| input(&format!("--data {data}"), error))?;
        }
    }
    let largest = axes.states.iter().map(|state| state.0).max().unwrap_or(0);
    if args.data_fd == DataFdChoice::Memory {
        check_memory(largest, args.devices, 2)?;
    }
    Ok(axes)
}

/// Those that were asked for and can run here; a line for each that cannot.
fn contenders(args: &GridArgs) -> Result<Vec<Entrant>, Failure> {
    let mut here = Vec::new();
    for entrant in args.contenders() {
        match peers::missing(entrant.contender()) {
            _ if here.contains(&entrant) => {}
            None => here.push(entrant),
            Some(why) => say!("{entrant} is left out: {why}\n"),
        }
    }
    match here.is_empty() {
        true => Err(input("--contender", "none of them can run here")),
        false => Ok(here),
    }
}

fn settings(args: &GridArgs) -> Settings {
    let machine = Machine::new();
    Settings {
        devices: args.devices,
        streams: args.streams,
        chunk: args.host.chunk,
        backend: format!("{:?}", args.host.backend),
        data_fd: args.data_fd,
        precopy: args.precopy,
        congestion: args.congestion.clone(),
        shaper: format!("{:?}", args.shaper),
        build: format!("{} {}", machine.ferry_bench, machine.build),
        host: machine.host,
        kernel: machine.kernel,
        cpus: machine.cpus,
    }
}

/// Starting both processes of a migration, and looking at the state afterwards.
const EACH_MS: u128 = 60;
/// What goes through a path without a limit, with filling and verifying the state.
const USUAL: Rate = Rate(500_000_000);

fn say_what_it_takes(args: &GridArgs, places: &[Place], contenders: &[Entrant], done: usize) {
    let each = |place: &Place| {
        let bytes = u128::from(place.state.0) * u128::from(args.devices);
        let on_link = place.link.map_or(0, |link| bytes * 1000 / u128::from(link.0.max(1)));
        EACH_MS + bytes * 1000 / u128::from(USUAL.0) + on_link
    };
    let (least, most) = args.rounds();
    let rounds = match least == most {
        true => many(least as usize, "round"),
        false => format!("{least} to {most} rounds"),
    };
    let all: u128 = places.iter().map(each).sum();
    let left = all * (places.len() - done) as u128 / places.len().max(1) as u128;
    let seconds = left * contenders.len() as u128 * u128::from(least) / 1000;
    say!(
        "ferry-bench grid: {}, {done} of them finished; {}; {rounds} each; some {}\n\n",
        many(places.len(), "cell"),
        many(contenders.len(), "contender"),
        if seconds < 60 { format!("{seconds} seconds") } else { long(seconds) },
    );
}
