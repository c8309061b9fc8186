//! A session's streams, whose peer is the test.

mod around;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::*;
use crate::buffers::Arena;
use crate::drive::clock::now_ns;
use crate::errno::EPIPE;
use crate::ids::{DeviceId, Epoch, Sequence};
use crate::limits::{CHUNK_BYTES_MIN, HEADER_BYTES};
use crate::outcome::Breach;
use crate::ring::{BackendChoice, BlockingThreads, RingConfig, open};
use crate::wire::{
    DevicePlace, Encoding, Header, Kind, chunk_hash, decode_header, encode, encode_header,
};

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const STREAM: StreamId = StreamId(1);
const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Syscalls];

/// Two streams, of which the second is used, and the peers' ends.
fn streams(backend: BackendChoice) -> (Streams, UnixStream, UnixStream) {
    let config = RingConfig {
        backend,
        depth: 6,
        files: 3,
        blocking: BlockingThreads::plain(1),
        zero_copy: None,
    };
    let ring = open(&config).expect("a ring").ring;
    let (unused, other) = UnixStream::pair().expect("sockets");
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    let sockets = [OwnedFd::from(unused), ours.into()].map(Socket::from).into();
    let ring = Rc::new(RefCell::new(ring));
    let mut streams = Streams::new(ring, sockets, WireLimits::MAX).expect("streams");
    streams.start(0);
    (streams, theirs, other)
}

/// Waits, and hands on what has completed.
fn wait(streams: &mut Streams, timeout: Duration, now: impl Fn() -> u64) {
    let mut all = Vec::new();
    streams.ring.borrow_mut().wait(Some(timeout), &mut all).expect("wait");
    for done in all {
        let Owner::Stream(stream, way) = Owner::of(done.token) else { panic!("{done:?}") };
        streams.done(stream, way, done, now());
    }
    streams.look_for_parts(now());
}

/// The next event, waited for.
fn next(streams: &mut Streams) -> StreamEvent {
    let start = Instant::now();
    loop {
        if let Some(event) = streams.next() {
            return event;
        }
        assert!(start.elapsed() < LONG, "nothing happens");
        wait(streams, LONG, || 0);
    }
}

fn bytes(frame: &Frame, number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, number, &mut bytes).expect("a frame");
    bytes
}

/// A raw chunk of one byte's value.
fn data(value: u8) -> (DataHeader, Vec<u8>) {
    data_of(value, CHUNK_BYTES_MIN)
}

fn data_of(value: u8, bytes: usize) -> (DataHeader, Vec<u8>) {
    let body = vec![value; bytes];
    let hash = chunk_hash(&body);
    let (device, epoch, sequence) = (DeviceId(0), Epoch(0), Sequence(0));
    let header = DataHeader {
        place: DevicePlace { device, epoch, sequence },
        offset: 0,
        encoding: Encoding::Raw,
        raw_bytes: body.len() as u32,
        body_bytes: body.len() as u32,
        body_hash: hash,
        raw_hash: hash,
    };
    (header, body)
}

fn slot() -> Slot {
    Arena::new(1, CHUNK_BYTES_MIN).expect("memory").1.remove(0)
}

fn decoded(frame: &[u8]) -> Header {
    let bytes = frame.first_chunk::<HEADER_BYTES>().expect("a header");
    decode_header(bytes, &WireLimits::MAX).expect("a frame's own header")
}

fn is_lost(streams: &mut Streams) -> (usize, Fault) {
    match next(streams) {
        StreamEvent::Lost { stream: STREAM, slots, fault } => (slots.len(), fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn bodies_go_where_the_machine_says_and_the_stream_goes_on() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        // What is skipped is longer than what is received of it at a time.
        for (value, bytes) in [(1, 100_000), (2, CHUNK_BYTES_MIN)] {
            let (header, body) = data_of(value, bytes);
            let numbered = Header::from(header).numbered(u32::from(value) - 1);
            peer.write_all(&encode_header(&numbered)).expect("a header");
            peer.write_all(&body).expect("a body");
            let StreamEvent::Data { stream: STREAM, header: found } = next(&mut streams) else {
                panic!("a header was sent")
            };
            assert_eq!(found, header);
            assert!(streams.is_asking(STREAM));
            if value == 1 {
                streams.skip_body(STREAM, 0);
                continue;
            }
            streams.receive_body(STREAM, header, slot(), 0);
            let StreamEvent::Body { stream: STREAM, slot, .. } = next(&mut streams) else {
                panic!("a body was sent")
            };
            assert!(slot.body() == body);
        }
        peer.write_all(&bytes(&Frame::Ping(7), 2)).expect("a frame");
        let StreamEvent::Frame { stream: STREAM, frame: Frame::Ping(7) } = next(&mut streams)
        else {
            panic!("a ping was sent")
        };
        assert!(!streams.all_lost());
    }
}

#[test]
fn a_slot_is_sent_with_its_header_and_comes_back() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        let (header, body) = data(3);
        let mut sent = slot();
        sent.body_mut().copy_from_slice(&body);
        streams.send_data(STREAM, header, Some(sent), 0);
        let StreamEvent::Sent { stream: STREAM, slot: Some(_), .. } = next(&mut streams) else {
            panic!("the slot did not come back")
        };
        let mut received = vec![0; HEADER_BYTES + body.len()];
        peer.read_exact(&mut received).expect("a frame");
        assert_eq!(received[..HEADER_BYTES], encode_header(&Header::from(header)));
        assert!(received[HEADER_BYTES..] == body);
        let metrics: Vec<StreamMetrics> = streams.metrics().collect();
        assert_eq!(metrics[0], StreamMetrics::default());
        assert_eq!((metrics[1].sent_frames, metrics[1].sent_bytes), (1, received.len() as u64));
    }
}

