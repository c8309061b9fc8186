//! The thread of one protected stream: `ferry-tls-N`. It carries bytes between the engine's stream and
//! the TCP socket, seals and opens them, and says how it ended.
//!
//! Each direction has one buffer of [`RECORDS`] records, made once: it is filled, carried on whole, and
//! filled again. What the other side does not take stays here, so the kernel's socket buffers hold the
//! sender back. An end of the engine's becomes close_notify; only the peer's close_notify becomes an
//! end for the engine. Anything else breaks the stream, and is kept to be told.

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType,
    recv, send, sendmsg, shutdown, socketpair,
};

use super::record::{DATA, HEADER, PAYLOAD_MAX, PEER_RECORD_MAX, RECORD_MAX, record_length};
use super::secured::{Opened, Secured};
use crate::door::waits::PARTING;
use crate::drive::Blocked;
use crate::error::TlsFault;
use crate::limits::{TLS_RECORDS, TLS_STREAM_BYTES};
use crate::ring::Backend;
use crate::tcp;
use crate::threads::{ThreadKind, Threads};

const RECORDS: usize = TLS_RECORDS;
/// By so many receives a connection's window has grown.
const ACKNOWLEDGED: u32 = 64;

/// What others know of a stream that is protected by its thread.
#[derive(Debug, Default)]
pub(crate) struct Pumped {
    fault: OnceLock<TlsFault>,
    over: Mutex<bool>,
    ended: Condvar,
}

impl Pumped {
    /// How TLS broke, if it did.
    pub(crate) fn fault(&self) -> Option<&TlsFault> {
        self.fault.get()
    }

