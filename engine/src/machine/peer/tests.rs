use super::*;

/// At this time.
fn at<T>(now_ns: u64, then: impl FnOnce(&mut Turn) -> T) -> T {
    then(&mut Turn::new(now_ns, &mut Vec::new()))
}

fn peer(streams: u16) -> Peer {
    let mut peer = Peer::new(PeerConfig { streams, silence_ns: 1000 });
    at(0, |turn| peer.watch(turn));
    peer
}

fn lost(peer: &mut Peer, now_ns: u64, stream: u16, fault: Fault) -> Result<(), Fault> {
    at(now_ns, |turn| peer.lost(turn, StreamId(stream), fault))
}

fn sent(peer: &mut Peer) -> Vec<Frame> {
    sent_on(peer).into_iter().map(|(_, frame)| frame).collect()
}

fn sent_on(peer: &mut Peer) -> Vec<(u16, Frame)> {
    let mut actions = Vec::new();
    peer.pump(&mut Turn::new(0, &mut actions));
    let frames = actions.into_iter().map(|action| match action {
        Action::Send { stream, what: Outgoing::Frame(frame) } => {
            peer.sent(stream);
            (stream.0, frame)
        }
        action => panic!("{action:?}"),
    });
    frames.collect()
}

fn broke(text: &str) -> Fault {
    Fault::session(Cause::Network, Observation::Stream, text)
}

#[test]
fn only_the_handshake_goes_out_before_the_session_is_open() {
    let mut peer = peer(2);
    peer.queue(Frame::Ping(7));
    peer.queue_on(StreamId(1), Frame::Handover);
    assert_eq!(at(500, |turn| peer.tick(turn)), Ok(()));
    assert_eq!(peer.deadline_ns(), Some(1000));
    assert_eq!(sent(&mut peer), [Frame::Handover]);
    at(500, |turn| peer.open(turn));
    assert_eq!(sent(&mut peer), [Frame::Ping(7)]);
    assert_eq!((peer.deadline_ns(), at(749, |turn| peer.tick(turn))), (Some(750), Ok(())));
    assert_eq!(sent(&mut peer), []);
    assert_eq!(at(750, |turn| peer.tick(turn)), Ok(()));
    assert_eq!(sent(&mut peer), [Frame::Ping(1), Frame::Ping(1)]);
}

#[test]
fn a_ping_and_its_answer_go_where_a_lost_frame_would_be_missed() {
    let mut peer = peer(3);
    peer.pong(StreamId(2), 4);
    assert_eq!(sent_on(&mut peer), [], "before the handshake is over");
    at(0, |turn| peer.open(turn));
    assert_eq!(sent_on(&mut peer), [(0, Frame::Pong(4))]);
    peer.pong(StreamId(2), 5);
    assert_eq!(sent_on(&mut peer), [(2, Frame::Pong(5))]);
    at(0, |turn| peer.send(turn, StreamId(1), Outgoing::Frame(Frame::Handover)));
    assert_eq!(at(250, |turn| peer.tick(turn)), Ok(()));
    assert_eq!(sent_on(&mut peer), [(0, Frame::Ping(1)), (2, Frame::Ping(1))]);
    for stream in [0, 2] {
        at(250, |turn| peer.send(turn, StreamId(stream), Outgoing::Frame(Frame::Handover)));
    }
    assert_eq!(at(500, |turn| peer.tick(turn)), Ok(()));
    assert_eq!(sent_on(&mut peer), [], "no stream is idle");
    peer.sent(StreamId(1));
    assert_eq!(sent_on(&mut peer), [(1, Frame::Ping(2))]);
}

#[test]
fn a_peer_that_only_sends_or_only_receives_for_long_is_pinged() {
    for only_heard in [true, false] {
        let mut peer = peer(1);
        at(0, |turn| peer.open(turn));
        let mut pings = 0;
        for now_ns in (100..=1000).step_by(100) {
            if only_heard {
                at(now_ns, |turn| peer.heard(turn));
            } else {
                let frame = Outgoing::Frame(Frame::Handover);
                at(now_ns, |turn| peer.send(turn, StreamId(0), frame));
                peer.sent(StreamId(0));
            }
            if peer.deadline_ns().is_some_and(|at_ns| at_ns <= now_ns) && now_ns < 1000 {
                assert_eq!(at(now_ns, |turn| peer.tick(turn)), Ok(()));
            }
            pings += sent(&mut peer).len();
        }
        assert!((2..=4).contains(&pings), "{pings}");
    }
}

#[test]
fn a_peer_is_lost_when_it_was_silent_for_as_long_as_it_may_be() {
    let mut peer = peer(1);
    at(300, |turn| peer.open(turn));
    at(400, |turn| peer.heard(turn));
    assert_eq!(at(1399, |turn| peer.tick(turn)), Ok(()));
    assert!(at(1400, |turn| peer.tick(turn)).is_err_and(|f| f.cause == Cause::Network));
    at(1400, |turn| peer.watch(turn));
    peer.unwatch();
    at(1500, |turn| peer.heard(turn));
    assert_eq!((peer.deadline_ns(), at(9999, |turn| peer.tick(turn))), (None, Ok(())));
}

