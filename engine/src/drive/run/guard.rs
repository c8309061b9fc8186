//! What follows when the session's thread panics: the embedder hears of the end all the same. Before
//! the handover the devices are brought back, as in a session that is given up; after it nobody
//! touches them, and nothing is claimed that cannot be known any more.

use std::time::Instant;

use super::end::Endings;
use super::{Drive, Machines};
use crate::drive::clock::{deadline, left, now_ns};
use crate::drive::embedder::SessionEvent;
use crate::drive::guarded::guarded;
use crate::drive::inbox::Input;
use crate::ids::DeviceId;
use crate::machine::{Action, DeviceReport, Line, Notice, Turn, Way};
use crate::outcome::{Cause, EpochEnding, Fault, Observation, SourceEnding, TargetEnding};

/// A drive whose embedder hears of its end even if it panics.
pub(super) struct Guarded(pub(super) Drive);

impl Guarded {
    pub(super) fn run(mut self) {
        let host = match self.0.machines {
            Machines::Source(_) => "source",
            Machines::Target(_) => "target",
        };
        let devices = self.0.devices.len();
        let ran = guarded(|| {
            let span = tracing::info_span!("session", host, devices, backend = ?self.0.backend);
            let _entered = span.enter();
            if let Some(why) = &self.0.fallback {
                tracing::warn!(why, "plain system calls in place of io_uring");
            }
            self.0.run();
        });
        if let Err(said) = ran {
            let message = format!("the session's thread panicked, a defect of the engine: {said}");
            let fault = Fault::session(Cause::Local, Observation::Engine, message);
            if guarded(|| Rescue::of(&mut self.0, &fault).run(&fault)).is_err() {
                self.end_blindly(fault);
            }
        }
        // Whoever waits for these waits for nothing that is still to come.
        self.0.outbox.close();
        self.0.closing.done();
    }

    /// The session's end, where not even the devices could be brought back.
    fn end_blindly(&mut self, fault: Fault) {
        if self.0.linger_until_ns.is_some() {
            return;
        }
        let ending = match self.0.machines {
            Machines::Source(_) => Endings::Source(SourceEnding::Unconfirmed(fault)),
            Machines::Target(_) => Endings::Target(TargetEnding::NotBlank(fault)),
        };
        let drive = &mut self.0;
        let _ = guarded(|| drive.end(ending, Vec::new(), now_ns()));
        drive.outbox.push(SessionEvent::Finished);
    }
}

/// The ways back of the devices of a drive whose machine can be trusted no more.
struct Rescue<'a> {
    drive: &'a mut Drive,
    reports: Vec<DeviceReport>,
    /// Of the devices that are to be brought back.
    lines: Vec<Option<Back>>,
    /// The session's end was told.
    ended: bool,
}

/// One device's way back.
struct Back {
    line: Line,
    begun: bool,
}

