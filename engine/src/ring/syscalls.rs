//! The ring on plain system calls: for hosts where io_uring is refused, and, being short and plain,
//! the oracle that the other backend is tested against.
//!
//! `wait` tries each operation once when it is new and whenever poll(2) says that its file may be
//! ready. Reads and writes run on threads of the ring's own (`workers`), for as long as the driver
//! takes: a cancel cannot reach them there, and signals are blocked on our threads. That is what the
//! mechanism costs, and why io_uring is the first choice.

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::op::Direction;
use super::table::{File, Flight, INTERRUPTIONS_MAX, Key, Table};
use super::workers::{Worked, Workers};
use super::{
    Backend, Done, FileId, FileKind, Op, OpKind, Rejected, Ring, RingConfig, Token, Waker,
};

/// What this backend keeps for an operation.
#[derive(Debug, Default)]
struct Attempt {
    /// The last try said EAGAIN, and poll has not said otherwise since.
    parked: bool,
    interruptions: u8,
    /// What poll said of a file that is watched.
    seen: Option<PollFlags>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct SyscallRing {
    table: Table<(), Attempt>,
    waker: Waker,
    workers: Workers,
    /// A ring belongs to its thread, as the other backend's does.
    _not_send: PhantomData<*const ()>,
}

impl SyscallRing {
    pub(super) fn open(config: &RingConfig) -> io::Result<SyscallRing> {
        let waker = Waker::new()?;
        Ok(SyscallRing {
            table: Table::new(config.files, config.depth),
            workers: Workers::start(&config.blocking, Backend::Syscalls, waker.clone())?,
            waker,
            _not_send: PhantomData,
        })
    }

    /// Tries every operation that is not parked, and takes what the workers have done.
    fn attempt(&mut self, done: &mut Vec<Done>) {
        while let Some(Worked { key, buffer, result }) = self.workers.take() {
            let Some((flight, file)) = self.table.flight(key) else { continue };
            (flight.op.buffer, flight.away) = (buffer, false);
            if let Some(result) = worked(flight, file, result) {
                done.extend(self.table.finish(key, result.map_err(Errno::raw_os_error)));
            }
        }
        let keys: Vec<Key> = self.table.keys().map(|(key, _)| key).collect();
        for key in keys {
            let Some((flight, file)) = self.table.flight(key) else {
                continue;
            };
            let mut result = if flight.away {
                continue;
            } else if flight.op.kind == OpKind::HangUp {
                flight.state.seen.map(|seen| seen.bits().into()).ok_or(Errno::AGAIN)
            } else if flight.state.parked {
                Err(Errno::AGAIN)
            } else if file.kind != FileKind::Socket {
                if !flight.cancelled && self.workers.give(key, flight, file) {
                    continue;
                }
                Err(Errno::CANCELED)
            } else {
                transfer(flight, file)
            };
            if result == Err(Errno::AGAIN) && waits(flight.op.kind, file.kind) {
                if !flight.cancelled {
                    flight.state.parked = true;
                    continue;
                }
                result = Err(Errno::CANCELED);
            }
            done.extend(self.table.finish(key, result.map_err(Errno::raw_os_error)));
        }
    }

    /// Sleeps until a parked operation's file may be ready, the waker is used or the time is over.
    fn park(&mut self, timeout: Option<Duration>) -> io::Result<Parked> {
        // A timeout that does not fit is as good as none.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let (keys, ready, woken) = {
            let mut keys = Vec::new();
            let eventfd = self.waker.eventfd();
            let mut fds = vec![PollFd::from_borrowed_fd(eventfd, PollFlags::IN)];
            for (key, flight) in self.table.keys().filter(|(_, flight)| !flight.away) {
                let Some(file) = self.table.file(flight.op.file) else {
                    continue;
                };
                keys.push(key);
                fds.push(PollFd::new(&*file.fd, events(flight.op.kind)));
            }
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Parked::TimedOut),
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(Parked::Interrupted),
                Err(errno) => return Err(errno.into()),
            }
            let mut ready = fds.iter().map(PollFd::revents);
            let woken = ready.next().is_some_and(|seen| !seen.is_empty());
            (keys, ready.collect::<Vec<PollFlags>>(), woken)
        };
        for (key, seen) in keys.into_iter().zip(ready).filter(|(_, seen)| !seen.is_empty()) {
            if let Some((flight, _)) = self.table.flight(key) {
                flight.state.parked = false;
                flight.state.seen = Some(seen);
            }
        }
        if woken {
            self.waker.drain();
        }
        Ok(Parked::Ready)
    }
}

