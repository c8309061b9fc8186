//! The thread that asks one device: an ioctl can block for as long as the driver does, and a read
//! of the data fd may be blocked at the same time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Sender, unbounded};

use crate::drive::inbox::{Inbox, Input};
use crate::drive::waits::SET_STATE_MAX;
use crate::errno::{EBADF, EINTR, EIO};
use crate::ids::DeviceId;
use crate::machine::{Reply, Request};
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::DeviceState;

#[derive(Debug)]
struct Asked {
    request: Request,
    data_fd: Option<Arc<OwnedFd>>,
}

/// The other end of a device's control thread; the thread ends when this is dropped and the
/// request in flight has returned.
#[derive(Debug)]
pub(in crate::drive) struct Control {
    requests: Sender<Asked>,
    thread: JoinHandle<()>,
}

impl Control {
    pub(in crate::drive) fn spawn(
        id: DeviceId,
        device: Arc<dyn MigrationDevice>,
        inbox: Inbox,
    ) -> io::Result<Control> {
        let (requests, queue) = unbounded::<Asked>();
        let thread = std::thread::Builder::new().name(format!("ferry-ctl-{}", id.0));
        let thread = thread.spawn(move || {
            let span = tracing::info_span!("control", device = id.0);
            let _entered = span.enter();
            // Every session begins with devices that run.
            let mut known = DeviceState::Running;
            for asked in queue {
                let start = Instant::now();
                let (result, fd) = ask(&*device, &asked, &mut known);
                let ns = start.elapsed().as_nanos() as u64;
                tracing::debug!(request = ?asked.request, ?result, ns, "asked");
                inbox.send(Input::Control { device: id, request: asked.request, result, fd, ns });
            }
        })?;
        Ok(Control { requests, thread })
    }

    /// Ends the thread and waits for it, so that nothing holds the device afterwards. Only for one
    /// that has answered everything.
    pub(in crate::drive) fn finish(self) {
        drop(self.requests);
        if self.thread.join().is_err() {
            tracing::warn!("a control thread panicked");
        }
    }

    /// Asks; the answer comes as [`Input::Control`].
    pub(in crate::drive) fn ask(&self, request: Request, data_fd: Option<Arc<OwnedFd>>) {
        // The thread lives as long as this handle: it cannot have gone.
        let _ = self.requests.send(Asked { request, data_fd });
    }
}

/// `known` is the state that the device was last set to or found in.
fn ask(
    device: &dyn MigrationDevice,
    asked: &Asked,
    known: &mut DeviceState,
) -> (Result<Reply, i32>, Option<OwnedFd>) {
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(EIO);
    match asked.request {
        Request::SetState(state) => match set_state(device, *known, state) {
            Ok(fd) => {
                *known = state;
                (Ok(Reply::Set { fd: fd.is_some() }), fd)
            }
            Err(error) => (Err(errno(error)), None),
        },
        Request::GetState => {
            let found = device.settled_state();
            if let Ok(state) = found {
                *known = state;
            }
            (found.map(Reply::State).map_err(errno), None)
        }
        Request::PrecopyInfo => match &asked.data_fd {
            Some(fd) => (device.precopy_info(fd.as_fd()).map(Reply::Info).map_err(errno), None),
            // There is no data fd to ask.
            None => (Err(EBADF), None),
        },
        Request::StopCopyLength => {
            (device.stop_copy_length().map(Reply::Length).map_err(errno), None)
        }
        Request::Reset => (device.reset().map(|()| Reply::Reset).map_err(errno), None),
    }
}

/// A signal of the embedder's may interrupt a driver that waits for its firmware. If the device has
/// not moved since, it is asked again; wherever else it is, the machine must look.
fn set_state(
    device: &dyn MigrationDevice,
    known: DeviceState,
    to: DeviceState,
) -> io::Result<Option<OwnedFd>> {
    let mut tries = 1;
    loop {
        match device.set_state(to) {
            Err(error)
                if error.raw_os_error() == Some(EINTR)
                    && tries < SET_STATE_MAX
                    && device.settled_state().is_ok_and(|state| state == known) =>
            {
                tries += 1;
            }
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::device::PrecopyInfo;
    use crate::vfio::state::Capabilities;
    use std::os::fd::BorrowedFd;
    use std::sync::Mutex;

    /// Answers EINTR so many times, each of which leaves it in a state; then it arrives.
    struct Interrupted {
        left: Mutex<u32>,
        found: DeviceState,
    }

    impl MigrationDevice for Interrupted {
        fn capabilities(&self) -> io::Result<Capabilities> {
            Ok(Capabilities { p2p: true, precopy: true })
        }
        fn state(&self) -> io::Result<DeviceState> {
            Ok(self.found)
        }
        fn set_state(&self, _: DeviceState) -> io::Result<Option<OwnedFd>> {
            let mut left = self.left.lock().expect("not poisoned");
            if *left == 0 {
                return Ok(None);
            }
            *left -= 1;
            Err(io::Error::from_raw_os_error(EINTR))
        }
        fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
            unreachable!("not asked")
        }
        fn stop_copy_length(&self) -> io::Result<u64> {
            unreachable!("not asked")
        }
        fn reset(&self) -> io::Result<()> {
            unreachable!("not asked")
        }
    }

    fn set(left: u32, found: DeviceState) -> Result<Reply, i32> {
        let device = Interrupted { left: Mutex::new(left), found };
        let asked = Asked { request: Request::SetState(DeviceState::StopCopy), data_fd: None };
        let mut known = DeviceState::PreCopy;
        ask(&device, &asked, &mut known).0
    }

    #[test]
    fn an_interrupted_device_that_has_not_moved_is_asked_again() {
        assert_eq!(set(2, DeviceState::PreCopy), Ok(Reply::Set { fd: false }));
        assert_eq!(set(SET_STATE_MAX, DeviceState::PreCopy), Err(EINTR));
    }

    #[test]
    fn one_that_was_left_half_way_is_not() {
        assert_eq!(set(1, DeviceState::Stop), Err(EINTR));
        assert_eq!(set(1, DeviceState::Running), Err(EINTR));
    }
}