#[test]
fn each_frame_that_is_sent_has_the_next_number() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        for number in 0..4 {
            let frame = match number % 2 {
                0 => {
                    streams.send_frame(STREAM, &Frame::Ping(7), 0);
                    bytes(&Frame::Ping(7), number)
                }
                _ => {
                    let (header, body) = data(3);
                    let mut slot = slot();
                    slot.body_mut().copy_from_slice(&body);
                    streams.send_data(STREAM, header, Some(slot), 0);
                    let header = Header::from(header).numbered(number);
                    [&encode_header(&header)[..], &body].concat()
                }
            };
            assert!(matches!(next(&mut streams), StreamEvent::Sent { stream: STREAM, .. }));
            let mut received = vec![0; frame.len()];
            peer.read_exact(&mut received).expect("a frame");
            assert!(received == frame, "frame {number}");
        }
    }
}

/// Whatever kind of frame comes after the one that is missing: it is not looked at any further.
#[test]
fn a_frame_that_is_missing_ends_the_stream_at_once() {
    let (header, _) = data(6);
    let skipped = Header { kind: Kind(0x8123), ..decoded(&bytes(&Frame::Ping(1), 2)) };
    let after = [
        bytes(&Frame::Ping(9), 2),
        bytes(&Frame::Message(Bytes::from_static(b"its body does not count")), 2),
        encode_header(&Header::from(header).numbered(2)).to_vec(),
        encode_header(&skipped).to_vec(),
    ];
    for backend in BACKENDS {
        for frame in &after {
            let (mut streams, mut peer, _other) = streams(backend);
            peer.write_all(&bytes(&Frame::Ping(8), 0)).expect("a frame");
            assert!(matches!(next(&mut streams), StreamEvent::Frame { .. }));
            peer.write_all(frame).expect("the frame after the next one");
            let (_, fault) = is_lost(&mut streams);
            assert_eq!((fault.cause, fault.observed), (Cause::Network, Observation::Stream));
            assert_eq!(
                fault.message,
                "a frame is missing on this stream: number 1 was next, and number 2 came"
            );
            assert_eq!(peer.read(&mut [0]).expect("an end"), 0, "the peer does not see it");
        }
    }
}

#[test]
fn an_end_between_frames_and_one_inside_are_told_apart() {
    for backend in BACKENDS {
        let frame = bytes(&Frame::Message(Bytes::from_static(b"never all of it")), 0);
        let between = "the peer closed stream 1 before the migration was over".to_owned();
        let cut = |found, expected| {
            Fault::breach(Breach::Cut { stream: STREAM, found, expected }).message
        };
        let ends = [
            (0, between),
            (10, cut(10, HEADER_BYTES)),
            (HEADER_BYTES, cut(0, frame.len() - HEADER_BYTES)),
        ];
        for (part, message) in ends {
            let (mut streams, mut peer, other) = streams(backend);
            peer.write_all(&frame[..part]).expect("a part of a frame");
            drop(peer);
            let (slots, fault) = is_lost(&mut streams);
            assert_eq!((slots, fault.cause), (0, Cause::Network));
            assert_eq!(fault.message, message, "{part} bytes");
            assert!(!streams.all_lost(), "the other stream lives");
            drop(other);
            assert!(matches!(next(&mut streams), StreamEvent::Lost { stream: StreamId(0), .. }));
            assert!(streams.all_lost());
        }
    }
}

