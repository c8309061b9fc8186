//! A machine's line to one device: one request and one data fd at a time, the first thing that went
//! wrong, what the kernel said last, and the way back to RUNNING, which begins when the line is
//! quiet.

use super::recovery::{Arrival, Goal, Recovery, Way};
use super::{Action, Reply, Request, Turn, state_of};
use crate::ids::{DeviceId, Epoch};
use crate::outcome::{DeviceAnswer, Fault, Operation, classify};
use crate::vfio::state::DeviceState;

/// The thread of a data fd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thread {
    None,
    Attached,
    /// It was asked to end.
    Detaching,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Line {
    id: DeviceId,
    goal: Goal,
    expected: DeviceState,
    known: Option<DeviceState>,
    home: bool,
    was_reset: bool,
    asked: Option<Request>,
    fd: Thread,
    suspicion: Option<DeviceAnswer>,
    recovery: Option<Recovery>,
}

impl Line {
    /// The line to a device that nobody has touched, and in what condition a way back is to leave
    /// that.
    pub(crate) fn new(id: DeviceId, goal: Goal) -> Line {
        Line {
            id,
            goal,
            expected: goal.home(),
            known: None,
            home: true,
            was_reset: false,
            asked: None,
            fd: Thread::None,
            suspicion: None,
            recovery: None,
        }
    }

    /// Whose line it is.
    pub(crate) fn id(&self) -> DeviceId {
        self.id
    }

    /// The state that the kernel named last: GET_STATE's answer, or where a SET_STATE that
    /// succeeded since has put the device. None before the first answer, while a call that moves
    /// the device has not returned, and after one that failed.
    pub(crate) fn known(&self) -> Option<DeviceState> {
        self.known
    }

    /// The embedder says that somebody else has moved the device.
    pub(crate) fn was_moved(&mut self) {
        self.known = None;
    }

    /// Whether the device is as its goal says: it was never asked to move, or a way back has
    /// brought it there and nothing has moved it since.
    pub(crate) fn is_home(&self) -> bool {
        self.home
    }

    /// Whether a way back has reset the device, whose guest expects its state.
    pub(crate) fn was_reset(&self) -> bool {
        self.was_reset
    }

    /// What the driver has not answered.
    pub(crate) fn asked(&self) -> Option<Request> {
        self.asked
    }

