//! The session's sockets: frames out of slots and into slots, one send and one receive in flight on
//! each.
//!
//! A stream that fails in one direction is closed for sending, and is lost once nothing is in
//! flight on it any more: what the peer still said before it went (its abort) is heard first.

mod drain;
mod kernel;
mod parts;
mod receiving;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use crate::buffers::{Buffer, Slot};
use crate::drive::owner::{Owner, SharedRing, Way};
use crate::drive::waits::CLOSE;
use crate::ids::StreamId;
use crate::kernel_tls::{Ended, KernelTls};
use crate::metrics::StreamMetrics;
use crate::outcome::{Cause, Fault, Observation};
use crate::ring::{Done, FileId, FileKind};
use crate::tcp;
use crate::wire::{DataHeader, Frame, FrameNumbers, WireLimits};
use drain::Drain;
pub(super) use kernel::Speed;
use parts::Part;
use receiving::Receiving;

/// By so many frames a stream's window has grown.
const FRAMES_ACKNOWLEDGED: u64 = 64;

/// What happened on a stream.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// A send ended; the slot that it was sent from.
    Sent { stream: StreamId, slot: Option<Slot>, ns: u64 },
    /// A frame that is not data.
    Frame { stream: StreamId, frame: Frame },
    /// A data frame's header; the stream waits if there is a body.
    Data { stream: StreamId, header: DataHeader },
    /// A data frame's body.
    Body { stream: StreamId, header: DataHeader, slot: Slot, ns: u64 },
    /// Part of a frame has moved, and not its end.
    Part { stream: StreamId, sent: bool, bytes: u32 },
    /// What all streams together take, as the kernel has just measured it.
    Link(Speed),
    /// The stream is over; slots that it held.
    Lost { stream: StreamId, slots: Vec<Slot>, fault: Fault },
}

/// What is known of the streams before anything is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// They lead to this host again.
    pub(super) shared: bool,
    /// What they take together at most.
    pub(super) bytes_per_s: Option<u64>,
    /// They are connections, with nobody else's bytes on them.
    pub(super) may_try: bool,
}

/// What a stream is made of.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    /// Where the kernel seals and opens what goes through it.
    pub(crate) tls: Option<Arc<KernelTls>>,
}

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Socket {
        Socket { fd, tls: None }
    }
}

#[derive(Debug)]
struct Stream {
    /// Of the ring, until the socket is closed.
    file: FileId,
    fd: Option<Arc<OwnedFd>>,
    tls: Option<Arc<KernelTls>>,
    receiving: Receiving,
    /// Of the frames that were sent.
    sent: FrameNumbers,
    /// Of the frames that have come.
    received: FrameNumbers,
    receive_in_flight: bool,
    send_since_ns: Option<u64>,
    /// What was told of the operations in flight.
    coming: Part,
    going: Part,
    drain: Drain,
    fault: Option<Fault>,
    slots: Vec<Slot>,
    lost: bool,
    /// The kernel had no room for TLS's last word.
    owes_end: bool,
    metrics: StreamMetrics,
}

/// See the module's text.
pub(super) struct Streams {
    ring: SharedRing,
    streams: Vec<Stream>,
    limits: WireLimits,
    /// What happened and nobody has taken yet.
    events: VecDeque<StreamEvent>,
    /// Completions of others, met while the streams were closed.
    strays: Vec<Done>,
    /// Small buffers to be used again, by size: headers.
    headers: Vec<Vec<u8>>,
    skip: BTreeMap<u16, Vec<u8>>,
    /// So many frames on each stream are acknowledged as soon as they have come.
    acknowledged: u64,
    /// When parts of frames were looked for last.
    looked_ns: u64,
    /// When the kernel was asked last how fast the streams are; none if nobody wants to know.
    measured_ns: Option<u64>,
    /// Nothing that happens on the streams counts any more.
    closing: bool,
}

