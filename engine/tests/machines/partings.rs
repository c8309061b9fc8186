//! How a source gives up: whom it tells, what it says why, and whom it waits for.

use bytes::Bytes;
use vfio_ferry::ids::{DeviceId, StreamId};
use vfio_ferry::machine::{Command, Event, Machine};
use vfio_ferry::outcome::{Breach, Cause, Fault, Observation, OnReset};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{Frame, Kind, WireFault};

use crate::sender::{FIRST, SECOND, SILENCE_NS, broken, chunk, connected, precopy};

#[test]
fn the_last_word_goes_out_on_every_stream_that_there_is() {
    let mut run = precopy(4);
    run.hold(1);
    // A stream at a time: the first idle one takes what is queued.
    run.hold(0);
    let message = || Event::Command(Command::Message(Bytes::from_static(b"long")));
    run.feed(message());
    run.feed(message());
    run.feed(Event::StreamLost { stream: StreamId(2), slots: vec![], fault: broken() });
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(run.aborted_on(), [3], "two are busy, one is lost");
    run.release(1);
    run.release(0);
    assert_eq!(run.aborted_on(), [3, 1, 0]);
}

#[test]
fn what_the_peer_says_counts_for_more_than_the_stream_that_it_closed() {
    let said = Fault::session(Cause::Local, Observation::Engine, "out of memory");
    let word = || Frame::Abort((&said).into());
    for lost in [0, 1] {
        let mut run = precopy(2);
        run.feed(Event::StreamLost { stream: StreamId(lost), slots: vec![], fault: broken() });
        assert_eq!(run.aborted_on(), [0; 0], "the word may be on its way on the other one");
        run.hears(1 - lost, word());
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        let fault = run.fault().expect("it ends");
        assert_eq!(fault.cause, Cause::PeerAbort);
        assert!(fault.message.starts_with("the target gave up: local"), "{fault}");
        assert!(fault.message.contains("out of memory"), "{fault}");
        assert_eq!(run.aborted_on(), [0; 0], "the peer knows");
    }
}

#[test]
fn what_was_damaged_on_its_way_ends_it_at_once() {
    let damaged = WireFault::BodyHash { kind: Kind::DATA, found: 1, expected: 2 };
    let own = Fault::session(Cause::Local, Observation::Engine, "no memory");
    for fault in [Fault::breach(Breach::Answers { max: 1 }), Fault::breach(damaged), own] {
        let mut run = precopy(2);
        run.feed(Event::StreamLost { stream: StreamId(0), slots: vec![], fault });
        assert_eq!(run.aborted_on(), [1]);
    }
}

/// What this host's own devices do shows nothing of the peer.
#[test]
fn a_peer_is_silent_whatever_this_hosts_devices_do() {
    let mut run = precopy(1);
    run.now_ns = SILENCE_NS / 2;
    run.reads(FIRST, chunk(1));
    while !run.machine.is_ending() {
        run.next_deadline();
    }
    assert_eq!(run.now_ns, SILENCE_NS);
}

#[test]
fn a_device_that_is_back_is_told_of_before_the_other_is() {
    let mut run = connected(&[true, true], 1, OnReset::Abort);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.set(SECOND, DeviceState::PreCopy, true);
    run.feed(Event::Command(Command::Cancel));
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    let told: Vec<DeviceId> = run.completions().iter().map(|c| c.device).collect();
    assert_eq!((told, run.ending()), (vec![FIRST], None));
    // The other driver does not answer: the bound is over.
    run.next_deadline();
    assert_eq!(run.now_ns, 1_000_000);
    assert_eq!(run.ending(), Some(("not_returned", Some(Cause::Cancelled))));
    assert_eq!(run.completions()[1].state, None, "nobody knows");
}

#[test]
fn a_source_ends_when_its_devices_are_back_and_its_abort_goes_out_all_the_same() {
    let mut run = precopy(1);
    run.hold(0);
    run.feed(Event::Command(Command::Message(Bytes::from_static(b"long"))));
    run.feed(Event::Command(Command::Cancel));
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::Cancelled))), "the guest need not wait");
    assert_eq!((run.aborted_on(), run.machine.has_told()), (vec![], false));
    run.release(0);
    assert_eq!((run.aborted_on(), run.machine.has_told()), (vec![0], true));
    run.now_ns = u64::MAX;
    run.feed(Event::Tick);
    assert_eq!(run.machine.deadline_ns(), None);
}
