//! Suite `ferry-dev-migrate`: our own kernel device, in every kind that drivers come in, goes to a
//! second one. The driver itself says whether the states are equal, and whether the engine kept to
//! one read and one write at a time.

use std::thread::sleep;
use std::time::Duration;

use vfio_ferry::outcome::{DeviceOptions, Phase};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::vfio::state::DeviceState;

use crate::checks::{Checks, Outcome, ensure};
use crate::ferry_dev::{FULL, FerryDev, P2P, PRE_COPY, STOP_COPY};
use crate::leaks::Held;
use crate::pair::{Pair, Route, SourceEnd, TargetEnd, patient};

/// One migration.
struct Case {
    name: &'static str,
    /// The type of each device, and the size of its state.
    devices: &'static [(&'static str, &'static str)],
    /// Knobs of the source's devices.
    knobs: &'static [(&'static str, &'static str)],
    /// Knobs of the target's devices.
    target_knobs: &'static [(&'static str, &'static str)],
    streams: usize,
    precopy: bool,
    /// What is done to the first device once it is in PRE_COPY.
    meanwhile: Option<fn(&FerryDev) -> Outcome>,
}

const PLAIN: Case = Case {
    name: "",
    devices: &[(FULL, "1M")],
    knobs: &[],
    target_knobs: &[],
    streams: 2,
    precopy: true,
    meanwhile: None,
};

const CASES: &[Case] = &[
    Case { name: "1 MiB, pollable", ..PLAIN },
    Case { name: "1 MiB, pollable, drained says 0", knobs: &[("drained", "zero")], ..PLAIN },
    Case { name: "1 MiB, not pollable", knobs: &[("pollable", "0")], ..PLAIN },
    Case {
        name: "1 MiB, not pollable, drained says 0",
        knobs: &[("pollable", "0"), ("drained", "zero")],
        ..PLAIN
    },
    Case { name: "1 MiB, PRE_COPY skipped", precopy: false, ..PLAIN },
    Case { name: "1 MiB, STOP_COPY is all it has", devices: &[(STOP_COPY, "1M")], ..PLAIN },
    Case { name: "1 MiB, PRE_COPY without P2P", devices: &[(PRE_COPY, "1M")], ..PLAIN },
    Case { name: "1 MiB, P2P without PRE_COPY", devices: &[(P2P, "1M")], ..PLAIN },
    Case { name: "a state of 1 byte", devices: &[(FULL, "1")], ..PLAIN },
    Case { name: "a state of a page less a byte", devices: &[(FULL, "4095")], ..PLAIN },
    Case {
        name: "a state of a page and a byte, not pollable",
        devices: &[(FULL, "4097")],
        knobs: &[("pollable", "0")],
        ..PLAIN
    },
    Case { name: "1 MiB of zeros", knobs: &[("content", "zero")], ..PLAIN },
    Case {
        name: "1 MiB of noise, read and written in bits",
        knobs: &[("content", "random"), ("short_read_max", "7000")],
        target_knobs: &[("short_write_max", "5000")],
        ..PLAIN
    },
    Case {
        name: "4 MiB from slow firmware that saves 256 KiB at a time",
        devices: &[(FULL, "4M")],
        knobs: &[("save_chunk_bytes", "256K"), ("save_latency_us", "500")],
        ..PLAIN
    },
    Case {
        name: "2 MiB from a device that gives 16 MiB/s",
        devices: &[(FULL, "2M")],
        knobs: &[("read_rate", "16M")],
        ..PLAIN
    },
    Case {
        name: "2 MiB from a device that gives 16 MiB/s, not pollable",
        devices: &[(FULL, "2M")],
        knobs: &[("read_rate", "16M"), ("pollable", "0")],
        ..PLAIN
    },
    Case {
        name: "16 MiB, of which 8 MiB/s are rewritten",
        devices: &[(FULL, "16M")],
        knobs: &[("dirty_rate", "8M")],
        ..PLAIN
    },
    Case {
        name: "16 MiB, of which 8 MiB/s are rewritten, not pollable",
        devices: &[(FULL, "16M")],
        knobs: &[("dirty_rate", "8M"), ("pollable", "0"), ("drained", "zero")],
        ..PLAIN
    },
    Case {
        name: "4 MiB that begins anew in PRE_COPY",
        devices: &[(FULL, "4M")],
        meanwhile: Some(begin_anew),
        ..PLAIN
    },
    Case { name: "64 MiB, pollable", devices: &[(FULL, "64M")], ..PLAIN },
    Case {
        name: "64 MiB, not pollable",
        devices: &[(FULL, "64M")],
        knobs: &[("pollable", "0")],
        ..PLAIN
    },
    Case {
        name: "2 devices over 4 streams",
        devices: &[(FULL, "8M"), (FULL, "1M")],
        streams: 4,
        ..PLAIN
    },
    Case {
        name: "4 devices of all kinds over 4 streams",
        devices: &[(FULL, "8M"), (PRE_COPY, "4M"), (P2P, "1M"), (STOP_COPY, "100")],
        knobs: &[("dirty_rate", "1M")],
        streams: 4,
        ..PLAIN
    },
];

