//! The sending half: one send in flight on each stream.

use std::net::Shutdown;

use super::kernel::{self, Speed};
use super::{StreamEvent, Streams, broken};
use crate::buffers::{Buffer, Slot};
use crate::drive::owner::{Owner, Way};
use crate::errno::EBADMSG;
use crate::error::TlsFault;
use crate::ids::StreamId;
use crate::limits::HEADER_BYTES;
use crate::outcome::{Cause, Fault, Observation};
use crate::ring::Op;
use crate::wire::{DataHeader, Frame, Header, encode, encode_header, padding};

/// The kernel measures over a round trip; asking it takes about a microsecond.
const SPEED_EVERY_NS: u64 = 500_000;

impl Streams {
    /// Sends a frame that is not data.
    pub(in crate::drive) fn send_frame(&mut self, stream: StreamId, frame: &Frame, now_ns: u64) {
        let mut bytes = Vec::with_capacity(2 * HEADER_BYTES);
        let number = self.streams[stream.index()].sent.take();
        match encode(frame, number, &mut bytes) {
            Ok(()) => {
                let length = bytes.len();
                self.send(stream, Buffer::Small(bytes), length, now_ns);
            }
            Err(fault) => {
                // Lengths are checked where the embedder gives them; this is for a check missed.
                let fault = Fault { cause: Cause::Local, ..Fault::from(fault) };
                self.fail(stream, fault);
            }
        }
    }

    /// Sends a frame of so many zeros that the peer skips.
    pub(in crate::drive) fn send_padding(&mut self, stream: StreamId, bytes: u32, now_ns: u64) {
        let number = self.streams[stream.index()].sent.take();
        let frame = padding(bytes, number);
        let length = frame.len();
        self.send(stream, Buffer::Small(frame), length, now_ns);
    }

    /// Sends a data frame; its body stands in the slot.
    pub(in crate::drive) fn send_data(
        &mut self,
        stream: StreamId,
        header: DataHeader,
        slot: Option<Slot>,
        now_ns: u64,
    ) {
        let number = self.streams[stream.index()].sent.take();
        let bytes = encode_header(&Header::from(header).numbered(number));
        let buffer = match slot {
            Some(mut slot) => {
                *slot.header_mut() = bytes;
                Buffer::Slot(slot)
            }
            None => Buffer::Small(bytes.to_vec()),
        };
        let length = HEADER_BYTES + header.body_bytes as usize;
        self.send(stream, buffer, length, now_ns);
    }

    fn send(&mut self, stream: StreamId, buffer: Buffer, length: usize, now_ns: u64) {
        let entry = &mut self.streams[stream.index()];
        entry.metrics.sent_bytes += length as u64;
        entry.metrics.sent_frames += 1;
        entry.send_since_ns = Some(now_ns);
        let op = Op::send(entry.file, buffer, 0..length);
        let submitted = self.ring.borrow_mut().submit(Owner::Stream(stream, Way::Out).token(), op);
        if let Err(rejected) = submitted {
            self.sent(stream, rejected.op.buffer, Err(rejected.errno), now_ns);
        }
    }

    pub(super) fn sent(
        &mut self,
        stream: StreamId,
        buffer: Buffer,
        result: Result<usize, i32>,
        now_ns: u64,
    ) {
        let entry = &mut self.streams[stream.index()];
        let ns = now_ns.saturating_sub(entry.send_since_ns.take().unwrap_or(now_ns));
        entry.metrics.send_ns += ns;
        entry.going.end();
        let slot = match buffer {
            Buffer::Slot(slot) => Some(slot),
            Buffer::Small(_) | Buffer::Zeros(_) => None,
        };
        match result {
            Ok(bytes) if entry.fault.is_none() => {
                entry.drain.took(now_ns, bytes as u64, ns);
                self.look_at_speed(now_ns);
                self.events.push_back(StreamEvent::Sent { stream, slot, ns });
                self.look_at_key(stream, bytes as u64);
            }
            Ok(_) => {
                entry.slots.extend(slot);
                self.lost_if_idle(stream);
            }
            Err(errno) => {
                entry.slots.extend(slot);
                // What came and did not open ends sending, too.
                if let (Some((tls, fd)), EBADMSG) = (entry.kernel_tls(), errno) {
                    tls.broke(fd, TlsFault::Changed("a record's tag is not its key's"));
                }
                let fault = broken("send to", stream, errno);
                self.fail(stream, fault);
            }
        }
    }

    /// A key of the kernel's that is used up ends its stream.
    fn look_at_key(&mut self, stream: StreamId, bytes: u64) {
        let Some((tls, fd)) = self.streams[stream.index()].kernel_tls() else { return };
        if tls.is_used_up(fd, bytes) {
            tls.broke(fd, TlsFault::KeyUsedUp);
            let message = format!("{stream} has carried all that it may");
            let fault = Fault::session(Cause::Network, Observation::Stream, message);
            self.fail(stream, fault);
        }
    }

    /// Finds out how fast the streams are, now and then: from the kernel, or from how they drain.
    pub(super) fn look_at_speed(&mut self, now_ns: u64) {
        if self.measured_ns.is_none_or(|last| now_ns.saturating_sub(last) < SPEED_EVERY_NS) {
            return;
        }
        self.measured_ns = Some(now_ns);
        let speeds = self.streams.iter().filter_map(|stream| {
            let known = stream.fd.as_ref().and_then(kernel::speed);
            known.or_else(|| stream.drain.speed())
        });
        let sum = speeds.reduce(|sum, next| Speed {
            bytes_per_s: sum.bytes_per_s.saturating_add(next.bytes_per_s),
            at_least: sum.at_least || next.at_least,
            round_trip_ns: sum.round_trip_ns.max(next.round_trip_ns),
        });
        self.events.extend(sum.map(StreamEvent::Link));
    }

    /// Says that nothing more will be sent on the streams that have nothing in flight.
    pub(in crate::drive) fn close_sending(&mut self) {
        for stream in &mut self.streams {
            if stream.send_since_ns.is_none() && !stream.lost {
                stream.owes_end = stream.kernel_tls().is_some_and(|(tls, fd)| !tls.part(fd));
                if !stream.owes_end {
                    stream.shutdown(Shutdown::Write);
                }
            }
        }
    }

    /// Whether a last word waits for room: [`close_sending`](Self::close_sending) is to be called again.
    pub(in crate::drive) fn owes_end(&self) -> bool {
        self.streams.iter().any(|stream| stream.owes_end && !stream.lost)
    }
}
