//! The thread that asks one device: an ioctl can block for as long as the driver does, and a read
//! of the data fd may be blocked at the same time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, unbounded};

use super::{Inbox, Input};
use crate::ids::DeviceId;
use crate::machine::{Reply, Request};
use crate::vfio::device::MigrationDevice;

/// EIO, for an error that carries no errno of the kernel's.
const EIO: i32 = 5;
/// EBADF: there is no data fd to ask.
const EBADF: i32 = 9;

#[derive(Debug)]
struct Asked {
    request: Request,
    data_fd: Option<Arc<OwnedFd>>,
}

/// The other end of a device's control thread; the thread ends when this is dropped and the
/// request in flight has returned.
#[derive(Debug)]
pub(super) struct Control {
    requests: Sender<Asked>,
}

impl Control {
    pub(super) fn spawn(
        id: DeviceId,
        device: Arc<dyn MigrationDevice>,
        inbox: Inbox,
    ) -> io::Result<Control> {
        let (requests, queue) = unbounded::<Asked>();
        std::thread::Builder::new().name(format!("ferry-ctl-{}", id.0)).spawn(move || {
            let span = tracing::info_span!("control", device = id.0);
            let _entered = span.enter();
            for asked in queue {
                let start = Instant::now();
                let (result, fd) = ask(&*device, &asked);
                let ns = start.elapsed().as_nanos() as u64;
                tracing::debug!(request = ?asked.request, ?result, ns, "asked");
                inbox.send(Input::Control { device: id, request: asked.request, result, fd, ns });
            }
        })?;
        Ok(Control { requests })
    }

    /// Asks; the answer comes as [`Input::Control`].
    pub(super) fn ask(&self, request: Request, data_fd: Option<Arc<OwnedFd>>) {
        // The thread lives as long as this handle: it cannot have gone.
        let _ = self.requests.send(Asked { request, data_fd });
    }
}

fn ask(device: &dyn MigrationDevice, asked: &Asked) -> (Result<Reply, i32>, Option<OwnedFd>) {
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(EIO);
    match asked.request {
        Request::SetState(state) => match device.set_state(state) {
            Ok(fd) => (Ok(Reply::Set { fd: fd.is_some() }), fd),
            Err(error) => (Err(errno(error)), None),
        },
        Request::GetState => (device.settled_state().map(Reply::State).map_err(errno), None),
        Request::PrecopyInfo => match &asked.data_fd {
            Some(fd) => (device.precopy_info(fd.as_fd()).map(Reply::Info).map_err(errno), None),
            None => (Err(EBADF), None),
        },
        Request::StopCopyLength => {
            (device.stop_copy_length().map(Reply::Length).map_err(errno), None)
        }
        Request::Reset => (device.reset().map(|()| Reply::Reset).map_err(errno), None),
    }
}
