//! Bringing a device back after an aborted or discarded epoch: a pure machine, one per device.
//!
//! ```text
//! Waiting --quiet--> Leaving ----> Checking --RUNNING--> Done(state)
//!     \                 ^            |   |
//!      \                +--again-----+   +--ERROR--> Resetting -> Checking
//!       +--(target)--> Resetting
//! ```
//!
//! On the source the device must run on with what it has: SET_STATE(RUNNING), tried again where it
//! fails, and a reset only where the kernel wants one (ERROR). On the target it must not run on
//! with what it has: it is reset. It begins only when the device is quiet: its data fd closed, no
//! request in flight. Nothing that the kernel answers on the way changes why there was an abort.

use super::{Reply, Request, state_of};
use crate::vfio::state::DeviceState;

/// In what condition the device is to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Goal {
    /// RUNNING with its state: the source, whose guest runs on.
    KeepState,
    /// RUNNING and blank: the target, whose half-loaded state is worthless.
    Blank,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Waiting,
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
    step: Step,
    leaves: u32,
    resets: u32,
    /// The last reset succeeded: RUNNING alone does not tell a blank device from a loaded one.
    blank: bool,
}

impl Recovery {
    /// A way back that waits for [`quiet`](Self::quiet).
    pub(crate) fn new(goal: Goal) -> Recovery {
        Recovery { goal, step: Step::Waiting, leaves: 0, resets: 0, blank: false }
    }

    /// The data fd is closed and no request is in flight. Returns the first request.
    pub(crate) fn quiet(&mut self) -> Option<Request> {
        if self.step != Step::Waiting {
            return None;
        }
        Some(match self.goal {
            Goal::KeepState => self.leave(),
            Goal::Blank => self.reset(),
        })
    }

    /// Takes the answer to the last request. Returns the next one, or none at the end.
    pub(crate) fn answered(&mut self, result: Result<Reply, i32>) -> Option<Request> {
        match self.step {
            Step::Leaving | Step::Resetting => {
                self.blank = self.step == Step::Resetting && result.is_ok();
                self.step = Step::Checking;
                Some(Request::GetState)
            }
            Step::Checking => self.judge(state_of(result)),
            Step::Waiting | Step::Done(_) => None,
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
        let runs = state == Some(DeviceState::Running);
        let reached = runs && (self.goal == Goal::KeepState || self.blank);
        let must_reset = self.goal == Goal::Blank || state == Some(DeviceState::Error);
        let tries = if must_reset { self.resets } else { self.leaves };
        if reached || tries >= TRIES_MAX {
            self.step = Step::Done(Arrival { reached, state });
            None
        } else if must_reset {
            Some(self.reset())
        } else {
            Some(self.leave())
        }
    }

    fn leave(&mut self) -> Request {
        self.leaves += 1;
        self.step = Step::Leaving;
        Request::SetState(DeviceState::Running)
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
    use DeviceState::{Error, Running, StopCopy};

    /// Runs a recovery against a device that answers GET_STATE with `states` one after another.
    fn run(goal: Goal, states: &[DeviceState]) -> (Vec<Request>, Option<DeviceState>) {
        let mut recovery = Recovery::new(goal);
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
        let (asked, state) = run(Goal::KeepState, &[Running]);
        assert_eq!(asked, [LEAVE, Request::GetState]);
        assert_eq!(state, Some(Running));
    }

    #[test]
    fn a_source_that_would_not_leave_is_asked_again_and_never_reset() {
        let (asked, state) = run(Goal::KeepState, &[StopCopy, StopCopy, StopCopy]);
        assert_eq!(asked.iter().filter(|r| **r == LEAVE).count(), 3);
        assert!(!asked.contains(&Request::Reset));
        assert_eq!(state, Some(StopCopy));
    }

    #[test]
    fn error_is_left_by_a_reset() {
        let (asked, state) = run(Goal::KeepState, &[Error, Running]);
        assert_eq!(asked, [LEAVE, Request::GetState, Request::Reset, Request::GetState]);
        assert_eq!(state, Some(Running));
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
        let mut recovery = Recovery::new(Goal::Blank);
        assert_eq!(recovery.quiet(), Some(Request::Reset));
        for tries in 1..=TRIES_MAX {
            assert_eq!(recovery.answered(Err(11)), Some(Request::GetState));
            let next = recovery.answered(Ok(Reply::State(Running)));
            assert_eq!(next, (tries < TRIES_MAX).then_some(Request::Reset));
        }
        let arrival = Arrival { reached: false, state: Some(Running) };
        assert_eq!(recovery.done(), Some(arrival));
    }
}