impl<'a> Rescue<'a> {
    fn of(drive: &'a mut Drive, fault: &Fault) -> Rescue<'a> {
        let ended = drive.linger_until_ns.is_some();
        let reports = drive.machines.machine().reports();
        let handed_over = drive.is_handed_over(fault);
        let way = |report: &DeviceReport| {
            let line = Line::new(report.device, drive.devices[report.device.index()].goal);
            (!report.home && !handed_over).then_some(Back { line, begun: false })
        };
        let lines = reports.iter().map(way).collect();
        Rescue { drive, reports, lines, ended }
    }

    fn run(mut self, fault: &Fault) {
        // So that the peer knows as early as can be.
        self.drive.streams.hang_up();
        self.drive.interrupt();
        let now_ns = now_ns();
        for index in 0..self.drive.devices.len() {
            self.drive.devices[index].fresh = None;
            self.drive.detach(DeviceId(index as u32), now_ns);
        }
        if !self.ended {
            let until = deadline(self.drive.cancel_bound);
            while self.goes_on() && until.is_none_or(|until| until > Instant::now()) {
                self.step(until);
            }
            self.end(fault);
        }
        while self.drive.devices.iter().any(|device| device.is_late()) {
            self.step(None);
        }
        self.drive.streams.close();
        self.drive.go_on_ending();
    }

    /// Whether a way back is not at its end.
    fn goes_on(&self) -> bool {
        self.lines.iter().any(Option::is_some)
    }

    /// Begins the ways back that can begin, then waits for one thing that happens.
    fn step(&mut self, until: Option<Instant>) {
        for index in 0..self.lines.len() {
            self.begin(index);
        }
        let data_fds = self.drive.devices.iter().filter_map(|device| device.data.deadline_ns());
        let next_ns = data_fds.min();
        let at_most = until.map(|until| until.saturating_duration_since(Instant::now()));
        let due = next_ns.and_then(|next_ns| left(now_ns(), next_ns));
        // What came before the panic has woken the thread already.
        if self.drive.inputs.is_empty() {
            self.drive.wait(at_most.into_iter().chain(due).min());
        }
        // Nobody works with what comes here any more.
        self.drive.caused.clear();
        self.drive.data_events.clear();
        while self.drive.streams.next().is_some() {}
        while let Ok(input) = self.drive.inputs.try_recv() {
            if let Input::Control { device, request, result, fd, .. } = input {
                drop(fd);
                self.drive.devices[device.index()].asked = false;
                self.answered(device, |line, turn| line.answered(turn, request, result));
            }
        }
        let now_ns = now_ns();
        for index in 0..self.drive.devices.len() {
            self.drive.with_data(DeviceId(index as u32), now_ns, |data, tools| {
                data.look_at_the_clock(tools);
            });
            self.drive.devices[index].data.give_up(now_ns);
        }
    }

    /// Sets a device on its way, once nothing is in flight.
    fn begin(&mut self, index: usize) {
        let entry = &self.drive.devices[index];
        let quiet = !entry.asked && !entry.data.is_detaching();
        if let Some(way) = &mut self.lines[index]
            && quiet
            && !way.begun
        {
            way.begun = true;
            self.answered(DeviceId(index as u32), |line, turn| line.recover(turn, Way::Straight));
        }
    }

    /// Lets a way back go on, and asks for what it wants next.
    fn answered<T>(&mut self, id: DeviceId, step: impl FnOnce(&mut Line, &mut Turn) -> T) {
        let mut actions = Vec::new();
        let Some(way) = self.lines[id.index()].as_mut().filter(|way| way.begun) else { return };
        let _ = step(&mut way.line, &mut Turn::new(now_ns(), &mut actions));
        let arrival = way.line.arrived();
        for action in actions {
            if let (Action::Control { request, .. }, Some(threads)) =
                (action, self.drive.devices[id.index()].threads())
            {
                threads.control.ask(request, None);
                self.drive.devices[id.index()].asked = true;
            }
        }
        if let Some(arrival) = arrival {
            self.lines[id.index()] = None;
            let report = &mut self.reports[id.index()];
            (report.home, report.state) = (arrival.reached, arrival.state);
            report.was_reset |= arrival.reset && matches!(self.drive.machines, Machines::Source(_));
            if self.ended {
                let notice = Notice::CameBack(report.clone());
                self.drive.outbox.push(SessionEvent::Notice(notice));
            }
        }
    }

    fn end(&mut self, fault: &Fault) {
        let handed_over = self.drive.is_handed_over(fault);
        for (index, report) in self.reports.iter_mut().enumerate() {
            if handed_over || self.lines[index].is_some() {
                // Answers that have not reached the machine may say otherwise.
                report.state = None;
            }
            let unconfirmed = handed_over && matches!(self.drive.machines, Machines::Source(_));
            let ending = if unconfirmed { EpochEnding::Unconfirmed } else { EpochEnding::Aborted };
            report.ending.get_or_insert(ending);
        }
        let home = self.reports.iter().all(|report| report.home);
        let fault = fault.clone();
        let ending = match &self.drive.machines {
            Machines::Source(sender) if handed_over => {
                Endings::Source(sender.ending_if_lost(fault))
            }
            Machines::Target(receiver) if handed_over => {
                Endings::Target(receiver.ending_if_lost(fault))
            }
            Machines::Source(_) if home => Endings::Source(SourceEnding::Returned(fault)),
            Machines::Source(_) => Endings::Source(SourceEnding::NotReturned(fault)),
            Machines::Target(_) if home => Endings::Target(TargetEnding::Blank(fault)),
            Machines::Target(_) => Endings::Target(TargetEnding::NotBlank(fault)),
        };
        self.drive.end(ending, self.reports.clone(), now_ns());
        self.ended = true;
    }
}

impl Drive {
    /// Whether the other host may run the devices, or this one may by the other's leave.
    fn is_handed_over(&self, fault: &Fault) -> bool {
        match &self.machines {
            Machines::Source(sender) => matches!(
                sender.ending_if_lost(fault.clone()),
                SourceEnding::HandedOver | SourceEnding::Unconfirmed(_)
            ),
            Machines::Target(receiver) => {
                self.handed_over || receiver.ending_if_lost(fault.clone()) == TargetEnding::Running
            }
        }
    }
}
