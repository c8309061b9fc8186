//! The thread of one data fd: the only place where it is read or written. While there is nothing to
//! read, an fd that has a poll is watched for its death: that is how a reset of a drained device
//! shows at once.
//!
//! The thread ends when its jobs' channel is closed. Whatever is in flight then is cancelled and
//! waited for: a driver that ignores the cancel keeps this thread, its slot and its fd until it
//! returns, and nobody else waits for that.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::data_fd::DataFd;
use super::jobs::{self, Job, JobQueue, JobSender, Next};
use crate::drive::inbox::{Inbox, Input};
use crate::ids::{DeviceId, Epoch};
use crate::machine::ReadResult;
use crate::ring::BackendChoice;
use crate::vfio::device::MigrationDevice;

/// What a data fd's thread is made from.
pub(in crate::drive) struct DataThread {
    pub(in crate::drive) id: DeviceId,
    pub(in crate::drive) epoch: Epoch,
    pub(in crate::drive) fd: Arc<OwnedFd>,
    pub(in crate::drive) device: Arc<dyn MigrationDevice>,
    pub(in crate::drive) backend: BackendChoice,
    pub(in crate::drive) chunk_bytes: usize,
    pub(in crate::drive) inbox: Inbox,
}

/// The other end of a running thread.
#[derive(Debug)]
pub(in crate::drive) struct DataHandle {
    jobs: JobSender,
    stop: Arc<AtomicBool>,
}

impl DataHandle {
    /// Gives the thread a job; it comes back if the thread has ended.
    pub(in crate::drive) fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        self.jobs.send(job)
    }

    /// Lets the thread end. It reports [`Input::Detached`] when it is through.
    pub(in crate::drive) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.jobs.end();
    }
}

impl DataThread {
    /// Starts the thread, and waits until its ring is open.
    pub(in crate::drive) fn spawn(self) -> io::Result<DataHandle> {
        let (opened, ready) = crossbeam_channel::bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let DataThread { id: device, epoch, inbox, .. } = self;
        let thread = std::thread::Builder::new().name(format!("ferry-fd-{}", device.0));
        thread.spawn(move || {
            match DataFd::open(self.fd, self.device, self.backend, self.chunk_bytes, stopping) {
                Ok(data_fd) => {
                    let (jobs, queue) = jobs::channel(data_fd.waker());
                    let _ = opened.send(Ok(jobs));
                    run(data_fd, &queue, device, epoch, &inbox);
                    // The ring and the fd are closed.
                    inbox.send(Input::Detached { device, epoch });
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        })?;
        let jobs = ready.recv().map_err(|_| io::Error::other("a data fd's thread died"))??;
        Ok(DataHandle { jobs, stop })
    }
}

/// Does jobs until there are no more, then closes the fd.
fn run(mut data_fd: DataFd, queue: &JobQueue, device: DeviceId, epoch: Epoch, inbox: &Inbox) {
    // The last read found nothing, in PRE_COPY: only a poll shows now that the fd died.
    let mut drained = false;
    loop {
        let job = match queue.next(data_fd.to_be_watched().filter(|_| drained)) {
            Next::Job(job) => job,
            Next::HungUp => {
                drained = false;
                inbox.send(Input::HungUp { device, epoch });
                continue;
            }
            Next::End => return,
        };
        let start = Instant::now();
        let ns = || start.elapsed().as_nanos() as u64;
        inbox.send(match job {
            Job::Read { epoch, slot, phase } => {
                let (slot, result) = data_fd.read_chunk(slot, phase);
                drained = result == ReadResult::Empty;
                Input::Read { device, epoch, slot, result, ns: ns() }
            }
            Job::Write { header, slot } => {
                let (slot, result) = data_fd.write_chunk(&header, slot);
                Input::Written { header, slot, result, ns: ns() }
            }
        });
    }
}