/// Why [`SyscallRing::park`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parked {
    Ready,
    TimedOut,
    Interrupted,
}

impl Ring for SyscallRing {
    fn backend(&self) -> Backend {
        Backend::Syscalls
    }

    fn add_file(&mut self, fd: Arc<OwnedFd>, kind: FileKind) -> io::Result<FileId> {
        self.table.add_file(fd, kind, ())
    }

    fn remove_file(&mut self, file: FileId) -> io::Result<()> {
        self.table.remove_file(file).map(drop)
    }

    fn submit(&mut self, token: Token, op: Op) -> Result<(), Rejected> {
        self.table.admit(token, op).map(drop)
    }

    fn cancel(&mut self, token: Token) {
        let key = self.table.key(token);
        if let Some((flight, _)) = key.and_then(|key| self.table.flight(key)) {
            flight.cancelled = true;
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, done: &mut Vec<Done>) -> io::Result<()> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let before = done.len();
        let mut parked = Parked::Ready;
        let mut woken = self.waker.get_up();
        loop {
            self.attempt(done);
            if done.len() > before || woken || parked == Parked::TimedOut {
                return Ok(());
            }
            if self.waker.fall_asleep() {
                let now = Instant::now();
                let rest = deadline.map(|deadline| deadline.saturating_duration_since(now));
                match self.park(rest) {
                    Ok(why) => parked = why,
                    Err(error) => {
                        self.waker.get_up();
                        return Err(error);
                    }
                }
            }
            woken = self.waker.get_up();
        }
    }

    fn moved(&self, token: Token) -> usize {
        self.table.moved(token)
    }

    fn in_flight(&self) -> usize {
        self.table.in_flight()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for SyscallRing {
    /// Waits for what is with the workers: as long as a driver keeps it, as the other backend does.
    fn drop(&mut self) {
        self.workers.finish();
    }
}

/// What a worker's result means for its operation: how it ends, or none if it goes on.
fn worked(
    flight: &mut Flight<Attempt>,
    file: &File<()>,
    result: Result<usize, Errno>,
) -> Option<Result<usize, Errno>> {
    let again = match result {
        Err(Errno::AGAIN) if waits(flight.op.kind, file.kind) => {
            flight.state.parked = true;
            true
        }
        Err(Errno::INTR) if flight.state.interruptions < INTERRUPTIONS_MAX => {
            flight.state.interruptions += 1;
            true
        }
        _ => false,
    };
    match (again, flight.cancelled) {
        (true, false) => None,
        (true, true) => Some(Err(Errno::CANCELED)),
        (false, _) => Some(result),
    }
}

/// Whether EAGAIN makes this operation wait rather than complete.
fn waits(op: OpKind, file: FileKind) -> bool {
    op == OpKind::HangUp || (file != FileKind::Blocking && op != OpKind::TryRead)
}

fn events(kind: OpKind) -> PollFlags {
    match kind.direction() {
        Direction::In => PollFlags::IN | PollFlags::RDHUP,
        Direction::Out => PollFlags::OUT,
        Direction::Nowhere => PollFlags::RDHUP,
    }
}

/// Moves what can be moved on a socket. EAGAIN: the operation is not over.
fn transfer(flight: &mut Flight<Attempt>, file: &File<()>) -> Result<usize, Errno> {
    match flight.op.kind {
        OpKind::Send => send_all(flight, &file.fd),
        OpKind::Recv => receive_all(flight, &file.fd),
        // The table admits no others on sockets.
        OpKind::Read | OpKind::TryRead | OpKind::Write | OpKind::HangUp => Err(Errno::INVAL),
    }
}

fn send_all(flight: &mut Flight<Attempt>, fd: &OwnedFd) -> Result<usize, Errno> {
    while flight.moved < flight.op.len() {
        match send(fd, flight.op.rest(flight.moved), SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(sent) => flight.moved += sent,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(flight.moved)
}

fn receive_all(flight: &mut Flight<Attempt>, fd: &OwnedFd) -> Result<usize, Errno> {
    while flight.moved < flight.op.enough {
        match recv(fd, flight.op.rest_mut(flight.moved), RecvFlags::DONTWAIT) {
            Ok((0, _)) => break,
            Ok((received, _)) => flight.moved += received,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(Errno::AGAIN),
            // As io_uring has it: what arrived is told first, and hides the error behind it.
            Err(_) if flight.moved > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(flight.moved)
}