#[test]
fn nothing_follows_the_last_frame() {
    let mut peer = peer(1);
    peer.queue(Frame::Ping(1));
    peer.queue_last(Frame::Running);
    peer.queue(Frame::Ping(2));
    peer.queue_on(StreamId(0), Frame::Ping(3));
    assert!(!peer.is_told());
    assert_eq!(sent(&mut peer), [Frame::Running]);
    assert_eq!(sent(&mut peer), []);
    assert!(peer.is_told());
}

#[test]
fn the_last_frame_goes_out_on_every_stream_that_is_left() {
    let mut peer = peer(3);
    assert_eq!(lost(&mut peer, 0, 1, broke("one")), Ok(()));
    peer.queue_last(Frame::Running);
    let mut actions = Vec::new();
    peer.pump(&mut Turn::new(0, &mut actions));
    let streams: Vec<StreamId> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Send { stream, .. } => Some(*stream),
            _ => None,
        })
        .collect();
    assert_eq!(streams, [StreamId(0), StreamId(2)]);
}

#[test]
fn a_frame_is_taken_back_only_while_it_waits() {
    let mut peer = peer(1);
    at(0, |turn| peer.open(turn));
    peer.queue(Frame::Handover);
    assert!(peer.take_back(&Frame::Handover));
    assert_eq!(sent(&mut peer), []);
    peer.queue(Frame::Handover);
    assert_eq!(sent(&mut peer), [Frame::Handover]);
    assert!(!peer.take_back(&Frame::Handover), "the peer may have it");
}

#[test]
fn an_embedder_that_gives_more_than_the_peer_reads_is_stopped() {
    let mut peer = peer(1);
    at(0, |turn| peer.open(turn));
    for _ in 0..limits::MESSAGES_WAITING_MAX {
        peer.queue(Frame::Ping(0));
        assert_eq!(peer.queue_message(Bytes::new()), Ok(()));
    }
    assert!(peer.queue_message(Bytes::new()).is_err());
    // The ping and the message that go out make room for one.
    assert_eq!(sent(&mut peer).len() + sent(&mut peer).len(), 2);
    assert_eq!(peer.queue_message(Bytes::new()), Ok(()));
    assert!(peer.queue_message(Bytes::new()).is_err());
}

#[test]
fn a_stream_that_broke_is_the_end_once_no_other_can_say_why() {
    let mut peer = peer(3);
    let until_ns = 1000 / LAST_WORD_PART;
    assert_eq!(lost(&mut peer, 0, 1, broke("first")), Ok(()));
    assert_eq!(peer.deadline_ns(), Some(until_ns));
    assert_eq!(lost(&mut peer, 9, 0, broke("second")), Ok(()));
    assert_eq!(at(until_ns - 1, |turn| peer.tick(turn)), Ok(()), "the first one's stands");
    assert_eq!(at(until_ns, |turn| peer.tick(turn)), Err(broke("first")));
    assert_eq!(lost(&mut peer, 9, 2, broke("third")), Err(broke("first")));
}

#[test]
fn a_last_word_is_not_waited_for_for_ever_where_silence_is() {
    let mut peer = Peer::new(PeerConfig { streams: 2, silence_ns: u64::MAX / 4 });
    at(0, |turn| peer.watch(turn));
    assert_eq!(lost(&mut peer, 5, 1, broke("one")), Ok(()));
    assert_eq!(peer.deadline_ns(), Some(5 + LAST_WORD_NS_MAX));
}

#[test]
fn what_the_wire_does_not_allow_is_the_end_at_once() {
    let fault = Fault::breach(Breach::Answers { max: 1 });
    assert_eq!(lost(&mut peer(2), 0, 0, fault.clone()), Err(fault));
}

#[test]
fn a_last_word_may_come_on_any_stream() {
    let mut peer = peer(2);
    peer.part();
    assert_eq!(lost(&mut peer, 0, 0, broke("one")), Ok(()));
    assert_eq!((peer.broken(), peer.deadline_ns()), (None, Some(1000)));
    assert_eq!(lost(&mut peer, 0, 1, broke("other")), Err(broke("other")));
}

#[test]
fn a_peer_that_asks_and_never_reads_is_found_out_and_an_embedders_messages_are_not() {
    let mut peer = peer(1);
    for _ in 0..limits::MESSAGES_WAITING_MAX {
        assert_eq!(peer.queue_message(Bytes::new()), Ok(()));
    }
    for number in 0..limits::ANSWERS_WAITING_MAX as u64 {
        peer.queue(Frame::Pong(number));
        assert_eq!(peer.check_flood(), Ok(()));
    }
    peer.queue(Frame::Pong(0));
    assert!(matches!(peer.check_flood(), Err(Breach::Answers { .. })));
}

#[test]
fn answers_that_wait_for_their_own_stream_count() {
    let mut peer = peer(2);
    at(0, |turn| peer.open(turn));
    for number in 0..limits::ANSWERS_WAITING_MAX as u64 {
        peer.pong(StreamId(1), number);
        assert_eq!(peer.check_flood(), Ok(()));
    }
    peer.pong(StreamId(0), 0);
    assert!(matches!(peer.check_flood(), Err(Breach::Answers { .. })));
}

#[test]
fn parts_of_frames_count_once_they_are_much_and_each_of_them_once() {
    let mut peer = peer(1);
    let much = u32::try_from(limits::PROGRESS_BYTES_MIN).expect("it fits");
    for _ in 0..3 {
        assert!(!peer.part_moved(1));
        assert!(!peer.part_moved(much - 2));
        assert!(peer.part_moved(1));
    }
}
