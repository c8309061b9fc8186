//! The receiving half: frame by frame, one receive in flight on each stream.
//!
//! ```text
//! Header -> Control body -> Header ...       frames that are not data
//!   |----> Asking -> Data body -> Header     data: the machine says where to, or skips
//!   |----> Skip -> Header                    optional frames of a newer peer
//! ```

use super::{StreamEvent, Streams, broken, broken_tls};
use crate::buffers::{Buffer, Slot};
use crate::drive::owner::{Owner, Way};
use crate::ids::StreamId;
use crate::limits::HEADER_BYTES;
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::ring::Op;
use crate::tcp;
use crate::wire::{DataHeader, Header, Kind, data_header, decode, decode_header};

/// Bytes of a skipped body that are received at a time.
const SKIP_BYTES: usize = 64 << 10;

/// What a stream receives just now.
#[derive(Debug)]
pub(super) enum Receiving {
    /// A header, of which so many bytes came with the body before it.
    Header {
        begun: usize,
    },
    Control(Header),
    Asking(DataHeader),
    Data {
        header: DataHeader,
        since_ns: u64,
    },
    Skip {
        left: usize,
    },
    Over,
}

impl Streams {
    /// The machine has said where the announced body goes.
    pub(in crate::drive) fn receive_body(
        &mut self,
        stream: StreamId,
        header: DataHeader,
        slot: Slot,
        now_ns: u64,
    ) {
        if self.streams[stream.index()].fault.is_some() {
            self.keep(stream, Buffer::Slot(slot));
            self.lost_if_idle(stream);
            return;
        }
        let length = HEADER_BYTES + header.body_bytes as usize;
        self.streams[stream.index()].receiving = Receiving::Data { header, since_ns: now_ns };
        // With as much of the next header as has come.
        let range = HEADER_BYTES..length + HEADER_BYTES;
        self.receive(stream, Buffer::Slot(slot), range, header.body_bytes as usize, now_ns);
    }

    /// The machine does not want the announced body.
    pub(in crate::drive) fn skip_body(&mut self, stream: StreamId, now_ns: u64) {
        if let Receiving::Asking(header) = self.streams[stream.index()].receiving {
            self.skip(stream, header.body_bytes as usize, now_ns);
        }
    }

    fn skip(&mut self, stream: StreamId, left: usize, now_ns: u64) {
        if left == 0 {
            self.receive_header(stream, now_ns);
            return;
        }
        self.streams[stream.index()].receiving = Receiving::Skip { left };
        let buffer = self.skip.remove(&stream.0).unwrap_or_else(|| vec![0; SKIP_BYTES]);
        let bytes = left.min(SKIP_BYTES);
        self.receive(stream, Buffer::Small(buffer), 0..bytes, bytes, now_ns);
    }

    pub(super) fn receive_header(&mut self, stream: StreamId, now_ns: u64) {
        self.receive_header_after(stream, &[], now_ns);
    }

    /// Receives a header of which so many bytes have come already.
    fn receive_header_after(&mut self, stream: StreamId, begun: &[u8], now_ns: u64) {
        let mut buffer = self.headers.pop().unwrap_or_else(|| vec![0; HEADER_BYTES]);
        buffer[..begun.len()].copy_from_slice(begun);
        if begun.len() == HEADER_BYTES {
            self.header(stream, buffer, now_ns);
            return;
        }
        self.streams[stream.index()].receiving = Receiving::Header { begun: begun.len() };
        let rest = begun.len()..HEADER_BYTES;
        let bytes = rest.len();
        self.receive(stream, Buffer::Small(buffer), rest, bytes, now_ns);
    }

    fn receive(
        &mut self,
        stream: StreamId,
        buffer: Buffer,
        range: std::ops::Range<usize>,
        enough: usize,
        now_ns: u64,
    ) {
        let entry = &mut self.streams[stream.index()];
        entry.receive_in_flight = true;
        if entry.metrics.received_frames < self.acknowledged {
            entry.fd.iter().for_each(tcp::acknowledge);
        }
        let op = Op::recv_enough(entry.file, buffer, range, enough);
        let submitted = self.ring.borrow_mut().submit(Owner::Stream(stream, Way::In).token(), op);
        if let Err(rejected) = submitted {
            self.received(stream, rejected.op.buffer, Err(rejected.errno), now_ns);
        }
    }

