//! Messages that wait for a peer: there is room for so many, their embedder is told when it is used
//! up, and the session goes on.

use std::os::fd::OwnedFd;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vfio_ferry::error::UsageError;
use vfio_ferry::limits::{MESSAGE_BYTES_MAX, MESSAGES_WAITING_MAX};
use vfio_ferry::outcome::{Cause, DeviceOptions};
use vfio_ferry::session::{Options, Session, Side, SourceSession, TargetSession};
use vfio_ferry::wire::{Accept, Features, Frame, Kind};
use vfio_ferry_tests::device::{Plan, TestDevice};
use vfio_ferry_tests::pair::{PATIENCE, end, sources, streams, targets};
use vfio_ferry_tests::peer::{Peer, bytes};

const FULL: Result<(), UsageError> = Err(UsageError::Full { max: MESSAGES_WAITING_MAX });

fn source(streams: Vec<OwnedFd>) -> SourceSession {
    let device = Arc::new(TestDevice::new(Plan::default()));
    let devices = sources(from_ref(&device), &DeviceOptions::default());
    SourceSession::start(devices, streams, Options::default()).expect("a session")
}

fn target(streams: Vec<OwnedFd>) -> TargetSession {
    let device = Arc::new(TestDevice::new(Plan::default()));
    TargetSession::start(targets(from_ref(&device)), streams, Options::default())
        .expect("a session")
}

/// It did not end by itself.
fn assert_cancels<S: Side>(session: Session<S>) {
    session.cancel();
    let ended = end(session);
    assert_eq!(ended.fault().expect("an abort has a cause").cause, Cause::Cancelled);
}

/// Until there is no room, and for a while none is made. How many were taken.
fn send_until_full(session: &SourceSession, message: &Bytes) -> usize {
    const WHILE: Duration = Duration::from_millis(200);
    let mut sent = 0;
    let mut full_since = None;
    loop {
        match session.send_message(message.clone()) {
            Ok(()) => (sent, full_since) = (sent + 1, None),
            full => {
                assert_eq!(full, FULL);
                if full_since.get_or_insert_with(Instant::now).elapsed() > WHILE {
                    return sent;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[test]
fn before_a_peer_is_there_so_many_wait_on_either_host() {
    so_many_wait(source);
    so_many_wait(target);
}

fn so_many_wait<S: Side>(start: fn(Vec<OwnedFd>) -> Session<S>) {
    let (ours, theirs) = streams(2);
    let session = start(ours);
    for _ in 0..MESSAGES_WAITING_MAX {
        assert_eq!(session.send_message(Bytes::from_static(b"early")), Ok(()));
    }
    assert_eq!(session.send_message(Bytes::from_static(b"one more")), FULL);
    assert_cancels(session);
    drop(theirs);
}

#[test]
fn there_is_room_again_once_the_peer_reads() {
    let (ours, mut theirs) = streams(1);
    let session = source(ours);
    let mut peer = Peer::from(theirs.remove(0));
    let hello = peer.expect_hello();
    peer.send(&bytes(&Frame::Accept(Accept {
        version: 1,
        features: Features::ALL,
        chunk_bytes: hello.chunk_bytes,
        session: hello.session,
    })));
    let message = Bytes::from(vec![7; MESSAGE_BYTES_MAX]);
    // What the socket takes, and as many as may wait.
    let sent = send_until_full(&session, &message);
    assert!(sent > MESSAGES_WAITING_MAX);

    for _ in 0..sent {
        assert!(peer.expect(Kind::MESSAGE).is_some(), "none is lost");
    }
    let deadline = Instant::now() + PATIENCE;
    for _ in 0..MESSAGES_WAITING_MAX {
        // The session may hear of the room a moment later.
        while session.send_message(message.clone()) == FULL {
            assert!(Instant::now() < deadline, "there is no room");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(peer.expect(Kind::MESSAGE).is_some());
    }
    assert_cancels(session);
}

#[test]
fn a_session_that_has_ended_is_never_full() {
    let (ours, _theirs) = streams(1);
    let session = source(ours);
    session.cancel();
    while session.wait_event(Some(PATIENCE)).is_some() {}
    assert!(session.has_ended());
    for _ in 0..2 * MESSAGES_WAITING_MAX {
        assert_eq!(session.send_message(Bytes::from_static(b"late")), Ok(()));
    }
}
