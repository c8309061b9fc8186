//! The network: each stream two pipes, in each of which order is kept; streams against each other
//! as the seed has it. Frames travel as values or, in half of the runs, as the codec's bytes.

use std::collections::VecDeque;

use vfio_ferry::ids::{SlotId, StreamId};
use vfio_ferry::limits::HEADER_BYTES;
use vfio_ferry::machine::{Event, Outgoing};
use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::wire::{
    DataHeader, Frame, Header, Kind, WireFault, data_header, decode, decode_header, encode,
    encode_header,
};

use super::check::{Check, ensure};
use super::loss::gap;
use super::schedule::{HostId, Lane, Occurrence};
use super::side::Place;
use super::trace::trace;
use super::world::World;

/// What is on its way.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    Frame(Frame),
    Data(DataHeader, Vec<u8>),
    /// A header and a body, as bytes.
    Bytes([u8; HEADER_BYTES], Vec<u8>),
    /// A frame that is skipped.
    Padding,
    /// A frame before this one is missing.
    Gap,
    /// The sending end was closed.
    Eof,
}

/// One direction of a stream.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    /// A send is in flight, from this slot.
    sending: Option<Option<SlotId>>,
    lane: Lane,
    /// When sends complete: a peer that takes nothing in holds them up.
    sends: Lane,
    /// When announced bodies are there.
    bodies: Lane,
    packets: VecDeque<Packet>,
    /// How many of them have arrived.
    arrived: usize,
    /// An announced body of which nobody has said where it goes.
    asking: Option<(DataHeader, Vec<u8>)>,
    /// A body on its way into a slot, or, without one, to nowhere.
    receiving: Option<(DataHeader, Option<SlotId>, Vec<u8>)>,
    /// Nothing arrives any more.
    dead: bool,
    /// Nothing is sent any more.
    closed: bool,
    /// The abort was sent.
    worded: bool,
    /// The frame before the next one was lost, and the numbers show it.
    pub(crate) gap: bool,
}

/// A stream: the pipe of what each host sends.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) pipes: [Pipe; 2],
    cut: bool,
    lost: [bool; 2],
    fault: [Option<Fault>; 2],
}

impl Pipe {
    /// A send is in flight.
    pub(crate) fn is_sending(&self) -> bool {
        self.sending.is_some()
    }

    /// Something has not arrived whole.
    pub(crate) fn is_carrying(&self) -> bool {
        self.receiving.is_some() || self.packets.len() > self.arrived
    }
}

impl Stream {
    /// Something may still arrive at this host.
    pub(crate) fn is_open(&self, h: HostId) -> bool {
        !self.cut && !self.lost[h]
    }
}

impl World {
    pub(crate) fn send(&mut self, h: HostId, id: StreamId, what: Outgoing) -> Check {
        let stream = &mut self.net[id.index()];
        ensure!(!stream.lost[h], "nothing is sent on a lost stream", "{h} {id}: {what:?}");
        let pipe = &mut stream.pipes[h];
        ensure!(pipe.sending.is_none(), "one send on a stream at a time", "{h} {id}: {what:?}");
        let slot = match &what {
            Outgoing::Data { slot, .. } => *slot,
            Outgoing::Frame(_) | Outgoing::Padding { .. } => None,
        };
        pipe.sending = Some(slot);
        pipe.worded |= matches!(what, Outgoing::Frame(Frame::Abort(_)));
        if matches!(what, Outgoing::Frame(Frame::Handover)) {
            let now_ns = self.schedule.now_ns;
            self.sides[h].handover_sent = true;
            self.sides[h].clock.handover_ns.get_or_insert(now_ns);
        }
        let dead = stream.cut || pipe.closed;
        let body = match slot {
            Some(slot) => {
                self.take(h, slot, Place::Sending(id))?;
                self.sides[h].slot(slot).bytes.clone()
            }
            None => Vec::new(),
        };
        if dead {
            self.schedule.after(self.plan.network_ns(id), Occurrence::LostSeen(h, id));
            return Ok(());
        }
        let mut said = false;
        match &what {
            Outgoing::Frame(Frame::InitialDataSent(place)) => {
                let (of, sent, heard) = &mut self.sides[h].device(place.device).initial;
                if *of != place.epoch {
                    (*of, *sent, *heard) = (place.epoch, 0, 0);
                }
                *sent += 1;
            }
            Outgoing::Frame(Frame::Abort(_)) => {
                said |= std::mem::replace(&mut self.sides[h].gave_word, true) && self.plan.one_word;
            }
            Outgoing::Frame(Frame::InitialDataLoaded { device, epoch }) => {
                self.check_initial(*device, *epoch)?;
            }
            Outgoing::Frame(Frame::Loaded { device, epoch, .. }) => {
                let confirmed = self.sides[h].device(*device).confirmed;
                ensure!(
                    confirmed >= Some(*epoch),
                    "a device is said to be loaded when GET_STATE has said STOP",
                    "{device} {epoch}: {confirmed:?}"
                );
            }
            _ => {}
        }
        let packet = match what {
            Outgoing::Frame(frame) => Packet::Frame(frame),
            Outgoing::Padding { .. } => {
                self.coverage.padding += 1;
                Packet::Padding
            }
            Outgoing::Data { header, .. } => {
                self.note_departure(h, &header);
                ensure!(
                    body.len() == header.body_bytes as usize,
                    "a frame carries the body that its header announces",
                    "{h}: {header:?} with {} bytes",
                    body.len()
                );
                Packet::Data(header, body)
            }
        };
        for packet in self.tampered(h, packet).into_iter().filter(|_| !said) {
            if let Some(packet) = self.leaks(h, id, packet) {
                let packet = self.damaged(h, packet);
                self.put(h, id, packet);
            }
        }
        let sends = &mut self.net[id.index()].pipes[h].sends;
        sends.takes(self.schedule.now_ns, self.plan.frame_ns);
        self.schedule.through(sends, self.plan.network_ns(id), Occurrence::SendEnds(h, id));
        Ok(())
    }

