//! Threads that run what may block: the system-call backend's kernel workers.
//!
//! A thread has one operation at a time, and keeps it for as long as its driver does. Those that are
//! expected are made with the ring; where all of them are with drivers, one more is started.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::io::Errno;

use super::table::Key;
use super::{OpKind, Waker};
use crate::buffers::Buffer;
use std::ops::Range;

/// A read or write, with all that it needs.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) key: Key,
    pub(super) kind: OpKind,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) buffer: Buffer,
    pub(super) range: Range<usize>,
}

/// A read or write that has ended.
#[derive(Debug)]
pub(super) struct Worked {
    pub(super) key: Key,
    pub(super) buffer: Buffer,
    pub(super) result: Result<usize, Errno>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Workers {
    /// None once they are to end.
    work: Option<Sender<Work>>,
    queue: Receiver<Work>,
    worked: Receiver<Worked>,
    done: Sender<Worked>,
    waker: Waker,
    threads: usize,
    busy: usize,
}

impl Workers {
    /// Starts so many threads; they wake the ring with every result.
    pub(super) fn start(threads: u32, waker: Waker) -> io::Result<Workers> {
        let (work, queue) = unbounded();
        let (done, worked) = unbounded();
        let mut workers =
            Workers { work: Some(work), queue, worked, done, waker, threads: 0, busy: 0 };
        for _ in 0..threads {
            workers.start_one()?;
        }
        Ok(workers)
    }

    fn start_one(&mut self) -> io::Result<()> {
        let (queue, done, waker) = (self.queue.clone(), self.done.clone(), self.waker.clone());
        let thread = std::thread::Builder::new().name(format!("ferry-io-{}", self.threads));
        thread.spawn(move || {
            for Work { key, kind, fd, mut buffer, range } in queue {
                let result = match kind {
                    OpKind::Write => rustix::io::write(&*fd, &buffer.bytes()[range]),
                    _ => rustix::io::read(&*fd, &mut buffer.bytes_mut()[range]),
                };
                // The file may be closed as soon as the result is known.
                drop(fd);
                // Nobody is there any more if the ring could not wait.
                let _ = done.send(Worked { key, buffer, result });
                waker.wake();
            }
        })?;
        self.threads += 1;
        Ok(())
    }

    /// Gives work to a thread. Without one it comes back, with what the system says.
    pub(super) fn give(&mut self, work: Work) -> Result<(), (Work, i32)> {
        if self.busy == self.threads
            && let Err(error) = self.start_one()
        {
            return Err((work, error.raw_os_error().unwrap_or(crate::errno::EAGAIN)));
        }
        let Some(sender) = &self.work else { return Err((work, crate::errno::ECANCELED)) };
        match sender.send(work) {
            Ok(()) => {
                self.busy += 1;
                Ok(())
            }
            Err(error) => Err((error.into_inner(), crate::errno::ECANCELED)),
        }
    }

    /// What has ended since this was last asked.
    pub(super) fn take(&mut self) -> Option<Worked> {
        let worked = self.worked.try_recv().ok()?;
        self.busy -= 1;
        Some(worked)
    }

    /// Waits for everything that was given, however long drivers take.
    pub(super) fn finish(&mut self) {
        self.work = None;
        while self.busy > 0 && self.worked.recv().is_ok() {
            self.busy -= 1;
        }
    }
}
