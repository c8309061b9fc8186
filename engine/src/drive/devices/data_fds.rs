//! The data fds of a device: the one that is attached, and those that were taken away and that the
//! driver still holds.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::data_fd::{DataEvent, DataFd, Job, Tools};
use crate::drive::owner::{DataFdId, Owner};
use crate::ids::{DeviceId, Epoch};
use crate::ring::{Classes, Done, Ring};
use crate::vfio::device::MigrationDevice;

/// A data fd that was taken away, while it is waited for.
#[derive(Debug, Clone, Copy)]
struct Detaching {
    number: u32,
    /// When the driver is given up.
    until_ns: u64,
}

/// See the module's text.
pub(in crate::drive) struct DataFds {
    device: DeviceId,
    /// The epoch of the data fd that was attached last.
    epoch: Epoch,
    attached: Option<DataFd>,
    /// Its descriptor, which the control thread asks with.
    fd: Option<Arc<OwnedFd>>,
    /// Those that were taken away and are not closed yet.
    leaving: Vec<DataFd>,
    /// The one among them that is waited for.
    detaching: Option<Detaching>,
    next: u32,
}

impl DataFds {
    pub(in crate::drive) fn of(device: DeviceId) -> DataFds {
        DataFds {
            device,
            epoch: Epoch::default(),
            attached: None,
            fd: None,
            leaving: Vec::new(),
            detaching: None,
            next: 0,
        }
    }

    /// Takes a data fd for an epoch.
    ///
    /// # Errors
    /// It cannot be used. It is closed, and jobs come back undone until the next one.
    pub(in crate::drive) fn attach(
        &mut self,
        epoch: Epoch,
        device: Arc<dyn MigrationDevice>,
        fd: OwnedFd,
        (classes, chunk_bytes): (&Classes, usize),
        ring: &mut dyn Ring,
    ) -> io::Result<()> {
        debug_assert!(self.attached.is_none(), "{}: one data fd at a time", self.device);
        let fd = Arc::new(fd);
        let id = DataFdId { device: self.device, number: self.next };
        self.next = self.next.wrapping_add(1);
        self.epoch = epoch;
        self.fd = Some(Arc::clone(&fd));
        let kind = classes.class(fd.as_fd())?;
        self.attached = Some(DataFd::attach(id, epoch, device, (fd, kind), chunk_bytes, ring)?);
        Ok(())
    }

    /// The epoch of the data fd that was attached last.
    pub(in crate::drive) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The descriptor of the one that is attached.
    pub(in crate::drive) fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.fd.clone()
    }

    /// Gives a job to the data fd that is attached; without one it comes back.
    pub(in crate::drive) fn give(&mut self, job: Job, tools: &mut Tools) -> Result<(), Job> {
        match &mut self.attached {
            Some(attached) => {
                attached.give(job, tools);
                Ok(())
            }
            None => Err(job),
        }
    }

    /// Takes the data fd away, and waits for it until then: [`DataEvent::Closed`] follows, after
    /// all else that is told of it.
    pub(in crate::drive) fn detach(&mut self, until_ns: u64, tools: &mut Tools) {
        self.fd = None;
        let Some(mut leaving) = self.attached.take() else {
            tools.events.push_back(DataEvent::Closed { device: self.device, awaited: true });
            return;
        };
        leaving.stop(tools);
        self.detaching = Some(Detaching { number: leaving.id.number, until_ns });
        self.leaving.push(leaving);
        self.close_idle(tools);
    }

    /// Takes a completion of one of them.
    pub(in crate::drive) fn done(&mut self, owner: Owner, done: Done, tools: &mut Tools) {
        let (Owner::Data(id) | Owner::Watch(id)) = owner else { return };
        let all = self.attached.iter_mut().chain(&mut self.leaving);
        let Some(data_fd) = all.into_iter().find(|data_fd| data_fd.id == id) else {
            debug_assert!(false, "a completion of no data fd: {id:?}");
            return;
        };
        match owner {
            Owner::Watch(_) => data_fd.watched(&done, tools),
            _ => data_fd.done(done, tools),
        }
        self.close_idle(tools);
    }

    /// Does what they have to do by themselves.
    pub(in crate::drive) fn look_at_the_clock(&mut self, tools: &mut Tools) {
        for data_fd in self.attached.iter_mut().chain(&mut self.leaving) {
            data_fd.look_at_the_clock(tools);
        }
        self.close_idle(tools);
    }

    /// Closes those that were taken away, once nothing of them is in flight.
    fn close_idle(&mut self, tools: &mut Tools) {
        while let Some(index) = self.leaving.iter().position(DataFd::is_idle) {
            let closed = self.leaving.swap_remove(index);
            let number = closed.id.number;
            closed.close(tools.ring);
            let awaited = self.detaching.take_if(|detaching| detaching.number == number).is_some();
            tools.events.push_back(DataEvent::Closed { device: self.device, awaited });
        }
    }

    /// The first time at which there is something to be done.
    pub(in crate::drive) fn deadline_ns(&self) -> Option<u64> {
        let all = self.attached.iter().chain(&self.leaving);
        let own = all.filter_map(DataFd::deadline_ns);
        own.chain(self.detaching.map(|detaching| detaching.until_ns)).min()
    }

    /// Gives up the driver that is waited for, if it is time.
    pub(in crate::drive) fn give_up(&mut self, now_ns: u64) -> bool {
        self.detaching.take_if(|detaching| detaching.until_ns <= now_ns).is_some()
    }

    /// Whether a data fd that was taken away is waited for.
    pub(in crate::drive) fn is_detaching(&self) -> bool {
        self.detaching.is_some()
    }

    /// Whether the driver holds something of one that was taken away.
    pub(in crate::drive) fn is_late(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Whether none is left.
    pub(in crate::drive) fn are_closed(&self) -> bool {
        self.attached.is_none() && self.leaving.is_empty()
    }
}
