//! Both sessions of a migration in one process, over real TCP streams.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{DeviceOptions, Fault};
use vfio_ferry::session::{
    Options, Readiness, ReportOf, Session, SessionEvent, Side, Source, SourceDevice, SourceSession,
    Target, TargetDevice, TargetSession,
};
use vfio_ferry::vfio::device::MigrationDevice;

/// How long any session of a test may take: far more than any needs, so that a session that hangs
/// fails its test on a machine that is busy with other things, too.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// What both sides are made with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Streams of the session.
    pub streams: usize,
    /// The source's options.
    pub source: Options,
    /// The target's options.
    pub target: Options,
    /// The same for every device.
    pub device: DeviceOptions,
}

impl Default for Setup {
    fn default() -> Self {
        let options = Options { precopy_poll: Duration::from_millis(2), ..Options::default() };
        let device = DeviceOptions::default();
        Setup { streams: 2, source: options.clone(), target: options, device }
    }
}

/// A side's end.
#[derive(Debug)]
pub struct Ended<S: Side> {
    /// The session's report.
    pub report: ReportOf<S>,
    /// What it said on the way.
    pub notices: Vec<Notice>,
}

impl<S: Side> Ended<S> {
    /// Why it ended so, unless all went well.
    pub fn fault(&self) -> Option<&Fault> {
        S::fault(&self.report.ending)
    }
}

/// Two running sessions.
#[derive(Debug)]
pub struct Pair {
    /// The source's.
    pub source: SourceSession,
    /// The target's.
    pub target: TargetSession,
    /// What the source has said so far.
    pub source_notices: Vec<Notice>,
}

/// `count` connected pairs of sockets.
pub fn streams(count: usize) -> (Vec<OwnedFd>, Vec<OwnedFd>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    (0..count)
        .map(|_| {
            let ours = TcpStream::connect(address).expect("loopback");
            let (theirs, _) = listener.accept().expect("the connection just made");
            for end in [&ours, &theirs] {
                end.set_nodelay(true).expect("TCP");
            }
            (OwnedFd::from(ours), OwnedFd::from(theirs))
        })
        .unzip()
}

/// The devices as a source session takes them.
pub fn sources<D: MigrationDevice + 'static>(
    devices: &[Arc<D>],
    options: &DeviceOptions,
) -> Vec<SourceDevice> {
    let device = |(number, device): (usize, &Arc<D>)| SourceDevice {
        name: format!("device-{number}"),
        device: device.clone(),
        options: options.clone(),
    };
    devices.iter().enumerate().map(device).collect()
}

/// The devices as a target session takes them.
pub fn targets<D: MigrationDevice + 'static>(devices: &[Arc<D>]) -> Vec<TargetDevice> {
    let device = |(number, device): (usize, &Arc<D>)| TargetDevice {
        name: format!("device-{number}"),
        device: device.clone(),
    };
    devices.iter().enumerate().map(device).collect()
}

impl Pair {
    /// Starts both sessions.
    pub fn start<D: MigrationDevice + 'static>(
        from: &[Arc<D>],
        to: &[Arc<D>],
        setup: &Setup,
    ) -> Pair {
        let (ours, theirs) = streams(setup.streams);
        let source = SourceSession::start(sources(from, &setup.device), ours, setup.source.clone());
        let target = TargetSession::start(targets(to), theirs, setup.target.clone());
        Pair {
            source: source.expect("the source starts"),
            target: target.expect("the target starts"),
            source_notices: Vec::new(),
        }
    }

    /// Waits until the source is ready, whatever its downtime would be; then it is told to stop.
    pub fn switch_over_when_ready(&mut self) -> Readiness {
        let notices = &mut self.source_notices;
        // On a machine that is busy with other things the state's rate is low, and stays so once
        // the device is drained.
        let ready = self.source.wait_until_ready(PATIENCE, PATIENCE, |notice| notices.push(notice));
        self.source.switchover();
        ready
    }

    /// Waits for both ends.
    pub fn end(self) -> (Ended<Source>, Ended<Target>) {
        let mut source = end(self.source);
        source.notices.splice(0..0, self.source_notices);
        (source, end(self.target))
    }
}

/// Waits for a session's end.
///
/// # Panics
/// If it does not come.
pub fn end<S: Side>(session: Session<S>) -> Ended<S> {
    let deadline = Instant::now() + PATIENCE;
    let mut notices = Vec::new();
    loop {
        match session.wait_event(Some(deadline.saturating_duration_since(Instant::now()))) {
            Some(SessionEvent::Notice(notice)) => notices.push(notice),
            Some(SessionEvent::Finished) => {
                return Ended { report: session.finish(), notices };
            }
            Some(_) => {}
            None => {
                // Its destructor would wait, too.
                std::mem::forget(session);
                let host = S::HOST;
                panic!("the {host:?}'s session does not end; so far: {notices:#?}");
            }
        }
    }
}
