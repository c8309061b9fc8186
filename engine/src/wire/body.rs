//! Frames that are not chunks: their bodies, written and parsed.
//!
//! Parsing begins with the body's hash, goes field by field through a bounds-checked reader and
//! ends with nothing left over. What is allocated is a part of the body, whose length
//! [`decode_header`](super::decode_header) has bounded.

#![forbid(unsafe_code)]

use bytes::Bytes;

use super::cursor::{Reader, within};
use super::header::NO_DEVICE;
use super::kind::{ABORT_FIXED, BEGIN_FIXED};
use super::text::{clean, unseen};
use super::{
    Abort, Accept, Begin, DataPhase, Digest, Discard, Frame, Header, Hello, Kind, Total, WireFault,
    chunk_hash, encode_header,
};
use crate::cause::{Cause, Observation};
use crate::ids::{DeviceId, Epoch, Sequence};
use crate::limits::{
    CONTROL_BODY_BYTES_MAX, HEADER_BYTES, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX,
};

/// Begin: the device saves in PRE_COPY.
const BEGIN_PRECOPY: u16 = 1 << 0;
/// Begin: the device has the P2P states.
const BEGIN_P2P: u16 = 1 << 1;
/// Discard: the new epoch has only STOP_COPY data.
const DISCARD_STOP_COPY_ONLY: u32 = 1 << 0;
/// Phase: data comes from PRE_COPY.
const PHASE_PRE_COPY: u32 = 1;
/// Phase: data comes from STOP_COPY.
const PHASE_STOP_COPY: u32 = 2;

/// Appends the frame's header and body to `out`; `number` is the frame's on its stream
/// ([`FrameNumbers::take`](super::FrameNumbers::take)).
///
/// An abort always can be written: its message is cut to [`TEXT_BYTES_MAX`].
///
/// # Errors
/// [`WireFault::TooLong`] if a device's name or opaque bytes or a message are beyond their limits,
/// [`WireFault::Unseen`] if the name has a character without a shape; `out` is then as it was.
pub fn encode(frame: &Frame, number: u32, out: &mut Vec<u8>) -> Result<(), WireFault> {
    within_limits(frame)?;
    let start = out.len();
    let body_start = start + HEADER_BYTES;
    out.resize(body_start, 0);
    let kind = write_body(frame, out);
    let header = addressed(frame, Header::of(kind, &out[body_start..]).numbered(number));
    out[start..body_start].copy_from_slice(&encode_header(&header));
    Ok(())
}

/// A frame of so many zeros, at most [`CONTROL_BODY_BYTES_MAX`], that every reader skips; `number` is
/// its on its stream.
pub fn padding(bytes: u32, number: u32) -> Vec<u8> {
    let body_bytes = (bytes as usize).min(CONTROL_BODY_BYTES_MAX);
    let mut frame = vec![0; HEADER_BYTES + body_bytes];
    let header = Header::of(Kind::PADDING, &frame[HEADER_BYTES..]).numbered(number);
    frame[..HEADER_BYTES].copy_from_slice(&encode_header(&header));
    frame
}

/// Parses the body of a frame whose header passed [`decode_header`](super::decode_header).
///
/// An abort stays one whatever it says: a cause that this version does not know becomes
/// [`Cause::PeerAbort`], an unknown observation [`Observation::Peer`], and the message tells. The message
/// is cleaned of what a peer could forge logs with: see [`Abort::message`](Abort).
///
/// # Errors
/// [`WireFault::Truncated`] or [`WireFault::Trailing`] if `body` is not `header.body_bytes` long,
/// [`WireFault::BodyHash`], then whatever is wrong in the body. [`WireFault::UnknownKind`] for a
/// data frame, whose body is the chunk, and for a kind to skip ([`Header::is_skippable`]).
pub fn decode(header: &Header, body: &[u8]) -> Result<Frame, WireFault> {
    let (kind, found, expected) = (header.kind, header.body_hash, chunk_hash(body));
    let mut announced = Reader::new(kind, body);
    announced.bytes(header.body_bytes as usize)?;
    announced.finish()?;
    if found != expected {
        return Err(WireFault::BodyHash { kind, found, expected });
    }
    let (device, epoch) = (DeviceId(header.device), Epoch(header.epoch));
    let mut reader = Reader::new(kind, body);
    let frame = match kind {
        Kind::HELLO => return Hello::read(body).map(Frame::Hello),
        Kind::ACCEPT => return Accept::read(body).map(Frame::Accept),
        Kind::BEGIN => Frame::Begin(header.place(), read_begin(&mut reader)?),
        Kind::PHASE => Frame::Phase(header.place(), read_phase(&mut reader)?),
        Kind::INITIAL_DATA_SENT => Frame::InitialDataSent(header.place()),
        Kind::INITIAL_DATA_LOADED => Frame::InitialDataLoaded { device, epoch },
        Kind::DISCARD => Frame::Discard(header.place(), read_discard(&mut reader)?),
        Kind::END => Frame::End(header.place(), read_total(&mut reader)?),
        Kind::LOADED => Frame::Loaded { device, epoch, total: read_total(&mut reader)? },
        Kind::HANDOVER => Frame::Handover,
        Kind::RUNNING => Frame::Running,
        Kind::CREDIT => Frame::Credit { device, epoch, up_to: Sequence(header.sequence) },
        Kind::ABORT => Frame::Abort(read_abort(header.device, &mut reader)?),
        Kind::MESSAGE => Frame::Message(Bytes::copy_from_slice(reader.bytes(body.len())?)),
        Kind::PING => Frame::Ping(header.sequence),
        Kind::PONG => Frame::Pong(header.sequence),
        _ => return Err(WireFault::UnknownKind { kind }),
    };
    reader.finish()?;
    Ok(frame)
}

