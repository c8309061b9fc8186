//! Suite `qemu-blackout`: for how long a guest is without its devices, in stock QEMU and in ours, by
//! the devices' own clocks (`stopped_ns` of the source's, `ran_ns` of the target's): both QEMUs run on
//! one kernel. Only what waits is measured, since emulation makes computing far too dear: the devices'
//! rates and the link's are low, and how busy the processors were stands beside each cell.
//!
//! Pairs in the order ABBA; a table of medians, shortest and longest. Nothing here fails by time.

use std::collections::HashMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use super::link::Link;
use super::vm::{Build, Vm};
use super::{CARRIED, ON, all, completed, next_port, same_state, until};
use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FerryDev, P2P};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

const ALL_READY: Duration = Duration::from_secs(2);

/// Rates in bytes a second; 0: no limit.
#[derive(Debug, Clone, Copy)]
struct Cell {
    name: &'static str,
    devices: usize,
    state_bytes: u64,
    content: &'static str,
    read_rate: u64,
    write_rate: u64,
    link_rate: u64,
    more: &'static [(&'static str, &'static str)],
}

const fn cell(
    name: &'static str,
    (devices, state_bytes, content): (usize, u64, &'static str),
    (read_rate, link_rate, write_rate): (u64, u64, u64),
) -> Cell {
    Cell { name, devices, state_bytes, content, read_rate, write_rate, link_rate, more: &[] }
}

const CELLS: [Cell; 8] = [
    cell("equal rates", (1, 12 * MIB, "random"), (2 * MIB, 2 * MIB, 2 * MIB)),
    cell("slow link, compressible", (1, 4 * MIB, "structured"), (0, 512 * KIB, 0)),
    cell("four devices, slow to read", (4, 4 * MIB, "random"), (MIB, 0, 0)),
    cell("slow link, random", (1, 4 * MIB, "random"), (0, MIB, 0)),
    cell("four devices, slow to write", (4, 4 * MIB, "random"), (0, 0, MIB)),
    cell("slow to read", (1, 6 * MIB, "random"), (MIB, 0, 0)),
    cell("slow to write", (1, 6 * MIB, "random"), (0, 0, MIB)),
    cell("equal rates, two devices", (2, 6 * MIB, "random"), (2 * MIB, 2 * MIB, 2 * MIB)),
];

/// One migration.
#[derive(Debug, Clone, Copy)]
struct Seen {
    blackout_ms: f64,
    /// State over what it became on the wire; 1 in stock QEMU.
    compression: f64,
    /// Of the guest's processors, from the migration's begin to its end.
    busy: f64,
}

/// How many threads are named of each QEMU, those that were busy for longest.
const THREADS: usize = 4;

pub(crate) fn run(checks: &mut Checks, pairs: u32) {
    println!("# medians (shortest to longest) of {pairs} pairs; busy: stock, patched");
    println!(
        "# {:<28}| {:<24}| {:<24}| {:<20}| {:<5}| busy",
        "cell", "stock, ms", "patched, ms", "patched / stock", "wire"
    );
    for cell in CELLS {
        checks.check(cell.name, || compare(cell, pairs));
    }
}

fn compare(cell: Cell, pairs: u32) -> Outcome {
    let (mut stock, mut patched) = (Vec::new(), Vec::new());
    for pair in 0..pairs {
        if pair % 2 == 0 {
            stock.push(migrate(Build::Stock, cell)?);
            patched.push(migrate(ON, cell)?);
        } else {
            patched.push(migrate(ON, cell)?);
            stock.push(migrate(Build::Stock, cell)?);
        }
    }
    let ms = |seen: &[Seen]| spread(seen.iter().map(|seen| seen.blackout_ms), 0);
    let ratios =
        patched.iter().zip(&stock).map(|(patched, stock)| patched.blackout_ms / stock.blackout_ms);
    let busy = |seen: &[Seen]| 100.0 * sorted(seen.iter().map(|seen| seen.busy))[seen.len() / 2];
    let wire = sorted(patched.iter().map(|seen| seen.compression))[patched.len() / 2];
    println!(
        "# {:<28}| {:<24}| {:<24}| {:<20}| {wire:<5.2}| {:.0} %, {:.0} %",
        cell.name,
        ms(&stock),
        ms(&patched),
        spread(ratios, 2),
        busy(&stock),
        busy(&patched)
    );
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Median (shortest to longest).
fn spread(values: impl Iterator<Item = f64>, digits: usize) -> String {
    let sorted = sorted(values);
    let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
    format!("{:.digits$} ({first:.digits$} to {last:.digits$})", sorted[sorted.len() / 2])
}

fn migrate(build: Build, cell: Cell) -> Outcome<Seen> {
    let make = |_| {
        let device = FerryDev::closed(P2P, cell.more)?;
        device.knob("state_bytes", cell.state_bytes)?;
        device.knob("content", cell.content)?;
        device.knob("read_rate", cell.read_rate)?;
        device.knob("write_rate", cell.write_rate)?;
        Ok(device)
    };
    let leaving = (0..cell.devices).map(make).collect::<Outcome<Vec<_>>>()?;
    let coming = (0..cell.devices).map(make).collect::<Outcome<Vec<_>>>()?;
    let port = next_port();
    let mut there = Vm::start(build, &all(&coming), Some(port))?;
    let mut here = Vm::start(build, &all(&leaving), None)?;
    for vm in [&mut here, &mut there] {
        vm.capability("return-path")?;
    }
    here.parameter("downtime-limit", 1)?;
    here.parameter("max-bandwidth", 1 << 40)?;
    if cell.link_rate > 0 {
        here.parameter("avail-switchover-bandwidth", cell.link_rate)?;
    }
    let link = Link::new(port, cell.link_rate)?;
    let before = processors()?;
    let threads = [busy_threads(&here)?, busy_threads(&there)?];
    here.migrate(link.port())?;
    // What is done once a migration, while the guest runs, has been done.
    until("the target is there", || Ok(build == Build::Stock || there.said(CARRIED)))?;
    sleep(ALL_READY);
    here.parameter("downtime-limit", 1_000_000)?;
    completed(&here.ended()?)?;
    there.runs_as("running")?;
    let after = processors()?;
    for ((vm, before), host) in [&here, &there].into_iter().zip(threads).zip(["source", "target"]) {
        eprintln!("{build:?}, {host}: {}", busiest(before, busy_threads(vm)?));
    }
    let mut compression = 1.0;
    if build != Build::Stock {
        let said = here.ask("query-migrate", json!({}))?;
        let of = |what| {
            let all = said["vfio"]["ferry"].as_array().into_iter().flatten();
            all.map(|figures| figures[what].as_f64().unwrap_or(0.0)).sum::<f64>()
        };
        compression = of("state-bytes") / of("wire-bytes");
    }
    for (leaving, coming) in leaving.iter().zip(&coming) {
        same_state(leaving, coming)?;
    }
    let times = |devices: &[FerryDev], what| {
        devices.iter().map(|device| device.stat::<u64>(what)).collect::<Outcome<Vec<_>>>()
    };
    let stopped = times(&leaving, "stopped_ns")?.into_iter().min().unwrap_or(0);
    let ran = times(&coming, "ran_ns")?.into_iter().max().unwrap_or(0);
    ensure!(stopped > 0 && ran > stopped, "stopped at {stopped} ns, ran at {ran} ns");
    let blackout_ms = (ran - stopped) as f64 / 1e6;
    let busy = (after.0 - before.0) / (after.1 - before.1);
    Ok(Seen { blackout_ms, compression, busy })
}

/// Of each thread of a QEMU: its name, and how long it was on a processor, in clock ticks of 10 ms.
fn busy_threads(vm: &Vm) -> Outcome<HashMap<String, (String, u64)>> {
    let mut threads = HashMap::new();
    for thread in fs::read_dir(format!("/proc/{}/task", vm.pid()))? {
        let thread = thread?;
        // One that has ended since is none.
        let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { continue };
        let (Some(start), Some(end)) = (stat.find('('), stat.rfind(')')) else { continue };
        let fields: Vec<&str> = stat[end + 1..].split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse().ok()).unwrap_or(0);
        // utime and stime, counted from the field behind the name.
        let busy: u64 = [11, 12].map(ticks).iter().sum::<u64>();
        let name = stat[start + 1..end].to_owned();
        threads.insert(thread.file_name().to_string_lossy().into_owned(), (name, busy));
    }
    Ok(threads)
}

fn busiest(
    before: HashMap<String, (String, u64)>,
    after: HashMap<String, (String, u64)>,
) -> String {
    let since = |(id, (name, ticks)): (String, (String, u64))| {
        (ticks - before.get(&id).map_or(0, |(_, ticks)| *ticks).min(ticks), name)
    };
    let mut threads: Vec<(u64, String)> = after.into_iter().map(since).collect();
    threads.sort_by(|one, other| other.cmp(one));
    let words = threads.into_iter().take(THREADS);
    words.map(|(ticks, name)| format!("{name} {} ms", 10 * ticks)).collect::<Vec<_>>().join(", ")
}

/// Of all processors: the time that they were busy, and all of it.
fn processors() -> Outcome<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> =
        line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    ensure!(ticks.len() > 4, "/proc/stat says {line:?}");
    let all: f64 = ticks.iter().sum();
    Ok((all - ticks[3] - ticks[4], all))
}
