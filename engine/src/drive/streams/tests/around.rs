//! What streams have to do with what is around them: the ring that they share, and their sockets.

use super::*;
use crate::buffers::Buffer;
use crate::drive::owner::DataFdId;
use crate::drive::waits::PARTS_EVERY;
use crate::limits::MESSAGE_BYTES_MAX;
use crate::ring::Op;

#[test]
fn what_completes_for_others_while_the_streams_are_closed_is_handed_on() {
    for backend in BACKENDS {
        let (mut streams, _peer, _other) = streams(backend);
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let owner = Owner::Data(DataFdId { device: DeviceId(0), number: 0 });
        {
            // As a data fd's.
            let mut ring = streams.ring.borrow_mut();
            let file = ring.add_file(Arc::new(ours.into()), FileKind::Socket).expect("room");
            let op = Op::recv_enough(file, Buffer::Small(vec![0; 8]), 0..8, 8);
            ring.submit(owner.token(), op).map_err(|_| ()).expect("room");
        }
        (&theirs).write_all(b"8 bytes!").expect("a socket");
        streams.close();
        let mut strays = streams.take_strays();
        let start = Instant::now();
        while strays.is_empty() {
            assert!(start.elapsed() < LONG, "it was lost");
            // It may complete only after the streams have.
            streams.ring.borrow_mut().wait(Some(LONG), &mut strays).expect("a wait");
        }
        assert_eq!(strays.len(), 1);
        assert_eq!((Owner::of(strays[0].token), strays[0].result), (owner, Ok(8)));
        assert!(streams.take_strays().is_empty(), "handed on once");
    }
}

#[test]
fn every_frame_is_counted_and_how_long_it_took() {
    for backend in BACKENDS {
        let (mut streams, mut peer, _other) = streams(backend);
        let (body_header, body) = data(5);
        let zeros = DataHeader {
            encoding: Encoding::Zero,
            body_bytes: 0,
            body_hash: chunk_hash(&[]),
            ..body_header
        };
        peer.write_all(&encode_header(&Header::from(zeros))).expect("zeros");
        peer.write_all(&encode_header(&Header::from(body_header).numbered(1))).expect("a header");
        peer.write_all(&body).expect("a body");
        peer.write_all(&bytes(&Frame::Ping(7), 2)).expect("a ping");
        let received = |streams: &Streams| streams.metrics().nth(1).map(|it| it.received_frames);
        assert!(!streams.is_asking(STREAM));
        assert!(matches!(next(&mut streams), StreamEvent::Data { .. }));
        assert_eq!(received(&streams), Some(1));
        let event = next(&mut streams);
        assert!(matches!(event, StreamEvent::Data { .. }), "{event:?}");
        assert!(streams.is_asking(STREAM));
        streams.receive_body(STREAM, body_header, slot(), 0);
        assert!(matches!(next(&mut streams), StreamEvent::Body { .. }));
        assert!(matches!(next(&mut streams), StreamEvent::Frame { .. }));
        assert_eq!(received(&streams), Some(3));
        for number in 1..=2 {
            streams.send_frame(STREAM, &Frame::Ping(7), 1000);
            while streams.streams[STREAM.index()].send_since_ns.is_some() {
                wait(&mut streams, LONG, || 1100);
            }
            assert_eq!(streams.metrics().nth(1).map(|it| it.send_ns), Some(number * 100));
        }
    }
}

#[test]
fn a_stream_that_has_failed_asks_for_no_body() {
    let (mut streams, mut peer, _other) = streams(BackendChoice::Auto);
    let (header, _) = data(5);
    peer.write_all(&encode_header(&Header::from(header))).expect("a header");
    assert!(matches!(next(&mut streams), StreamEvent::Data { .. }));
    assert!(streams.is_asking(STREAM));
    streams.fail(STREAM, broken("send to", STREAM, EPIPE));
    assert!(!streams.is_asking(STREAM));
}

/// The peer's reason comes first, and what was on its way is no news then.
#[test]
fn a_send_that_ends_after_its_stream_has_failed_gives_its_slot_back_with_the_stream() {
    let (mut streams, peer, _other) = streams(BackendChoice::Auto);
    streams.streams[STREAM.index()].fault = Some(broken("receive from", STREAM, EPIPE));
    let (header, _) = data(5);
    streams.send_data(STREAM, header, Some(slot()), 0);
    while streams.streams[STREAM.index()].send_since_ns.is_some() {
        wait(&mut streams, LONG, || 0);
    }
    assert!(streams.next().is_none(), "it still receives");
    drop(peer);
    assert_eq!(is_lost(&mut streams).0, 1);
}

