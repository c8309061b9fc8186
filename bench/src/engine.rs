//! The seam: beside this file only `switchover` and the hosts of `faults` name the engine.
//!
//! Everything else speaks of [`Inputs`] and [`SideOutcome`]. The peers of `compare` have the same
//! two functions, so that the engine and its peers are run, timed and verified alike: the clock and
//! the byte counts that the report is made of are taken at the device (`device::watch`), the
//! durations of the phases come from here.

use std::io::ErrorKind;
use std::iter::repeat;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub(crate) use vfio_ferry::session::{
    Capabilities, Cause, Credentials, DeviceState, MigrationDevice, PrecopyInfo, Protection,
    Streams, Tls, Trust, limits,
};

use vfio_ferry::session::{
    self, Acceptor, Backend, ConnectOptions, DeviceOptions, DoorOptions, Notice, OnReset, Options,
    Phase, Reason, ReportOf, Session, SessionEvent, Side, SourceDevice, SourceSession,
    StreamProtection, TargetDevice, TargetSession, TlsRecords, UsageError, VfioDevice,
};

use crate::clock::monotonic_ns;
use crate::outcome::{Latencies, SideOutcome, Told};
use crate::spec::{BackendChoice, Limits, OnResetChoice, Policy, Time};
use crate::switchover::{Sight, Switchover};

/// What the embedder chooses for a session.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    /// Raw or compressed.
    pub(crate) policy: Policy,
    /// io_uring or plain system calls.
    pub(crate) backend: BackendChoice,
    /// Most bytes of one read and one frame.
    pub(crate) chunk_bytes: usize,
    /// Save in PRE_COPY first.
    pub(crate) precopy: bool,
    /// What follows a reset.
    pub(crate) on_reset: OnResetChoice,
    /// How long what may take.
    pub(crate) limits: Limits,
    /// What is known of each device's transitions; none of those that are missing.
    pub(crate) latencies: Vec<Latencies>,
    /// Streams may leave this host in plaintext.
    pub(crate) plaintext: bool,
}

/// What one side of a migration works on.
pub(crate) struct Inputs {
    /// The devices; number i here is number i on the other side.
    pub(crate) devices: Vec<Arc<dyn MigrationDevice>>,
    /// Connected, in no particular order; congestion control and pacing are set.
    pub(crate) streams: Streams,
    /// The embedder's choices. The peers know only the first stream and no options.
    pub(crate) options: EngineOptions,
}

/// Migrates away: every device ends stopped if all went well, else in RUNNING.
pub(crate) fn run_source(inputs: Inputs) -> Result<SideOutcome, String> {
    let options = &inputs.options;
    let on_reset = match options.on_reset {
        OnResetChoice::Abort => OnReset::Abort,
        OnResetChoice::Restart => OnReset::restart(),
        OnResetChoice::StopCopy => OnReset::StopCopy,
    };
    let device_options =
        DeviceOptions { precopy: options.precopy, on_reset, ..DeviceOptions::default() };
    let session_options = session_options(options, inputs.devices.len());
    let known = options.latencies.iter().copied().chain(repeat(Latencies::default()));
    let devices = named(inputs.devices)
        .zip(known)
        .map(|((name, device), Latencies { stop, load, run })| {
            let latencies = session::Latencies { stop, load, run };
            SourceDevice {
                name,
                device,
                options: DeviceOptions { latencies, ..device_options.clone() },
            }
        })
        .collect();
    let mut switchover = Switchover::new(options.precopy);
    let mut told = Vec::new();
    let mut forecast_ns = None;
    let session = SourceSession::start(devices, inputs.streams, session_options)
        .map_err(|error| error.to_string())?;
    while !switchover.is_decided() {
        match session.wait_event(Some(switchover.patience())) {
            Some(SessionEvent::Notice(notice)) => {
                told.extend(early_end(&notice));
                if let Notice::Estimate(estimate) = &notice {
                    forecast_ns = estimate.downtime_ns;
                }
                switchover.saw(Sight::Notice(notice));
            }
            Some(SessionEvent::Finished) => break,
            Some(_) => {}
            None => switchover.saw(Sight::Nothing),
        }
    }
    // On a session that has finished this changes nothing.
    session.switchover();
    let (report, mut outcome) = to_the_end(session, told);
    outcome.state_bytes = report.devices.iter().map(|device| device.total.bytes).sum();
    outcome.forecast_ns = forecast_ns;
    outcome.latencies = report.devices.iter().map(|device| device.latencies.into()).collect();
    outcome.discarded_bytes = report.devices.iter().map(|device| device.discarded_bytes).sum();
    Ok(outcome)
}

