//! Honest migrations over TLS.

use std::net::SocketAddr;
use std::slice::from_ref;
use std::sync::Arc;

use vfio_ferry::outcome::{Cause, DeviceOptions, Fault};
use vfio_ferry::session::{
    Acceptor, BackendChoice, ConnectOptions, DoorOptions, Options, Protection, Reason, Source,
    SourceSession, StreamProtection, Target, TargetSession, TlsFault, TlsRecords, connect_with,
};
use vfio_ferry_tests::device::{Plan, TestDevice};
use vfio_ferry_tests::pair::{Ended, PATIENCE, end, sources, targets};
use vfio_ferry_tests::pki::Authority;
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, talkative};

use crate::honest::{device, door, wait_for_count};

/// Whose the records have to be, where whoever runs the tests knows (FERRY_TLS=kernel, user_space).
fn expected_records() -> Option<TlsRecords> {
    match std::env::var("FERRY_TLS").ok()?.as_str() {
        "kernel" => Some(TlsRecords::Kernel),
        "user_space" => Some(TlsRecords::UserSpace),
        other => panic!("FERRY_TLS={other}"),
    }
}

/// How a guarded stream broke, if it did.
pub(crate) fn fault_of(stream: &StreamProtection) -> Option<TlsFault> {
    match stream {
        StreamProtection::Tls { records, fault } => {
            assert!(expected_records().is_none_or(|expected| expected == *records), "{stream:?}");
            fault.clone()
        }
        other => panic!("{other:?}"),
    }
}

/// The default, or what the tests are run for (FERRY_BACKEND=syscalls).
pub(crate) fn session_options() -> Options {
    let backend = match std::env::var("FERRY_BACKEND").ok().as_deref() {
        None => BackendChoice::Auto,
        Some("io_uring") => BackendChoice::IoUring,
        Some("syscalls") => BackendChoice::Syscalls,
        Some(other) => panic!("FERRY_BACKEND={other}"),
    };
    Options { backend, ..Options::default() }
}

pub(crate) fn options(protection: &Protection) -> ConnectOptions {
    ConnectOptions {
        protection: protection.clone(),
        timeout: PATIENCE,
        ..ConnectOptions::default()
    }
}

/// One migration, by way of `address`, which leads to the door. Both ends, and both devices.
pub(crate) struct Migrated {
    pub(crate) source: Ended<Source>,
    pub(crate) target: Ended<Target>,
    pub(crate) source_protection: Vec<StreamProtection>,
    pub(crate) target_protection: Vec<StreamProtection>,
    pub(crate) from: Arc<TestDevice>,
    pub(crate) to: Arc<TestDevice>,
}

pub(crate) fn migrate(
    door: &Acceptor,
    address: SocketAddr,
    source: &Protection,
    streams: usize,
    plan: Plan,
    session_options: &Options,
) -> Migrated {
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let streams = std::thread::scope(|scope| {
        let connecting =
            scope.spawn(|| connect_with(address, streams, &options(source)).expect("a target"));
        // The handshake is the acceptor's to make, too.
        while !connecting.is_finished() {
            assert!(door.poll().expect("it listens").is_none(), "nobody has said hello");
        }
        connecting.join().expect("no panic")
    });
    let devices = sources(from_ref(&from), &DeviceOptions::default());
    let source = SourceSession::start(devices, streams, session_options.clone()).expect("a source");
    let streams = door.wait(PATIENCE, None).expect("the source");
    let target = TargetSession::start(targets(from_ref(&to)), streams, session_options.clone());
    let target = target.expect("a target");
    source.switchover();
    let (source, source_protection) = end_of(source);
    let (target, target_protection) = end_of(target);
    Migrated { source, target, source_protection, target_protection, from, to }
}

fn end_of<S: vfio_ferry::session::Side>(
    session: vfio_ferry::session::Session<S>,
) -> (Ended<S>, Vec<StreamProtection>) {
    while !session.has_ended() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let protection = session.protection();
    (end(session), protection)
}

#[test]
fn a_state_arrives_whole_over_one_stream_and_over_several() {
    let (source, target) = Authority::throw_away().hosts();
    let door = door(DoorOptions { protection: target, ..DoorOptions::default() });
    for streams in [1, 4] {
        // The arena and the records together stay within what was allowed.
        let memory_bytes = 12 << 20;
        let options = Options { memory_bytes, ..session_options() };
        let plan = Plan { rest_bytes: 30_000_001, ..talkative() };
        let done = migrate(&door, door.local_addr(), &source, streams, plan, &options);
        assert_handed_over(&done.source, &done.target);
        assert_moved(&done.from, &done.to);
        for protection in [&done.source_protection, &done.target_protection] {
            assert_eq!(protection.len(), streams);
            for stream in protection {
                assert_eq!(fault_of(stream), None);
            }
        }
    }
    assert_eq!(door.turned_away().total(), 0);
}