fn within_limits(frame: &Frame) -> Result<(), WireFault> {
    match frame {
        Frame::Begin(_, begin) => {
            within("device name", begin.name.len(), NAME_BYTES_MAX)?;
            seen("device name", &begin.name)?;
            within("opaque bytes", begin.opaque.len(), MESSAGE_BYTES_MAX)
        }
        Frame::Message(message) => within("message", message.len(), MESSAGE_BYTES_MAX),
        _ => Ok(()),
    }
}

/// Appends the body and says of which kind it is.
fn write_body(frame: &Frame, out: &mut Vec<u8>) -> Kind {
    match frame {
        Frame::Hello(hello) => {
            hello.write(out);
            Kind::HELLO
        }
        Frame::Accept(accept) => {
            accept.write(out);
            Kind::ACCEPT
        }
        Frame::Begin(_, begin) => {
            write_begin(begin, out);
            Kind::BEGIN
        }
        Frame::Phase(_, phase) => {
            let number = match phase {
                DataPhase::PreCopy => PHASE_PRE_COPY,
                DataPhase::StopCopy => PHASE_STOP_COPY,
            };
            out.extend(number.to_le_bytes());
            Kind::PHASE
        }
        Frame::InitialDataSent(_) => Kind::INITIAL_DATA_SENT,
        Frame::InitialDataLoaded { .. } => Kind::INITIAL_DATA_LOADED,
        Frame::Discard(_, discard) => {
            out.extend(discard.discarded_bytes.to_le_bytes());
            let flags = if discard.stop_copy_only { DISCARD_STOP_COPY_ONLY } else { 0 };
            out.extend(flags.to_le_bytes());
            out.extend([0; 4]);
            Kind::DISCARD
        }
        Frame::End(_, total) => {
            write_total(total, out);
            Kind::END
        }
        Frame::Loaded { total, .. } => {
            write_total(total, out);
            Kind::LOADED
        }
        Frame::Handover => Kind::HANDOVER,
        Frame::Running => Kind::RUNNING,
        Frame::Credit { .. } => Kind::CREDIT,
        Frame::Abort(abort) => {
            write_abort(abort, out);
            Kind::ABORT
        }
        Frame::Message(message) => {
            out.extend_from_slice(message);
            Kind::MESSAGE
        }
        Frame::Ping(_) => Kind::PING,
        Frame::Pong(_) => Kind::PONG,
    }
}

/// Puts into the header what the frame says there.
fn addressed(frame: &Frame, header: Header) -> Header {
    let pair = |device: &DeviceId, epoch: &Epoch| (device.0, epoch.0);
    match frame {
        Frame::Begin(place, _)
        | Frame::Phase(place, _)
        | Frame::InitialDataSent(place)
        | Frame::Discard(place, _)
        | Frame::End(place, _) => header.at(*place),
        Frame::InitialDataLoaded { device, epoch } | Frame::Loaded { device, epoch, .. } => {
            let (device, epoch) = pair(device, epoch);
            Header { device, epoch, ..header }
        }
        Frame::Credit { device, epoch, up_to } => {
            let (device, epoch) = pair(device, epoch);
            Header { device, epoch, sequence: up_to.0, ..header }
        }
        Frame::Abort(abort) => {
            Header { device: abort.device.map_or(NO_DEVICE, |device| device.0), ..header }
        }
        Frame::Ping(number) | Frame::Pong(number) => Header { sequence: *number, ..header },
        Frame::Hello(_)
        | Frame::Accept(_)
        | Frame::Handover
        | Frame::Running
        | Frame::Message(_) => header,
    }
}

fn write_begin(begin: &Begin, out: &mut Vec<u8>) {
    let precopy = if begin.precopy { BEGIN_PRECOPY } else { 0 };
    let p2p = if begin.p2p { BEGIN_P2P } else { 0 };
    out.extend((precopy | p2p).to_le_bytes());
    out.extend((begin.name.len() as u16).to_le_bytes());
    out.extend((begin.opaque.len() as u32).to_le_bytes());
    out.extend_from_slice(begin.name.as_bytes());
    out.extend_from_slice(&begin.opaque);
}

