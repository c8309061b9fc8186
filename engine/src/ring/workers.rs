//! Threads that run what may block in a driver and that no kernel worker runs: with io_uring the
//! reads and writes of files with a poll, which the kernel tries on the thread that submits them, and
//! with plain system calls all of data fds.
//!
//! A thread has one operation at a time, and keeps it for as long as its driver does. They are made
//! with the ring, for when a VM stands still it may be too late; where all of them are with drivers,
//! an operation waits.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::io::Errno;

use super::table::{File, Flight, Key};
use super::{Backend, OpKind, Waker};
use crate::buffers::Buffer;

/// A read or write, with all that it needs.
#[derive(Debug)]
struct Work {
    key: Key,
    kind: OpKind,
    fd: Arc<OwnedFd>,
    buffer: Buffer,
    range: Range<usize>,
}

/// A read or write that has ended.
#[derive(Debug)]
pub(super) struct Worked {
    pub(super) key: Key,
    pub(super) buffer: Buffer,
    pub(super) result: Result<usize, Errno>,
}

/// Runs a thread's body on a thread of that number, for a ring of that kind; it has begun when this
/// returns.
type Start = dyn Fn(Backend, u32, Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync;

/// The threads that run what may block, where the kernel does not.
#[derive(Clone)]
pub struct BlockingThreads {
    count: u32,
    start: Option<Arc<Start>>,
}

impl BlockingThreads {
    /// So many threads: as many as files that are no sockets are expected at the same time. Of more,
    /// one waits for the other.
    pub const fn plain(count: u32) -> BlockingThreads {
        BlockingThreads { count, start: None }
    }

    /// So many, started by this: it is given the ring's backend, the thread's number and its body,
    /// which has begun on a thread of its own when it returns.
    pub fn started_by(
        count: u32,
        start: impl Fn(Backend, u32, Box<dyn FnOnce() + Send>) -> io::Result<()> + Send + Sync + 'static,
    ) -> BlockingThreads {
        BlockingThreads { count, start: Some(Arc::new(start)) }
    }

    fn start(
        &self,
        backend: Backend,
        index: u32,
        body: Box<dyn FnOnce() + Send>,
    ) -> io::Result<()> {
        match &self.start {
            Some(start) => start(backend, index, body),
            None => std::thread::Builder::new().spawn(body).map(drop),
        }
    }
}

impl fmt::Debug for BlockingThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockingThreads").field("count", &self.count).finish_non_exhaustive()
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Workers {
    /// None once they are to end.
    work: Option<Sender<Work>>,
    worked: Receiver<Worked>,
    busy: usize,
}

impl Workers {
    /// Starts the threads; they end the ring's sleep with every result.
    pub(super) fn start(
        threads: &BlockingThreads,
        backend: Backend,
        waker: Waker,
    ) -> io::Result<Workers> {
        // Each holds no more than the table has operations.
        let (work, queue) = unbounded();
        let (done, worked) = unbounded();
        for index in 0..threads.count {
            let (queue, done, waker) = (queue.clone(), done.clone(), waker.clone());
            threads.start(backend, index, Box::new(move || work_all(queue, &done, &waker)))?;
        }
        Ok(Workers { work: Some(work), worked, busy: 0 })
    }

    /// Gives an operation's next read or write to the threads, with its buffer. False where there are
    /// none: it is as it was.
    pub(super) fn give<S, F>(&mut self, key: Key, flight: &mut Flight<S>, file: &File<F>) -> bool {
        let Some(sender) = &self.work else { return false };
        let buffer = std::mem::replace(&mut flight.op.buffer, Buffer::Small(Vec::new()));
        let (kind, range) = (flight.op.kind, flight.op.range.clone());
        let work = Work { key, kind, fd: Arc::clone(&file.fd), buffer, range };
        flight.away = match sender.send(work) {
            Ok(()) => true,
            Err(error) => {
                flight.op.buffer = error.into_inner().buffer;
                false
            }
        };
        self.busy += usize::from(flight.away);
        flight.away
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

fn work_all(queue: Receiver<Work>, done: &Sender<Worked>, waker: &Waker) {
    for Work { key, kind, fd, mut buffer, range } in queue {
        // A signal is not swallowed: the ring counts them.
        let result = match kind {
            OpKind::Write => rustix::io::write(&*fd, &buffer.bytes()[range]),
            _ => rustix::io::read(&*fd, &mut buffer.bytes_mut()[range]),
        };
        // The file may be closed as soon as the result is known.
        drop(fd);
        // Nobody is there any more if the ring could not wait.
        let _ = done.send(Worked { key, buffer, result });
        waker.nudge();
    }
}