#[test]
fn a_body_that_is_cut_gives_its_slot_back() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        let (header, body) = data(4);
        peer.write_all(&encode_header(&Header::from(header))).expect("a header");
        peer.write_all(&body[1..]).expect("most of a body");
        assert!(matches!(next(&mut streams), StreamEvent::Data { .. }));
        streams.receive_body(STREAM, header, slot(), 0);
        drop(peer);
        assert_eq!(is_lost(&mut streams).0, 1);
    }
}

/// What the peer still said before it went, its abort above all, is heard before the loss is told,
/// and the first thing that went wrong is the reason.
#[test]
fn a_stream_that_cannot_send_still_hears_the_peer() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        peer.shutdown(Shutdown::Read).expect("a shutdown");
        let (header, _) = data(5);
        streams.send_data(STREAM, header, Some(slot()), 0);
        while streams.streams[STREAM.index()].send_since_ns.is_some() {
            wait(&mut streams, LONG, || 0);
        }
        assert!(streams.next().is_none(), "it was told before the peer could say why");
        peer.write_all(&bytes(&Frame::Ping(8), 0)).expect("the other way is open");
        let StreamEvent::Frame { frame: Frame::Ping(8), .. } = next(&mut streams) else {
            panic!("a ping was sent")
        };
        drop(peer);
        let (slots, fault) = is_lost(&mut streams);
        assert_eq!((slots, fault.errno), (1, Some(EPIPE)), "{fault}");
    }
}

#[test]
fn what_is_not_a_frame_ends_the_stream() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        peer.write_all(&[0xee; HEADER_BYTES]).expect("noise");
        let (_, fault) = is_lost(&mut streams);
        assert_eq!(fault.observed, Observation::Stream, "{fault}");
        assert_eq!(peer.read(&mut [0]).expect("an end"), 0, "the peer does not see it");
    }
}

#[test]
fn nothing_is_in_flight_on_streams_that_were_closed() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        assert_eq!(streams.ring.borrow().in_flight(), 2, "both streams receive");
        streams.close();
        assert_eq!(streams.ring.borrow().in_flight(), 0);
        assert_eq!(peer.read(&mut [0]).expect("an end"), 0);
    }
}

/// The kernel refers to the slot for as long as the peer's host has not acknowledged its bytes, and a
/// stopped peer never does. Where zero-copy sends are not to be had the send is copied, and the shutdown
/// already ends it.
#[test]
fn a_send_that_a_stopped_peer_does_not_take_is_dropped_with_its_connection() {
    let bytes = 256 << 10;
    let (arena, mut slots) = Arena::new(1, bytes).expect("memory");
    let config = RingConfig {
        backend: BackendChoice::Auto,
        depth: 6,
        files: 2,
        blocking: BlockingThreads::plain(1),
        zero_copy: Some(arena),
    };
    let ring = open(&config).expect("a ring").ring;
    let is_zero_copy = ring.zero_copy().registered;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    // What it has taken over has been copied: little of the frame.
    set_socket_recv_buffer_size(&listener, 4096).expect("a small buffer");
    let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("a peer");
    let (peer, _) = listener.accept().expect("a connection");
    let (unused, _other) = UnixStream::pair().expect("sockets");
    let ring = Rc::new(RefCell::new(ring));
    let sockets = [OwnedFd::from(unused), ours.into()].map(Socket::from).into();
    let mut streams = Streams::new(ring, sockets, WireLimits::MAX).expect("streams");
    streams.start(0);
    let (header, _) = data_of(5, bytes);
    streams.send_data(STREAM, header, Some(slots.remove(0)), 0);
    wait(&mut streams, Duration::ZERO, || 0);
    if is_zero_copy {
        streams.closing = true;
        streams.hang_up();
        streams.wait_until_idle();
        assert!(!streams.is_idle(), "the shutdown was enough");
    }
    streams.close();
    let (is_closed, in_flight) = (streams.is_closed(), streams.ring.borrow().in_flight());
    // Whatever the ring still waits for when it is dropped ends with this.
    drop(peer);
    assert!(is_closed && in_flight == 0, "{in_flight} in flight");
}

#[test]
fn slots_that_come_to_a_stream_after_it_was_lost_come_back() {
    for backend in BACKENDS {
        let (mut streams, peer, _other) = streams(backend);
        drop(peer);
        assert_eq!(is_lost(&mut streams).0, 0);
        let (header, _) = data(9);
        streams.send_data(STREAM, header, Some(slot()), 0);
        assert_eq!(is_lost(&mut streams).0, 1);
        streams.receive_body(STREAM, header, slot(), 0);
        assert_eq!(is_lost(&mut streams).0, 1);
    }
}

