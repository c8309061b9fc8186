//! One question of the engine and one answer of the VMM at a time, each of which may come first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

use super::Wanted;
use crate::vfio::device::PrecopyInfo;
use crate::vfio::state::DeviceState;

/// What the VMM said.
#[derive(Debug)]
pub(super) enum Answer {
    /// SET_STATE.
    State(DeviceState, Result<Option<OwnedFd>, i32>),
    /// VFIO_MIG_GET_PRECOPY_INFO.
    PrecopyInfo(Result<PrecopyInfo, i32>),
    /// VFIO_DEVICE_RESET.
    Reset(Result<(), i32>),
}

impl Answer {
    /// What it answers.
    fn question(&self) -> Wanted {
        match self {
            Answer::State(state, _) => Wanted::State(*state),
            Answer::PrecopyInfo(_) => Wanted::PrecopyInfo,
            Answer::Reset(_) => Wanted::Reset,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Books {
    eventfd: OwnedFd,
    pages: Mutex<Pages>,
    changed: Condvar,
}

#[derive(Debug)]
struct Pages {
    /// The state that the VMM last said the device is in.
    state: DeviceState,
    wanted: Option<Wanted>,
    /// What the VMM has said and nobody has taken.
    answer: Option<Answer>,
    /// The data fd of a PRE_COPY that the engine never asked for, because the switchover came
    /// first. The kernel keeps it for STOP_COPY, where it then gives none.
    unasked_fd: Option<OwnedFd>,
    stop_copy_bytes: Option<u64>,
    over: bool,
}

impl Pages {
    /// An answer that nobody wants any more: its fd is closed, or kept for STOP_COPY.
    fn pass_over(&mut self, answer: Answer) {
        if let Answer::State(DeviceState::PreCopy, Ok(fd)) = answer {
            self.unasked_fd = fd;
        }
    }

    /// STOP_COPY out of a PRE_COPY that was never asked for has the fd that PRE_COPY gave.
    fn with_unasked_fd(&mut self, answer: Answer) -> Answer {
        match answer {
            Answer::State(state @ DeviceState::StopCopy, Ok(fd)) => {
                let kept = self.unasked_fd.take();
                Answer::State(state, Ok(fd.or(kept)))
            }
            Answer::State(DeviceState::PreCopy, _) => {
                self.unasked_fd = None;
                answer
            }
            other => other,
        }
    }
}

impl Books {
    pub(super) fn new() -> io::Result<Books> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Books {
            eventfd: rustix::event::eventfd(0, flags)?,
            pages: Mutex::new(Pages {
                state: DeviceState::Running,
                wanted: None,
                answer: None,
                unasked_fd: None,
                stop_copy_bytes: None,
                over: false,
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

    /// Nobody waits for an answer any more: one that waits, or comes, goes with its fd.
    pub(super) fn end(&self) {
        let mut pages = self.lock();
        pages.over = true;
        pages.answer = None;
        pages.unasked_fd = None;
        self.changed.notify_all();
    }

    pub(super) fn answer(&self, answer: Answer) {
        let mut pages = self.lock();
        match &answer {
            Answer::State(state, Ok(_)) => pages.state = *state,
            Answer::Reset(Ok(())) => pages.state = DeviceState::Running,
            _ => {}
        }
        // At once, and not when the engine wakes up: a VMM that looks again is not to do it twice.
        if pages.wanted == Some(answer.question()) {
            self.unask(&mut pages);
        }
        if let Some(before) = pages.answer.take() {
            pages.pass_over(before);
        }
        pages.answer = (!pages.over).then_some(answer);
        self.changed.notify_all();
    }

    /// Asks, and waits for the answer that `fits`: Ok with what it says. An answer to another
    /// question is from before, and its fd is closed.
    pub(super) fn ask<T>(
        &self,
        wanted: Wanted,
        fits: impl Fn(Answer) -> Result<Result<T, i32>, Answer>,
    ) -> io::Result<T> {
        let mut pages = self.lock();
        pages.wanted = Some(wanted);
        // EAGAIN: the counter is full, so it is readable.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        let result = loop {
            if pages.over {
                break Err(libc::ECANCELED);
            }
            if let Some(answer) = pages.answer.take() {
                let answer = pages.with_unasked_fd(answer);
                match fits(answer) {
                    Ok(result) => break result,
                    Err(other) => pages.pass_over(other),
                }
            }
            pages = self.changed.wait(pages).unwrap_or_else(PoisonError::into_inner);
        };
        self.unask(&mut pages);
        result.map_err(io::Error::from_raw_os_error)
    }

    fn unask(&self, pages: &mut Pages) {
        pages.wanted = None;
        // EAGAIN: it was read before.
        let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
