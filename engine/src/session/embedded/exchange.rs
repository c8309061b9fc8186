//! What the engine asks an embedded device's VMM for, and what the VMM answers. Only one request
//! is open at a time. An answer may come before its request; it then waits for it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

use super::{Answer, Wanted};
use crate::errno;
use crate::vfio::device::PrecopyInfo;
use crate::vfio::state::DeviceState;

impl Answer {
    /// The request that it answers.
    fn request(&self) -> Wanted {
        match self {
            Answer::State(state, _) => Wanted::State(*state),
            Answer::PrecopyInfo(_) => Wanted::PrecopyInfo,
            Answer::Reset(_) => Wanted::Reset,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Exchange {
    eventfd: OwnedFd,
    shared: Mutex<Shared>,
    changed: Condvar,
}

#[derive(Debug)]
struct Shared {
    /// The state that the VMM last said the device is in.
    state: DeviceState,
    /// The open request.
    wanted: Option<Wanted>,
    /// The answer to the request that was open last, until the engine's thread takes it. Later
    /// answers do not touch it.
    reply: Option<Answer>,
    early: Early,
    stop_copy_bytes: Option<u64>,
    ended: bool,
}

/// The latest answer of each kind that came before its request.
#[derive(Debug, Default)]
struct Early {
    /// A state, and what SET_STATE gave.
    state: Option<(DeviceState, Result<Option<OwnedFd>, i32>)>,
    /// The data fd of a PRE_COPY that the engine never asked for, because the switchover came
    /// first. The kernel keeps it for STOP_COPY, where it then gives none.
    precopy_fd: Option<OwnedFd>,
    precopy_info: Option<Result<PrecopyInfo, i32>>,
    reset: Option<Result<(), i32>>,
}

impl Early {
    fn keep(&mut self, answer: Answer) {
        match answer {
            Answer::State(state, result) => {
                self.forget_state();
                if result.is_ok() && !state.is_saving() {
                    self.precopy_fd = None;
                }
                self.state = Some((state, result));
            }
            Answer::PrecopyInfo(result) => self.precopy_info = Some(result),
            Answer::Reset(result) => self.reset = Some(result),
        }
    }

    /// Takes the answer to a request. Sizes, resets and failures from before another request are
    /// too old for any later one; a state that was reached stays until another one is.
    fn take(&mut self, wanted: Wanted) -> Option<Answer> {
        let (info, reset) = (self.precopy_info.take(), self.reset.take());
        match (wanted, self.state.take()) {
            (Wanted::State(state), Some((found, result))) if found == state => {
                Some(Answer::State(found, result))
            }
            (_, kept) => {
                self.state = kept.filter(|(_, result)| result.is_ok());
                match wanted {
                    Wanted::State(_) => None,
                    Wanted::PrecopyInfo => info.map(Answer::PrecopyInfo),
                    Wanted::Reset => reset.map(Answer::Reset),
                }
            }
        }
    }

    /// Closes the state's data fd, or keeps it for STOP_COPY.
    fn forget_state(&mut self) {
        if let Some((DeviceState::PreCopy, Ok(fd))) = self.state.take() {
            self.precopy_fd = fd;
        }
    }

    /// Makes an answer whole that a request gets: STOP_COPY out of a PRE_COPY that was never asked
    /// for has the data fd that PRE_COPY gave. States from before it are past.
    fn complete(&mut self, answer: Answer) -> Answer {
        let Answer::State(state, Ok(fd)) = answer else { return answer };
        self.forget_state();
        let kept = self.precopy_fd.take();
        let fd = if state == DeviceState::StopCopy { fd.or(kept) } else { fd };
        Answer::State(state, Ok(fd))
    }
}

impl Exchange {
    pub(super) fn new() -> io::Result<Exchange> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Exchange {
            eventfd: rustix::event::eventfd(0, flags)?,
            shared: Mutex::new(Shared {
                state: DeviceState::Running,
                wanted: None,
                reply: None,
                early: Early::default(),
                stop_copy_bytes: None,
                ended: false,
            }),
            changed: Condvar::new(),
        })
    }

    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.lock().wanted
    }

    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    pub(super) fn state(&self) -> DeviceState {
        self.lock().state
    }

    pub(super) fn set_state(&self, state: DeviceState) {
        self.lock().state = state;
    }

    pub(super) fn stop_copy_length(&self) -> Option<u64> {
        self.lock().stop_copy_bytes
    }

    pub(super) fn set_stop_copy_length(&self, bytes: u64) {
        self.lock().stop_copy_bytes = Some(bytes);
    }

    /// The session is over: the open request is withdrawn, and every data fd that waits here, or
    /// still comes, is closed.
    pub(super) fn end(&self) {
        let mut shared = self.lock();
        shared.ended = true;
        shared.reply = None;
        shared.early = Early::default();
        self.close_request(&mut shared);
        self.changed.notify_all();
    }

    pub(super) fn answer(&self, answer: Answer) {
        let mut shared = self.lock();
        match &answer {
            Answer::State(state, Ok(_)) => shared.state = *state,
            Answer::Reset(Ok(())) => {
                // The data fds from before it are dead.
                (shared.early.state, shared.early.precopy_fd) = (None, None);
                shared.state = DeviceState::Running;
            }
            _ => {}
        }
        if shared.ended {
            return;
        }
        if shared.wanted != Some(answer.request()) {
            shared.early.keep(answer);
            return;
        }
        // Closed at once and not when the engine's thread wakes up, so that a VMM that polls again
        // cannot repeat the ioctl.
        self.close_request(&mut shared);
        shared.reply = Some(shared.early.complete(answer));
        self.changed.notify_all();
    }

    /// Makes a request and waits for its answer, whose content `open` takes out.
    pub(super) fn ask<T>(
        &self,
        wanted: Wanted,
        open: impl Fn(Answer) -> Option<Result<T, i32>>,
    ) -> io::Result<T> {
        let answer = self.wait_for(wanted).ok_or(errno::ECANCELED);
        answer
            .and_then(|answer| open(answer).unwrap_or(Err(errno::EPROTO)))
            .map_err(io::Error::from_raw_os_error)
    }

    /// None when the session is over.
    fn wait_for(&self, wanted: Wanted) -> Option<Answer> {
        let mut shared = self.lock();
        if let Some(answer) = shared.early.take(wanted) {
            return Some(shared.early.complete(answer));
        }
        if !shared.ended {
            shared.wanted = Some(wanted);
            // EAGAIN: the counter is full, so it is readable.
            let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        }
        loop {
            if let Some(answer) = shared.reply.take() {
                return Some(answer);
            }
            if shared.ended {
                return None;
            }
            shared = self.changed.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close_request(&self, shared: &mut Shared) {
        shared.wanted = None;
        // EAGAIN: it was read before.
        let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