    /// Waits until the connection is closed; false if the time is over first.
    pub(crate) fn wait_closed(&self, deadline: Option<Instant>) -> bool {
        let mut over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        while !*over {
            over = match deadline {
                None => self.ended.wait(over).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = self.ended.wait_timeout(over, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    fn is_over(&self) {
        *self.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.ended.notify_all();
    }
}

/// What goes out: sealed bytes that the socket has not taken.
struct Outgoing {
    buffer: Vec<u8>,
    sealed: Range<usize>,
    /// Short records that go out before those, or by themselves.
    extra: Vec<u8>,
    /// Whether the engine has ended its side.
    ended: Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    No,
    /// It has, and that is to be carried on.
    Parting,
    Yes,
}

/// What comes in: records, and the opened parts of them that the engine has not taken.
struct Incoming {
    buffer: Vec<u8>,
    filled: usize,
    /// What is before this was opened.
    at: usize,
    opened: Vec<Range<usize>>,
    ended: Ended,
    /// The engine takes nothing any more.
    deaf: bool,
    /// So often what has come is acknowledged at once.
    acknowledged: u32,
}

struct Pump {
    secured: Secured,
    /// Our end of the pair.
    inner: OwnedFd,
    outgoing: Outgoing,
    incoming: Incoming,
    /// When parting is over.
    until: Option<Instant>,
}

impl Secured {
    /// Starts the stream's thread. Gives the engine's end.
    pub(in crate::door) fn start(
        mut self,
        number: usize,
        threads: &Threads,
    ) -> std::io::Result<(OwnedFd, Arc<Pumped>)> {
        let flags = SocketFlags::CLOEXEC;
        let (inner, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let guard = Arc::<Pumped>::default();
        // The first bytes of the stream go first; they fit into the pair, which is empty.
        let early = std::mem::take(&mut self.early);
        if !early.is_empty() && send(&inner, &early, SendFlags::DONTWAIT)? != early.len() {
            return Err(std::io::Error::other("a socket pair without room"));
        }
        let mut buffer = vec![0; RECORDS * PEER_RECORD_MAX];
        let filled = self.incoming.len();
        buffer[..filled].copy_from_slice(&std::mem::take(&mut self.incoming));
        let incoming = Incoming {
            buffer,
            filled,
            at: 0,
            opened: Vec::new(),
            ended: Ended::No,
            deaf: false,
            acknowledged: ACKNOWLEDGED,
        };
        let outgoing = Outgoing {
            buffer: vec![0; RECORDS * RECORD_MAX],
            sealed: 0..0,
            extra: Vec::new(),
            ended: Ended::No,
        };
        let pump = Pump { secured: self, inner, outgoing, incoming, until: None };
        let told = Arc::clone(&guard);
        let _blocked = Blocked::all();
        let begins =
            threads.spawn_ready(ThreadKind::Tls, number as u32, Backend::Syscalls, move || {
                let _over = Over(&told);
                pump.run(&told);
            })?;
        begins.wait()?;
        Ok((theirs, guard))
    }
}

/// Says so when the thread is done, by a panic too.
struct Over<'a>(&'a Pumped);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over();
    }
}

impl Pump {
    fn run(mut self, guard: &Pumped) {
        tcp::open_window(&self.secured.socket);
        if let Err(fault) = self.carry() {
            // A peer that is gone when the engine is done has broken nothing.
            if self.outgoing.ended == Ended::No {
                tracing::warn!(%fault, "a protected stream broke");
                let _ = guard.fault.set(fault);
                if let Ok(alert) = self.secured.alarm() {
                    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                    let _ = send(&self.secured.socket, &alert, flags);
                }
            }
        }
        let _ = shutdown(&self.secured.socket, Shutdown::Both);
        let _ = shutdown(&self.inner, Shutdown::Both);
    }

    fn carry(&mut self) -> Result<(), TlsFault> {
        loop {
            let mut moved = self.give_out()?;
            moved |= self.take_in()?;
            if self.outgoing.ended == Ended::Yes && self.incoming.ended == Ended::Yes {
                return Ok(());
            }
            if !moved && !self.wait() {
                return Ok(());
            }
        }
    }

    /// Waits until a socket is ready; false when parting has taken too long.
    fn wait(&self) -> bool {
        let (Pump { secured, inner, outgoing, incoming, .. }, none) = (self, PollFlags::empty());
        let when = |truth, flags| if truth { flags } else { none };
        let is_sent = outgoing.sealed.is_empty() && outgoing.extra.is_empty();
        let takes = incoming.opened.is_empty();
        let outer_flags = when(!is_sent, PollFlags::OUT)
            | when(takes && incoming.ended == Ended::No, PollFlags::IN);
        let inner_flags = when(!takes, PollFlags::OUT)
            | when(is_sent && outgoing.ended == Ended::No, PollFlags::IN);
        let mut fds = Vec::with_capacity(2);
        // HUP and ERR come unasked: one that is waited for in no direction would never let us sleep.
        if !outer_flags.is_empty() {
            fds.push(PollFd::new(&secured.socket, outer_flags));
        }
        if !inner_flags.is_empty() {
            fds.push(PollFd::new(inner, inner_flags));
        }
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) || fds.is_empty() {
            return false;
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let _ = poll(&mut fds, timeout.as_ref());
        true
    }

    /// From the engine to the peer. Whether anything moved.
    fn give_out(&mut self) -> Result<bool, TlsFault> {
        let Pump { secured, inner, outgoing, until, .. } = self;
        let mut moved = false;
        if outgoing.sealed.is_empty() && outgoing.extra.is_empty() && outgoing.ended == Ended::No {
            match receive(inner, &mut outgoing.buffer) {
                Err(Errno::AGAIN | Errno::INTR) => return Ok(false),
                // It has ended, or broken off.
                Ok(0) | Err(_) => {
                    outgoing.extra = secured.close_notify()?;
                    outgoing.ended = Ended::Parting;
                    *until = Instant::now().checked_add(PARTING);
                }
                Ok(bytes) => {
                    outgoing.extra = secured.update()?.unwrap_or_default();
                    outgoing.sealed = 0..seal(secured, &mut outgoing.buffer, bytes)?;
                }
            }
            moved = true;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        while !(outgoing.extra.is_empty() && outgoing.sealed.is_empty()) {
            let rest = match outgoing.extra.is_empty() {
                false => &outgoing.extra[..],
                true => &outgoing.buffer[outgoing.sealed.clone()],
            };
            match send(&secured.socket, rest, flags) {
                Ok(sent) if outgoing.extra.is_empty() => outgoing.sealed.start += sent,
                Ok(sent) => drop(outgoing.extra.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(moved),
                Err(_) => return Err(TlsFault::Cut),
            }
            moved = true;
        }
        if outgoing.ended == Ended::Parting {
            let _ = shutdown(&secured.socket, Shutdown::Write);
            outgoing.ended = Ended::Yes;
        }
        Ok(moved)
    }

    /// From the peer to the engine. Whether anything moved.
    fn take_in(&mut self) -> Result<bool, TlsFault> {
        let Pump { secured, inner, incoming, .. } = self;
        let mut moved = false;
        if incoming.opened.is_empty() && incoming.ended == Ended::No {
            incoming.move_to_front();
            // What came with the handshake is there already.
            if !incoming.open(secured)? {
                let room = &mut incoming.buffer[incoming.filled..];
                match recv(&secured.socket, room, RecvFlags::DONTWAIT) {
                    Ok((0, _)) => return Err(TlsFault::Cut),
                    Ok((bytes, _)) => incoming.filled += bytes,
                    Err(Errno::AGAIN | Errno::INTR) => {
                        // Before it waits for more.
                        if let Some(left) = incoming.acknowledged.checked_sub(1) {
                            incoming.acknowledged = left;
                            tcp::acknowledge(&secured.socket);
                        }
                        return Ok(false);
                    }
                    Err(_) => return Err(TlsFault::Cut),
                }
                incoming.open(secured)?;
            }
            moved = true;
        }
        while !incoming.opened.is_empty() {
            match give(inner, incoming) {
                Ok(()) => moved = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(moved),
                Err(_) => incoming.deaf = true,
            }
            if incoming.deaf {
                incoming.opened.clear();
            }
        }
        if incoming.ended == Ended::Parting {
            let _ = shutdown(&*inner, Shutdown::Write);
            incoming.ended = Ended::Yes;
            moved = true;
        }
        Ok(moved)
    }
}

/// Reads from the engine right into the places that records have for their payloads.
fn receive(inner: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let payload = |record| {
        let (_, rest): (&mut [u8], &mut [u8]) = <[u8]>::split_at_mut(record, HEADER);
        IoSliceMut::new(&mut rest[..PAYLOAD_MAX])
    };
    let mut places: [IoSliceMut<'_>; RECORDS] = {
        let mut records = buffer.chunks_exact_mut(RECORD_MAX);
        std::array::from_fn(|_| match records.next() {
            Some(record) => payload(record),
            None => IoSliceMut::new(&mut []),
        })
    };
    let got = rustix::net::recvmsg(
        inner,
        &mut places,
        &mut rustix::net::RecvAncillaryBuffer::default(),
        RecvFlags::DONTWAIT,
    )?;
    Ok(got.bytes)
}

/// Seals so many bytes that [`receive`] gave. How many bytes the records have.
fn seal(secured: &mut Secured, buffer: &mut [u8], bytes: usize) -> Result<usize, TlsFault> {
    let (mut left, mut end) = (bytes, 0);
    for record in buffer.chunks_exact_mut(RECORD_MAX) {
        if left == 0 {
            break;
        }
        let payload = left.min(PAYLOAD_MAX);
        // Only the last one is shorter than its place.
        end += secured.seal(record, payload, DATA)?;
        left -= payload;
    }
    Ok(end)
}

impl Incoming {
    /// Makes room behind the part of a record that is left.
    fn move_to_front(&mut self) {
        self.buffer.copy_within(self.at..self.filled, 0);
        self.filled -= self.at;
        self.at = 0;
    }

    /// Opens every whole record. Whether there was any.
    fn open(&mut self, secured: &mut Secured) -> Result<bool, TlsFault> {
        let before = self.at;
        while self.ended == Ended::No {
            let rest = &mut self.buffer[self.at..self.filled];
            let Some(length) = record_length(rest)?.filter(|length| *length <= rest.len()) else {
                break;
            };
            match secured.open(&mut rest[..length])? {
                Opened::Data(range) => self.opened.push(self.at + range.start..self.at + range.end),
                Opened::Nothing => {}
                Opened::End => self.ended = Ended::Parting,
            }
            self.at += length;
        }
        Ok(self.at > before)
    }
}

/// Gives the engine what was opened.
fn give(inner: &OwnedFd, incoming: &mut Incoming) -> Result<(), Errno> {
    let parts: Vec<IoSlice<'_>> =
        incoming.opened.iter().map(|part| IoSlice::new(&incoming.buffer[part.clone()])).collect();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let mut taken = sendmsg(inner, &parts, &mut SendAncillaryBuffer::default(), flags)?;
    while let Some(first) = incoming.opened.first_mut() {
        let step = taken.min(first.len());
        first.start += step;
        taken -= step;
        if first.start < first.end {
            break;
        }
        incoming.opened.remove(0);
    }
    Ok(())
}

// The session's memory has this term for each stream.
const _: () = assert!(RECORDS * (RECORD_MAX + PEER_RECORD_MAX) <= TLS_STREAM_BYTES);
