//! A peer that sends what it likes: a real machine whose frames are changed, doubled, dropped and
//! joined by any well-formed others on the way, so that every stage of the other end meets them.

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::wire::{
    Accept, Begin, DataHeader, DataPhase, DevicePlace, Digest, Discard, Encoding, Features, Frame,
    Offer, Total, chunk_hash,
};

use super::net::Packet;
use super::rng::Rng;
use super::schedule::HostId;
use super::side::CHUNK_BYTES;
use super::trace::trace;
use super::world::World;

impl World {
    /// What of a host's packet reaches the stream.
    pub(crate) fn tampered(&mut self, h: HostId, packet: Packet) -> Vec<Packet> {
        let Some(hostile) = self.plan.hostile.filter(|hostile| hostile.host == h) else {
            return vec![packet];
        };
        let (devices, streams) = (self.plan.devices.len() as u64, self.plan.streams);
        let rng = &mut self.schedule.rng;
        if !rng.one_in(hostile.one_in) {
            return vec![packet];
        }
        let packets = match rng.below(7) {
            0 => vec![packet.clone(), packet],
            1 => vec![],
            2 => vec![any(rng, devices, streams)],
            3 => vec![any(rng, devices, streams), packet],
            5 => vec![packet.clone(), moved(rng, packet)],
            4 => vec![packet, any(rng, devices, streams), any(rng, devices, streams)],
            _ => vec![moved(rng, packet)],
        };
        trace!("      tampered with: {packets:?}");
        packets
    }
}

/// The same frame at another place.
fn moved(rng: &mut Rng, packet: Packet) -> Packet {
    match packet {
        Packet::Data(mut header, body) => {
            match rng.below(4) {
                0 => header.place.sequence.0 = header.place.sequence.0.wrapping_add(rng.log(9)),
                1 => header.place.epoch.0 = header.place.epoch.0.wrapping_add(rng.log(3) as u32),
                2 => header.offset = header.offset.wrapping_add(rng.log(9)),
                _ => header.place.device = DeviceId(rng.below(2) as u32),
            }
            Packet::Data(header, body)
        }
        Packet::Frame(Frame::Loaded { device, epoch, total }) => {
            let total = Total { bytes: total.bytes ^ rng.below(2), ..total };
            Packet::Frame(Frame::Loaded { device, epoch, total })
        }
        Packet::Frame(Frame::End(place, total)) => {
            let total = Total { digest: Digest(total.digest.0 ^ 1), ..total };
            Packet::Frame(Frame::End(place, total))
        }
        packet => packet,
    }
}

/// Any frame that the codec lets through.
fn any(rng: &mut Rng, devices: u64, streams: u16) -> Packet {
    let device = DeviceId(rng.below(devices) as u32);
    let epoch = Epoch(if rng.one_in(20) { u32::MAX } else { rng.log(3) as u32 });
    let sequence = Sequence(if rng.one_in(20) { u64::MAX } else { rng.log(20) });
    let place = DevicePlace { device, epoch, sequence };
    let total = Total { bytes: rng.log(99), digest: Digest(u128::from(rng.next())) };
    let phase = rng.pick(&[DataPhase::PreCopy, DataPhase::StopCopy]);
    let offer = Offer::new(usize::from(streams), devices as usize, CHUNK_BYTES as usize);
    let session = 0x5e55;
    let frame = match rng.below(20) {
        0 => Frame::Hello(offer.hello(session, StreamId(rng.below(u64::from(streams)) as u16))),
        1 => Frame::Accept(Accept {
            version: 1,
            features: rng.pick(&[Features::NONE, Features::ALL]),
            chunk_bytes: CHUNK_BYTES,
            session,
        }),
        2 => {
            let name = format!("device-{}", device.0);
            Frame::Begin(place, Begin { name, precopy: true, p2p: true, opaque: Bytes::new() })
        }
        3 => Frame::Phase(place, phase),
        4 => Frame::InitialDataSent(place),
        5 => Frame::InitialDataLoaded { device, epoch },
        6 | 7 => {
            let discard = Discard { discarded_bytes: rng.log(99), stop_copy_only: rng.one_in(2) };
            let opens = DevicePlace { sequence: Sequence(0), ..place };
            Frame::Discard(if rng.one_in(3) { place } else { opens }, discard)
        }
        8 => Frame::End(place, total),
        9 => Frame::Loaded { device, epoch, total },
        10 => Frame::Handover,
        11 => Frame::Running,
        12 => Frame::Credit { device, epoch, up_to: sequence },
        13 => Frame::Abort((&Fault::session(Cause::Local, Observation::Engine, "hostile")).into()),
        14 => Frame::Message(Bytes::from_static(b"hostile")),
        15 => Frame::Ping(rng.next()),
        16 => Frame::Pong(rng.next()),
        _ => return data(rng, place),
    };
    Packet::Frame(frame)
}

fn data(rng: &mut Rng, place: DevicePlace) -> Packet {
    let body: Vec<u8> = (0..1 + rng.log(40)).map(|_| rng.next() as u8).collect();
    let hash = chunk_hash(&body);
    let bytes = body.len() as u32;
    let offset = rng.log(99);
    let (encoding, raw_bytes, body) = match rng.below(3) {
        0 => (Encoding::Zero, bytes, Vec::new()),
        1 => (Encoding::Raw, bytes, body),
        _ => (Encoding::Zstd, bytes + 1, body),
    };
    let body_hash = chunk_hash(&body);
    let raw_hash =
        if encoding == Encoding::Zero { chunk_hash(&vec![0; bytes as usize]) } else { hash };
    let body_bytes = body.len() as u32;
    let header = DataHeader { place, offset, encoding, raw_bytes, body_bytes, body_hash, raw_hash };
    Packet::Data(header, body)
}
