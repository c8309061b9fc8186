//! The thread that asks one device: an ioctl can block for as long as the driver does, and a read
//! of the data fd may be blocked at the same time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::spare::Spare;
use crate::drive::guarded::{guarded, panicked};
use crate::drive::inbox::{Inbox, Input};
use crate::drive::waits::{SET_STATE_MAX, SET_STATE_PAUSE};
use crate::errno::{EAGAIN, EBADF, EINTR, EIO};
use crate::ids::DeviceId;
use crate::machine::{Reply, Request};
use crate::outcome::Fault;
use crate::ring::Backend;
use crate::threads::{Ready, ThreadKind, Threads};
use crate::vfio::device::MigrationDevice;
use crate::vfio::state::{DeviceState, opens_data_fd, path};

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
    released: Receiver<()>,
}

impl Control {
    /// Starts the thread of a device that is in the state `known`; the session's ring is of this
    /// backend.
    pub(in crate::drive) fn spawn(
        id: DeviceId,
        device: Arc<dyn MigrationDevice>,
        known: DeviceState,
        inbox: Inbox,
        (threads, backend): (&Threads, Backend),
    ) -> io::Result<(Control, Ready)> {
        let spare = Spare::new()?;
        let (requests, queue) = unbounded::<Asked>();
        let (release, released) = bounded(0);
        let ready = threads.spawn_ready(ThreadKind::Control, id.0, backend, move || {
            let span = tracing::info_span!("control", device = id.0);
            let _entered = span.enter();
            Line { device: &*device, id, known, spare }.serve_all(queue, &inbox);
            // The last reference may run the embedder's code.
            if let Err(said) = guarded(move || drop(device)) {
                tracing::warn!(said, "a device panicked when it was dropped");
            }
            drop(release);
        })?;
        Ok((Control { requests, released }, ready))
    }

    /// Lets the thread end. What comes back is disconnected once nothing of it holds the device.
    pub(in crate::drive) fn end(self) -> Receiver<()> {
        self.released
    }

    /// Asks; the answer comes as [`Input::Control`].
    pub(in crate::drive) fn ask(&self, request: Request, data_fd: Option<Arc<OwnedFd>>) {
        // The thread lives as long as this handle: it cannot have gone.
        let _ = self.requests.send(Asked { request, data_fd });
    }
}

type Answer = (Result<Reply, i32>, Option<OwnedFd>);

/// What the thread knows of its device.
struct Line<'a> {
    device: &'a dyn MigrationDevice,
    id: DeviceId,
    /// The state that the device was last set to or found in.
    known: DeviceState,
    spare: Spare,
}