#[test]
fn a_frame_that_cannot_be_made_is_this_hosts_fault() {
    let (mut streams, peer, _other) = streams(BackendChoice::Auto);
    let long = Frame::Message(Bytes::from(vec![0; MESSAGE_BYTES_MAX + 1]));
    streams.send_frame(STREAM, &long, 0);
    drop(peer);
    assert_eq!(is_lost(&mut streams).1.cause, Cause::Local);
}

#[test]
fn parts_are_looked_for_now_and_then() {
    let (mut streams, _peer, _other) = streams(BackendChoice::Auto);
    let every = PARTS_EVERY.as_nanos() as u64;
    for (now_ns, looked_ns) in
        [(every - 1, 0), (every, every), (2 * every - 1, every), (2 * every, 2 * every)]
    {
        streams.look_for_parts(now_ns);
        assert_eq!(streams.looked_ns, looked_ns);
    }
}

#[test]
fn the_speed_is_that_of_all_streams_and_is_looked_at_now_and_then() {
    const EVERY_NS: u64 = 500_000;
    let (mut streams, _peer, _other) = streams(BackendChoice::Auto);
    let speed = |streams: &mut Streams, now_ns| {
        streams.look_at_speed(now_ns);
        match streams.next() {
            None => None,
            Some(StreamEvent::Link(speed)) => Some((speed.bytes_per_s, speed.at_least)),
            Some(other) => panic!("{other:?}"),
        }
    };
    // 4 MiB in 4 ms; and as many in 4 ms of 40.
    streams.streams[0].drain.took(4_000_000, 4 << 20, 4_000_000);
    let drain = &mut streams.streams[1].drain;
    drain.took(4_000_000, 1, 4_000_000);
    drain.took(40_000_000, (4 << 20) - 1, 0);
    assert_eq!(speed(&mut streams, EVERY_NS), None, "nobody wants to know");
    streams.measure();
    assert_eq!(speed(&mut streams, EVERY_NS - 1), None);
    let sum = Some((2 * 1_048_576_000, true));
    assert_eq!(speed(&mut streams, EVERY_NS), sum);
    assert_eq!(speed(&mut streams, 2 * EVERY_NS - 1), None);
    assert_eq!(speed(&mut streams, 2 * EVERY_NS), sum);
}

#[test]
fn nothing_more_is_sent_on_a_stream_whose_last_frame_has_gone() {
    for backend in BACKENDS {
        let (mut streams, mut peer, mut other) = streams(backend);
        let bytes = 4 << 20;
        let (header, _) = data_of(7, bytes);
        let mut slots = Arena::new(1, bytes).expect("memory").1;
        // More than the socket holds.
        streams.send_data(STREAM, header, Some(slots.remove(0)), 0);
        streams.close_sending();
        assert_eq!(other.read(&mut [0]).expect("an end"), 0);
        let reading = std::thread::spawn(move || {
            let mut frame = vec![0; HEADER_BYTES + bytes];
            peer.read_exact(&mut frame).expect("a frame, whole");
            peer
        });
        assert!(matches!(next(&mut streams), StreamEvent::Sent { .. }));
        streams.close_sending();
        assert_eq!(reading.join().expect("no panic").read(&mut [0]).expect("an end"), 0);
        assert!(!streams.owes_end(), "only TLS has a word to say then");
        streams.streams[1].owes_end = true;
        assert!(streams.owes_end());
        streams.streams[1].lost = true;
        assert!(!streams.owes_end(), "nobody would hear it");
    }
}

#[test]
fn streams_are_closed_once_the_kernel_has_let_go_of_them() {
    let (mut streams, _peer, _other) = streams(BackendChoice::Auto);
    assert!(!streams.is_closing() && !streams.is_closed());
    streams.closing = true;
    assert!(streams.is_closing() && !streams.is_closed(), "both receive");
    streams.close();
    assert!(streams.is_closing() && streams.is_closed());
}
