//! The test devices of a side.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::message::{DeviceReport, RunSpec};
use crate::data::Content;
use crate::device::{ArcLatency, Conduit, Double, Plan, ResetAt, Watch, Watched};
use crate::engine::{Capabilities, DeviceState, MigrationDevice};
use crate::spec::{self, ArcTime, DataFdChoice, Side};

/// All of a side.
pub(crate) struct Doubles(Vec<Bench>);

/// A test device and the watch on it.
struct Bench {
    device: Arc<Double>,
    watch: Arc<Watch>,
}

impl Doubles {
    /// As a run asks for them.
    pub(crate) fn new(spec: &RunSpec, side: Side, content: &Content) -> Doubles {
        let bench = |index| Bench {
            device: Arc::new(Double::new(plan(spec, side, index, content))),
            watch: Arc::new(Watch::new(spec.timeline)),
        };
        Doubles((0..spec.devices).map(bench).collect())
    }

    /// Does what can be done before the migration.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        self.0.iter().try_for_each(|bench| bench.device.prepare())
    }

    /// What the engine or a peer gets.
    pub(crate) fn watched(&self) -> Vec<Arc<dyn MigrationDevice>> {
        self.0.iter().map(Bench::watched).collect()
    }

    /// The watches on them.
    pub(crate) fn watches(&self) -> Vec<Arc<Watch>> {
        self.0.iter().map(|bench| Arc::clone(&bench.watch)).collect()
    }

    /// Bytes that were read or written so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|bench| bench.watch.bytes.load(Ordering::Relaxed)).sum()
    }

    /// What they say in the end. Takes digests where that was left for now.
    pub(crate) fn report(&self) -> Vec<DeviceReport> {
        self.0.iter().map(Bench::report).collect()
    }
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
