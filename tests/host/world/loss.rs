//! Links and peers that are slow, mute or leaky: what they do to frames on their way.

use vfio_ferry::ids::StreamId;
use vfio_ferry::machine::Event;
use vfio_ferry::outcome::Fault;
use vfio_ferry::wire::{Frame, WireFault};

use super::check::Check;
use super::net::Packet;
use super::plan::Muted;
use super::schedule::{HostId, Occurrence};
use super::trace::trace;
use super::world::World;

/// How often a crawling stream says that it moves, at least.
const PARTS: u64 = 16;

impl World {
    /// What of a host's packet goes on its way: all, nothing, or a hole that the reader sees.
    pub(crate) fn leaks(&mut self, h: HostId, id: StreamId, packet: Packet) -> Option<Packet> {
        if self.muted[h].is_some_and(|muted| is_muted(muted, &packet)) {
            trace!("      the peer leaves out {packet:?}");
            self.allowed.lost[h] = true;
            self.coverage.muted += 1;
            return None;
        }
        if let Some(seen) = self.losing[h].take() {
            trace!("      lost on {id}: {packet:?}");
            self.coverage.lost[usize::from(seen)] += 1;
            self.allowed.lost[h] = true;
            self.allowed.network |= seen;
            self.net[id.index()].pipes[h].gap = seen;
            return None;
        }
        if std::mem::take(&mut self.net[id.index()].pipes[h].gap) {
            return Some(Packet::Gap);
        }
        Some(packet)
    }

    /// No frame arrives whole on a stream, or on any, for so long; parts do.
    pub(crate) fn crawl(&mut self, stream: Option<StreamId>, length_ns: u64, bytes: u32) {
        let every_ns = (length_ns / PARTS).min(self.plan.silence_ns / PARTS).max(1000);
        let until_ns = self.schedule.now_ns + length_ns;
        for id in self.streams().filter(|id| stream.is_none_or(|only| only == *id)) {
            self.stall(id, length_ns);
            let crawls = Occurrence::Crawls { stream: id, until_ns, every_ns, bytes };
            self.schedule.at(self.schedule.now_ns + every_ns, crawls);
        }
    }

    /// Parts of what is on its way travel.
    pub(crate) fn crawls(
        &mut self,
        id: StreamId,
        until_ns: u64,
        every_ns: u64,
        bytes: u32,
    ) -> Check {
        for h in 0..2 {
            let stream = &self.net[id.index()];
            let (out, on_its_way) = (stream.pipes[h].is_sending(), stream.pipes[h].is_carrying());
            if !stream.is_open(h) || !stream.is_open(World::peer_of(h)) {
                continue;
            }
            if out {
                self.coverage.parts += 1;
                self.feed(h, Event::Part { stream: id, sent: true, bytes })?;
            }
            if on_its_way && self.net[id.index()].is_open(World::peer_of(h)) {
                let peer = World::peer_of(h);
                self.feed(peer, Event::Part { stream: id, sent: false, bytes })?;
            }
        }
        let next_ns = self.schedule.now_ns + every_ns;
        if next_ns < until_ns {
            let crawls = Occurrence::Crawls { stream: id, until_ns, every_ns, bytes };
            self.schedule.at(next_ns, crawls);
        }
        Ok(())
    }
}

/// A frame that its stream's numbers show to be missing.
pub(crate) fn gap() -> Fault {
    WireFault::Missing { found: 1, expected: 0 }.into()
}

fn is_muted(muted: Muted, packet: &Packet) -> bool {
    let frame = match packet {
        Packet::Frame(frame) => Some(frame),
        _ => None,
    };
    match muted {
        Muted::AllButLife => !matches!(frame, Some(Frame::Ping(_) | Frame::Pong(_))),
        Muted::Data => matches!(packet, Packet::Data(..)),
        Muted::Credit => matches!(frame, Some(Frame::Credit { .. })),
        Muted::Loaded => matches!(frame, Some(Frame::Loaded { .. })),
        Muted::Handover => matches!(frame, Some(Frame::Handover)),
        Muted::Running => matches!(frame, Some(Frame::Running)),
        Muted::Abort => matches!(frame, Some(Frame::Abort(_))),
    }
}
