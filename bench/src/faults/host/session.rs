//! The VMM around a session; beside the seam, `crate::engine`, this is what names the engine.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use vfio_ferry::session::{
    Backend, DeviceOptions, DeviceReport, Fallback, Notice, OnReset, Options, ReportOf, Session,
    SessionEvent, Side, SourceDevice, SourceSession, TargetDevice, TargetSession,
};

use super::device::Told;
use super::{LOOK, Tell};
use crate::clock::monotonic_ns;
use crate::engine::{self, MigrationDevice};
use crate::faults::message::{Choices, Command, DeviceSaid, End, Left, OnResetSpec, What};
use crate::process::usage;

/// A guest that gives no sign that it could be stopped is stopped all the same.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long the streams may take to be let go of before the process ends.
const CLOSING_MAX: Duration = Duration::from_secs(5);

/// The VMM of one host.
pub(super) struct Vmm<'a> {
    pub(super) devices: &'a [Arc<Told>],
    pub(super) choices: &'a Choices,
    pub(super) commands: Receiver<Command>,
    pub(super) tell: &'a Tell,
}

/// Whether a session goes on to be listened to.
#[derive(PartialEq)]
enum Next {
    On,
    Drop,
    End,
}

impl Vmm<'_> {
    /// Migrates away.
    pub(super) fn send(&self, streams: Vec<TcpStream>) -> Result<(), String> {
        let options = DeviceOptions {
            precopy: self.choices.precopy,
            on_reset: match self.choices.on_reset {
                OnResetSpec::Abort => OnReset::Abort,
                OnResetSpec::Restart(attempts) => {
                    OnReset::Restart { attempts, then: Fallback::Abort }
                }
                OnResetSpec::StopCopy => OnReset::StopCopy,
            },
            reset_to_return: self.choices.reset_to_return,
            ..DeviceOptions::default()
        };
        let devices = self
            .named()
            .map(|(name, device)| SourceDevice { name, device, options: options.clone() })
            .collect();
        let session = SourceSession::start(devices, fds(streams), self.options())
            .map_err(|error| error.to_string())?;
        let mut stop = Stop::new(self.choices);
        self.follow(session, |session, seen| {
            if stop.saw(seen) {
                self.tell.tell(What::Switchover);
                session.switchover();
            }
        });
        Ok(())
    }

    /// Takes over.
    pub(super) fn receive(&self, streams: Vec<TcpStream>) -> Result<(), String> {
        let devices = self.named().map(|(name, device)| TargetDevice { name, device }).collect();
        let session = TargetSession::start(devices, fds(streams), self.options())
            .map_err(|error| error.to_string())?;
        self.follow(session, |_, _| {});
        Ok(())
    }

    fn named(&self) -> impl Iterator<Item = (String, Arc<dyn MigrationDevice>)> {
        self.devices.iter().enumerate().map(|(index, device)| {
            (format!("device{index}"), Arc::clone(device) as Arc<dyn MigrationDevice>)
        })
    }

    fn options(&self) -> Options {
        let mut options = Options {
            backend: engine::backend(self.choices.backend),
            precopy_poll: Duration::from_millis(5),
            ..Options::default()
        };
        engine::limit(&mut options, &self.choices.limits);
        options
    }

    /// Listens to a session until the runner has seen enough.
    fn follow<S: Side>(
        &self,
        session: Session<S>,
        mut vmm: impl FnMut(&Session<S>, Option<&SessionEvent>),
    ) {
        self.tell.tell(What::Started);
        loop {
            let next = self.obey(&session);
            if next != Next::On {
                let started = monotonic_ns();
                match next {
                    Next::Drop => drop(session),
                    _ => self.finish(session),
                }
                let drop_ns = monotonic_ns() - started;
                if next == Next::Drop {
                    self.tell.tell(What::Done(Command::Drop));
                    self.wait_for_the_end();
                }
                return self.tell.tell(What::Left(self.left(drop_ns)));
            }
            let event = session.wait_event(Some(LOOK));
            vmm(&session, event.as_ref());
            match event {
                Some(SessionEvent::Notice(notice)) => self.pass_on(&notice),
                Some(SessionEvent::Finished) => {
                    if let Some(report) = session.report() {
                        self.tell.tell(What::Finished(Box::new(end::<S>(&report))));
                    }
                }
                _ => {}
            }
        }
    }

    /// Does what the runner asks for.
    fn obey<S: Side>(&self, session: &Session<S>) -> Next {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Cancel => session.cancel(),
                Command::Release => self.release(),
                Command::Drop => return Next::Drop,
                Command::End => return Next::End,
            }
            self.tell.tell(What::Done(command));
        }
        Next::On
    }

    fn release(&self) {
        for device in self.devices {
            device.release();
        }
    }

    /// The session is gone; its devices may still be on their way.
    fn wait_for_the_end(&self) {
        while let Ok(command) = self.commands.recv() {
            match command {
                Command::Release => self.release(),
                Command::End => return,
                Command::Cancel | Command::Drop => {}
            }
            self.tell.tell(What::Done(command));
        }
    }

    fn finish<S: Side>(&self, session: Session<S>) {
        // Frames that were sent must not be lost with the process.
        session.wait_closed(CLOSING_MAX);
        let _ = session.finish();
    }

    fn pass_on(&self, notice: &Notice) {
        match notice {
            Notice::Connected { .. } => self.tell.tell(What::Connected),
            Notice::Phase { device, phase } if device.0 == 0 => {
                self.tell.tell(What::Phase(phase.name().to_owned()));
            }
            Notice::CameBack(report) => self.tell.tell(What::CameBack(said(report))),
            _ => {}
        }
    }

    fn left(&self, drop_ns: u64) -> Left {
        let doubles = || self.devices.iter().map(|device| device.double());
        let digest = |digest: u128| format!("{digest:032x}");
        Left {
            digests: doubles().map(|device| device.passed().digest.map(digest)).collect(),
            resets: doubles().map(|device| device.resets()).collect(),
            strangers: doubles().map(|device| device.strangers()).sum(),
            peak_rss_bytes: usage::peak_rss_bytes(),
            drop_ns,
        }
    }
}

