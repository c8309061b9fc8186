//! Bringing a device back after an aborted or discarded epoch: a pure machine, one per device.
//!
//! ```text
//! Waiting --quiet--> Leaving ----> Checking --as it was found--> Done
//!   |  |                ^           |  |  |
//!   |  |                +---again---+  |  +--ERROR, or as the last resort--> Resetting -> Checking
//!   |  +--(target)--> Resetting        |
//!   +--(with others)--> Quieting -> Holding --released--> Leaving
//! ```
//!
//! On the source the device must go on with what it has: SET_STATE to where it was found, tried
//! again where it fails, and a reset only where the kernel wants one (ERROR) or its embedder has
//! allowed it. On the target it must not go on with what it has: it is reset. It begins only when
//! the device is quiet: its data fd closed, no request in flight. Nothing that the kernel answers
//! on the way changes why there was an abort.

use super::{Reply, Request, state_of};
use crate::vfio::state::DeviceState;

/// In what condition the device is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// With its state: the source, whose guest runs on.
    KeepState {
        /// Where it was found: RUNNING, or STOP under a paused VM.
        home: DeviceState,
        /// It may be reset where nothing else brings it there.
        reset: bool,
    },
    /// Wherever its VMM has it, who brings it back: an embedded device of the source, of which the
    /// engine lets go.
    LetGo,
    /// RUNNING and blank: the target, whose half-loaded state is worthless.
    Blank,
}

impl Goal {
    /// The state in which the device is left.
    pub(crate) fn home(self) -> DeviceState {
        match self {
            Goal::KeepState { home, .. } => home,
            Goal::LetGo | Goal::Blank => DeviceState::Running,
        }
    }
}

/// How a device goes back to RUNNING where others do at the same time: one that ran would write to
/// another that is still stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// At once.
    Straight,
    /// To RUNNING_P2P, and on when it is released.
    Quiet,
    /// When it is released.
    Released,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
    Quieting,
    Holding,
    Leaving,
    Resetting,
    Checking,
    Done(Arrival),
}

/// Where a way back has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The device is as the goal says.
    pub(crate) reached: bool,
    /// It was reset.
    pub(crate) reset: bool,
    /// The last GET_STATE's answer; none if it failed.
    pub(crate) state: Option<DeviceState>,
}

/// Resets, and calls of SET_STATE, that are tried before a device is left as it is. One reset may
/// meet another one that is already under way (EAGAIN), and ERROR may come again once.
const TRIES_MAX: u32 = 3;

/// The way back of one device.
#[derive(Debug)]
pub(crate) struct Recovery {
    goal: Goal,
    way: Way,
    step: Step,
    leaves: u32,
    resets: u32,
    /// The last reset succeeded: RUNNING alone does not tell a blank device from a loaded one.
    blank: bool,
}

impl Recovery {
    /// A way back that waits for [`quiet`](Self::quiet).
    pub(crate) fn new(goal: Goal, way: Way) -> Recovery {
        Recovery { goal, way, step: Step::Waiting, leaves: 0, resets: 0, blank: false }
    }

    /// The data fd is closed and no request is in flight. Returns the first request.
    pub(crate) fn quiet(&mut self) -> Option<Request> {
        if self.step != Step::Waiting {
            return None;
        }
        match (self.goal, self.way) {
            (Goal::Blank, _) => Some(self.reset()),
            // An embedder that is told so need not make a call, nor wait for the other devices.
            (Goal::LetGo, _) | (Goal::KeepState { .. }, Way::Straight) => Some(self.leave()),
            (Goal::KeepState { .. }, Way::Quiet) => {
                self.step = Step::Quieting;
                Some(Request::SetState(DeviceState::RunningP2p))
            }
            (Goal::KeepState { .. }, Way::Released) => {
                self.step = Step::Holding;
                None
            }
        }
    }

    /// Whether the device waits to be released: it does not run, and others may.
    pub(crate) fn is_held(&self) -> bool {
        self.step == Step::Holding
    }

    /// The others are as far, or are not waited for any longer. Returns the next request, if it was
    /// held.
    pub(crate) fn release(&mut self) -> Option<Request> {
        self.way = Way::Straight;
        self.is_held().then(|| self.leave())
    }