/// Takes the devices over: every device ends in RUNNING if all went well.
pub(crate) fn run_target(inputs: Inputs) -> Result<SideOutcome, String> {
    let options = session_options(&inputs.options, inputs.devices.len());
    let devices =
        named(inputs.devices).map(|(name, device)| TargetDevice { name, device }).collect();
    let session = TargetSession::start(devices, inputs.streams, options)
        .map_err(|error| error.to_string())?;
    let (report, mut outcome) = to_the_end(session, Vec::new());
    outcome.state_bytes = report.devices.iter().map(|device| device.total.bytes).sum();
    Ok(outcome)
}

/// Longer than a session keeps its streams after its end.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// Opens the door of a receiver.
pub(crate) fn listen(address: SocketAddr, protection: Protection) -> Result<Acceptor, String> {
    Acceptor::bind(address, door_options(protection)).map_err(|error| error.to_string())
}

fn door_options(protection: Protection) -> DoorOptions {
    DoorOptions { protection, ..DoorOptions::default() }
}

/// Accepts all streams of a sender that has said elsewhere that it comes.
pub(crate) fn accept_at(listener: &TcpListener, protection: Protection) -> Result<Streams, String> {
    let listener = listener.try_clone().map_err(|error| error.to_string())?;
    let door = Acceptor::new(listener, door_options(protection)).map_err(|e| e.to_string())?;
    door.wait(COMES_WITHIN, None).map_err(|error| error.to_string())
}

/// Connects all streams under TLS, each try within the engine's own time for it.
pub(crate) fn connect_tls(
    addresses: &[SocketAddr],
    count: u16,
    tls: Tls,
) -> Result<Streams, String> {
    let options = ConnectOptions { protection: Protection::Tls(tls), ..ConnectOptions::default() };
    let started = Instant::now();
    loop {
        match session::connect_with(addresses, count.into(), &options) {
            Err(session::Error::Network { source, .. })
                if source.kind() == ErrorKind::ConnectionRefused
                    && started.elapsed() < COMES_UP_WITHIN =>
            {
                thread::sleep(LOOK_AGAIN);
            }
            result => return result.map_err(|error| error.to_string()),
        }
    }
}

/// How long whoever connects waits for a listener that is not there yet, and how often it looks.
pub(crate) const COMES_UP_WITHIN: Duration = Duration::from_secs(3);
/// See [`COMES_UP_WITHIN`].
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long such a sender may take.
const COMES_WITHIN: Duration = Duration::from_secs(30);

/// Finds out before anything is connected what a session would refuse.
pub(crate) fn check_path(
    addresses: &[SocketAddr],
    protection: &Protection,
) -> Result<(), UsageError> {
    let off_host = addresses.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match (off_host, protection) {
        (Some(address), Protection::Loopback) => {
            Err(UsageError::Plaintext { address: address.to_string() })
        }
        _ => Ok(()),
    }
}

/// Accepts all streams of one sender, as many as it has, whoever else connects meanwhile. Waits for as
/// long as it takes.
pub(crate) fn accept(door: &Acceptor) -> Result<Streams, String> {
    door.wait(Duration::MAX, None).map_err(|error| error.to_string())
}

