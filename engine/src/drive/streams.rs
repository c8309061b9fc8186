//! The session's sockets: frames out of slots and into slots, one send and one receive in flight on
//! each.
//!
//! ```text
//! receive: Header -> Control body -> Header ...       frames that are not data
//!             |----> Asking -> Data body -> Header    data: the machine says where to, or skips
//!             |----> Skip -> Header                   optional frames of a newer peer
//! ```
//!
//! A stream that fails in one direction is closed for sending, and is lost once nothing is in
//! flight on it any more: what the peer still said before it went (its abort) is heard first.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffers::{Buffer, Slot};
use crate::ids::StreamId;
use crate::limits::HEADER_BYTES;
use crate::metrics::StreamMetrics;
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::ring::{Done, FileId, FileKind, Op, Ring, Token};
use crate::wire::{
    DataHeader, Frame, Header, Kind, WireLimits, data_header, decode, decode_header, encode,
    encode_header,
};

/// Bytes of a skipped body that are received at a time.
const SKIP_BYTES: usize = 64 << 10;
/// How long the end waits for what is in flight before it aborts connections.
const CLOSING: Duration = Duration::from_millis(100);

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
    /// The stream is over; slots that it held.
    Lost { stream: StreamId, slots: Vec<Slot>, fault: Fault },
}

#[derive(Debug)]
enum Receiving {
    Header,
    Control(Header),
    Asking(DataHeader),
    Data { header: DataHeader, since_ns: u64 },
    Skip { left: usize },
    Over,
}

#[derive(Debug)]
struct Stream {
    file: FileId,
    fd: Arc<OwnedFd>,
    receiving: Receiving,
    receive_in_flight: bool,
    send_since_ns: Option<u64>,
    fault: Option<Fault>,
    slots: Vec<Slot>,
    lost: bool,
    metrics: StreamMetrics,
}

/// See the module's text.
pub(super) struct Streams {
    ring: Box<dyn Ring>,
    streams: Vec<Stream>,
    limits: WireLimits,
    done: Vec<Done>,
    /// Small buffers to be used again, by size: headers.
    headers: Vec<Vec<u8>>,
    skip: BTreeMap<u16, Vec<u8>>,
}

impl Streams {
    /// Takes the sockets over and starts to receive.
    pub(super) fn new(
        mut ring: Box<dyn Ring>,
        sockets: Vec<OwnedFd>,
        limits: WireLimits,
    ) -> io::Result<Streams> {
        let mut streams = Vec::with_capacity(sockets.len());
        for socket in sockets {
            let fd = Arc::new(socket);
            streams.push(Stream {
                file: ring.add_file(Arc::clone(&fd), FileKind::Socket)?,
                fd,
                receiving: Receiving::Header,
                receive_in_flight: false,
                send_since_ns: None,
                fault: None,
                slots: Vec::new(),
                lost: false,
                metrics: StreamMetrics::default(),
            });
        }
        Ok(Streams {
            ring,
            streams,
            limits,
            done: Vec::new(),
            headers: Vec::new(),
            skip: BTreeMap::new(),
        })
    }

