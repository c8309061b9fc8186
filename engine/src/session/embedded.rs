//! Embedded mode: the VMM makes the SET_STATE calls itself, and hands the data fds in.
//!
//! An [`EmbeddedDevice`] takes a real device's place in a session. What the engine wants done with
//! the device is fetched, never called: the VMM polls [`EmbeddedDevice::wanted`] (or its eventfd),
//! does it, and answers with [`moved`](EmbeddedDevice::moved) or
//! [`failed`](EmbeddedDevice::failed). It may also act first: an answer that comes before the
//! question is kept for it.
//!
//! | host | the engine wants | the VMM answers |
//! |---|---|---|
//! | source | PRE_COPY, where the device saves in it | `moved(PreCopy, fd)` |
//! | source | STOP_COPY, after the switchover | `moved(StopCopy, fd)`, the fd none if the kernel gave none |
//! | target | RESUMING | `moved(Resuming, fd)` |
//! | target | STOP: the driver takes the state in | `moved(Stop, None)` |
//! | target | RUNNING, after the handover | `moved(Running, None)` |
//!
//! At the end of a session the device is the VMM's again: after an abort it is the VMM that brings
//! a source device to RUNNING and resets a target device, as its own error paths do.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;

use crate::outcome::Host;
use crate::vfio::device::{MigrationDevice, PrecopyInfo};
use crate::vfio::ioctl;
use crate::vfio::state::{Capabilities, DeviceState};

/// A device whose state machine the VMM drives. All methods may be called from any thread and
/// return at once.
#[derive(Debug)]
pub struct EmbeddedDevice {
    host: Host,
    capabilities: Capabilities,
    device: Option<OwnedFd>,
    eventfd: OwnedFd,
    books: Mutex<Books>,
    changed: Condvar,
}

#[derive(Debug)]
struct Books {
    /// The state that the VMM last said the device is in.
    state: DeviceState,
    /// What the engine waits for.
    wanted: Option<DeviceState>,
    /// What the VMM has said and nobody has taken.
    answer: Option<Answer>,
    stop_copy_bytes: Option<u64>,
    over: bool,
}

#[derive(Debug)]
struct Answer {
    state: DeviceState,
    result: Result<Option<OwnedFd>, i32>,
}