/// Who was turned away, in words; none if nobody was.
pub(crate) fn turned_away(door: &Acceptor) -> Option<String> {
    let turned_away = door.turned_away();
    let count = |reason: &Reason| (turned_away.count(*reason), reason.name());
    let counts = Reason::ALL.iter().map(count).filter(|(count, _)| *count > 0);
    let words: Vec<String> = counts.map(|(count, name)| format!("{count} {name}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// Opens a real device by its sysfs path. The error names the path.
pub(crate) fn open_device(path: &Path) -> Result<Arc<dyn MigrationDevice>, String> {
    let device = VfioDevice::open(path).map_err(|error| error.to_string())?;
    Ok(Arc::new(device))
}

/// Memory for buffers: the engine's default, or what so many devices take at the least, up to what
/// leaves the whole process under 96 MiB.
fn memory_bytes(options: &EngineOptions, devices: usize) -> usize {
    const MOST_BYTES: usize = 64 << 20;
    let workers = 2 * Options::default().workers;
    let slots = devices * limits::SLOTS_PER_DEVICE_MIN + workers;
    let least = slots * (options.chunk_bytes + limits::SLOT_HEAD_BYTES);
    least.clamp(limits::ARENA_BYTES_DEFAULT, MOST_BYTES)
}

/// Both hosts know a device by its place.
fn named(
    devices: Vec<Arc<dyn MigrationDevice>>,
) -> impl Iterator<Item = (String, Arc<dyn MigrationDevice>)> {
    devices.into_iter().enumerate().map(|(index, device)| (format!("device{index}"), device))
}

/// Connections that nothing guards, as the engine takes them.
pub(crate) fn plain(streams: Vec<TcpStream>) -> Streams {
    streams.into_iter().map(OwnedFd::from).collect::<Vec<_>>().into()
}

/// Sets the limits that were chosen.
pub(crate) fn limit(options: &mut Options, limits: &Limits) {
    let set = |limit: &mut Duration, chosen: Option<Time>| {
        if let Some(Time(chosen)) = chosen {
            *limit = chosen;
        }
    };
    options.switchover_budget = limits.switchover_budget.map(|Time(budget)| budget);
    set(&mut options.handshake_limit, limits.handshake_limit);
    set(&mut options.stall_limit, limits.stall_limit);
    set(&mut options.confirm_limit, limits.confirm_limit);
    set(&mut options.cancel_bound, limits.cancel_bound);
    set(&mut options.idle_limit, limits.idle_limit);
    set(&mut options.peer_silence, limits.peer_silence);
}

/// The engine's name for a choice of system calls.
pub(crate) fn backend(choice: BackendChoice) -> session::BackendChoice {
    match choice {
        BackendChoice::Auto => session::BackendChoice::Auto,
        BackendChoice::IoUring => session::BackendChoice::IoUring,
        BackendChoice::Syscalls => session::BackendChoice::Syscalls,
    }
}

fn session_options(options: &EngineOptions, devices: usize) -> Options {
    let mut session_options = Options {
        memory_bytes: memory_bytes(options, devices),
        chunk_bytes: options.chunk_bytes,
        policy: match options.policy {
            Policy::Adaptive => session::Policy::Adaptive,
            Policy::Raw => session::Policy::Raw,
            Policy::Zstd(level) => session::Policy::Zstd(level),
        },
        backend: backend(options.backend),
        plaintext: options.plaintext,
        ..Options::default()
    };
    limit(&mut session_options, &options.limits);
    session_options
}

/// Listens to a session until it is over.
fn to_the_end<S: Side>(session: Session<S>, mut told: Vec<Told>) -> (ReportOf<S>, SideOutcome) {
    while let Some(event) = session.wait_event(None) {
        match event {
            SessionEvent::Notice(notice) => told.extend(early_end(&notice)),
            SessionEvent::Finished => break,
            _ => {}
        }
    }
    let ended_ns = monotonic_ns();
    // This process may exit next, and what the peer has not read would be lost with it.
    session.wait_closed(CLOSING_MAX);
    let protection = protection(&session.protection());
    let report = session.finish();
    let outcome = SideOutcome { told, ended_ns, protection, ..outcome::<S>(&report) };
    (report, outcome)
}

/// What guarded all streams, and where.
fn protection(streams: &[StreamProtection]) -> &'static str {
    let records = |stream: &StreamProtection| match stream {
        StreamProtection::Tls { records, .. } => Some(*records),
        _ => None,
    };
    let all: Option<Vec<TlsRecords>> = streams.iter().map(records).collect();
    let Some(all) = all else { return "none" };
    let is = |records| all.iter().all(|other| *other == records);
    match (is(TlsRecords::Kernel), is(TlsRecords::UserSpace)) {
        (true, _) => "tls_kernel",
        (_, true) => "tls_user_space",
        _ => "tls_kernel_and_user_space",
    }
}

impl From<session::Latencies> for Latencies {
    fn from(session::Latencies { stop, load, run }: session::Latencies) -> Latencies {
        Latencies { stop, load, run }
    }
}

/// What a completion says that is not one of success.
fn early_end(notice: &Notice) -> Option<Told> {
    let Notice::Completion(completion) = notice else { return None };
    let fault = completion.fault.as_ref()?;
    Some(Told {
        at_ns: monotonic_ns(),
        device: completion.device.0,
        ending: completion.ending.name().to_owned(),
        phase: completion.phase.name().to_owned(),
        cause: fault.cause.name().to_owned(),
        observed: fault.observed.name().to_owned(),
        errno: fault.errno,
        message: fault.message.clone(),
    })
}

fn outcome<S: Side>(report: &ReportOf<S>) -> SideOutcome {
    let phase = |phase: Phase| {
        let times = report.metrics.phase(phase);
        (!times.is_empty()).then(|| (phase.name(), Duration::from_nanos(times.max())))
    };
    SideOutcome {
        phases: Phase::ALL.into_iter().filter_map(phase).collect(),
        wire_bytes: report.metrics.wire_bytes(),
        backend: match report.backend {
            Backend::IoUring => "io_uring",
            Backend::Syscalls => "syscalls",
        },
        fault: S::fault(&report.ending).map(|_| report.ending.to_string()),
        ..SideOutcome::default()
    }
}