/// Giving up is an end that is said, and not a cut.
#[test]
fn a_migration_that_is_cancelled_in_the_middle_breaks_no_stream() {
    let (source, target) = Authority::throw_away().hosts();
    let door = door(DoorOptions { protection: target, ..DoorOptions::default() });
    let stalls_at = Some(2_000_000);
    let plan = Plan { rest_bytes: 20_000_000, ..Plan::default() };
    let (from, to) = (device(plan.clone()), device(Plan { stalls_at, ..plan.target() }));
    let streams = std::thread::scope(|scope| {
        let address = door.local_addr();
        let connecting =
            scope.spawn(move || connect_with(address, 2, &options(&source)).expect("a target"));
        while !connecting.is_finished() {
            assert!(door.poll().expect("it listens").is_none(), "nobody has said hello");
        }
        connecting.join().expect("no panic")
    });
    let devices = sources(from_ref(&from), &DeviceOptions::default());
    let source = SourceSession::start(devices, streams, session_options()).expect("a source");
    let streams = door.wait(PATIENCE, None).expect("the source");
    let target = TargetSession::start(targets(from_ref(&to)), streams, session_options());
    let target = target.expect("a target");
    source.switchover();
    while to.passed().bytes < 2_000_000 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    source.cancel();
    let (source, source_protection) = end_of(source);
    let (target, target_protection) = end_of(target);
    let is = |fault: Option<&Fault>, cause| fault.is_some_and(|fault| fault.cause == cause);
    assert!(is(source.fault(), Cause::Cancelled), "{source:?}");
    assert!(source_protection.iter().all(|stream| fault_of(stream).is_none()));
    // A target that has not read for as long as the source lingers has lost the source's word: on a
    // machine that stood still for so long there is nothing to be seen here.
    if is(target.fault(), Cause::Network) {
        return println!("the machine stood still: {:?}", target.fault());
    }
    assert!(is(target.fault(), Cause::PeerAbort), "{target:?}");
    assert!(target_protection.iter().all(|stream| fault_of(stream).is_none()));
}

/// A host whose kernel seals and opens, where it does, and one whose engine does.
#[test]
fn each_host_says_whose_the_records_are_and_either_goes_with_the_other() {
    let (source, target) = Authority::throw_away().hosts();
    let with_kernel = |protection: &Protection, kernel: bool| match protection {
        Protection::Tls(tls) => Protection::Tls(tls.clone().with_kernel(kernel)),
        other => other.clone(),
    };
    for (here, there) in [(true, false), (false, true), (false, false)] {
        let protection = with_kernel(&target, there);
        let door = door(DoorOptions { protection, ..DoorOptions::default() });
        let source = with_kernel(&source, here);
        let address = door.local_addr();
        let done = migrate(&door, address, &source, 2, talkative(), &session_options());
        assert_handed_over(&done.source, &done.target);
        assert_moved(&done.from, &done.to);
        let sides = [(here, &done.source_protection), (there, &done.target_protection)];
        for (kernel, protection) in sides {
            let own = StreamProtection::Tls { records: TlsRecords::UserSpace, fault: None };
            let any = StreamProtection::Tls { records: TlsRecords::Kernel, fault: None };
            let is_expected = |stream: &StreamProtection| match (kernel, expected_records()) {
                (false, _) | (true, Some(TlsRecords::UserSpace)) => *stream == own,
                (true, Some(_)) => *stream == any,
                (true, None) => *stream == own || *stream == any,
            };
            assert!(protection.iter().all(is_expected), "{kernel}: {protection:?}");
        }
    }
}

/// Strangers at a door with TLS are what they are at any other.
#[test]
fn strangers_do_not_close_a_protected_door() {
    use std::io::Write;
    let (source, target) = Authority::throw_away().hosts();
    let door = door(DoorOptions { protection: target, ..DoorOptions::default() });
    let mut open = Vec::new();
    for words in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"VFRY"] {
        let mut stream = std::net::TcpStream::connect(door.local_addr()).expect("it listens");
        stream.write_all(words).expect("room");
        open.push(stream);
    }
    let address = door.local_addr();
    let done = migrate(&door, address, &source, 2, talkative(), &session_options());
    assert_handed_over(&done.source, &done.target);
    assert_moved(&done.from, &done.to);
    drop(open);
    wait_for_count(&door, Reason::Closed, 2);
    assert_eq!(door.turned_away().count(Reason::NoHandshake), 2);
    assert_eq!(door.held(), 0);
}