/// The next part of a frame that is told, by the real clock.
fn next_part(streams: &mut Streams) -> (bool, u32) {
    let start = Instant::now();
    loop {
        match streams.next() {
            Some(StreamEvent::Part { stream: STREAM, sent, bytes }) => return (sent, bytes),
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        assert!(start.elapsed() < LONG, "nothing is told");
        let due = streams.deadline_ns().map(|at| at.saturating_sub(now_ns()));
        let timeout = Duration::from_nanos(due.expect("a frame is under way"));
        wait(streams, timeout, now_ns);
    }
}

#[test]
fn a_part_of_a_frame_that_has_come_is_told_before_its_end() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        assert_eq!(streams.deadline_ns(), None, "nothing is under way");
        let (header, body) = data_of(6, 1 << 20);
        let (goes_on, wait) = std::sync::mpsc::channel();
        let sending = std::thread::spawn(move || {
            peer.write_all(&encode_header(&Header::from(header))).expect("a header");
            peer.write_all(&body[..300_000]).expect("a part of a body");
            wait.recv().expect("the test goes on");
            peer.write_all(&body[300_000..]).expect("the rest");
            peer
        });
        assert!(matches!(next(&mut streams), StreamEvent::Data { .. }));
        let mut slots = Arena::new(1, 1 << 20).expect("memory").1;
        streams.receive_body(STREAM, header, slots.remove(0), 0);
        let mut told = 0;
        // What the kernel was asked for as a whole and has not come to its end is not seen.
        while told < 64 << 10 {
            let (sent, bytes) = next_part(&mut streams);
            assert!(!sent && bytes > 0);
            told += bytes;
        }
        assert!(told <= 300_000, "{told} bytes have not come");
        goes_on.send(()).expect("the peer waits");
        while !matches!(next(&mut streams), StreamEvent::Body { .. }) {}
        assert_eq!(streams.deadline_ns(), None, "nothing is under way");
        drop(sending.join());
    }
}

#[test]
fn a_part_of_a_frame_that_has_gone_is_told_before_its_end() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        let (header, _) = data_of(7, 4 << 20);
        let mut slots = Arena::new(1, 4 << 20).expect("memory").1;
        // More than the socket holds.
        streams.send_data(STREAM, header, Some(slots.remove(0)), 0);
        let (sent, bytes) = next_part(&mut streams);
        assert!(sent && bytes > 0);
        let reading = std::thread::spawn(move || {
            let mut frame = vec![0; HEADER_BYTES + (4 << 20)];
            peer.read_exact(&mut frame).expect("a frame");
        });
        while !matches!(next(&mut streams), StreamEvent::Sent { .. }) {}
        reading.join().expect("no panic");
    }
}

/// Optional frames of a newer peer may be long.
#[test]
fn what_is_skipped_is_told_too() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        let (header, body) = data_of(8, 200_000);
        peer.write_all(&encode_header(&Header::from(header))).expect("a header");
        assert!(matches!(next(&mut streams), StreamEvent::Data { .. }));
        streams.skip_body(STREAM, 0);
        let sent = std::thread::spawn(move || {
            peer.write_all(&body[..150_000]).expect("a part of a body");
            peer
        });
        let mut told = 0;
        while told < 128 << 10 {
            told += next_part(&mut streams).1;
        }
        assert!(told <= 150_000, "{told} bytes have not come");
        drop(sent.join());
    }
}

/// However the peer's bytes are cut, the same frames come out of them.
#[test]
fn a_body_and_what_of_the_next_header_comes_with_it() {
    for backend in BACKENDS {
        for cut in [0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1] {
            let (mut streams, mut peer, _other) = streams(backend);
            let (header, body) = data(5);
            let mut sent = encode_header(&Header::from(header).numbered(0)).to_vec();
            sent.extend(&body);
            let first = sent.len() + cut;
            sent.extend(bytes(&Frame::Ping(7), 1));
            sent.extend(bytes(&Frame::Ping(8), 2));
            peer.write_all(&sent[..first]).expect("a frame and a part of the next");
            assert!(matches!(next(&mut streams), StreamEvent::Data { stream: STREAM, .. }));
            streams.receive_body(STREAM, header, slot(), 0);
            let StreamEvent::Body { slot, .. } = next(&mut streams) else { panic!("{cut}") };
            assert!(slot.body() == body, "{cut}");
            peer.write_all(&sent[first..]).expect("the rest");
            for number in [7, 8] {
                let event = next(&mut streams);
                let StreamEvent::Frame { frame: Frame::Ping(found), .. } = event else {
                    panic!("{cut}: {event:?}")
                };
                assert_eq!(found, number, "{cut}");
            }
            let received = streams.metrics().map(|it| it.received_bytes).sum::<u64>();
            assert_eq!(received, sent.len() as u64, "{cut}");
        }
    }
}
