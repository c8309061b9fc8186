//! The ring on plain system calls: for hosts where io_uring is refused, and, being short and plain,
//! the oracle that the other backend is tested against.
//!
//! `wait` tries each operation once when it is new and whenever poll(2) says that its file may be
//! ready. Operations of a [`FileKind::Blocking`] file run inside `wait`, on the ring's own thread,
//! for as long as the driver takes: a cancel cannot reach them there, and signals are blocked on our
//! threads. That is what the mechanism costs, and why io_uring is the first choice.

use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::interrupted::uninterrupted;
use super::op::Direction;
use super::table::{File, Flight, Key, Table};
use super::{
    Backend, Done, FileId, FileKind, Op, OpKind, Rejected, Ring, RingConfig, Token, Waker,
};

/// What this backend keeps for an operation.
#[derive(Debug, Default)]
struct Attempt {
    /// The last try said EAGAIN, and poll has not said otherwise since.
    parked: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct SyscallRing {
    table: Table<(), Attempt>,
    waker: Waker,
    /// A ring belongs to its thread, as the other backend's does.
    _not_send: PhantomData<*const ()>,
}

impl SyscallRing {
    pub(super) fn open(config: &RingConfig) -> io::Result<SyscallRing> {
        Ok(SyscallRing {
            table: Table::new(config.files, config.depth),
            waker: Waker::new()?,
            _not_send: PhantomData,
        })
    }

    /// Tries every operation that is not parked.
    fn attempt(&mut self, done: &mut Vec<Done>) {
        let keys: Vec<Key> = self.table.keys().map(|(key, _)| key).collect();
        for key in keys {
            let Some((flight, file)) = self.table.flight(key) else {
                continue;
            };
            let mut result = if flight.cancelled && file.kind == FileKind::Blocking {
                // Once begun it could not be cancelled any more.
                Err(Errno::CANCELED)
            } else if flight.state.parked {
                Err(Errno::AGAIN)
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
            let mut fds = vec![PollFd::new(&*self.waker.eventfd, PollFlags::IN)];
            for (key, flight) in self.table.keys() {
                let Some(file) = self.table.file(flight.op.file) else {
                    continue;
                };
                keys.push(key);
                fds.push(PollFd::new(&*file.fd, events(flight.op.kind.direction())));
            }
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Parked::TimedOut),
                Ok(_) => {}
                Err(Errno::INTR) => return Ok(Parked::Interrupted),
                Err(errno) => return Err(errno.into()),
            }
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
            let woken = ready.next() == Some(true);
            (keys, ready.collect::<Vec<bool>>(), woken)
        };
        for (key, _) in keys.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            if let Some((flight, _)) = self.table.flight(key) {
                flight.state.parked = false;
            }
        }
        if woken {
            self.waker.drain();
        }
        Ok(if woken { Parked::Woken } else { Parked::Ready })
    }
}

/// Why [`SyscallRing::park`] came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parked {
    Ready,
    Woken,
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
        loop {
            self.attempt(done);
            if done.len() > before || matches!(parked, Parked::Woken | Parked::TimedOut) {
                return Ok(());
            }
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            parked = self.park(rest)?;
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

/// Whether EAGAIN makes this operation wait rather than complete.
fn waits(op: OpKind, file: FileKind) -> bool {
    file != FileKind::Blocking && op != OpKind::TryRead
}

fn events(direction: Direction) -> PollFlags {
    match direction {
        Direction::In => PollFlags::IN | PollFlags::RDHUP,
        Direction::Out => PollFlags::OUT,
    }
}

/// Moves what can be moved. EAGAIN: the operation is not over.
fn transfer(flight: &mut Flight<Attempt>, file: &File<()>) -> Result<usize, Errno> {
    // On a blocking file a signal is the only way to end the call, and must not be swallowed.
    let swallows = file.kind != FileKind::Blocking;
    match flight.op.kind {
        OpKind::Read | OpKind::TryRead => {
            let fd = &*file.fd;
            let mut read = || rustix::io::read(fd, flight.op.rest_mut(0));
            if swallows { uninterrupted(read) } else { read() }
        }
        OpKind::Write => {
            let write = || rustix::io::write(&*file.fd, flight.op.rest(0));
            if swallows { uninterrupted(write) } else { write() }
        }
        OpKind::Send => send_all(flight, &file.fd),
        OpKind::Recv => receive_all(flight, &file.fd),
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
    while flight.moved < flight.op.len() {
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
