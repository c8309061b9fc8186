//! A machine's line to one device: one request and one data fd at a time, the first thing that went
//! wrong, and the way back to RUNNING, which begins when the line is quiet.

use super::{Arrival, Goal, Recovery};
use crate::ids::{DeviceId, Epoch};
use crate::machine::{Action, Reply, Request};
use crate::outcome::{DeviceAnswer, Fault, Operation, classify};
use crate::vfio::state::DeviceState;

/// The thread of a data fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fd {
    None,
    Attached,
    /// It was asked to end.
    Detaching,
}

/// See the module's text.
#[derive(Debug)]
pub struct Line {
    id: DeviceId,
    goal: Goal,
    expected: DeviceState,
    asked: Option<Request>,
    fd: Fd,
    suspicion: Option<DeviceAnswer>,
    recovery: Option<Recovery>,
}

impl Line {
    /// The line to a device in RUNNING, and in what condition a way back is to leave that.
    pub fn new(id: DeviceId, goal: Goal) -> Line {
        let (expected, fd) = (DeviceState::Running, Fd::None);
        Line { id, goal, expected, asked: None, fd, suspicion: None, recovery: None }
    }

    /// Whose line it is.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The state that the last successful SET_STATE, or the last way back, left the device in.
    pub fn expected(&self) -> DeviceState {
        self.expected
    }

    /// Whether the machine may ask for something.
    pub fn is_free(&self) -> bool {
        self.asked.is_none() && self.recovery.is_none()
    }

    /// Whether nothing is known to be wrong with the device.
    pub fn is_well(&self) -> bool {
        self.suspicion.is_none() && self.recovery.is_none()
    }

    /// Whether there is a data fd's thread.
    pub fn is_attached(&self) -> bool {
        self.fd != Fd::None
    }

    /// Asks the device.
    pub fn ask(&mut self, request: Request, actions: &mut Vec<Action>) {
        debug_assert_eq!(self.asked, None, "{}: one request at a time", self.id);
        self.asked = Some(request);
        actions.push(Action::Control { device: self.id, request });
    }

    /// Takes an answer. True if it belonged to the way back, which goes on.
    pub fn answered(
        &mut self,
        request: Request,
        result: Result<Reply, i32>,
        actions: &mut Vec<Action>,
    ) -> bool {
        debug_assert_eq!(self.asked, Some(request));
        self.asked = None;
        let Some(recovery) = &mut self.recovery else {
            if let (Request::SetState(state), Ok(_)) = (request, result) {
                self.expected = state;
            }
            return false;
        };
        if result == Ok(Reply::Set { fd: true }) {
            actions.push(Action::DropFd { device: self.id });
        }
        // None before the way back has begun: then this answers what was asked before it.
        if let Some(request) = recovery.answered(result) {
            self.ask(request, actions);
        }
        self.go_on(actions);
        true
    }

    /// Takes the fd that the last SET_STATE gave.
    pub fn attach(&mut self, epoch: Epoch, actions: &mut Vec<Action>) {
        self.fd = Fd::Attached;
        actions.push(Action::Attach { device: self.id, epoch });
    }

    /// Ends the data fd's thread, if one runs.
    pub fn detach(&mut self, actions: &mut Vec<Action>) {
        if self.fd == Fd::Attached {
            self.fd = Fd::Detaching;
            actions.push(Action::Detach { device: self.id });
        }
    }

    /// The data fd's thread has ended, or is given up.
    pub fn detached(&mut self, actions: &mut Vec<Action>) {
        self.fd = Fd::None;
        self.go_on(actions);
    }

    /// Notes an error to be looked into; the first one counts.
    pub fn suspect(&mut self, operation: Operation, errno: Option<i32>) {
        if self.suspicion.is_none() {
            self.suspicion = Some(self.answer(operation, errno, None));
        }
    }

    /// Asks for the state where an error is to be looked into. False if there is none.
    pub fn looks_into(&mut self, actions: &mut Vec<Action>) -> bool {
        if self.suspicion.is_some() {
            self.ask(Request::GetState, actions);
        }
        self.suspicion.is_some()
    }

    /// The error that was to be looked into, with the state that the device was found in.
    pub fn take_suspicion(&mut self, found: Option<DeviceState>) -> Option<DeviceAnswer> {
        self.suspicion.take().map(|answer| DeviceAnswer { found, ..answer })
    }

    /// What was seen of the device, against the state that it should be in.
    pub fn answer(
        &self,
        operation: Operation,
        errno: Option<i32>,
        found: Option<DeviceState>,
    ) -> DeviceAnswer {
        DeviceAnswer { operation, errno, cancelled: false, expected: self.expected, found }
    }

    /// What that means.
    pub fn fault(&self, answer: DeviceAnswer) -> Fault {
        let finding = classify(answer);
        Fault::device(self.id, finding.cause, finding.observed, answer.errno, finding.message)
    }

    /// Sets the device on its way back, as soon as nothing is in flight.
    pub fn recover(&mut self, actions: &mut Vec<Action>) {
        if self.recovery.is_none() {
            self.recovery = Some(Recovery::new(self.goal));
            self.detach(actions);
        }
        self.go_on(actions);
    }

    /// How the way back ended, once it has.
    pub fn arrived(&mut self) -> Option<Arrival> {
        let arrival = self.recovery.as_ref().and_then(Recovery::done)?;
        self.recovery = None;
        if arrival.reached {
            self.expected = DeviceState::Running;
        }
        Some(arrival)
    }

    fn go_on(&mut self, actions: &mut Vec<Action>) {
        if self.is_attached() || self.asked.is_some() {
            return;
        }
        if let Some(request) = self.recovery.as_mut().and_then(Recovery::quiet) {
            self.ask(request, actions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_back_waits_until_the_line_is_quiet() {
        let (mut line, mut actions) = (Line::new(DeviceId(0), Goal::KeepState), Vec::new());
        let (running, ok) = (Request::SetState(DeviceState::Running), Ok(Reply::Set { fd: false }));
        line.attach(Epoch(0), &mut actions);
        line.ask(Request::PrecopyInfo, &mut actions);
        actions.clear();

        line.recover(&mut actions);
        line.recover(&mut actions);
        assert_eq!(actions, [Action::Detach { device: DeviceId(0) }]);
        line.detached(&mut actions);
        assert_eq!(actions.len(), 1, "a request is in flight");
        assert!(line.answered(Request::PrecopyInfo, Err(22), &mut actions));
        assert_eq!(actions[1..], [Action::Control { device: DeviceId(0), request: running }]);

        assert!(line.answered(running, ok, &mut actions));
        let found = Ok(Reply::State(DeviceState::Running));
        assert!(line.answered(Request::GetState, found, &mut actions));
        assert!(!line.is_free());
        assert!(line.arrived().is_some_and(|arrival| arrival.reached));
        assert!(line.is_free() && line.is_well());
    }
}