impl Streams {
    /// Takes the sockets over and starts to receive.
    pub(super) fn new(
        ring: SharedRing,
        sockets: Vec<Socket>,
        limits: WireLimits,
    ) -> io::Result<Streams> {
        let mut streams = Vec::with_capacity(sockets.len());
        for Socket { fd, tls } in sockets {
            let fd = Arc::new(fd);
            streams.push(Stream {
                file: ring.borrow_mut().add_file(Arc::clone(&fd), FileKind::Socket)?,
                fd: Some(fd),
                tls,
                receiving: Receiving::Header { begun: 0 },
                sent: FrameNumbers::default(),
                received: FrameNumbers::default(),
                receive_in_flight: false,
                send_since_ns: None,
                coming: Part::default(),
                going: Part::default(),
                drain: Drain::default(),
                fault: None,
                slots: Vec::new(),
                lost: false,
                owes_end: false,
                metrics: StreamMetrics::default(),
            });
        }
        Ok(Streams {
            ring,
            streams,
            limits,
            events: VecDeque::new(),
            strays: Vec::new(),
            headers: Vec::new(),
            skip: BTreeMap::new(),
            acknowledged: 0,
            looked_ns: 0,
            measured_ns: None,
            closing: false,
        })
    }

    /// What was moved on each stream.
    pub(super) fn metrics(&self) -> impl Iterator<Item = StreamMetrics> + '_ {
        self.streams.iter().map(|stream| stream.metrics)
    }

    /// Starts to receive on every stream.
    pub(super) fn start(&mut self, now_ns: u64) {
        for index in 0..self.streams.len() {
            self.receive_header(StreamId(index as u16), now_ns);
        }
    }

    /// From here on the streams' speed is measured, and the kernel takes no more than it can soon
    /// send. What is known of them before.
    pub(super) fn measure(&mut self) -> Known {
        self.measured_ns = Some(0);
        let fds = || self.streams.iter().filter_map(|stream| stream.fd.as_ref());
        fds().for_each(kernel::keep_unsent_short);
        let cap = fds().map(kernel::cap).reduce(|sum, next| Some(sum?.saturating_add(next?)));
        Known {
            shared: fds().all(kernel::is_local),
            bytes_per_s: cap.flatten(),
            may_try: fds().all(tcp::is_tcp),
        }
    }

    /// State comes in on the streams: none of it is to wait at the other end for this one.
    pub(super) fn expect_state(&mut self) {
        self.acknowledged = FRAMES_ACKNOWLEDGED;
        self.streams.iter().filter_map(|stream| stream.fd.as_ref()).for_each(tcp::open_window);
    }

    /// What happened next, if anything did: in `wait`, or at once in one of the other calls.
    pub(super) fn next(&mut self) -> Option<StreamEvent> {
        self.events.pop_front()
    }

    /// Takes a completion of a stream's operation.
    pub(super) fn done(&mut self, stream: StreamId, way: Way, done: Done, now_ns: u64) {
        if self.closing {
            self.ended_closing(stream, way);
            self.let_go();
            return;
        }
        match way {
            Way::Out => self.sent(stream, done.buffer, done.result, now_ns),
            Way::In => self.received(stream, done.buffer, done.result, now_ns),
        }
    }

    /// Completions of data fds that came while the streams were closed.
    pub(super) fn take_strays(&mut self) -> Vec<Done> {
        std::mem::take(&mut self.strays)
    }

    /// An operation has ended whose result counts no more.
    fn ended_closing(&mut self, stream: StreamId, way: Way) {
        let entry = &mut self.streams[stream.index()];
        match way {
            Way::Out => entry.send_since_ns = None,
            Way::In => entry.receive_in_flight = false,
        }
    }

    /// Whether the kernel holds nothing of the streams.
    fn is_idle(&self) -> bool {
        self.streams.iter().all(|it| !it.receive_in_flight && it.send_since_ns.is_none())
    }

    /// Notes why a stream is over. A receive in flight goes on until the peer's end: its abort may
    /// be on the way.
    fn fail(&mut self, stream: StreamId, fault: Fault) {
        let entry = &mut self.streams[stream.index()];
        entry.fault.get_or_insert(fault);
        if entry.receive_in_flight {
            // Sending failed: the other end has closed or is closing.
            entry.shutdown(Shutdown::Write);
        } else {
            entry.shutdown(Shutdown::Both);
        }
        self.lost_if_idle(stream);
    }

    fn lost_if_idle(&mut self, stream: StreamId) {
        let entry = &mut self.streams[stream.index()];
        let idle = !entry.receive_in_flight && entry.send_since_ns.is_none();
        // Once more if slots came to it after it was lost.
        let news = !entry.lost || !entry.slots.is_empty();
        if let (true, true, Some(fault)) = (idle, news, entry.fault.clone()) {
            entry.lost = true;
            let slots = std::mem::take(&mut entry.slots);
            self.events.push_back(StreamEvent::Lost { stream, slots, fault });
        }
    }

    fn keep(&mut self, stream: StreamId, buffer: Buffer) {
        if let Buffer::Slot(slot) = buffer {
            self.streams[stream.index()].slots.push(slot);
        }
    }

    /// Ends both directions of all streams, and waits for what is in flight, within a bound.
    ///
    /// A zero-copy send is in flight until the peer's host has acknowledged its bytes: with one
    /// that is frozen or cut off that takes as long as TCP has patience. Such a connection is
    /// aborted, which drops what it still had to send. What the kernel holds even then comes back
    /// later, by [`done`](Self::done).
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.events.clear();
        self.hang_up();
        self.wait_until_idle();
        if !self.is_idle() {
            for fd in self.streams.iter().filter_map(|stream| stream.fd.as_ref()) {
                let _ = rustix::net::connect_unspec(&**fd);
            }
            self.wait_until_idle();
        }
        self.let_go();
    }

    /// Ends both directions of all streams, and waits for nothing.
    pub(super) fn hang_up(&self) {
        for stream in &self.streams {
            stream.shutdown(Shutdown::Both);
        }
    }

    fn wait_until_idle(&mut self) {
        let deadline = Instant::now() + CLOSE;
        let mut done = Vec::new();
        while !self.is_idle() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ring.borrow_mut().wait(Some(left), &mut done).is_err() {
                break;
            }
            for done in done.drain(..) {
                match Owner::of(done.token) {
                    Owner::Stream(stream, way) => self.ended_closing(stream, way),
                    Owner::Data(_) | Owner::Watch(_) => self.strays.push(done),
                }
            }
        }
        // Where the wait failed, what it had to tell is not lost.
        self.strays.extend(done);
    }

    /// Closes the sockets, once nothing is in flight.
    fn let_go(&mut self) {
        if !self.is_idle() {
            return;
        }
        for stream in &mut self.streams {
            if stream.fd.take().is_some()
                && let Err(error) = self.ring.borrow_mut().remove_file(stream.file)
            {
                tracing::warn!(%error, "a stream stays open until its ring ends");
            }
        }
    }

    /// Whether the streams are being closed, or are.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether all sockets are closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closing && self.streams.iter().all(|stream| stream.fd.is_none())
    }

    /// Whether every stream is lost.
    pub(super) fn all_lost(&self) -> bool {
        self.streams.iter().all(|stream| stream.lost)
    }
}