    /// Takes the answer to the last request. Returns the next one, or none at the end.
    pub(crate) fn answered(&mut self, result: Result<Reply, i32>) -> Option<Request> {
        match self.step {
            // What has failed here shows itself on the way to RUNNING.
            Step::Quieting if self.way == Way::Straight => Some(self.leave()),
            Step::Quieting => {
                self.step = Step::Holding;
                None
            }
            Step::Leaving | Step::Resetting => {
                self.blank |= self.step == Step::Resetting && result.is_ok();
                self.step = Step::Checking;
                Some(Request::GetState)
            }
            Step::Checking => self.judge(state_of(result)),
            Step::Waiting | Step::Holding | Step::Done(_) => None,
        }
    }

    /// How it ended, once it has.
    pub(crate) fn done(&self) -> Option<Arrival> {
        match self.step {
            Step::Done(arrival) => Some(arrival),
            _ => None,
        }
    }

    fn judge(&mut self, state: Option<DeviceState>) -> Option<Request> {
        let there = state == Some(self.goal.home());
        let (reached, must_reset, may_reset) = match self.goal {
            Goal::LetGo => (true, false, false),
            Goal::Blank => (there && self.blank, true, true),
            Goal::KeepState { reset, .. } => (there, state == Some(DeviceState::Error), reset),
        };
        // After a reset SET_STATE has its tries anew: the device is another one.
        let leaves_max = TRIES_MAX * (1 + self.resets);
        if reached {
            return self.arrive(reached, state);
        }
        if !must_reset && self.leaves < leaves_max {
            return Some(self.leave());
        }
        if (must_reset || may_reset) && self.resets < TRIES_MAX {
            return Some(self.reset());
        }
        self.arrive(reached, state)
    }

    fn arrive(&mut self, reached: bool, state: Option<DeviceState>) -> Option<Request> {
        self.step = Step::Done(Arrival { reached, reset: self.blank, state });
        None
    }

    fn leave(&mut self) -> Request {
        self.leaves += 1;
        self.step = Step::Leaving;
        Request::SetState(self.goal.home())
    }

