//! The thread of a device's data fds: the only place where they are read or written, one after
//! another, and where they are opened and closed for that. While there is nothing to read, an fd that
//! has a poll is watched for its death: that is how a reset of a drained device shows at once.
//!
//! The thread and its ring are made with the session, so that nothing is to be had any more when the
//! VM stands still. When a data fd is taken away, whatever is in flight on it is cancelled and waited
//! for: a driver that ignores the cancel keeps this thread, its slot and its fd until it returns, and
//! nobody else waits for that. The thread ends when its jobs' channel is closed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};

use super::data_fd::DataFd;
use super::jobs::{self, Job, JobQueue, JobSender, Next};
use crate::drive::guarded::{guarded, panicked};
use crate::drive::inbox::{Inbox, Input};
use crate::ids::{DeviceId, Epoch};
use crate::machine::ReadResult;
use crate::outcome::{Cause, Fault, Observation};
use crate::ring::BackendChoice;
use crate::threads::{ThreadKind, Threads};
use crate::vfio::device::MigrationDevice;

/// What the thread is made from.
pub(in crate::drive) struct DataThread {
    pub(in crate::drive) id: DeviceId,
    pub(in crate::drive) device: Arc<dyn MigrationDevice>,
    pub(in crate::drive) backend: BackendChoice,
    pub(in crate::drive) inbox: Inbox,
}

/// A thread that opens its ring.
pub(in crate::drive) struct Starting {
    opened: Receiver<io::Result<JobSender>>,
    stop: Arc<AtomicU64>,
    released: Receiver<()>,
}

/// The other end of a running thread.
#[derive(Debug)]
pub(in crate::drive) struct DataHandle {
    jobs: JobSender,
    /// How many data fds it was given.
    attached: u64,
    stop: Arc<AtomicU64>,
    released: Receiver<()>,
}

impl DataHandle {
    /// Hands a data fd over; where it cannot be used, [`Input::Local`] says so.
    pub(in crate::drive) fn attach(&mut self, fd: Arc<OwnedFd>, chunk_bytes: usize) {
        self.attached += 1;
        // A thread that has died said so with `Input::Died`.
        let _ = self.jobs.send(Job::Attach { number: self.attached, fd, chunk_bytes });
    }

    /// Gives the thread a job; it comes back if the thread has ended.
    pub(in crate::drive) fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        self.jobs.send(job)
    }

    /// Takes the data fd away: [`Input::Detached`] follows when it is closed.
    pub(in crate::drive) fn detach(&self, epoch: Epoch) {
        self.stop.store(self.attached, Ordering::Release);
        let _ = self.jobs.send(Job::Detach { epoch });
        self.jobs.wake();
    }

    /// Lets the thread end. What comes back is disconnected once nothing of it holds the device.
    pub(in crate::drive) fn end(self) -> Receiver<()> {
        self.stop.store(self.attached, Ordering::Release);
        self.released
    }
}

impl Starting {
    /// Waits until the ring is open.
    pub(in crate::drive) fn wait(self) -> io::Result<DataHandle> {
        let Starting { opened, stop, released } = self;
        let jobs = opened.recv().map_err(|_| io::Error::other("its thread died"))??;
        Ok(DataHandle { jobs, attached: 0, stop, released })
    }
}

impl DataThread {
    /// Starts the thread.
    pub(in crate::drive) fn spawn(self, threads: &Threads) -> io::Result<Starting> {
        let (told, opened) = bounded(1);
        let (release, released) = bounded(0);
        let stop = Arc::new(AtomicU64::new(0));
        let stopping = Arc::clone(&stop);
        let DataThread { id, device, backend, inbox } = self;
        threads.spawn(ThreadKind::Data, id.0, move |hook| {
            let opened_fd = DataFd::open(device, backend, stopping)
                .and_then(|data_fd| hook.run(data_fd.backend()).map(|()| data_fd));
            let mut data_fd = match opened_fd {
                Ok(data_fd) => data_fd,
                Err(error) => {
                    let _ = told.send(Err(error));
                    return;
                }
            };
            let (jobs, queue) = jobs::channel(data_fd.waker());
            // Where nobody takes them the thread ends at once: this end keeps nothing.
            let _ = told.send(Ok(jobs));
            drop(told);
            let ran = guarded(|| run(&mut data_fd, &queue, id, &inbox));
            // Nobody gets jobs in any more; the slots of those that wait are lost.
            drop(queue);
            data_fd.end(|| drop(release));
            if let Err(said) = ran {
                let message = format!("the thread of the data fds of {id} died: {said}");
                let fault = Fault::session(Cause::Local, Observation::Engine, message);
                inbox.send(Input::Died { device: id, fault });
            }
        })?;
        Ok(Starting { opened, stop, released })
    }
}

/// Does jobs until there are no more.
fn run(data_fd: &mut DataFd, queue: &JobQueue, device: DeviceId, inbox: &Inbox) {
    // The last read found nothing, in PRE_COPY: only a poll shows now that the fd died.
    let mut drained = false;
    // Of the data fd, where it is watched.
    let mut epoch = Epoch::default();
    loop {
        let job = match queue.next(data_fd.to_be_watched().filter(|_| drained)) {
            Next::Job(job) => job,
            Next::HungUp => {
                drained = false;
                inbox.send(Input::HungUp { device, epoch });
                continue;
            }
            Next::End => return data_fd.detach(),
        };
        let start = Instant::now();
        let ns = || start.elapsed().as_nanos() as u64;
        let input = match job {
            Job::Attach { number, fd, chunk_bytes } => {
                drained = false;
                match data_fd.attach(number, fd, chunk_bytes) {
                    Ok(()) => continue,
                    Err(error) => Input::Local(unusable(device, &error)),
                }
            }
            Job::Detach { epoch } => {
                drained = false;
                data_fd.detach();
                Input::Detached { device, epoch }
            }
            Job::Read { epoch: of, slot, phase } => {
                let (slot, result) = data_fd.read_chunk(slot, phase);
                (drained, epoch) = (result == ReadResult::Empty, of);
                Input::Read { device, epoch, slot, result, ns: ns() }
            }
            Job::Write { header, slot } => {
                let (slot, result) = data_fd.write_chunk(&header, slot);
                Input::Written { header, slot, result, ns: ns() }
            }
        };
        // The reason comes before what follows from it.
        if let Some(said) = data_fd.take_panic() {
            inbox.send(Input::Local(panicked("observe", device, &said)));
        }
        inbox.send(input);
    }
}

fn unusable(device: DeviceId, error: &io::Error) -> Fault {
    let message = format!("the data fd of {device} cannot be used: {error}");
    Fault::session(Cause::Local, Observation::Engine, message)
}