    /// Puts a packet into a pipe.
    fn put(&mut self, h: HostId, id: StreamId, packet: Packet) {
        let packet = if self.plan.codec { to_bytes(packet) } else { packet };
        let pipe = &mut self.net[id.index()].pipes[h];
        pipe.packets.push_back(packet);
        let arrives = Occurrence::Arrives(World::peer_of(h), id);
        pipe.lane.takes(self.schedule.now_ns, self.plan.frame_ns);
        self.schedule.through(&mut pipe.lane, self.plan.network_ns(id), arrives);
    }

    /// Whether a host's last word is, or was, on its way on every stream that takes one.
    pub(crate) fn told_everywhere(&self, h: HostId) -> bool {
        self.net.iter().all(|stream| {
            let pipe = &stream.pipes[h];
            stream.lost[h] || pipe.worded || pipe.sending.is_some()
        })
    }

    pub(crate) fn send_ends(&mut self, h: HostId, id: StreamId) -> Check {
        let stream = &mut self.net[id.index()];
        if stream.lost[h] || stream.cut {
            return Ok(());
        }
        match stream.pipes[h].sending.take() {
            Some(slot) => self.feed(h, Event::Sent { stream: id, slot }),
            None => Ok(()),
        }
    }

    pub(crate) fn arrives(&mut self, h: HostId, id: StreamId) -> Check {
        let stream = &mut self.net[id.index()];
        let pipe = &mut stream.pipes[World::peer_of(h)];
        if stream.lost[h] || pipe.dead {
            return Ok(());
        }
        pipe.arrived += 1;
        self.receive_next(h, id)
    }

    fn receive_next(&mut self, h: HostId, id: StreamId) -> Check {
        loop {
            let stream = &mut self.net[id.index()];
            let pipe = &mut stream.pipes[World::peer_of(h)];
            if stream.lost[h] || pipe.dead || pipe.receiving.is_some() || pipe.arrived == 0 {
                return Ok(());
            }
            pipe.arrived -= 1;
            let Some(packet) = pipe.packets.pop_front() else { return Ok(()) };
            match from_bytes(packet, &self.sides[h].limits) {
                Ok(Packet::Data(header, body)) => {
                    let pipe = &mut self.net[id.index()].pipes[World::peer_of(h)];
                    if header.body_bytes > 0 {
                        pipe.asking = Some((header, body));
                    }
                    self.feed(h, Event::Data { stream: id, header })?;
                    let pipe = &self.net[id.index()].pipes[World::peer_of(h)];
                    ensure!(
                        pipe.asking.is_none(),
                        "an announced body is received or skipped at once",
                        "{h} {id}: {header:?}"
                    );
                }
                Ok(Packet::Frame(frame)) => self.feed(h, Event::Frame { stream: id, frame })?,
                Ok(Packet::Padding) => {}
                Ok(Packet::Gap) => {
                    self.net[id.index()].fault[h] = Some(gap());
                    self.lost_seen(h, id)?;
                }
                Ok(_) => {
                    let message = "the peer closed a stream";
                    self.net[id.index()].fault[h] =
                        Some(Fault::session(Cause::Network, Observation::Stream, message));
                    self.lost_seen(h, id)?;
                }
                Err(fault) => {
                    self.net[id.index()].fault[h] = Some(fault.into());
                    self.lost_seen(h, id)?;
                }
            }
        }
    }

    pub(crate) fn receive_body(
        &mut self,
        h: HostId,
        id: StreamId,
        header: DataHeader,
        slot: SlotId,
    ) -> Check {
        self.answer(h, id, Some(slot), &format!("{header:?}"))
    }

    pub(crate) fn skip_body(&mut self, h: HostId, id: StreamId) -> Check {
        self.answer(h, id, None, "skip")
    }

    fn answer(&mut self, h: HostId, id: StreamId, slot: Option<SlotId>, what: &str) -> Check {
        let pipe = &mut self.net[id.index()].pipes[World::peer_of(h)];
        let asking = pipe.asking.take();
        ensure!(asking.is_some(), "only an announced body is received", "{h} {id}: {what}");
        pipe.receiving = asking.map(|(header, body)| (header, slot, body));
        let bodies = &mut pipe.bodies;
        self.schedule.through(bodies, self.plan.network_ns(id), Occurrence::BodyEnds(h, id));
        Ok(())
    }