/// When the guest is stopped: once the initial data is loaded; where nothing says so for long, all
/// the same; without PRE_COPY at once.
struct Stop {
    precopy: bool,
    since: Option<Instant>,
    is_over: bool,
}

impl Stop {
    fn new(choices: &Choices) -> Stop {
        Stop { precopy: choices.precopy, since: None, is_over: !choices.switches_over }
    }

    /// Whether the guest is to be stopped now.
    fn saw(&mut self, event: Option<&SessionEvent>) -> bool {
        let now = match event {
            Some(SessionEvent::Notice(Notice::Connected { .. })) => {
                self.since = Some(Instant::now());
                !self.precopy
            }
            Some(SessionEvent::Notice(Notice::Estimate(estimate))) => {
                estimate.initial_data_loaded || estimate.converged
            }
            Some(SessionEvent::Finished) => {
                self.is_over = true;
                false
            }
            _ => self.since.is_some_and(|since| since.elapsed() >= PATIENCE),
        };
        let stops = now && !self.is_over;
        self.is_over |= stops;
        stops
    }
}

fn fds(streams: Vec<TcpStream>) -> Vec<OwnedFd> {
    streams.into_iter().map(OwnedFd::from).collect()
}

fn said(report: &DeviceReport) -> DeviceSaid {
    DeviceSaid {
        device: report.device.index(),
        home: report.home,
        state: report.state.map(|state| state.name().to_owned()),
        stuck: report.stuck,
        was_reset: report.was_reset,
    }
}

fn end<S: Side>(report: &ReportOf<S>) -> End {
    let fault = S::fault(&report.ending);
    // An ending is written as its name, and why.
    let name = report.ending.to_string();
    let backend = match report.backend {
        Backend::IoUring => "io_uring",
        Backend::Syscalls => "syscalls",
    };
    End {
        ending: name.split(':').next().unwrap_or_default().to_owned(),
        cause: fault.map(|fault| fault.cause.name().to_owned()),
        observed: fault.map(|fault| fault.observed.name().to_owned()),
        message: fault.map(|fault| fault.message.clone()).unwrap_or_default(),
        backend: backend.to_owned(),
        devices: report.devices.iter().map(said).collect(),
    }
}
