//! Each kind of stranger, in each moment.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_linger;
use vfio_ferry::ids::StreamId;
use vfio_ferry::session::{Acceptor, DoorOptions, Error, Reason};
use vfio_ferry::wire::{Frame, Offer};
use vfio_ferry_tests::pair::PATIENCE;
use vfio_ferry_tests::peer::{Peer, bytes};

use crate::honest::{door, migrate_past, wait_for_count};
use vfio_ferry_tests::moment::MOMENTS;

fn knock(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Does the same in every moment, and expects every one of them to be turned away for one reason:
/// at once, or when the stranger leaves after the migration.
fn strangers(reason: Reason, count: u64, knocks: impl Fn(SocketAddr) -> Vec<TcpStream>) {
    let door = door(DoorOptions::default());
    migrate_past(&door, |_, address| knocks(address));
    wait_for_count(&door, reason, count * MOMENTS.len() as u64);
    assert_eq!(door.turned_away().total(), door.turned_away().count(reason));
    assert_eq!(door.held(), 0);
}

#[test]
fn silent_connections() {
    strangers(Reason::Closed, 3, |address| (0..3).map(|_| knock(address)).collect());
}

#[test]
fn a_connection_that_closes() {
    strangers(Reason::Closed, 1, |address| {
        drop(knock(address));
        vec![]
    });
}

#[test]
fn a_port_scan() {
    strangers(Reason::Closed, 50, |address| {
        for _ in 0..50 {
            // A scanner resets rather than closes.
            set_socket_linger(knock(address), Some(Duration::ZERO)).expect("a socket");
        }
        vec![]
    });
}

#[test]
fn half_a_hello() {
    strangers(Reason::Closed, 1, |address| {
        let mut stream = knock(address);
        stream.write_all(&hello(7, 2, 0)[..30]).expect("room");
        vec![stream]
    });
}

/// Both are there before anybody has looked: epoll tells of them once.
#[test]
fn a_hello_and_the_end_at_once() {
    let door = door(DoorOptions::default());
    let mut stream = knock(door.local_addr());
    while door.held() == 0 || is_ready(&door) {
        assert!(door.poll().expect("it listens").is_none());
    }
    stream.write_all(&hello(7, 2, 0)).expect("room");
    drop(stream);
    wait_for_count(&door, Reason::Closed, 1);
    assert_eq!(door.held(), 0);
}

fn is_ready(door: &Acceptor) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(door.fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("an fd") > 0
}

#[test]
fn other_protocols() {
    let words: [&[u8]; 3] =
        [b"GET / HTTP/1.1\r\nHost: target\r\n\r\n", b"SSH-2.0-x\r\n", &[0x16, 3, 1, 2, 0, 1]];
    strangers(Reason::NotAHello, words.len() as u64, |address| {
        let say = |words: &&[u8]| {
            let mut stream = knock(address);
            stream.write_all(words).expect("room");
            stream
        };
        words.iter().map(say).collect()
    });
}

/// A hello of the session of this number.
pub(crate) fn hello(session: u128, streams: usize, stream: u16) -> Vec<u8> {
    bytes(&Frame::Hello(Offer::new(streams, 1, 65536).hello(session, StreamId(stream))))
}

#[test]
fn a_hello_that_claims_64_streams() {
    let count = std::cell::Cell::new(0);
    strangers(Reason::Closed, 1, |address| {
        let mut stream = knock(address);
        count.set(count.get() + 1);
        stream.write_all(&hello(count.get(), 64, 0)).expect("room");
        vec![stream]
    });
}

#[test]
fn a_hello_that_no_session_can_have() {
    strangers(Reason::BadHello, 1, |address| {
        let mut stream = knock(address);
        stream.write_all(&hello(7, 2, 2)).expect("room");
        vec![stream]
    });
}

#[test]
fn silence_has_a_limit() {
    let limit = Duration::from_millis(1);
    let options = DoorOptions { greeting_limit: limit, ..DoorOptions::default() };
    let door = Acceptor::bind("127.0.0.1:0", options).expect("a port");
    let mut silent = knock(door.local_addr());
    wait_for_count(&door, Reason::Silent, 1);
    assert!(silent.read(&mut [0]).is_err(), "it was aborted, and told nothing");
}

#[test]
fn a_session_that_is_never_complete_has_a_limit_and_is_told() {
    let limit = Duration::from_millis(1);
    let options = DoorOptions { gathering_limit: limit, ..DoorOptions::default() };
    let door = Acceptor::bind("127.0.0.1:0", options).expect("a port");
    let stream = knock(door.local_addr());
    (&stream).write_all(&hello(7, 2, 0)).expect("room");
    wait_for_count(&door, Reason::Incomplete, 1);
    let words = told(stream);
    assert_eq!(words, "the session's streams did not all arrive, or do not fit together");
}

/// Who has said its hello is not held to the limit for that any more.
#[test]
fn a_stream_that_waits_for_the_others_is_not_silent() {
    let limit = Duration::from_millis(1);
    let options =
        DoorOptions { greeting_limit: limit, gathering_limit: PATIENCE, ..DoorOptions::default() };
    let door = Acceptor::bind("127.0.0.1:0", options).expect("a port");
    let greet = |stream: u16| {
        let mut one = knock(door.local_addr());
        one.write_all(&hello(7, 2, stream)).expect("room");
        one
    };
    // On a busy machine the hello itself may come too late: then another says it.
    let _first = loop {
        let one = greet(0);
        let before = door.turned_away().total();
        while door.held() == 0 && door.turned_away().total() == before {
            assert!(door.poll().expect("it listens").is_none());
        }
        if door.held() > 0 {
            break one;
        }
    };
    // One that comes later and is silent is gone, and the first is there still.
    let before = door.turned_away().count(Reason::Silent);
    let _silent = knock(door.local_addr());
    wait_for_count(&door, Reason::Silent, before + 1);
    assert_eq!(door.held(), 1);
}

/// What a source that is sent away reads: one abort frame, and the end.
pub(crate) fn told(stream: TcpStream) -> String {
    let mut peer = Peer::from(std::os::fd::OwnedFd::from(stream));
    let abort = match peer.next_frame() {
        Some((_, Some(Frame::Abort(abort)))) => abort,
        other => panic!("{other:?}"),
    };
    assert!(peer.next_frame().is_none(), "the stream ends");
    abort.message
}

#[test]
fn two_streams_with_one_number_do_not_disturb_the_session() {
    let door = door(DoorOptions::default());
    let mut streams: Vec<TcpStream> = (0..3).map(|_| knock(door.local_addr())).collect();
    streams[0].write_all(&hello(7, 2, 0)).expect("room");
    while door.held() == 0 {
        assert!(door.poll().expect("it listens").is_none());
    }
    streams[1].write_all(&hello(7, 2, 0)).expect("room");
    wait_for_count(&door, Reason::Misfit, 1);
    streams[2].write_all(&hello(7, 2, 1)).expect("room");
    let taken = door.wait(PATIENCE, None).expect("two streams that fit");
    assert_eq!((taken.count(), taken.session()), (2, Some(7)));
    assert_eq!(taken.peers()[1], streams[2].local_addr().expect("its address"));
}

#[test]
fn a_wait_ends_when_its_time_is_over_though_strangers_knock_without_end() {
    let door = door(DoorOptions::default());
    let address = door.local_addr();
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Acquire) {
                drop(TcpStream::connect(address));
            }
        });
        let error = door.wait(Duration::from_millis(200), None).expect_err("nobody honest");
        over.store(true, std::sync::atomic::Ordering::Release);
        let Error::Network { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
    });
}
