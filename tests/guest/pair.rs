//! Both ends of a migration in one process: a source's and a target's session over loopback TCP.

use std::fs;
use std::net::TcpListener;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{Completion, DeviceOptions, Fault, SourceEnding, TargetEnding};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{
    self, Options, Readiness, ReportOf, Session, SessionEvent, Side, Source, SourceDevice,
    SourceSession, TargetDevice, TargetSession,
};
use vfio_ferry::vfio::device::MigrationDevice;

use crate::checks::{Failure, Outcome, ensure, fail};

/// A session that has not ended by then is stuck: every wait of the engine is bounded by less.
const STUCK: Duration = Duration::from_secs(120);

/// A VM in software emulation on a busy host stands still for seconds at times. What is no test of
/// a bound waits longer than that.
const PATIENCE: Duration = Duration::from_secs(40);

/// Options for a session whose bounds are not what is tested.
pub(crate) fn patient(backend: BackendChoice) -> Options {
    Options { backend, cancel_bound: PATIENCE, peer_silence: PATIENCE, ..Options::default() }
}

/// One device of a migration: where from, where to, and what is to be done with it.
pub(crate) struct Route {
    pub(crate) source: Arc<dyn MigrationDevice>,
    pub(crate) target: Arc<dyn MigrationDevice>,
    pub(crate) options: DeviceOptions,
}

/// Two sessions that run.
pub(crate) struct Pair {
    pub(crate) source: SourceSession,
    pub(crate) target: TargetSession,
    listened: Events,
}

/// A target's session that is left when the source's has ended.
pub(crate) struct Target(TargetSession);

/// What a session told: the completions, in their order.
#[derive(Debug, Default)]
struct Events {
    completions: Vec<Completion>,
    finished: bool,
}

/// How a session ended.
#[derive(Debug)]
pub(crate) struct End<S: Side> {
    pub(crate) report: ReportOf<S>,
    pub(crate) completions: Vec<Completion>,
}

/// How the source's session ended.
pub(crate) type SourceEnd = End<Source>;

/// How the target's session ended.
pub(crate) type TargetEnd = End<session::Target>;

impl Pair {
    /// Starts both sessions; devices are called by their place.
    pub(crate) fn start(routes: Vec<Route>, streams: usize, options: &Options) -> Outcome<Pair> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let connected = session::connect(listener.local_addr()?, streams)?;
        let name = |index| format!("device {index}");
        let (sources, targets) = routes
            .into_iter()
            .enumerate()
            .map(|(index, Route { source, target, options })| {
                (
                    SourceDevice { name: name(index), device: source, options },
                    TargetDevice { name: name(index), device: target },
                )
            })
            .unzip();
        let source = SourceSession::start(sources, connected, options.clone())?;
        let accepted = session::accept(&listener, STUCK)?;
        let target = TargetSession::start(targets, accepted, options.clone())?;
        Ok(Pair { source, target, listened: Events::default() })
    }

    /// Waits until all initial data is loaded and little else waits. False if the source has ended
    /// instead; its end tells how.
    pub(crate) fn wait_until_ready(&mut self) -> Outcome<bool> {
        let heard = &mut self.listened;
        let notice = |notice| heard.notice(notice);
        match self.source.wait_until_ready(Duration::from_secs(1), STUCK, notice) {
            Readiness::Ready(_) => Ok(true),
            Readiness::Patience(estimate) => fail!("not ready in {STUCK:?}: {estimate:?}"),
            Readiness::Ended => {
                self.listened.finished = true;
                Ok(false)
            }
        }
    }

    /// Waits until the devices are ready, and stops them.
    pub(crate) fn switchover_when_ready(&mut self) -> Outcome {
        if self.wait_until_ready()? {
            self.source.switchover();
        }
        Ok(())
    }

    /// Lets time go by, or until the source has ended.
    pub(crate) fn listen(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while !self.listened.finished {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.source.wait_event(Some(left)) {
                Some(event) => self.listened.event(event),
                None => return,
            }
        }
    }

    /// Waits for the next completion of the source.
    pub(crate) fn next_completion(&mut self) -> Outcome<Completion> {
        loop {
            match self.source.wait_event(Some(STUCK)) {
                Some(SessionEvent::Notice(Notice::Completion(completion))) => {
                    self.listened.completions.push(completion.clone());
                    return Ok(completion);
                }
                Some(SessionEvent::Finished) => fail!("it ended: {:?}", self.source.report()),
                Some(_) => {}
                None => fail!("no completion in {STUCK:?}"),
            }
        }
    }

    /// Waits for both ends.
    pub(crate) fn finish(self) -> (SourceEnd, TargetEnd) {
        let (source, target) = self.source_ends();
        (source, target.ends())
    }

    /// Waits for the source's end, and leaves the target's.
    pub(crate) fn source_ends(self) -> (SourceEnd, Target) {
        (self.listened.run_out("source", self.source), Target(self.target))
    }
}

impl Target {
    /// Waits for the target's end.
    pub(crate) fn ends(self) -> TargetEnd {
        Events::default().run_out("target", self.0)
    }
}

impl Events {
    fn notice(&mut self, notice: Notice) {
        if let Notice::Completion(completion) = notice {
            self.completions.push(completion);
        }
    }

    fn event(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Notice(notice) => self.notice(notice),
            SessionEvent::Finished => self.finished = true,
            _ => {}
        }
    }

    fn run_out<S: Side>(mut self, host: &str, session: Session<S>) -> End<S> {
        while !self.finished {
            match session.wait_event(Some(STUCK)) {
                Some(event) => self.event(event),
                None => stuck(host, &self.completions),
            }
        }
        End { report: session.finish(), completions: self.completions }
    }
}

impl<S: Side> End<S> {
    /// That the target runs the devices.
    pub(crate) fn complete(&self) -> Outcome {
        ensure!(self.fault().is_none(), "{}", self.report.ending);
        Ok(())
    }

    /// Why it ended so, unless all went well.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        S::fault(&self.report.ending)
    }
}

impl SourceEnd {
    /// Why the devices were brought back.
    pub(crate) fn returned(&self) -> Outcome<&Fault> {
        match &self.report.ending {
            SourceEnding::Returned(fault) => Ok(fault),
            ending => fail!("{ending}"),
        }
    }
}

impl TargetEnd {
    /// Why nothing of the state was left.
    pub(crate) fn blank(&self) -> Outcome<&Fault> {
        match &self.report.ending {
            TargetEnding::Blank(fault) => Ok(fault),
            ending => fail!("{ending}"),
        }
    }
}

/// A session did not end. Nothing can follow: its devices are in use, and its drop would wait.
fn stuck(host: &str, completions: &[Completion]) -> ! {
    println!("FAIL the {host} is stuck; so far: {completions:?}");
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        println!("# {} {}", read("comm").trim(), read("stack").replace('\n', " "));
    }
    println!("0 passed, 1 failed");
    process::exit(1);
}

/// Compares a target's state with the source's.
pub(crate) fn same_state(source: &[u8], target: &[u8]) -> Outcome {
    if source == target {
        return Ok(());
    }
    let at = source.iter().zip(target).position(|(a, b)| a != b);
    Err(Failure(format!(
        "the target's state ({} bytes) is not the source's ({} bytes): first difference at {at:?}",
        target.len(),
        source.len()
    )))
}