    fn reset(&mut self) -> Request {
        self.resets += 1;
        self.step = Step::Resetting;
        Request::Reset
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceState::{Error, Running, RunningP2p, Stop, StopCopy};

    const KEEP: Goal = Goal::KeepState { home: Running, reset: false };

    /// Runs a recovery against a device that answers GET_STATE with `states` one after another.
    fn run(goal: Goal, states: &[DeviceState]) -> (Vec<Request>, Option<DeviceState>) {
        let mut recovery = Recovery::new(goal, Way::Straight);
        let mut states = states.iter();
        let mut asked = Vec::new();
        let mut next = recovery.quiet();
        while let Some(request) = next {
            asked.push(request);
            next = recovery.answered(match request {
                Request::GetState => states.next().map(|s| Reply::State(*s)).ok_or(19),
                Request::Reset => Ok(Reply::Reset),
                _ => Ok(Reply::Set { fd: false }),
            });
        }
        (asked, recovery.done().expect("it ends").state)
    }

    const LEAVE: Request = Request::SetState(Running);

    #[test]
    fn a_source_is_left_running_without_a_reset() {
        let (asked, state) = run(KEEP, &[Running]);
        assert_eq!(asked, [LEAVE, Request::GetState]);
        assert_eq!(state, Some(Running));
    }

    #[test]
    fn a_source_that_would_not_leave_is_asked_again_and_never_reset() {
        let (asked, state) = run(KEEP, &[StopCopy, StopCopy, StopCopy]);
        assert_eq!(asked.iter().filter(|r| **r == LEAVE).count(), 3);
        assert!(!asked.contains(&Request::Reset));
        assert_eq!(state, Some(StopCopy));
    }

    #[test]
    fn error_is_left_by_a_reset() {
        let (asked, state) = run(KEEP, &[Error, Running]);
        assert_eq!(asked, [LEAVE, Request::GetState, Request::Reset, Request::GetState]);
        assert_eq!(state, Some(Running));
    }

    #[test]
    fn an_embedded_device_is_let_go_of_wherever_it_is() {
        for state in [StopCopy, Error, Running] {
            let (asked, found) = run(Goal::LetGo, &[state]);
            assert_eq!(asked, [LEAVE, Request::GetState]);
            assert_eq!(found, Some(state));
        }
        assert_eq!(run(Goal::LetGo, &[]).1, None, "nobody has said");
    }

    #[test]
    fn a_target_is_always_reset() {
        let (asked, state) = run(Goal::Blank, &[Running]);
        assert_eq!(asked, [Request::Reset, Request::GetState]);
        assert_eq!(state, Some(Running));
    }

    #[test]
    fn it_ends_where_the_device_is_gone() {
        let (asked, state) = run(Goal::Blank, &[]);
        assert_eq!(state, None);
        assert_eq!(asked.len(), 6);
    }

    #[test]
    fn a_device_whose_reset_failed_is_not_blank_though_it_runs() {
        let mut recovery = Recovery::new(Goal::Blank, Way::Straight);
        assert_eq!(recovery.quiet(), Some(Request::Reset));
        for tries in 1..=TRIES_MAX {
            assert_eq!(recovery.answered(Err(11)), Some(Request::GetState));
            let next = recovery.answered(Ok(Reply::State(Running)));
            assert_eq!(next, (tries < TRIES_MAX).then_some(Request::Reset));
        }
        let arrival = Arrival { reached: false, reset: false, state: Some(Running) };
        assert_eq!(recovery.done(), Some(arrival));
    }

    #[test]
    fn a_source_that_would_not_leave_is_reset_where_that_is_allowed() {
        let goal = Goal::KeepState { home: Running, reset: true };
        let (asked, state) = run(goal, &[StopCopy, StopCopy, StopCopy, Running]);
        let resets = asked.iter().filter(|r| **r == Request::Reset).count();
        assert_eq!((resets, asked.last(), state), (1, Some(&Request::GetState), Some(Running)));
        let (asked, _) = run(goal, &[StopCopy; 40]);
        assert!(asked.len() < 40, "it ends where a reset does not help either");
    }

    #[test]
    fn the_device_of_a_paused_vm_goes_back_to_stop_even_out_of_error() {
        let goal = Goal::KeepState { home: Stop, reset: false };
        let (asked, state) = run(goal, &[Error, Running, Stop]);
        let stop = Request::SetState(Stop);
        let get = Request::GetState;
        assert_eq!(asked, [stop, get, Request::Reset, get, stop, get]);
        assert_eq!(state, Some(Stop));
    }

    /// A reset leaves a device in RUNNING, and it has used up its tries before.
    #[test]
    fn the_device_of_a_paused_vm_goes_back_to_stop_out_of_a_last_resort_too() {
        let goal = Goal::KeepState { home: Stop, reset: true };
        let (asked, state) = run(goal, &[StopCopy, StopCopy, StopCopy, Running, Running, Stop]);
        let (stop, get) = (Request::SetState(Stop), Request::GetState);
        let tried = [stop, get].repeat(3);
        assert_eq!(asked, [&tried[..], &[Request::Reset, get, stop, get, stop, get]].concat());
        assert_eq!(state, Some(Stop));
    }

    #[test]
    fn with_others_it_runs_only_when_it_is_released() {
        let (set, get) = (Ok(Reply::Set { fd: false }), Some(Request::GetState));
        let mut quiet = Recovery::new(KEEP, Way::Quiet);
        assert_eq!(quiet.quiet(), Some(Request::SetState(RunningP2p)));
        assert!(!quiet.is_held());
        assert_eq!(quiet.answered(set), None);
        assert!(quiet.is_held());
        assert_eq!((quiet.release(), quiet.answered(set)), (Some(LEAVE), get));

        let mut late = Recovery::new(KEEP, Way::Quiet);
        late.quiet();
        assert_eq!(late.release(), None, "it is on its way");
        assert_eq!(late.answered(Err(5)), Some(LEAVE), "nobody waits for it any longer");

        let mut released = Recovery::new(KEEP, Way::Released);
        assert_eq!(released.quiet(), None);
        assert_eq!((released.is_held(), released.release()), (true, Some(LEAVE)));
    }
}