/// Runs the suite.
pub(crate) fn run(checks: &mut Checks) {
    for (backend, choice) in
        [("io_uring", BackendChoice::IoUring), ("system calls", BackendChoice::Syscalls)]
    {
        for case in CASES {
            checks.check(format!("{} on {backend}", case.name), || migrate(case, choice));
        }
    }
}

fn migrate(case: &Case, backend: BackendChoice) -> Outcome {
    let (mut sources, mut targets) = (Vec::new(), Vec::new());
    for (kind, state_bytes) in case.devices {
        let size = [("state_bytes", *state_bytes)];
        sources.push(FerryDev::create(kind, &[&size[..], case.knobs].concat())?);
        targets.push(FerryDev::create(kind, &[&size[..], case.target_knobs].concat())?);
    }
    let held = Held::now()?;
    let routes = sources.iter().zip(&targets).map(|(source, target)| Route {
        source: source.mdev.device(),
        target: target.mdev.device(),
        options: DeviceOptions { precopy: case.precopy, ..DeviceOptions::default() },
    });
    let options = patient(backend);
    let mut pair = Pair::start(routes.collect(), case.streams, &options)?;
    if let Some(meanwhile) = case.meanwhile {
        meanwhile(&sources[0])?;
    }
    pair.switchover_when_ready()?;
    let (sent, loaded) = pair.finish();

    sent.complete()?;
    loaded.complete()?;
    same_totals(&sent, &loaded)?;
    let saving = case.devices.iter().filter(|(kind, _)| [FULL, PRE_COPY].contains(kind)).count();
    let saved = sent.report.metrics.phase(Phase::PreCopy).len();
    let expected = if case.precopy { saving as u64 } else { 0 };
    ensure!(saved == expected, "{saved} devices were in PRE_COPY instead of {expected}");
    for (source, target) in sources.iter().zip(&targets) {
        let (before, after) = (source.mdev.state()?, target.mdev.state()?);
        ensure!(before == DeviceState::Stop, "the source is in {before}");
        ensure!(after == DeviceState::Running, "the target is in {after}");
        let (before, after) = (source.state_crc()?, target.state_crc()?);
        ensure!(before == after, "the source's state is {before}, the target's {after}");
        let loads: u64 = target.stat("loads")?;
        ensure!(loads == 1, "the target took a state {loads} times");
        source.left_alone()?;
        target.left_alone()?;
    }
    held.returns()
}

/// Both hosts must have counted the same bytes and come to the same digest.
fn same_totals(sent: &SourceEnd, loaded: &TargetEnd) -> Outcome {
    for (sent, loaded) in sent.report.devices.iter().zip(&loaded.report.devices) {
        ensure!(sent.total == loaded.total, "{:?} sent, {:?} loaded", sent.total, loaded.total);
    }
    Ok(())
}

/// The device has new initial data, as after a change of its configuration. Where the kernel has
/// PRECOPY_INFOv2 it says so by REINIT, otherwise only by initial_bytes.
fn begin_anew(device: &FerryDev) -> Outcome {
    while device.mdev.state()? != DeviceState::PreCopy {
        sleep(Duration::from_millis(1));
    }
    device.control("reinit", "256K")
}