impl Line<'_> {
    fn serve_all(mut self, queue: Receiver<Asked>, inbox: &Inbox) {
        for asked in queue {
            self.serve(asked, inbox);
        }
    }

    /// Asks, and tells the drive the answer. A panic has failed, and gives the session up.
    fn serve(&mut self, asked: Asked, inbox: &Inbox) {
        let Asked { request, data_fd } = asked;
        let start = Instant::now();
        let answer = guarded(|| self.ask(request, data_fd.as_deref()));
        let ns = start.elapsed().as_nanos() as u64;
        // The machine may have the data fd closed as soon as it has the answer.
        drop(data_fd);
        let (result, fd) = answer.unwrap_or_else(|said| {
            inbox.send(Input::Local(self.panicked(request, &said)));
            (Err(EIO), None)
        });
        let device = self.id;
        let logged = guarded(|| tracing::debug!(?request, ?result, ns, "asked"));
        inbox.send(Input::Control { device, request, result, fd, ns });
        if let Err(said) = logged {
            inbox.send(Input::Local(panicked("the log", device, &said)));
        }
    }

    fn panicked(&self, request: Request, said: &str) -> Fault {
        let what = match request {
            Request::SetState(_) => "set_state",
            Request::GetState => "state",
            Request::PrecopyInfo => "precopy_info",
            Request::StopCopyLength => "stop_copy_length",
            Request::Reset => "reset",
        };
        panicked(what, self.id, said)
    }

    fn ask(&mut self, request: Request, data_fd: Option<&OwnedFd>) -> Answer {
        let errno = |error: io::Error| error.raw_os_error().unwrap_or(EIO);
        let device = self.device;
        match request {
            Request::SetState(state) => match self.set_state(state) {
                Ok(fd) => {
                    self.known = state;
                    (Ok(Reply::Set { fd: fd.is_some() }), fd)
                }
                Err(error) => (Err(errno(error)), None),
            },
            Request::GetState => {
                let found = device.settled_state();
                if let Ok(state) = found {
                    self.known = state;
                }
                (found.map(Reply::State).map_err(errno), None)
            }
            Request::PrecopyInfo => match data_fd {
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

    fn set_state(&mut self, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        self.spare.make_room(to);
        let answer = self.set_until_settled(to);
        if !matches!(answer, Ok(Some(_))) {
            self.spare.keep_again();
        }
        answer
    }

    /// A driver that waits for its firmware may be interrupted, or busy. If the device has not moved
    /// since, or is on its way, it is asked again; wherever else it is, the machine must look.
    fn set_until_settled(&self, to: DeviceState) -> io::Result<Option<OwnedFd>> {
        let mut from = self.known;
        let mut tries = 1;
        loop {
            let answer = self.device.set_state(to);
            let again = answer.as_ref().err().and_then(io::Error::raw_os_error);
            if !matches!(again, Some(EINTR | EAGAIN)) || tries == SET_STATE_MAX {
                return answer;
            }
            match self.device.settled_state() {
                Ok(found) if found == from || self.is_on_the_way(from, found, to) => from = found,
                _ => return answer,
            }
            tries += 1;
            std::thread::sleep(SET_STATE_PAUSE);
        }
    }

    /// Whether a device that was going from one state to another can go on from where it was found.
    /// Where it has arrived but its data fd was lost, it cannot.
    fn is_on_the_way(&self, from: DeviceState, found: DeviceState, to: DeviceState) -> bool {
        let Ok(capabilities) = self.device.capabilities() else { return false };
        let steps = path(from, to, capabilities).unwrap_or_default();
        let lost_fd = found == to && opens_data_fd(from, to, capabilities);
        steps.contains(&found) && !lost_fd
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::device::PrecopyInfo;
    use crate::vfio::state::Capabilities;
    use std::os::fd::BorrowedFd;
    use std::sync::Mutex;

    /// Answers with this errno so many times, each of which leaves it in a state; then it arrives.
    struct Interrupted {
        errno: i32,
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
            Err(io::Error::from_raw_os_error(self.errno))
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

    const ERRNOS: [i32; 2] = [EINTR, EAGAIN];

    /// SET_STATE(to) on a device in `known`, which answers `left` times with the errno.
    fn set(
        known: DeviceState,
        to: DeviceState,
        (left, errno): (u32, i32),
        found: DeviceState,
    ) -> Result<Reply, i32> {
        let device = Interrupted { errno, left: Mutex::new(left), found };
        let spare = Spare::new().expect("a descriptor");
        let mut line = Line { device: &device, id: DeviceId(0), known, spare };
        line.ask(Request::SetState(to), None).0
    }

    use DeviceState::{PreCopy, PreCopyP2p, Resuming, Running, RunningP2p, Stop, StopCopy};

    const DONE: Result<Reply, i32> = Ok(Reply::Set { fd: false });

    #[test]
    fn an_interrupted_device_that_has_not_moved_is_asked_again() {
        for errno in ERRNOS {
            assert_eq!(set(PreCopy, StopCopy, (2, errno), PreCopy), DONE);
            let never = set(PreCopy, StopCopy, (SET_STATE_MAX, errno), PreCopy);
            assert_eq!(never, Err(errno));
        }
    }

    #[test]
    fn one_that_was_left_on_its_way_goes_on_from_there() {
        for errno in ERRNOS {
            assert_eq!(set(PreCopy, StopCopy, (1, errno), PreCopyP2p), DONE);
            assert_eq!(set(Running, StopCopy, (1, errno), Stop), DONE);
            assert_eq!(set(StopCopy, Running, (1, errno), RunningP2p), DONE);
            assert_eq!(set(StopCopy, Running, (1, errno), Running), DONE, "it had arrived");
            assert_eq!(set(PreCopy, StopCopy, (1, errno), StopCopy), DONE, "its fd is the old one");
        }
    }

    #[test]
    fn one_that_was_left_elsewhere_is_looked_at() {
        for errno in ERRNOS {
            for found in [Stop, Running, RunningP2p, Resuming] {
                assert_eq!(set(PreCopy, StopCopy, (1, errno), found), Err(errno), "{found}");
            }
            let lost = [(Running, PreCopy), (Running, StopCopy), (Running, Resuming)];
            for (from, to) in lost {
                assert_eq!(set(from, to, (1, errno), to), Err(errno), "{to}: its fd is lost");
            }
        }
    }

    /// Gives a data fd, or none.
    struct Gives(bool);

    impl MigrationDevice for Gives {
        fn capabilities(&self) -> io::Result<Capabilities> {
            unreachable!("not asked")
        }
        fn state(&self) -> io::Result<DeviceState> {
            unreachable!("not asked")
        }
        fn set_state(&self, _: DeviceState) -> io::Result<Option<OwnedFd>> {
            self.0.then(|| Ok(std::fs::File::open("/dev/null")?.into())).transpose()
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

    #[test]
    fn a_descriptor_is_kept_free_again_where_none_was_given() {
        for gives in [false, true] {
            let spare = Spare::new().expect("a descriptor");
            let device = &Gives(gives);
            let mut line = Line { device, id: DeviceId(0), known: Running, spare };
            assert_eq!(line.set_state(StopCopy).expect("a state").is_some(), gives);
            assert_eq!(line.spare.is_kept(), !gives);
        }
    }

    /// One that answers nothing but a panic.
    struct Panics;

    impl MigrationDevice for Panics {
        fn capabilities(&self) -> io::Result<Capabilities> {
            panic!("capabilities")
        }
        fn state(&self) -> io::Result<DeviceState> {
            panic!("state")
        }
        fn set_state(&self, _: DeviceState) -> io::Result<Option<OwnedFd>> {
            panic!("set_state")
        }
        fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
            panic!("precopy_info")
        }
        fn stop_copy_length(&self) -> io::Result<u64> {
            panic!("stop_copy_length")
        }
        fn reset(&self) -> io::Result<()> {
            panic!("reset")
        }
    }

    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("drop");
        }
    }

    #[test]
    fn a_device_that_panics_has_failed_and_its_thread_lives_on() {
        let (inbox, inputs) = crate::drive::devices::tests::inbox();
        let on = (&Threads::default(), Backend::Syscalls);
        let control = Control::spawn(DeviceId(3), Arc::new(Panics), Running, inbox, on);
        let (control, _) = control.expect("a thread");
        let requests = [
            (Request::SetState(StopCopy), "set_state"),
            (Request::GetState, "state"),
            (Request::PrecopyInfo, "precopy_info"),
            (Request::StopCopyLength, "stop_copy_length"),
            (Request::Reset, "reset"),
        ];
        for (request, name) in requests {
            let data_fd = std::fs::File::open("/dev/null").expect("a descriptor");
            let data_fd = Some(Arc::new(OwnedFd::from(data_fd)));
            control.ask(request, data_fd);
            let expected = format!("{name} of device 3 panicked: {name}");
            match inputs.recv() {
                Ok(Input::Local(fault)) => assert_eq!(fault.message, expected),
                other => panic!("{other:?}"),
            }
            match inputs.recv() {
                Ok(Input::Control { result: Err(EIO), fd: None, .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        let released = control.end();
        assert!(released.recv().is_err(), "its thread has ended");
    }
}
