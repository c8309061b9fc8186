//! Attackers on the path, who see records and not what is in them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vfio_ferry::outcome::{SourceEnding, TargetEnding};
use vfio_ferry::session::{DoorOptions, Options, Policy, Reason, TlsFault};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry_tests::device::Plan;
use vfio_ferry_tests::pki::Authority;
use vfio_ferry_tests::runs::talkative;

use super::whole::{fault_of, migrate, session_options};
use crate::honest::{door, wait_for_count};

/// What becomes of a record from the source: what goes on in its place. None: the path is cut.
type Fate = dyn FnMut(usize, Vec<u8>) -> Option<Vec<Vec<u8>>> + Send;

/// Carries records between the source and the target, and knows nothing of TLS but their framing.
fn path(target: SocketAddr, streams: usize, fate: Box<Fate>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let fate = Arc::new(Mutex::new(fate));
    thread::spawn(move || {
        for number in 0..streams {
            let Ok((source, _)) = listener.accept() else { return };
            let Ok(target) = TcpStream::connect(target) else { return };
            let clone = |stream: &TcpStream| stream.try_clone().expect("an fd");
            let (back, there) = (clone(&target), clone(&source));
            thread::spawn(move || {
                let (mut back, mut there) = (back, there);
                let _ = std::io::copy(&mut back, &mut there);
                let _ = there.shutdown(Shutdown::Write);
            });
            let fate = fate.clone();
            thread::spawn(move || {
                let _ = carry(&source, &target, number, &fate);
                let _ = target.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    number: usize,
    fate: &Mutex<Box<Fate>>,
) -> std::io::Result<()> {
    loop {
        let mut record = vec![0; 5];
        from.read_exact(&mut record)?;
        let length = u16::from_be_bytes([record[3], record[4]]);
        record.resize(5 + usize::from(length), 0);
        from.read_exact(&mut record[5..])?;
        let records = (fate.lock().expect("no panic"))(number, record);
        match records {
            Some(records) => records.iter().try_for_each(|record| to.write_all(record))?,
            None => return Ok(()),
        }
    }
}

/// A record that can only be of the device's state.
fn is_state(record: &[u8]) -> bool {
    record[0] == 23 && record.len() > 16_000
}

/// Does something to the third record of the state, and what comes right behind it.
fn attack(attack: impl FnMut(usize, Vec<u8>) -> Option<Vec<Vec<u8>>> + Send + 'static) -> TlsFault {
    attack_on(1, attack)
}

fn attack_on(
    streams: usize,
    mut attack: impl FnMut(usize, Vec<u8>) -> Option<Vec<Vec<u8>>> + Send + 'static,
) -> TlsFault {
    let (source, target) = Authority::throw_away().hosts();
    let door = door(DoorOptions { protection: target, ..DoorOptions::default() });
    let mut seen = 0;
    let fate = move |number: usize, record: Vec<u8>| {
        seen += usize::from(is_state(&record));
        if seen < 3 { Some(vec![record]) } else { attack(number, record) }
    };
    let address = path(door.local_addr(), streams, Box::new(fate));
    let plan = Plan { rest_bytes: 20_000_000, ..talkative() };
    let options = Options { policy: Policy::Raw, ..session_options() };
    let done = migrate(&door, address, &source, streams, plan, &options);
    let (ours, theirs) = (&done.source.report.ending, &done.target.report.ending);
    assert!(matches!(ours, SourceEnding::Returned(_)), "{ours}");
    assert!(matches!(theirs, TargetEnding::Blank(_)), "{theirs}");
    assert_eq!(done.from.state_now(), DeviceState::Running, "the guest runs on at the source");
    // It is named in the report, too, where this host is the one that saw it first.
    let found = done.target_protection.iter().find_map(fault_of);
    let found = found.expect("the target has seen it");
    let TargetEnding::Blank(fault) = theirs else { unreachable!() };
    assert!(fault.message.contains(&format!("TLS: {found}")), "{fault}");
    found
}

fn is_changed(fault: &TlsFault) -> bool {
    matches!(fault, TlsFault::Changed(_))
}

#[test]
fn a_changed_bit() {
    let fault = attack(|_, mut record| {
        let middle = record.len() / 2;
        record[middle] ^= 1;
        Some(vec![record])
    });
    assert!(is_changed(&fault), "{fault}");
}

#[test]
fn a_changed_length() {
    let fault = attack(|_, mut record| {
        record[4] ^= 1;
        Some(vec![record])
    });
    assert!(is_changed(&fault), "{fault}");
}

#[test]
fn a_dropped_record() {
    let mut dropped = false;
    let fault = attack(move |_, record| {
        let first = !std::mem::replace(&mut dropped, true);
        Some(if first { vec![] } else { vec![record] })
    });
    assert!(is_changed(&fault), "{fault}");
}

#[test]
fn a_record_that_comes_twice() {
    let fault = attack(|_, record| Some(vec![record.clone(), record]));
    assert!(is_changed(&fault), "{fault}");
}

#[test]
fn two_records_in_the_other_order() {
    let mut held = None;
    let fault = attack(move |_, record| match held.take() {
        None => {
            held = Some(record);
            Some(vec![])
        }
        Some(first) => Some(vec![record, first]),
    });
    assert!(is_changed(&fault), "{fault}");
}

#[test]
fn an_earlier_record_in_place_of_a_later_one() {
    let mut earlier: Option<Vec<u8>> = None;
    let fault = attack(move |_, record| match &earlier {
        None => {
            earlier = Some(record.clone());
            Some(vec![record])
        }
        Some(earlier) => Some(vec![earlier.clone()]),
    });
    assert!(is_changed(&fault), "{fault}");
}

#[test]
fn a_path_that_is_cut_between_two_records() {
    assert_eq!(attack(|_, _| None), TlsFault::Cut);
}

#[test]
fn a_path_that_is_cut_inside_of_a_record() {
    let mut cut = false;
    let fault = attack(move |_, record| {
        let first = !std::mem::replace(&mut cut, true);
        first.then(|| vec![record[..record.len() / 2].to_vec()])
    });
    assert_eq!(fault, TlsFault::Cut);
}

/// A record of one connection in the place of one of another.
#[test]
fn two_connections_spliced() {
    let mut others: [Option<Vec<u8>>; 2] = [None, None];
    let fault = attack_on(2, move |number, record| {
        if !is_state(&record) {
            return Some(vec![record]);
        }
        // On a path that is fast enough the state may take one stream alone, and there is no other.
        thread::sleep(Duration::from_millis(1));
        let other = others[1 - number].clone();
        others[number] = Some(record.clone());
        Some(vec![other.unwrap_or(record)])
    });
    assert!(is_changed(&fault), "{fault}");
}

/// All that an honest source has said, said again.
#[test]
fn a_whole_session_replayed() {
    let (source, target) = Authority::throw_away().hosts();
    let door = door(DoorOptions { protection: target, ..DoorOptions::default() });
    let said = Arc::new(Mutex::new(Vec::new()));
    let recorded = said.clone();
    let fate = move |_, record: Vec<u8>| {
        recorded.lock().expect("no panic").extend_from_slice(&record);
        Some(vec![record])
    };
    let address = path(door.local_addr(), 1, Box::new(fate));
    let done = migrate(&door, address, &source, 1, talkative(), &session_options());
    assert_eq!(done.target.report.ending, TargetEnding::Running);
    let mut replay = TcpStream::connect(door.local_addr()).expect("it listens");
    let said = said.lock().expect("no panic").clone();
    // It may be turned away before it has said all.
    let replaying = thread::spawn(move || {
        let _ = replay.write_all(&said);
        replay
    });
    wait_for_count(&door, Reason::NoHandshake, 1);
    drop(replaying.join());
}
