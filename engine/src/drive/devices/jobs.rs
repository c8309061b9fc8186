//! The queue of a data fd's thread. While it is empty the thread can watch the fd for a hang-up:
//! drivers whose save fd has a poll (mlx5) wake it with RDHUP when a reset kills the fd.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use rustix::event::{PollFd, PollFlags, poll};

use crate::buffers::Slot;
use crate::ids::Epoch;
use crate::ring::Waker;
use crate::wire::{DataHeader, DataPhase};

/// What the thread is to do next.
#[derive(Debug)]
pub(in crate::drive) enum Job {
    /// Take this data fd. Its number among those that the thread is given is counted from 1.
    Attach { number: u64, fd: Arc<OwnedFd>, chunk_bytes: usize },
    /// Close the data fd, and say so.
    Detach { epoch: Epoch },
    /// Read a chunk into the slot.
    Read { epoch: Epoch, slot: Slot, phase: DataPhase },
    /// Verify the chunk that stands in the slot, or zeros, and write it.
    Write { header: DataHeader, slot: Option<Slot> },
}

/// Makes a queue whose receiver runs the ring that `waker` wakes.
pub(super) fn channel(waker: Waker) -> (JobSender, JobQueue) {
    let (sender, receiver) = unbounded();
    let watching = Arc::new(AtomicBool::new(false));
    let jobs = JobSender { sender, watching: Arc::clone(&watching), waker: waker.clone() };
    (jobs, JobQueue { receiver, watching, waker })
}

/// Where jobs go in.
#[derive(Debug)]
pub(super) struct JobSender {
    sender: Sender<Job>,
    watching: Arc<AtomicBool>,
    waker: Waker,
}

impl JobSender {
    /// Adds a job; it comes back if the thread has ended.
    pub(super) fn send(&self, job: Job) -> Result<(), Box<Job>> {
        self.sender.send(job).map_err(|error| Box::new(error.into_inner()))?;
        if self.watching.load(Ordering::SeqCst) {
            self.waker.wake();
        }
        Ok(())
    }

    /// What ends the thread's operation, or its wait.
    pub(super) fn wake(&self) {
        self.waker.wake();
    }
}

impl Drop for JobSender {
    /// No more jobs: the thread ends after those that wait.
    fn drop(&mut self) {
        self.sender = unbounded().0;
        self.waker.wake();
    }
}

/// What a thread is to do next.
#[derive(Debug)]
pub(super) enum Next {
    Job(Job),
    /// The watched fd is dead.
    HungUp,
    End,
}

/// Where jobs come out.
#[derive(Debug)]
pub(super) struct JobQueue {
    receiver: Receiver<Job>,
    /// The thread sleeps in a poll, or is about to: a job must be followed by a wake.
    watching: Arc<AtomicBool>,
    waker: Waker,
}

impl JobQueue {
    /// Waits for the next job, or for the death of an fd.
    pub(super) fn next(&self, watched: Option<BorrowedFd<'_>>) -> Next {
        if let Some(fd) = watched
            && let Some(next) = self.watch(fd)
        {
            return next;
        }
        self.receiver.recv().map_or(Next::End, Next::Job)
    }

    /// None where the fd cannot be watched any longer.
    fn watch(&self, fd: BorrowedFd<'_>) -> Option<Next> {
        loop {
            // Whoever sends before this store is seen by the look that follows it; whoever sends
            // after it wakes the poll.
            self.watching.store(true, Ordering::SeqCst);
            let waiting = self.receiver.try_recv();
            let mut fds = [
                PollFd::from_borrowed_fd(fd, PollFlags::RDHUP),
                PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN),
            ];
            let polled = match waiting {
                Err(TryRecvError::Empty) => poll(&mut fds, None),
                _ => Ok(0),
            };
            self.watching.store(false, Ordering::SeqCst);
            match waiting {
                Ok(job) => return Some(Next::Job(job)),
                Err(TryRecvError::Disconnected) => return Some(Next::End),
                Err(TryRecvError::Empty) => {}
            }
            if fds[1].revents().contains(PollFlags::IN) {
                self.waker.drain();
            }
            let seen = fds[0].revents();
            match polled {
                Ok(_) if seen.contains(PollFlags::RDHUP) => return Some(Next::HungUp),
                // No driver answers so; a pipe does whose other end is closed.
                Ok(_) if !seen.is_empty() => return None,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::until_asleep;
    use super::*;
    use crate::ring::{BackendChoice, RingConfig, open};
    use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
    use rustix::thread::gettid;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(60);

    fn queue() -> (JobSender, JobQueue) {
        let config =
            RingConfig { backend: BackendChoice::Syscalls, depth: 2, files: 1, zero_copy: None };
        channel(open(&config).expect("a ring").ring.waker())
    }

    fn job() -> Job {
        let place = crate::wire::DevicePlace {
            device: crate::ids::DeviceId(0),
            epoch: crate::ids::Epoch(0),
            sequence: crate::ids::Sequence(0),
        };
        let header = crate::wire::DataHeader {
            place,
            offset: 0,
            encoding: crate::wire::Encoding::Zero,
            raw_bytes: 1,
            body_bytes: 0,
            body_hash: 0,
            raw_hash: 0,
        };
        Job::Write { header, slot: None }
    }

    fn sockets() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .expect("sockets")
    }

    /// A thread that watches an fd for its first two answers, and what it is told; it sleeps.
    fn watching(queue: JobQueue, fd: OwnedFd) -> Receiver<Next> {
        let (told, told_by_it) = unbounded();
        let (begun, thread) = unbounded();
        std::thread::spawn(move || {
            begun.send(gettid()).expect("the test waits");
            for watched in [Some(fd.as_fd()), Some(fd.as_fd()), None, None] {
                let next = queue.next(watched);
                let is_end = matches!(next, Next::End);
                if told.send(next).is_err() || is_end {
                    return;
                }
            }
        });
        until_asleep(thread.recv().expect("it begins"));
        told_by_it
    }

    /// A socket hangs up as mlx5's save fd does.
    #[test]
    fn a_watched_fd_that_dies_is_told_and_jobs_still_come() {
        let (ours, theirs) = sockets();
        let (jobs, queue) = queue();
        let told = watching(queue, ours);
        let next = || told.recv_timeout(LONG).expect("the thread answers");
        jobs.send(job()).expect("the thread lives");
        assert!(matches!(next(), Next::Job(_)));
        shutdown(&theirs, Shutdown::Write).expect("a shutdown");
        assert!(matches!(next(), Next::HungUp));
        jobs.send(job()).expect("the thread lives");
        assert!(matches!(next(), Next::Job(_)));
        drop(jobs);
        assert!(matches!(next(), Next::End));
    }

    #[test]
    fn the_end_is_seen_while_watching() {
        let (ours, _theirs) = sockets();
        let (jobs, queue) = queue();
        let told = watching(queue, ours);
        drop(jobs);
        assert!(matches!(told.recv_timeout(LONG), Ok(Next::End)));
    }

    #[test]
    fn a_pipe_whose_other_end_is_closed_is_not_dead() {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        drop(writer);
        let (jobs, queue) = queue();
        jobs.send(job()).expect("the queue lives");
        assert!(matches!(queue.next(Some(reader.as_fd())), Next::Job(_)));
        drop(jobs);
        assert!(matches!(queue.next(Some(reader.as_fd())), Next::End));
    }
}