    pub(super) fn received(
        &mut self,
        stream: StreamId,
        buffer: Buffer,
        result: Result<usize, i32>,
        now_ns: u64,
    ) {
        let entry = &mut self.streams[stream.index()];
        entry.receive_in_flight = false;
        let receiving = std::mem::replace(&mut entry.receiving, Receiving::Over);
        let wanted = match &receiving {
            Receiving::Header { begun } => HEADER_BYTES - begun,
            Receiving::Control(header) => header.body_bytes as usize,
            Receiving::Data { header, .. } => header.body_bytes as usize,
            Receiving::Skip { left } => (*left).min(SKIP_BYTES),
            Receiving::Asking(_) | Receiving::Over => 0,
        };
        let short = |bytes: usize| {
            let at_boundary = bytes == 0 && matches!(receiving, Receiving::Header { begun: 0 });
            Some(ended(stream, at_boundary, bytes, wanted))
        };
        let fault = match (result, entry.kernel_tls()) {
            (Ok(bytes), _) if bytes >= wanted => None,
            (_, Some(guarded)) => {
                broken_tls(guarded, stream, result).or_else(|| short(result.unwrap_or_default()))
            }
            (Ok(bytes), None) => short(bytes),
            (Err(errno), None) => Some(broken("receive from", stream, errno)),
        };
        match receiving {
            Receiving::Skip { .. } => entry.coming.go_on(wanted),
            _ => entry.coming.end(),
        }
        if let Some(fault) = fault {
            self.keep(stream, buffer);
            self.fail(stream, fault);
            return;
        }
        let moved = result.unwrap_or(wanted);
        entry.metrics.received_bytes += moved as u64;
        match (receiving, buffer) {
            (Receiving::Header { .. }, Buffer::Small(buffer)) => {
                self.header(stream, buffer, now_ns)
            }
            (Receiving::Control(header), Buffer::Small(body)) => {
                self.control(stream, &header, &body, now_ns);
            }
            (Receiving::Data { header, since_ns }, Buffer::Slot(slot)) => {
                entry.metrics.received_frames += 1;
                let ns = now_ns.saturating_sub(since_ns);
                let mut next = [0; HEADER_BYTES];
                let begun = moved.saturating_sub(wanted).min(HEADER_BYTES);
                let behind = HEADER_BYTES + wanted;
                next[..begun].copy_from_slice(&slot.whole()[behind..behind + begun]);
                self.events.push_back(StreamEvent::Body { stream, header, slot, ns });
                self.receive_header_after(stream, &next[..begun], now_ns);
            }
            (Receiving::Skip { left }, Buffer::Small(buffer)) => {
                self.skip.insert(stream.0, buffer);
                self.skip(stream, left - wanted, now_ns);
            }
            (_, buffer) => self.keep(stream, buffer),
        }
    }

    /// A header has come.
    fn header(&mut self, stream: StreamId, buffer: Vec<u8>, now_ns: u64) {
        let entry = &mut self.streams[stream.index()];
        let parsed = buffer.first_chunk::<HEADER_BYTES>().map(|bytes| {
            let header = decode_header(bytes, &self.limits)?;
            entry.received.check(&header).map(|()| header)
        });
        self.headers.push(buffer);
        match parsed {
            Some(Ok(header)) => self.announced(stream, header, now_ns),
            Some(Err(fault)) => self.fail(stream, fault.into()),
            None => {}
        }
    }

    fn announced(&mut self, stream: StreamId, header: Header, now_ns: u64) {
        let length = header.body_bytes as usize;
        let entry = &mut self.streams[stream.index()];
        if header.kind == Kind::DATA {
            match data_header(&header) {
                Ok(data) => {
                    entry.receiving = Receiving::Asking(data);
                    self.events.push_back(StreamEvent::Data { stream, header: data });
                    if length == 0 {
                        self.streams[stream.index()].metrics.received_frames += 1;
                        self.receive_header(stream, now_ns);
                    }
                }
                Err(fault) => self.fail(stream, fault.into()),
            }
        } else if header.is_skippable() {
            self.skip(stream, length, now_ns);
        } else if length == 0 {
            self.control(stream, &header, &[], now_ns);
        } else {
            // The header's check has bounded the length by CONTROL_BODY_BYTES_MAX.
            entry.receiving = Receiving::Control(header);
            self.receive(stream, Buffer::Small(vec![0; length]), 0..length, length, now_ns);
        }
    }

    fn control(&mut self, stream: StreamId, header: &Header, body: &[u8], now_ns: u64) {
        match decode(header, body) {
            Ok(frame) => {
                self.streams[stream.index()].metrics.received_frames += 1;
                self.events.push_back(StreamEvent::Frame { stream, frame });
                self.receive_header(stream, now_ns);
            }
            Err(fault) => self.fail(stream, fault.into()),
        }
    }

    /// Whether an announced body still waits for the machine's word on this stream. On one that has
    /// failed since, where nothing more is received, none does.
    pub(in crate::drive) fn is_asking(&self, stream: StreamId) -> bool {
        let entry = &self.streams[stream.index()];
        entry.fault.is_none() && matches!(entry.receiving, Receiving::Asking(_))
    }
}

fn ended(stream: StreamId, at_boundary: bool, bytes: usize, wanted: usize) -> Fault {
    if at_boundary {
        let message = format!("the peer closed {stream} before the migration was over");
        return Fault::session(Cause::Network, Observation::Stream, message);
    }
    Fault::breach(Breach::Cut { stream, found: bytes, expected: wanted })
}
