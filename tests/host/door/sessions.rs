//! Several sessions at one door, one after another and at once; those that are not taken are told.

use std::io::Write;
use std::net::TcpStream;
use std::slice::from_ref;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vfio_ferry::outcome::{Cause, DeviceOptions, SourceEnding};
use vfio_ferry::session::{
    Acceptor, Canceller, DoorOptions, Error, Options, Protection, Reason, SourceSession,
    UsageError, accept, connect,
};
use vfio_ferry_tests::pair::{PATIENCE, end, sources};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, talkative};

use crate::honest::{device, door, migrate_past, start_source, start_target, wait_for_count};
use crate::strangers::{hello, told};

#[test]
fn two_sources_at_one_port_each_get_their_session() {
    let door = door(DoorOptions::default());
    let address = door.local_addr();
    let plan = talkative();
    let from = [device(plan.clone()), device(plan.clone())];
    let to = [device(plan.target()), device(plan.target())];
    // Their streams arrive in turn.
    let mut streams = [connect(address, 1).expect("it listens"), connect(address, 1).expect("too")];
    for streams in &mut streams {
        streams.extend(connect(address, 1).expect("it listens"));
    }
    let sources: Vec<_> =
        from.iter().zip(streams).map(|(from, streams)| start_source(from, streams)).collect();
    let arrived = [(); 2].map(|()| door.wait(PATIENCE, None).expect("a session"));
    assert_ne!(arrived[0].session(), arrived[1].session());
    // Which of them came first is the network's to say: the first source's stream leads here.
    let targets: Vec<_> =
        to.iter().zip(arrived).map(|(to, streams)| start_target(to, streams)).collect();
    sources.iter().for_each(|source| source.switchover());
    let ended: Vec<_> = sources.into_iter().map(end).collect();
    for (source, target) in ended.iter().zip(targets) {
        assert_handed_over(source, &end(target));
    }
    // Both states are the same, so that it does not matter whose is whose.
    assert_moved(&from[0], &to[0]);
    assert_moved(&from[1], &to[1]);
}

#[test]
fn one_listener_serves_one_migration_after_another() {
    let door = door(DoorOptions::default());
    for _ in 0..3 {
        migrate_past(&door, |_, _| ());
    }
    assert_eq!(door.turned_away().total(), 0);
}

/// A source whose session is not taken.
fn refused_source(address: std::net::SocketAddr) -> (SourceEnding, Cause, String) {
    let from = device(talkative());
    let ending = end(start_source(&from, connect(address, 2).expect("it listens"))).report.ending;
    let SourceEnding::Returned(fault) = &ending else { panic!("{ending}") };
    let (cause, message) = (fault.cause, fault.message.clone());
    (ending, cause, message)
}

#[test]
fn a_source_beyond_those_that_may_wait_is_told() {
    let door = door(DoorOptions { sessions_max: 1, ..DoorOptions::default() });
    let address = door.local_addr();
    let mut first = TcpStream::connect(address).expect("it listens");
    first.write_all(&hello(7, 1, 0)).expect("room");
    let late = std::thread::spawn(move || refused_source(address));
    // Nobody takes the first session: polling would. Its place is only taken when it is given back.
    let taken = door.wait(PATIENCE, None).expect("one of the two");
    let (first_is_first, late) = (taken.session() == Some(7), late);
    door.give_back(taken);
    if first_is_first {
        while door.turned_away().count(Reason::Busy) < 2 {
            let taken = door.wait(PATIENCE, None).expect("the first, again");
            assert_eq!(taken.session(), Some(7));
            door.give_back(taken);
        }
    }
    drop(door);
    let (_, cause, message) = late.join().expect("no panic");
    assert_eq!(cause, Cause::PeerAbort);
    assert!(message.contains("the target takes no more sessions now"), "{message}");
}

#[test]
fn what_one_accept_does_not_take_is_told() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let say = |session, streams| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&hello(session, streams, 0)).expect("room");
        stream
    };
    let (incomplete, _complete) = (say(7, 2), say(8, 1));
    let streams = accept(&listener, PATIENCE).expect("a session");
    assert_eq!(streams.len(), 1);
    assert!(told(incomplete).contains("the target takes no more sessions now"));
    let flags = rustix::fs::fcntl_getfl(&listener).expect("flags");
    assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "the listener is as it was");
}

