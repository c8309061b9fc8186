//! What an embedded device's VMM has said, and where the engine is in it. Pure: no lock, no fd of
//! its own, no clock.
//!
//! The VMM speaks when it likes; the engine asks one question at a time. On the source the engine
//! goes through what the VMM said in its order: a saving state that the VMM has reached before it
//! was wanted stays *ahead* until it is, so no answer replaces another one that is still needed.
//!
//! ```text
//! the VMM said    RUNNING   PRE_COPY, fd   STOP_COPY        RUNNING
//! the engine is      at ----------^  ahead ----^               |
//!                                                              +-- lost: told at once, and what
//!                                                                  is ahead from before it goes
//! ```
//!
//! On the target nothing may be taken for done that the kernel has gone beyond: there only the
//! latest state waits, and what the device is found in is what counts.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use super::{Answer, Wanted};
use crate::errno::{EINVAL, ENODEV};
use crate::outcome::{Cause, Host, Observation};
use crate::vfio::device::PrecopyInfo;
use crate::vfio::state::DeviceState::{
    self, Error, PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy,
};

/// A state that the VMM has reached and the engine has not asked for.
#[derive(Debug)]
struct Step {
    state: DeviceState,
    data_fd: Option<OwnedFd>,
}

/// What the VMM has said shows that the state saved or loaded so far is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The device was reset.
    Reset,
    /// The device is in ERROR.
    Error,
}

impl Loss {
    /// As a fault has it.
    pub(super) fn cause(self) -> Cause {
        match self {
            Loss::Reset => Cause::DeviceReset,
            Loss::Error => Cause::DeviceError,
        }
    }

    /// As a fault has it: only a reset is what was chosen for the device to follow.
    pub(super) fn observed(self) -> Observation {
        match self {
            Loss::Reset => Observation::Embedder,
            Loss::Error => Observation::StateCheck,
        }
    }