fn read_begin(reader: &mut Reader<'_>) -> Result<Begin, WireFault> {
    let flags = reader.u16()?;
    reader.reserved(flags & !(BEGIN_PRECOPY | BEGIN_P2P))?;
    let (name_bytes, opaque_bytes) = (reader.u16()?, reader.u32()?);
    let name = reader.text("device name", usize::from(name_bytes), NAME_BYTES_MAX)?.to_owned();
    seen("device name", &name)?;
    let opaque_bytes = opaque_bytes as usize;
    within("opaque bytes", opaque_bytes, MESSAGE_BYTES_MAX)?;
    let opaque = Bytes::copy_from_slice(reader.bytes(opaque_bytes)?);
    let (precopy, p2p) = (flags & BEGIN_PRECOPY != 0, flags & BEGIN_P2P != 0);
    Ok(Begin { name, precopy, p2p, opaque })
}

fn read_phase(reader: &mut Reader<'_>) -> Result<DataPhase, WireFault> {
    match reader.u32()? {
        PHASE_PRE_COPY => Ok(DataPhase::PreCopy),
        PHASE_STOP_COPY => Ok(DataPhase::StopCopy),
        found => {
            let found = u64::from(found);
            Err(WireFault::Value { kind: Kind::PHASE, field: "phase", found })
        }
    }
}

fn read_discard(reader: &mut Reader<'_>) -> Result<Discard, WireFault> {
    let discarded_bytes = reader.u64()?;
    let flags = reader.u32()?;
    reader.reserved(flags & !DISCARD_STOP_COPY_ONLY)?;
    let reserved = reader.u32()?;
    reader.reserved(reserved)?;
    Ok(Discard { discarded_bytes, stop_copy_only: flags & DISCARD_STOP_COPY_ONLY != 0 })
}

fn write_total(total: &Total, out: &mut Vec<u8>) {
    out.extend(total.bytes.to_le_bytes());
    out.extend(total.digest.0.to_le_bytes());
}

fn read_total(reader: &mut Reader<'_>) -> Result<Total, WireFault> {
    Ok(Total { bytes: reader.u64()?, digest: Digest(reader.u128()?) })
}

fn write_abort(abort: &Abort, out: &mut Vec<u8>) {
    let text = cut(&abort.message, TEXT_BYTES_MAX);
    let errno = abort.errno.and_then(|errno| u32::try_from(errno).ok()).unwrap_or(0);
    out.extend(number(&Cause::ALL, abort.cause).to_le_bytes());
    out.extend(number(&Observation::ALL, abort.observed).to_le_bytes());
    out.extend(errno.to_le_bytes());
    out.extend((text.len() as u16).to_le_bytes());
    out.extend([0; 2]);
    out.extend_from_slice(text.as_bytes());
}

fn read_abort(device: u32, reader: &mut Reader<'_>) -> Result<Abort, WireFault> {
    let (cause_number, observed_number) = (reader.u16()?, reader.u16()?);
    let errno = i32::try_from(reader.u32()?).ok().filter(|errno| *errno != 0);
    let text_bytes = usize::from(reader.u16()?);
    let reserved = reader.u16()?;
    reader.reserved(reserved)?;
    let text = clean(reader.text("abort message", text_bytes, TEXT_BYTES_MAX)?);
    let cause = value(&Cause::ALL, cause_number);
    let observed = value(&Observation::ALL, observed_number);
    let message = match cause.is_some() && observed.is_some() {
        true => text,
        false => {
            format!("{text} (the peer is newer: cause {cause_number}, seen as {observed_number})")
        }
    };
    Ok(Abort {
        cause: cause.unwrap_or(Cause::PeerAbort),
        observed: observed.unwrap_or(Observation::Peer),
        errno,
        device: (device != NO_DEVICE).then_some(DeviceId(device)),
        message,
    })
}

/// A name is compared byte for byte, so it is not cleaned but refused.
fn seen(field: &'static str, text: &str) -> Result<(), WireFault> {
    match unseen(text) {
        None => Ok(()),
        Some(found) => Err(WireFault::Unseen { field, found: u32::from(found) }),
    }
}

/// A value's number on the wire: its place in the list, from 1; 0 for one that is not in it.
fn number<T: PartialEq>(all: &[T], value: T) -> u16 {
    all.iter().position(|each| *each == value).map_or(0, |place| place as u16 + 1)
}

/// The value of a number on the wire; none if this version does not know it.
fn value<T: Copy>(all: &[T], number: u16) -> Option<T> {
    all.get(usize::from(number).checked_sub(1)?).copied()
}

/// The longest beginning of at most `max` bytes that is still text.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

const _: () = assert!(BEGIN_FIXED == 2 + 2 + 4 && ABORT_FIXED == 2 + 2 + 4 + 2 + 2);