    pub(crate) fn body_ends(&mut self, h: HostId, id: StreamId) -> Check {
        let stream = &mut self.net[id.index()];
        let pipe = &mut stream.pipes[World::peer_of(h)];
        if stream.lost[h] || pipe.dead {
            return Ok(());
        }
        if let Some((header, Some(slot), body)) = pipe.receiving.take() {
            self.sides[h].slot(slot).bytes = body;
            self.feed(h, Event::Body { stream: id, header, slot })?;
        }
        self.receive_next(h, id)
    }

    /// This host learns that a stream is over; the slots that it held come back.
    pub(crate) fn lost_seen(&mut self, h: HostId, id: StreamId) -> Check {
        let peer = World::peer_of(h);
        let stream = &mut self.net[id.index()];
        if std::mem::replace(&mut stream.lost[h], true) {
            return Ok(());
        }
        let mut slots: Vec<SlotId> = stream.pipes[h].sending.take().flatten().into_iter().collect();
        slots.extend(stream.pipes[peer].receiving.take().and_then(|(_, slot, _)| slot));
        stream.pipes[peer].packets.clear();
        let fault = stream.fault[h].take().unwrap_or_else(|| {
            Fault::session(Cause::Network, Observation::Stream, "a stream broke")
        });
        if !stream.cut && !std::mem::replace(&mut stream.pipes[h].closed, true) {
            self.put(h, id, Packet::Eof);
        }
        self.feed(h, Event::StreamLost { stream: id, slots, fault })
    }

    /// A stream breaks: what is on the way may still arrive, or not.
    pub(crate) fn cut(&mut self, id: StreamId) {
        trace!("      {id} is cut");
        let stream = &mut self.net[id.index()];
        if std::mem::replace(&mut stream.cut, true) {
            return;
        }
        for pipe in &mut stream.pipes {
            pipe.dead = self.schedule.rng.one_in(2);
        }
        for h in 0..2 {
            self.schedule.after(self.plan.network_ns(id) * 4, Occurrence::LostSeen(h, id));
        }
    }

    /// Nothing new arrives on a stream for so long.
    pub(crate) fn stall(&mut self, id: StreamId, length_ns: u64) {
        let until_ns = self.schedule.now_ns + length_ns;
        for pipe in &mut self.net[id.index()].pipes {
            pipe.lane.hold_until(until_ns);
            pipe.sends.hold_until(until_ns);
            pipe.bodies.hold_until(until_ns);
        }
    }

    /// A finished host closes its ends for sending once it has said all and what was sent is out.
    pub(crate) fn close_sending(&mut self, h: HostId) {
        for id in self.streams() {
            let stream = &mut self.net[id.index()];
            let closed = std::mem::replace(&mut stream.pipes[h].closed, true);
            if !closed && !stream.lost[h] && !stream.cut {
                self.put(h, id, Packet::Eof);
            }
        }
    }

    /// Changes a bit where that was planned.
    fn damaged(&mut self, h: HostId, packet: Packet) -> Packet {
        let Some(in_body) = self.damage[h] else { return packet };
        let bit = 1u8 << self.schedule.rng.below(8);
        let packet = if in_body {
            match packet {
                Packet::Data(header, mut body) if !body.is_empty() => {
                    let at = self.schedule.rng.below(body.len() as u64) as usize;
                    body[at] ^= bit;
                    Packet::Data(header, body)
                }
                packet => return packet,
            }
        } else if self.plan.codec {
            match to_bytes(packet) {
                Packet::Bytes(mut header, body) => {
                    let at = self.schedule.rng.below(HEADER_BYTES as u64) as usize;
                    header[at] ^= bit;
                    Packet::Bytes(header, body)
                }
                packet => return packet,
            }
        } else {
            return packet;
        };
        trace!("      a bit of what {h} sent changes on the way");
        self.damage[h] = None;
        self.allowed.damage = true;
        packet
    }
}

fn to_bytes(packet: Packet) -> Packet {
    match packet {
        Packet::Frame(frame) => {
            let mut bytes = Vec::new();
            if encode(&frame, 0, &mut bytes).is_err() {
                return Packet::Frame(frame);
            }
            let body = bytes.split_off(HEADER_BYTES);
            let mut header = [0; HEADER_BYTES];
            header.copy_from_slice(&bytes);
            Packet::Bytes(header, body)
        }
        Packet::Data(header, body) => Packet::Bytes(encode_header(&Header::from(header)), body),
        packet => packet,
    }
}

fn from_bytes(packet: Packet, limits: &vfio_ferry::wire::WireLimits) -> Result<Packet, WireFault> {
    let Packet::Bytes(header, body) = packet else { return Ok(packet) };
    let header = decode_header(&header, limits)?;
    if header.kind == Kind::DATA {
        return Ok(Packet::Data(data_header(&header)?, body));
    }
    decode(&header, &body).map(Packet::Frame)
}