    /// Whether nothing is under way: no request, no data fd, no way back.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.asked.is_none() && !self.is_attached() && self.recovery.is_none()
    }

    /// Whether the machine may ask for something.
    pub(crate) fn is_free(&self) -> bool {
        self.asked.is_none() && self.recovery.is_none()
    }

    /// Whether nothing is known to be wrong with the device.
    pub(crate) fn is_well(&self) -> bool {
        self.suspicion.is_none() && self.recovery.is_none()
    }

    /// Whether there is a data fd's thread.
    pub(crate) fn is_attached(&self) -> bool {
        self.fd != Thread::None
    }

    /// Asks the device.
    pub(crate) fn ask(&mut self, turn: &mut Turn, request: Request) {
        debug_assert_eq!(self.asked, None, "{}: one request at a time", self.id);
        if matches!(request, Request::SetState(_) | Request::Reset) {
            self.known = None;
            self.home = false;
        }
        self.asked = Some(request);
        turn.act(Action::Control { device: self.id, request });
    }

    /// Takes an answer. True if it belonged to the way back, which goes on.
    pub(crate) fn answered(
        &mut self,
        turn: &mut Turn,
        request: Request,
        result: Result<Reply, i32>,
    ) -> bool {
        debug_assert_eq!(self.asked, Some(request));
        self.asked = None;
        match (request, result) {
            (Request::SetState(state), Ok(_)) => self.known = Some(state),
            (Request::GetState, answer) => self.known = state_of(answer),
            _ => {}
        }
        let Some(recovery) = &mut self.recovery else {
            if let (Request::SetState(state), Ok(_)) = (request, result) {
                self.expected = state;
            }
            return false;
        };
        if result == Ok(Reply::Set { fd: true }) {
            turn.act(Action::DropFd { device: self.id });
        }
        // None before the way back has begun: then this answers what was asked before it.
        if let Some(request) = recovery.answered(result) {
            self.ask(turn, request);
        }
        self.go_on(turn);
        true
    }

    /// Takes the fd that the last SET_STATE gave.
    pub(crate) fn attach(&mut self, turn: &mut Turn, epoch: Epoch) {
        self.fd = Thread::Attached;
        turn.act(Action::Attach { device: self.id, epoch });
    }

    /// Ends the data fd's thread, if one runs.
    pub(crate) fn detach(&mut self, turn: &mut Turn) {
        if self.fd == Thread::Attached {
            self.fd = Thread::Detaching;
            turn.act(Action::Detach { device: self.id });
        }
    }

    /// The data fd's thread has ended, or is given up.
    pub(crate) fn detached(&mut self, turn: &mut Turn) {
        self.fd = Thread::None;
        self.go_on(turn);
    }

    /// Notes an error to be looked into; the first one counts.
    pub(crate) fn suspect(&mut self, operation: Operation, errno: Option<i32>) {
        if self.suspicion.is_none() {
            self.suspicion = Some(self.answer(operation, errno, None));
        }
    }

    /// What was looked into without an answer is looked into again.
    pub(crate) fn suspect_again(&mut self, answer: DeviceAnswer) {
        self.suspicion.get_or_insert(answer);
    }

    /// Asks for the state where an error is to be looked into. False if there is none.
    pub(crate) fn looks_into(&mut self, turn: &mut Turn) -> bool {
        if self.suspicion.is_some() {
            self.ask(turn, Request::GetState);
        }
        self.suspicion.is_some()
    }

    /// The error that was to be looked into, with the state that the device was found in.
    pub(crate) fn take_suspicion(&mut self, found: Option<DeviceState>) -> Option<DeviceAnswer> {
        self.suspicion.take().map(|answer| DeviceAnswer { found, ..answer })
    }

    /// What was seen of the device, against the state that it should be in.
    pub(crate) fn answer(
        &self,
        operation: Operation,
        errno: Option<i32>,
        found: Option<DeviceState>,
    ) -> DeviceAnswer {
        DeviceAnswer { operation, errno, cancelled: false, expected: self.expected, found }
    }

    /// What that means.
    pub(crate) fn fault(&self, answer: DeviceAnswer) -> Fault {
        let finding = classify(answer);
        Fault::device(self.id, finding.cause, finding.observed, answer.errno, finding.message)
    }

    /// Sets the device on its way back, as soon as nothing is in flight.
    pub(crate) fn recover(&mut self, turn: &mut Turn, way: Way) {
        if self.recovery.is_none() {
            self.recovery = Some(Recovery::new(self.goal, way));
            self.detach(turn);
        }
        self.go_on(turn);
    }

    /// Whether the device is on its way back and not yet where it may be held.
    pub(crate) fn is_behind(&self) -> bool {
        self.recovery.as_ref().is_some_and(|way| way.done().is_none()) && !self.is_held()
    }

    /// Whether the device waits on its way back to be [released](Self::release).
    pub(crate) fn is_held(&self) -> bool {
        self.recovery.as_ref().is_some_and(Recovery::is_held)
    }

    /// Lets the way back go on without the other devices.
    pub(crate) fn release(&mut self, turn: &mut Turn) {
        if let Some(request) = self.recovery.as_mut().and_then(Recovery::release) {
            self.ask(turn, request);
        }
    }

    /// How the way back ended, once it has.
    pub(crate) fn arrived(&mut self) -> Option<Arrival> {
        let arrival = self.recovery.as_ref().and_then(Recovery::done)?;
        self.recovery = None;
        self.home = arrival.reached;
        self.was_reset |= arrival.reset && self.goal != Goal::Blank;
        if arrival.reached {
            self.expected = self.goal.home();
        }
        Some(arrival)
    }

    fn go_on(&mut self, turn: &mut Turn) {
        if self.is_attached() || self.asked.is_some() {
            return;
        }
        if let Some(request) = self.recovery.as_mut().and_then(Recovery::quiet) {
            self.ask(turn, request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceState::{Running, StopCopy};

    const KEEP: Goal = Goal::KeepState { home: Running, reset: false };
    const SET_RUNNING: Request = Request::SetState(Running);
    const DONE: Result<Reply, i32> = Ok(Reply::Set { fd: false });

    /// Lets something happen, and says what it caused.
    fn caused(happens: impl FnOnce(&mut Turn)) -> Vec<Action> {
        let mut actions = Vec::new();
        happens(&mut Turn::new(0, &mut actions));
        actions
    }

    #[test]
    fn a_way_back_waits_until_the_line_is_quiet() {
        let mut line = Line::new(DeviceId(0), KEEP);
        let device = DeviceId(0);
        caused(|turn| {
            line.attach(turn, Epoch(0));
            line.ask(turn, Request::PrecopyInfo);
        });
        let actions = caused(|turn| {
            line.recover(turn, Way::Straight);
            line.recover(turn, Way::Straight);
        });
        assert_eq!(actions, [Action::Detach { device }]);
        assert_eq!(caused(|turn| line.detached(turn)), [], "a request is in flight");
        let actions = caused(|turn| assert!(line.answered(turn, Request::PrecopyInfo, Err(22))));
        assert_eq!(actions, [Action::Control { device, request: SET_RUNNING }]);

        caused(|turn| assert!(line.answered(turn, SET_RUNNING, DONE)));
        let found = Ok(Reply::State(Running));
        caused(|turn| assert!(line.answered(turn, Request::GetState, found)));
        assert!(!line.is_free());
        assert!(line.arrived().is_some_and(|arrival| arrival.reached));
        assert!(line.is_free() && line.is_well() && line.is_home());
    }

    #[test]
    fn the_state_is_known_from_the_kernel_or_not_at_all() {
        let mut line = Line::new(DeviceId(0), KEEP);
        let stop_copy = Request::SetState(StopCopy);
        assert!(line.known().is_none() && line.is_home(), "nobody has asked or moved it");
        caused(|turn| line.ask(turn, Request::GetState));
        caused(|turn| assert!(!line.answered(turn, Request::GetState, Ok(Reply::State(Running)))));
        assert!(line.known() == Some(Running) && line.is_home());
        caused(|turn| line.ask(turn, stop_copy));
        assert!(line.known().is_none() && !line.is_home(), "it may be under way");
        caused(|turn| assert!(!line.answered(turn, stop_copy, DONE)));
        assert_eq!(line.known(), Some(StopCopy));
        caused(|turn| line.ask(turn, SET_RUNNING));
        caused(|turn| assert!(!line.answered(turn, SET_RUNNING, Err(5))));
        assert_eq!(line.known(), None, "it may be anywhere");
        caused(|turn| line.ask(turn, Request::GetState));
        caused(|turn| assert!(!line.answered(turn, Request::GetState, Err(5))));
        assert_eq!(line.known(), None);
    }

    #[test]
    fn a_device_that_could_not_be_reset_is_not_home() {
        let mut line = Line::new(DeviceId(0), Goal::Blank);
        caused(|turn| line.recover(turn, Way::Straight));
        let arrival = loop {
            caused(|turn| assert!(line.answered(turn, Request::Reset, Err(11))));
            let found = Ok(Reply::State(Running));
            caused(|turn| assert!(line.answered(turn, Request::GetState, found)));
            if let Some(arrival) = line.arrived() {
                break arrival;
            }
        };
        assert!(!arrival.reached && !line.is_home());
        assert_eq!(line.known(), Some(Running));
    }
}
