//! A target whose source lives and does nothing.

use std::slice::from_ref;
use std::sync::Arc;

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::outcome::TargetEnding;
use vfio_ferry::session::{Options, TargetSession};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{
    Begin, DataPhase, DevicePlace, Encoding, Frame, Kind, Offer, StateDigest, Total, chunk_hash,
};
use vfio_ferry_tests::device::{Holding, Plan, TestDevice};
use vfio_ferry_tests::pair::{end, streams, targets};
use vfio_ferry_tests::peer::{Peer, bytes, data};

use crate::{Deed, LIFE, LIMIT, assert_limit, deed, handshake, stall};

const CHUNK: usize = 4096;

/// The session gives up, and the device is home: blank if it had begun to load, else untouched.
fn assert_blank(
    options: Options,
    count: usize,
    (limit, owed): (&str, &str),
    held: Holding,
    deed: Deed,
) {
    let to = Arc::new(TestDevice::new(Plan { keeps: true, ..Plan::default() }));
    let (ours, theirs) = streams(count);
    let session = TargetSession::start(targets(from_ref(&to)), theirs, options);
    let session = session.expect("a target");
    let source = std::thread::spawn(|| deed(ours.into_iter().map(Peer::from).collect()));
    let ended = end(session);
    let heard = source.join().expect("the source");
    assert_limit(limit, owed, ended.fault().expect("why"), heard.as_ref());
    assert!(matches!(ended.report.ending, TargetEnding::Blank(_)), "{}", ended.report.ending);
    assert_eq!((to.state_now(), to.holding()), (DeviceState::Running, held), "{limit}: {owed}");
    assert_eq!(to.violations(), [""; 0]);
}

fn hello(streams: usize, stream: u16) -> Vec<u8> {
    bytes(&Frame::Hello(Offer::new(streams, 1, CHUNK).hello(77, StreamId(stream))))
}

fn place(sequence: u64) -> DevicePlace {
    DevicePlace { device: DeviceId(0), epoch: Epoch(0), sequence: Sequence(sequence) }
}

fn begin() -> Vec<u8> {
    let (name, opaque) = ("device-0".to_owned(), Bytes::new());
    bytes(&Frame::Begin(place(0), Begin { name, precopy: true, p2p: true, opaque }))
}

fn phase(sequence: u64, phase: DataPhase) -> Vec<u8> {
    bytes(&Frame::Phase(place(sequence), phase))
}

fn chunk(sequence: u64, number: u64) -> Vec<u8> {
    let chunk = [7; CHUNK];
    data(place(sequence), number * CHUNK as u64, Encoding::Raw, &chunk, &chunk)
}

/// Up to the first credit.
fn begun(peers: &mut [Peer]) -> &mut Peer {
    let peer = &mut peers[0];
    peer.send(&hello(1, 0));
    assert!(peer.expect(Kind::ACCEPT).is_some());
    peer.send(&begin());
    assert!(peer.expect(Kind::CREDIT).is_some());
    peer
}

#[test]
fn a_hello_that_comes_byte_for_byte() {
    let trickles = deed(|mut peers| {
        peers[0].trickle(&hello(1, 0), LIFE);
        None
    });
    let why = ("handshake_limit", "said hello on every stream");
    assert_blank(handshake(), 1, why, Holding::Own, trickles);
}

#[test]
fn one_hello_for_two_streams() {
    let half = deed(|mut peers| {
        peers[0].send(&hello(2, 0));
        peers[0].chatter(LIFE)
    });
    let why = ("handshake_limit", "said hello on every stream");
    assert_blank(handshake(), 2, why, Holding::Own, half);
}

#[test]
fn a_source_that_begins_and_then_only_pings() {
    let idle = || Options { idle_limit: LIMIT, ..Options::default() };
    let why = ("idle_limit", "none of the state");
    let begins = deed(|mut peers| begun(&mut peers).chatter(LIFE));
    assert_blank(idle(), 1, why, Holding::Blank, begins);
    let precopies = deed(|mut peers| {
        let peer = begun(&mut peers);
        peer.send(&[phase(1, DataPhase::PreCopy), chunk(2, 0)].concat());
        peer.chatter(LIFE)
    });
    assert_blank(idle(), 1, why, Holding::Blank, precopies);
}

#[test]
fn a_source_that_has_stopped_its_device_and_sends_nothing() {
    let stops = deed(|mut peers| {
        let peer = begun(&mut peers);
        peer.send(&phase(1, DataPhase::StopCopy));
        peer.chatter(LIFE)
    });
    assert_blank(stall(), 1, ("stall_limit", "sends no state"), Holding::Blank, stops);
}

#[test]
fn state_that_comes_byte_for_byte() {
    let trickles = deed(|mut peers| {
        let peer = begun(&mut peers);
        peer.send(&phase(1, DataPhase::StopCopy));
        let mut frame = chunk(2, 0);
        let rest = frame.split_off(100);
        peer.send(&frame);
        peer.trickle(&rest, LIFE);
        None
    });
    assert_blank(stall(), 1, ("stall_limit", "does not end it"), Holding::Blank, trickles);
}

#[test]
fn a_source_that_leaves_something_out() {
    let leaves_out = deed(|mut peers| {
        let peer = begun(&mut peers);
        peer.send(&[phase(1, DataPhase::StopCopy), chunk(3, 1)].concat());
        peer.chatter(LIFE)
    });
    assert_blank(stall(), 1, ("stall_limit", "missing"), Holding::Blank, leaves_out);
}

#[test]
fn a_source_that_never_hands_over() {
    let keeps = deed(|mut peers| {
        let peer = begun(&mut peers);
        let mut digest = StateDigest::new();
        digest.chunk(chunk_hash(&[7; CHUNK]), CHUNK as u32);
        let total = Total { bytes: digest.bytes(), digest: digest.finish() };
        let end = bytes(&Frame::End(place(3), total));
        peer.send(&[phase(1, DataPhase::StopCopy), chunk(2, 0), end].concat());
        assert!(peer.expect(Kind::LOADED).is_some());
        peer.chatter(LIFE)
    });
    assert_blank(stall(), 1, ("stall_limit", "lets none go"), Holding::Blank, keeps);
}