impl Stream {
    /// Where the kernel does TLS on it, and it is not closed.
    fn kernel_tls(&self) -> Option<(&KernelTls, &OwnedFd)> {
        Some((self.tls.as_deref()?, self.fd.as_deref()?))
    }

    fn shutdown(&self, how: Shutdown) {
        if how != Shutdown::Read
            && let Some((tls, fd)) = self.kernel_tls()
        {
            let _ = tls.part(fd);
        }
        let how = match how {
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        if let Some(fd) = &self.fd {
            // ENOTCONN: the peer was faster.
            let _ = rustix::net::shutdown(&**fd, how);
        }
    }
}

/// What the kernel's TLS says of a receive that gave too few bytes, or failed: the peer's word that it
/// has ended, or how it broke, which the report then names.
fn broken_tls(
    (tls, fd): (&KernelTls, &OwnedFd),
    stream: StreamId,
    result: Result<usize, i32>,
) -> Option<Fault> {
    match tls.why(fd, result.err()) {
        Ended::Parted => None,
        Ended::Broken(fault) => {
            tls.broke(fd, fault);
            let message = format!("{stream} broke");
            Some(Fault::session(Cause::Network, Observation::Stream, message))
        }
    }
}

fn broken(what: &str, stream: StreamId, errno: i32) -> Fault {
    let error = io::Error::from_raw_os_error(errno);
    Fault {
        errno: Some(errno),
        ..Fault::session(
            Cause::Network,
            Observation::Stream,
            format!("could not {what} {stream}: {error}"),
        )
    }
}