#[test]
fn only_the_session_that_is_expected_is_let_in() {
    let expected = 0x1234_5678_9abc_def0_u128;
    let door = door(DoorOptions { session: Some(expected), ..DoorOptions::default() });
    let address = door.local_addr();
    let other = std::thread::spawn(move || refused_source(address));
    wait_for_count(&door, Reason::Unexpected, 2);
    let (_, cause, message) = other.join().expect("no panic");
    assert_eq!(cause, Cause::PeerAbort);
    assert!(message.contains("the target does not take this session"), "{message}");

    let (from, to) = (device(talkative()), device(talkative().target()));
    let devices = sources(from_ref(&from), &DeviceOptions::default());
    let options = Options { session: Some(expected), ..Options::default() };
    let streams = connect(address, 2).expect("it listens");
    let source = SourceSession::start(devices, streams, options).expect("a source");
    let taken = door.wait(PATIENCE, None).expect("the expected one");
    assert_eq!(taken.session(), Some(expected));
    let target = start_target(&to, taken);
    source.switchover();
    assert_handed_over(&end(source), &end(target));
}

/// A VMM that waits in an event loop of its own.
#[test]
fn the_fd_says_when_there_is_something_to_do() {
    let door = door(DoorOptions { sessions_max: 2, ..DoorOptions::default() });
    let is_readable = |patience: i64| {
        let mut fds = [PollFd::from_borrowed_fd(door.fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: patience, tv_nsec: 0 };
        poll(&mut fds, Some(&timeout)).expect("poll") > 0
    };
    assert!(!is_readable(0), "nobody has knocked");
    let mut streams: Vec<_> =
        (0..2).map(|_| TcpStream::connect(door.local_addr()).expect("it listens")).collect();
    for (session, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&hello(session as u128, 1, 0)).expect("room");
    }
    for _ in 0..2 {
        let taken = loop {
            assert!(is_readable(PATIENCE.as_secs() as i64), "a session waits");
            if let Some(taken) = door.poll().expect("it listens") {
                break taken;
            }
        };
        // What is given back is there again.
        door.give_back(taken);
        assert!(is_readable(PATIENCE.as_secs() as i64));
        assert!(door.poll().expect("it listens").is_some());
    }
    assert!(door.poll().expect("it listens").is_none());
    assert!(!is_readable(0), "both were taken");
}

#[test]
fn another_thread_ends_a_wait() {
    let door = door(DoorOptions::default());
    let cancel = Canceller::new().expect("an eventfd");
    let waiting = {
        let (door, cancel) = (door.clone(), cancel.clone());
        std::thread::spawn(move || door.wait(Duration::MAX, Some(&cancel)))
    };
    cancel.cancel();
    let error = waiting.join().expect("no panic").expect_err("cancelled");
    assert!(matches!(error, Error::Cancelled), "{error}");
}

#[test]
fn a_session_that_left_while_it_waited_is_not_given() {
    let door = door(DoorOptions::default());
    let mut gone = TcpStream::connect(door.local_addr()).expect("it listens");
    gone.write_all(&hello(7, 1, 0)).expect("room");
    let taken = door.wait(PATIENCE, None).expect("a session");
    door.give_back(taken);
    drop(gone);
    wait_for_gone(&door);
}

fn wait_for_gone(door: &Acceptor) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while door.turned_away().count(Reason::Closed) == 0 {
        assert!(std::time::Instant::now() < deadline, "{:?}", door.turned_away());
        if let Some(early) = door.poll().expect("it listens") {
            // Its end has not arrived yet.
            door.give_back(early);
        }
    }
}

#[test]
fn a_door_to_other_hosts_is_not_opened_without_protection() {
    for open in ["0.0.0.0:0", "[::]:0"] {
        let error = Acceptor::bind(open, DoorOptions::default()).expect_err("plaintext");
        assert!(matches!(error, Error::Usage(UsageError::Plaintext { .. })), "{error}");
        let options = DoorOptions { protection: Protection::Plaintext, ..DoorOptions::default() };
        Acceptor::bind(open, options).expect("it was asked for by name");
        let listener = std::net::TcpListener::bind(open).expect("a port");
        let error = accept(&listener, PATIENCE).expect_err("plaintext");
        assert!(matches!(error, Error::Usage(UsageError::Plaintext { .. })), "{error}");
    }
}