    /// What was moved on each stream.
    pub(super) fn metrics(&self) -> impl Iterator<Item = StreamMetrics> + '_ {
        self.streams.iter().map(|stream| stream.metrics)
    }

    /// Starts to receive on every stream.
    pub(super) fn start(&mut self, now_ns: u64, events: &mut Vec<StreamEvent>) {
        for index in 0..self.streams.len() {
            self.receive_header(StreamId(index as u16), now_ns, events);
        }
    }

    /// Waits for completions, a wake or the timeout, and says what happened.
    pub(super) fn wait(
        &mut self,
        timeout: Option<Duration>,
        now: impl Fn() -> u64,
        events: &mut Vec<StreamEvent>,
    ) -> io::Result<()> {
        let waited = self.ring.wait(timeout, &mut self.done);
        let now_ns = now();
        let done = std::mem::take(&mut self.done);
        for done in done {
            let stream = StreamId((done.token.0 / 2) as u16);
            if done.token.0 % 2 == 0 {
                self.sent(stream, done, now_ns, events);
            } else {
                self.received(stream, done, now_ns, events);
            }
        }
        waited
    }

    /// Sends a frame that is not data.
    pub(super) fn send_frame(
        &mut self,
        stream: StreamId,
        frame: &Frame,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let mut bytes = Vec::with_capacity(2 * HEADER_BYTES);
        match encode(frame, &mut bytes) {
            Ok(()) => self.send(stream, Buffer::Small(bytes), now_ns, events),
            Err(fault) => {
                // Lengths are checked where the embedder gives them; this is for a check missed.
                let fault = Fault { cause: Cause::Local, ..Fault::from(fault) };
                self.fail(stream, fault, now_ns, events);
            }
        }
    }

    /// Sends a data frame; its body stands in the slot.
    pub(super) fn send_data(
        &mut self,
        stream: StreamId,
        header: DataHeader,
        slot: Option<Slot>,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let bytes = encode_header(&Header::from(header));
        let buffer = match slot {
            Some(mut slot) => {
                *slot.header_mut() = bytes;
                Buffer::Slot(slot)
            }
            None => Buffer::Small(bytes.to_vec()),
        };
        let length = HEADER_BYTES + header.body_bytes as usize;
        self.send_range(stream, buffer, length, now_ns, events);
    }

    fn send(
        &mut self,
        stream: StreamId,
        buffer: Buffer,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let length = buffer.bytes().len();
        self.send_range(stream, buffer, length, now_ns, events);
    }

    fn send_range(
        &mut self,
        stream: StreamId,
        buffer: Buffer,
        length: usize,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let entry = &mut self.streams[stream.index()];
        entry.metrics.sent_bytes += length as u64;
        entry.metrics.sent_frames += 1;
        entry.send_since_ns = Some(now_ns);
        let op = Op::Send { file: entry.file, buffer, range: 0..length };
        if let Err(rejected) = self.ring.submit(Token(u64::from(stream.0) * 2), op) {
            let errno = rejected.errno;
            let buffer = rejected.op.into_buffer();
            let done = Done { token: Token(0), result: Err(errno), buffer };
            self.sent(stream, done, now_ns, events);
        }
    }

    fn sent(&mut self, stream: StreamId, done: Done, now_ns: u64, events: &mut Vec<StreamEvent>) {
        let entry = &mut self.streams[stream.index()];
        let ns = now_ns.saturating_sub(entry.send_since_ns.take().unwrap_or(now_ns));
        entry.metrics.send_ns += ns;
        let slot = match done.buffer {
            Buffer::Slot(slot) => Some(slot),
            Buffer::Small(_) => None,
        };
        match done.result {
            Ok(_) if entry.fault.is_none() => events.push(StreamEvent::Sent { stream, slot, ns }),
            Ok(_) => {
                entry.slots.extend(slot);
                self.lost_if_idle(stream, events);
            }
            Err(errno) => {
                entry.slots.extend(slot);
                let fault = broken("send to", stream, errno);
                self.fail(stream, fault, now_ns, events);
            }
        }
    }

    /// The machine has said where the announced body goes.
    pub(super) fn receive_body(
        &mut self,
        stream: StreamId,
        header: DataHeader,
        slot: Slot,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        if self.streams[stream.index()].fault.is_some() {
            self.keep(stream, Buffer::Slot(slot));
            self.lost_if_idle(stream, events);
            return;
        }
        let length = HEADER_BYTES + header.body_bytes as usize;
        self.streams[stream.index()].receiving = Receiving::Data { header, since_ns: now_ns };
        self.receive(stream, Buffer::Slot(slot), HEADER_BYTES..length, now_ns, events);
    }

    /// The machine does not want the announced body.
    pub(super) fn skip_body(
        &mut self,
        stream: StreamId,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        if let Receiving::Asking(header) = self.streams[stream.index()].receiving {
            self.skip(stream, header.body_bytes as usize, now_ns, events);
        }
    }

    fn skip(&mut self, stream: StreamId, left: usize, now_ns: u64, events: &mut Vec<StreamEvent>) {
        if left == 0 {
            self.receive_header(stream, now_ns, events);
            return;
        }
        self.streams[stream.index()].receiving = Receiving::Skip { left };
        let buffer = self.skip.remove(&stream.0).unwrap_or_else(|| vec![0; SKIP_BYTES]);
        self.receive(stream, Buffer::Small(buffer), 0..left.min(SKIP_BYTES), now_ns, events);
    }

    fn receive_header(&mut self, stream: StreamId, now_ns: u64, events: &mut Vec<StreamEvent>) {
        self.streams[stream.index()].receiving = Receiving::Header;
        let buffer = self.headers.pop().unwrap_or_else(|| vec![0; HEADER_BYTES]);
        self.receive(stream, Buffer::Small(buffer), 0..HEADER_BYTES, now_ns, events);
    }

    fn receive(
        &mut self,
        stream: StreamId,
        buffer: Buffer,
        range: std::ops::Range<usize>,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let entry = &mut self.streams[stream.index()];
        entry.receive_in_flight = true;
        let op = Op::Recv { file: entry.file, buffer, range };
        if let Err(rejected) = self.ring.submit(Token(u64::from(stream.0) * 2 + 1), op) {
            let errno = rejected.errno;
            let buffer = rejected.op.into_buffer();
            let done = Done { token: Token(1), result: Err(errno), buffer };
            self.received(stream, done, now_ns, events);
        }
    }

    fn received(
        &mut self,
        stream: StreamId,
        done: Done,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let entry = &mut self.streams[stream.index()];
        entry.receive_in_flight = false;
        let receiving = std::mem::replace(&mut entry.receiving, Receiving::Over);
        let wanted = match &receiving {
            Receiving::Header => HEADER_BYTES,
            Receiving::Control(header) => header.body_bytes as usize,
            Receiving::Data { header, .. } => header.body_bytes as usize,
            Receiving::Skip { left } => (*left).min(SKIP_BYTES),
            Receiving::Asking(_) | Receiving::Over => 0,
        };
        let bytes = match done.result {
            Ok(bytes) if bytes == wanted => bytes,
            Ok(bytes) => {
                self.keep(stream, done.buffer);
                let at_boundary = bytes == 0 && matches!(receiving, Receiving::Header);
                let fault = ended(stream, at_boundary, bytes, wanted);
                self.fail(stream, fault, now_ns, events);
                return;
            }
            Err(errno) => {
                self.keep(stream, done.buffer);
                let fault = broken("receive from", stream, errno);
                self.fail(stream, fault, now_ns, events);
                return;
            }
        };
        entry.metrics.received_bytes += bytes as u64;
        match (receiving, done.buffer) {
            (Receiving::Header, Buffer::Small(buffer)) => {
                let parsed = buffer
                    .first_chunk::<HEADER_BYTES>()
                    .map(|bytes| decode_header(bytes, &self.limits));
                self.headers.push(buffer);
                match parsed {
                    Some(Ok(header)) => self.announced(stream, header, now_ns, events),
                    Some(Err(fault)) => self.fail(stream, fault.into(), now_ns, events),
                    None => {}
                }
            }
            (Receiving::Control(header), Buffer::Small(body)) => {
                self.control(stream, &header, &body, now_ns, events);
            }
            (Receiving::Data { header, since_ns }, Buffer::Slot(slot)) => {
                entry.metrics.received_frames += 1;
                let ns = now_ns.saturating_sub(since_ns);
                events.push(StreamEvent::Body { stream, header, slot, ns });
                self.receive_header(stream, now_ns, events);
            }
            (Receiving::Skip { left }, Buffer::Small(buffer)) => {
                self.skip.insert(stream.0, buffer);
                self.skip(stream, left - bytes, now_ns, events);
            }
            (_, buffer) => self.keep(stream, buffer),
        }
    }

    fn announced(
        &mut self,
        stream: StreamId,
        header: Header,
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let length = header.body_bytes as usize;
        let entry = &mut self.streams[stream.index()];
        if header.kind == Kind::DATA {
            match data_header(&header) {
                Ok(data) => {
                    entry.receiving = Receiving::Asking(data);
                    events.push(StreamEvent::Data { stream, header: data });
                    if length == 0 {
                        self.streams[stream.index()].metrics.received_frames += 1;
                        self.receive_header(stream, now_ns, events);
                    }
                }
                Err(fault) => self.fail(stream, fault.into(), now_ns, events),
            }
        } else if header.is_skippable() {
            self.skip(stream, length, now_ns, events);
        } else if length == 0 {
            self.control(stream, &header, &[], now_ns, events);
        } else {
            // The header's check has bounded the length by CONTROL_BODY_BYTES_MAX.
            entry.receiving = Receiving::Control(header);
            self.receive(stream, Buffer::Small(vec![0; length]), 0..length, now_ns, events);
        }
    }

    fn control(
        &mut self,
        stream: StreamId,
        header: &Header,
        body: &[u8],
        now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        match decode(header, body) {
            Ok(frame) => {
                self.streams[stream.index()].metrics.received_frames += 1;
                events.push(StreamEvent::Frame { stream, frame });
                self.receive_header(stream, now_ns, events);
            }
            Err(fault) => self.fail(stream, fault.into(), now_ns, events),
        }
    }

    /// Notes why a stream is over. A receive in flight goes on until the peer's end: its abort may
    /// be on the way.
    fn fail(
        &mut self,
        stream: StreamId,
        fault: Fault,
        _now_ns: u64,
        events: &mut Vec<StreamEvent>,
    ) {
        let entry = &mut self.streams[stream.index()];
        entry.fault.get_or_insert(fault);
        if entry.receive_in_flight {
            // Sending failed: the other end has closed or is closing.
            let _ = shutdown(&entry.fd, Shutdown::Write);
        } else {
            let _ = shutdown(&entry.fd, Shutdown::Both);
        }
        self.lost_if_idle(stream, events);
    }

    fn lost_if_idle(&mut self, stream: StreamId, events: &mut Vec<StreamEvent>) {
        let entry = &mut self.streams[stream.index()];
        let idle = !entry.receive_in_flight && entry.send_since_ns.is_none();
        // Once more if slots came to it after it was lost.
        let news = !entry.lost || !entry.slots.is_empty();
        if let (true, true, Some(fault)) = (idle, news, entry.fault.clone()) {
            entry.lost = true;
            let slots = std::mem::take(&mut entry.slots);
            events.push(StreamEvent::Lost { stream, slots, fault });
        }
    }

    fn keep(&mut self, stream: StreamId, buffer: Buffer) {
        if let Buffer::Slot(slot) = buffer {
            self.streams[stream.index()].slots.push(slot);
        }
    }

    /// Says that nothing more will be sent on the streams that have nothing in flight.
    pub(super) fn close_sending(&mut self) {
        for stream in &self.streams {
            if stream.send_since_ns.is_none() && !stream.lost {
                let _ = shutdown(&stream.fd, Shutdown::Write);
            }
        }
    }

    /// Ends both directions of all streams, and waits for what is in flight.
    ///
    /// A zero-copy send is in flight until the peer's host has acknowledged its bytes: with one
    /// that is frozen or cut off that takes as long as TCP has patience. Such a connection is
    /// aborted, which drops what it still had to send.
    pub(super) fn close(&mut self) {
        for stream in &self.streams {
            let _ = shutdown(&stream.fd, Shutdown::Both);
        }
        self.wait_until_idle();
        if self.ring.in_flight() > 0 {
            for stream in &self.streams {
                let _ = rustix::net::connect_unspec(&*stream.fd);
            }
            self.wait_until_idle();
        }
    }

    fn wait_until_idle(&mut self) {
        let deadline = Instant::now() + CLOSING;
        while self.ring.in_flight() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.ring.wait(Some(left), &mut self.done).is_err() {
                return;
            }
            self.done.clear();
        }
    }

    /// Whether every stream is lost.
    pub(super) fn all_lost(&self) -> bool {
        self.streams.iter().all(|stream| stream.lost)
    }

    /// Whether an announced body still waits for the machine's word on this stream.
    pub(super) fn is_asking(&self, stream: StreamId) -> bool {
        matches!(self.streams[stream.index()].receiving, Receiving::Asking(_))
    }
}

fn shutdown(fd: &OwnedFd, how: Shutdown) -> rustix::io::Result<()> {
    let how = match how {
        Shutdown::Write => rustix::net::Shutdown::Write,
        Shutdown::Read => rustix::net::Shutdown::Read,
        Shutdown::Both => rustix::net::Shutdown::Both,
    };
    rustix::net::shutdown(fd, how)
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

fn ended(stream: StreamId, at_boundary: bool, bytes: usize, wanted: usize) -> Fault {
    if at_boundary {
        let message = format!("the peer closed {stream} before the migration was over");
        return Fault::session(Cause::Network, Observation::Stream, message);
    }
    Fault::breach(Breach::Cut { stream, found: bytes, expected: wanted })
}