    /// As a fault has it.
    pub(super) fn message(self) -> &'static str {
        match self {
            Loss::Reset => {
                "the VMM says that the device was reset: the state that was saved or loaded so far \
                 is worthless"
            }
            Loss::Error => {
                "the VMM says that the device is in ERROR: only VFIO_DEVICE_RESET brings it back to \
                 RUNNING, and what it held is lost"
            }
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Books {
    host: Host,
    /// The VMM's last word. None: it has not said anything, or nothing since.
    said: Option<DeviceState>,
    /// The last state that the engine has got an answer for, or knows of in another way.
    at: DeviceState,
    /// The engine holds the data fd of that state.
    has_fd: bool,
    /// The engine knows that the device has lost what it saved or loaded.
    lost: bool,
    ahead: VecDeque<Step>,
    /// A SET_STATE that failed before it was wanted.
    failure: Option<(DeviceState, i32)>,
    precopy_info: Option<Result<PrecopyInfo, i32>>,
    reset: Option<Result<(), i32>>,
    question: Option<Wanted>,
    /// The answer to the question that was open last, until the engine's thread takes it.
    reply: Option<Answer>,
    /// The kernel has refused something since the device got where it is: whether as it refuses a
    /// device that is elsewhere.
    refused: Option<bool>,
    /// The device was handed over to this host: it may run (target).
    may_run: bool,
    ended: bool,
    pub(super) stop_copy_bytes: Option<u64>,
}

/// The same state without the P2P part, which is the VMM's business.
fn plain(state: DeviceState) -> DeviceState {
    match state {
        RunningP2p => Running,
        PreCopyP2p => PreCopy,
        other => other,
    }
}

impl Books {
    /// A device that nobody has touched.
    pub(super) fn new(host: Host) -> Books {
        Books {
            host,
            said: None,
            at: Running,
            has_fd: false,
            lost: false,
            ahead: VecDeque::new(),
            failure: None,
            precopy_info: None,
            reset: None,
            question: None,
            reply: None,
            refused: None,
            may_run: false,
            ended: false,
            stop_copy_bytes: None,
        }
    }

    /// The open question.
    pub(super) fn question(&self) -> Option<Wanted> {
        self.question
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The engine asks. The answer is a [reply](Self::take_reply), at once if it is there already.
    pub(super) fn ask(&mut self, wanted: Wanted) {
        debug_assert!(self.question.is_none() && self.reply.is_none(), "one question at a time");
        // Sizes, resets and failures from before another question say nothing about this one. A
        // state that was reached stays until another one is.
        self.precopy_info = self.precopy_info.take().filter(|_| wanted == Wanted::PrecopyInfo);
        self.reset = self.reset.take().filter(|_| wanted == Wanted::Reset);
        self.failure = self.failure.filter(|(state, _)| wanted == Wanted::State(*state));
        self.question = Some(wanted);
        self.settle();
        if self.ended {
            self.question = None;
        }
    }

    /// The answer to the last question, once.
    pub(super) fn take_reply(&mut self) -> Option<Answer> {
        self.reply.take()
    }

    /// The VMM says something. What that loses is for the session.
    pub(super) fn hear(&mut self, answer: Answer) -> Option<Loss> {
        let loss = match answer {
            Answer::State(state, Ok(data_fd)) => {
                (self.failure, self.reset) = (None, None);
                self.said = Some(state);
                self.reached(Step { state, data_fd })
            }
            Answer::State(state, Err(errno)) => {
                self.failure = Some((state, errno));
                None
            }
            Answer::PrecopyInfo(result) => {
                // The engine may have withdrawn its question over a reset, and what the VMM then has
                // to say to it says nothing of the saving session after that.
                let asked = self.question == Some(Wanted::PrecopyInfo);
                self.precopy_info = (asked || self.at == PreCopy).then_some(result);
                None
            }
            Answer::Reset(result) => {
                self.reset = Some(result);
                result.ok().and_then(|()| self.was_reset(self.question != Some(Wanted::Reset)))
            }
        };
        let loss = loss.and_then(|loss| self.lose(loss));
        self.settle();
        loss
    }

    /// The VMM knows of a reset, whose end it may have told of or not.
    pub(super) fn told_of_reset(&mut self) -> Option<Loss> {
        if !self.is_at_risk() {
            return None;
        }
        if self.ahead.front().is_none_or(|step| step.data_fd.is_none()) {
            self.said = Some(Running);
        }
        self.lose(Loss::Reset)
    }

    /// Whether the engine knows that the device was reset, and has not begun anew.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The device is in RUNNING, and its data fds are dead.
    fn was_reset(&mut self, by_surprise: bool) -> Option<Loss> {
        (self.said, self.failure) = (Some(Running), None);
        self.ahead.clear();
        (by_surprise && self.is_at_risk()).then_some(Loss::Reset)
    }

    /// Whether there is something to be lost.
    fn is_at_risk(&self) -> bool {
        match self.host {
            Host::Source => self.at.is_saving(),
            Host::Target => matches!(self.at, Resuming | Stop) && !self.may_run && !self.lost,
        }
    }

    fn reached(&mut self, step: Step) -> Option<Loss> {
        let at_risk = self.is_at_risk();
        if self.ended {
            return None;
        }
        match (self.host, plain(step.state)) {
            (_, Error) => {
                self.ahead.clear();
                at_risk.then_some(Loss::Error)
            }
            (Host::Target, Running) if self.may_run => {
                self.keep_only(step);
                None
            }
            (_, Running) => {
                self.ahead.clear();
                self.precopy_info = None;
                at_risk.then_some(Loss::Reset)
            }
            (Host::Source, PreCopy) => self.began_to_save(Step { state: PreCopy, ..step }),
            (Host::Source, StopCopy) => self.stopped(step),
            (Host::Target, Resuming) => {
                // It was reset, or it would have gone there without a new fd.
                let again = at_risk && self.question != Some(Wanted::State(Resuming));
                let lost = again && step.data_fd.is_some();
                self.keep_only(step);
                lost.then_some(Loss::Reset)
            }
            (Host::Target, Stop) => {
                self.keep_only(step);
                None
            }
            // The saving states, or RESUMING, were left.
            _ => {
                self.ahead.clear();
                None
            }
        }
    }

    fn keep_only(&mut self, step: Step) {
        self.ahead.clear();
        self.ahead.push_back(step);
    }

    fn began_to_save(&mut self, step: Step) -> Option<Loss> {
        if step.data_fd.is_some() {
            // A new saving session: what there was before it, the device has lost in a reset.
            self.keep_only(step);
            return self.is_at_risk().then_some(Loss::Reset);
        }
        if !self.is_at_risk() && self.ahead.is_empty() {
            self.ahead.push_back(step);
        }
        None
    }

    fn stopped(&mut self, step: Step) -> Option<Loss> {
        if step.data_fd.is_some() {
            // The same; but out of PRE_COPY the engine sees it when it asks for STOP_COPY, and can
            // then read this fd.
            self.keep_only(step);
            return (self.at == StopCopy).then_some(Loss::Reset);
        }
        if self.at != StopCopy && self.ahead.back().is_none_or(|last| last.state != StopCopy) {
            self.ahead.push_back(step);
        }
        None
    }

    /// Notes a loss, which is the session's to be told unless it knows.
    fn lose(&mut self, loss: Loss) -> Option<Loss> {
        self.note_loss();
        // What was asked of the device as it was gets the kernel's answer, so that nobody waits for
        // a VMM that has nothing more to say to it. A target is given up.
        if self.host == Host::Source {
            self.reply = match self.question.take() {
                Some(Wanted::State(state)) => Some(Answer::State(state, Err(ENODEV))),
                Some(Wanted::PrecopyInfo) => Some(Answer::PrecopyInfo(Err(EINVAL))),
                question => {
                    self.question = question;
                    self.reply.take()
                }
            };
        }
        (!self.ended).then_some(loss)
    }

    fn note_loss(&mut self) {
        self.lost = true;
        if self.host == Host::Source {
            (self.at, self.has_fd) = (Running, false);
            // A step without a data fd of its own goes on from what is lost.
            if self.ahead.front().is_some_and(|step| step.data_fd.is_none()) {
                self.ahead.clear();
            }
        }
    }

    /// Answers the open question from what the VMM has said, if it has.
    fn settle(&mut self) {
        let Some(question) = self.question else { return };
        let answer = match question {
            Wanted::State(state) => self.step_to(state),
            Wanted::PrecopyInfo => self.precopy_info.take().map(Answer::PrecopyInfo),
            Wanted::Reset => self.reset.take().map(Answer::Reset),
        };
        if answer.is_some() {
            (self.question, self.reply) = (None, answer);
        }
    }

    fn step_to(&mut self, state: DeviceState) -> Option<Answer> {
        if let Some(data_fd) = self.take_step(state) {
            (self.at, self.has_fd) = (state, data_fd.is_some() || (self.has_fd && !self.lost));
            (self.lost, self.refused) = (false, None);
            return Some(Answer::State(state, Ok(data_fd)));
        }
        let (_, errno) = self.failure.take_if(|(failed, _)| *failed == state)?;
        self.was_refused(false);
        Some(Answer::State(state, Err(errno)))
    }

    /// The data fd, or none, of a state that is ahead.
    fn take_step(&mut self, state: DeviceState) -> Option<Option<OwnedFd>> {
        let first = self.ahead.front_mut()?;
        if state == PreCopy && first.state == StopCopy {
            // The VM has stopped: PRE_COPY is behind the device, and must not be asked of it again.
            // Its fd holds the whole state, and is read in either.
            return Some(first.data_fd.take());
        }
        if first.state == state {
            return self.ahead.pop_front().map(|step| step.data_fd);
        }
        // STOP_COPY out of a PRE_COPY that was never asked for has the data fd that PRE_COPY gave.
        if state == StopCopy && self.ahead.len() > 1 {
            let data_fd = self.ahead.pop_front()?.data_fd;
            return self.ahead.pop_front().map(|step| step.data_fd.or(data_fd));
        }
        None
    }

    /// The device's state as the engine is to see it: `kernel` is GET_STATE's answer, none where
    /// the VMM keeps the device fd to itself. None: nobody knows.
    pub(super) fn state(&mut self, kernel: Option<DeviceState>) -> Option<DeviceState> {
        let found = match kernel {
            Some(found) => found,
            None if self.is_contradicted() => Running,
            None => self.said?,
        };
        if self.ended {
            return Some(found);
        }
        let is_where_the_vmm_said = self.said.is_some_and(|said| plain(said) == plain(found));
        if self.host == Host::Source && is_where_the_vmm_said && !self.ahead.is_empty() {
            let anew = self.ahead.front().is_some_and(|step| step.data_fd.is_some());
            if !(anew && self.is_at_risk()) {
                return Some(self.at);
            }
            // A reset lies between where the engine is and the saving session that is ahead.
            self.note_loss();
            return Some(Running);
        }
        if (found, self.at) == (PreCopyP2p, PreCopy) && self.said != Some(PreCopyP2p) {
            // Its VMM is stopping it, and has not said with or without a new data fd.
            return Some(found);
        }
        if plain(found) == self.at {
            return Some(self.at);
        }
        if self.is_at_risk() && matches!(plain(found), Running | Error) {
            self.note_loss();
            if kernel.is_none() {
                self.said = Some(found);
            }
        }
        Some(found)
    }

    /// Without a device fd: whether the kernel has refused what it would not have refused to a
    /// device that is where the VMM said. A state is asked for in PRE_COPY, and nothing was refused:
    /// the data fd hung up.
    fn is_contradicted(&self) -> bool {
        let refused = self.refused;
        !self.ended
            && match self.at {
                PreCopy => refused.unwrap_or(self.has_fd),
                StopCopy | Resuming => refused == Some(true),
                _ => false,
            }
    }

    /// The kernel has refused a call or an operation: whether as it refuses a device that is
    /// elsewhere.
    pub(super) fn was_refused(&mut self, as_elsewhere: bool) {
        self.refused = Some(as_elsewhere || self.refused == Some(true));
    }

    /// Whether the VMM has stopped a device that is in PRE_COPY for the engine: none before it has
    /// said.
    pub(super) fn has_gone_on(&self) -> Option<bool> {
        if self.at != PreCopy || self.ended {
            return Some(false);
        }
        self.ahead.front().map(|step| step.state == StopCopy && step.data_fd.is_none())
    }

    /// Whether the VMM's last word is that the device is in STOP_COPY, with nothing that the engine
    /// could read of it: from there it must not be asked for PRE_COPY, which kernels before 6.12.96 do
    /// not come back from (drivers/vfio/vfio_main.c, vfio_mig_get_next_state).
    pub(super) fn is_stopped_for_good(&self) -> bool {
        self.host == Host::Source && self.said == Some(StopCopy) && self.ahead.is_empty()
    }

    /// The engine lets go of what the device has saved, and of where it is (source).
    pub(super) fn let_go(&mut self) {
        self.note_loss();
    }

    /// The device was handed over (target).
    pub(super) fn may_run(&mut self) {
        self.may_run = true;
    }

    /// The engine has the device reset: what the VMM said before is past (target).
    pub(super) fn resets(&mut self) {
        self.at = Running;
        self.ahead.clear();
    }

    /// VFIO_DEVICE_RESET has returned.
    pub(super) fn has_reset(&mut self) {
        self.said = Some(Running);
    }

    /// The session is over: the open question is withdrawn, and every data fd that waits here, or
    /// still comes, is closed.
    pub(super) fn end(&mut self) {
        self.ended = true;
        (self.question, self.reply, self.failure, self.precopy_info) = (None, None, None, None);
        self.ahead.clear();
    }
}

#[cfg(test)]
mod tests;