impl EmbeddedDevice {
    /// A device of this host that can save in PRE_COPY or not. P2P stays the VMM's business.
    ///
    /// With `device`, a duplicate of the VFIO device fd, the engine reads the state itself and so
    /// tells a reset from a failure, and resets a target device whose epoch was discarded. Without
    /// it the state is what the VMM said last, and a discard ends the session.
    ///
    /// # Errors
    /// What the system says where it gives no eventfd.
    pub fn new(
        host: Host,
        precopy: bool,
        device: Option<OwnedFd>,
    ) -> io::Result<Arc<EmbeddedDevice>> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Arc::new(EmbeddedDevice {
            host,
            capabilities: Capabilities { p2p: false, precopy },
            device,
            eventfd: rustix::event::eventfd(0, flags)?,
            books: Mutex::new(Books {
                state: DeviceState::Running,
                wanted: None,
                answer: None,
                stop_copy_bytes: None,
                over: false,
            }),
            changed: Condvar::new(),
        }))
    }

    /// The state that the engine waits for, if it waits for one.
    pub fn wanted(&self) -> Option<DeviceState> {
        self.lock().wanted
    }

    /// Readable while the engine waits for a state. Do not read, write or close it.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    /// SET_STATE(`state`) succeeded and gave `data_fd`. The engine owns that fd from here on and
    /// closes it at the end of the epoch or the session.
    pub fn moved(&self, state: DeviceState, data_fd: Option<OwnedFd>) {
        self.answer(state, Ok(data_fd));
    }

    /// SET_STATE(`state`) failed with this positive errno.
    pub fn failed(&self, state: DeviceState, errno: i32) {
        self.answer(state, Err(errno));
    }

    /// MIG_DATA_SIZE, in bytes, where the VMM asked and the engine has no device fd to ask with.
    pub fn set_stop_copy_length(&self, bytes: u64) {
        self.lock().stop_copy_bytes = Some(bytes);
    }

    fn answer(&self, state: DeviceState, result: Result<Option<OwnedFd>, i32>) {
        let mut books = self.lock();
        if result.is_ok() {
            books.state = state;
        }
        books.answer = Some(Answer { state, result });
        self.changed.notify_all();
    }

    /// Waits until the VMM has answered for `state`. An answer for another state is from before,
    /// and its fd is closed.
    fn wait_for(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        let mut books = self.lock();
        books.wanted = Some(state);
        // EAGAIN: the counter is full, so it is readable.
        let _ = rustix::io::write(&self.eventfd, &1u64.to_ne_bytes());
        let result = loop {
            if books.over {
                break Err(libc::ECANCELED);
            }
            if let Some(answer) = books.answer.take_if(|answer| answer.state == state) {
                break answer.result;
            }
            books = self.changed.wait(books).unwrap_or_else(PoisonError::into_inner);
        };
        books.wanted = None;
        let _ = rustix::io::read(&self.eventfd, &mut [0u8; 8]);
        result.map_err(io::Error::from_raw_os_error)
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MigrationDevice for EmbeddedDevice {
    fn capabilities(&self) -> io::Result<Capabilities> {
        Ok(self.capabilities)
    }

    fn state(&self) -> io::Result<DeviceState> {
        match &self.device {
            Some(device) => ioctl::get_state(device.as_fd()),
            None => Ok(self.lock().state),
        }
    }

    /// On the source RUNNING and STOP are not waited for: a device that was reset is in RUNNING, one
    /// whose session is over is the VMM's.
    fn set_state(&self, state: DeviceState) -> io::Result<Option<OwnedFd>> {
        let hands_back = matches!(state, DeviceState::Running | DeviceState::Stop);
        if self.host == Host::Source && hands_back {
            self.lock().state = state;
            return Ok(None);
        }
        self.wait_for(state)
    }

    fn precopy_info(&self, data_fd: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        ioctl::precopy_info(data_fd, false)
    }

    fn stop_copy_length(&self) -> io::Result<u64> {
        let told = self.lock().stop_copy_bytes;
        match (&self.device, told) {
            (Some(device), _) => ioctl::stop_copy_length(device.as_fd()),
            (None, Some(bytes)) => Ok(bytes),
            (None, None) => Err(io::Error::from_raw_os_error(libc::ENOTTY)),
        }
    }

    fn reset(&self) -> io::Result<()> {
        match &self.device {
            Some(device) => ioctl::reset(device.as_fd()),
            None => Err(io::Error::from_raw_os_error(libc::ENOTTY)),
        }
    }

    fn interrupt(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_come_first() {
        let device = EmbeddedDevice::new(Host::Source, true, None).expect("eventfd");
        device.moved(DeviceState::PreCopy, None);
        assert!(device.set_state(DeviceState::PreCopy).expect("answered").is_none());
        assert_eq!(device.state().expect("told"), DeviceState::PreCopy);
        assert_eq!(device.wanted(), None);
    }

    #[test]
    fn a_question_waits_for_its_own_answer() {
        let device = EmbeddedDevice::new(Host::Target, false, None).expect("eventfd");
        device.moved(DeviceState::Stop, None);
        let asked = Arc::clone(&device);
        let waiting = std::thread::spawn(move || asked.set_state(DeviceState::Resuming));
        while device.wanted() != Some(DeviceState::Resuming) {
            std::thread::yield_now();
        }
        device.failed(DeviceState::Resuming, libc::EBUSY);
        let error = waiting.join().expect("no panic").expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    }

    #[test]
    fn a_session_that_is_over_waits_for_nobody() {
        let device = EmbeddedDevice::new(Host::Source, true, None).expect("eventfd");
        device.interrupt();
        let error = device.set_state(DeviceState::PreCopy).expect_err("over");
        assert_eq!(error.raw_os_error(), Some(libc::ECANCELED));
        assert!(device.set_state(DeviceState::Running).is_ok(), "the VMM's own again");
    }
}
