//! What no seed of the world meets, or does not show there: each found by breaking the code.

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::Epoch;
use vfio_ferry::limits::ANSWERS_WAITING_MAX;
use vfio_ferry::machine::{
    Command, Event, Machine, PeerConfig, ReadResult, Reply, Request, TimeLimits,
};
use vfio_ferry::outcome::{Breach, Cause, DeviceOptions, OnReset};
use vfio_ferry::receiver::{self, Receiver, ReceiverConfig};
use vfio_ferry::sender::{DeviceConfig, Sender, SenderConfig};
use vfio_ferry::vfio::device::PrecopyInfo;
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{Accept, DataPhase, Features, Frame, Kind};

use crate::receiver as exchange;
use crate::run::{Ends, Run};
use crate::sender::{FIRST, connected};

const CHUNK: ReadResult = ReadResult::Chunk { bytes: 4096, zero: false, hash: 7 };
const EINTR: i32 = 4;

/// A sender whose device reads in PRE_COPY; the first credit has come.
fn reading() -> Run<Sender> {
    let mut run = connected(&[true], 1, OnReset::Abort);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.credits(FIRST, 0, 1);
    run
}

/// A sender that waits for its accepts, and gives its devices much time to come back.
fn greeting(streams: u16, cancel_ns: u64, silence_ns: u64) -> Run<Sender> {
    Run::start(Sender::new(SenderConfig {
        devices: vec![DeviceConfig {
            name: "device-0".to_owned(),
            capabilities: Capabilities { p2p: false, precopy: true },
            options: DeviceOptions::default(),
            paused: false,
            embedded: false,
        }],
        peer: PeerConfig { streams, silence_ns },
        session: 1,
        chunk_bytes: 4096,
        workers: 1,
        slots_per_device: 8,
        policy: Policy::Raw,
        path_bytes_per_s: None,
        precopy_poll_ns: 1_000_000,
        limits: TimeLimits::only_cancel(cancel_ns),
    }))
}

fn accept(chunk_bytes: u32, features: Features) -> Frame {
    Frame::Accept(Accept { version: 1, chunk_bytes, features, session: 1 })
}

#[test]
fn accepts_that_differ_are_refused_and_so_is_a_second_one() {
    let same = || accept(4096, Features::NONE);
    for (stream, other, right) in
        [(1, same(), true), (1, accept(4096, Features::ALL), false), (0, same(), false)]
    {
        let mut run = greeting(2, 1_000_000, u64::MAX);
        run.hears(0, same());
        run.hears(stream, other);
        let breach = run.fault().map(|fault| fault.breach.clone());
        let expected = matches!(breach, Some(Some(Breach::Unexpected { kind: Kind::ACCEPT, .. })));
        assert_eq!((breach.is_none(), expected), (right, !right), "{breach:?}");
    }
}

#[test]
fn a_peer_that_asks_and_never_reads_the_answers_is_given_up() {
    /// Asked so often, while one answer is being sent.
    fn asked<M: Ends>(mut run: Run<M>, way_back: impl Fn(&mut Run<M>)) {
        run.hold(0);
        // The first pong is being sent, and so many more may wait.
        for number in 0..=ANSWERS_WAITING_MAX as u64 {
            run.hears(0, Frame::Ping(number));
            assert!(!run.machine.is_ending(), "{number}");
        }
        // One too many waits now, which the next frame shows.
        run.hears(0, Frame::Ping(0));
        run.hears(0, Frame::Ping(0));
        assert!(run.machine.is_ending());
        run.release(0);
        way_back(&mut run);
        let fault = run.fault().expect("it ends");
        assert_eq!(fault.cause, Cause::PeerMisbehaviour, "{fault}");
        assert!(matches!(fault.breach, Some(Breach::Answers { .. })), "{fault}");
    }
    asked(reading(), |run| {
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
    });
    asked(exchange::loading(1, TimeLimits::only_cancel(1_000_000)), |run| {
        run.answers(FIRST, Request::Reset, Reply::Reset);
        run.found(FIRST, DeviceState::Running);
    });
}

/// Nothing depends on the peer once the session is given up: neither its silence nor a ping to it.
#[test]
fn a_session_that_is_given_up_waits_for_its_own_devices_alone() {
    let (cancel_ns, silence_ns) = (100_000_000_000, 10_000_000_000);
    let mut run = greeting(1, cancel_ns, silence_ns);
    run.hears(0, accept(4096, Features::NONE));
    run.set(FIRST, DeviceState::PreCopy, true);
    run.now_ns = 5;
    run.hears(0, Frame::Ping(1));
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(run.machine.deadline_ns(), Some(cancel_ns + 5));
    // Nor does what it says now begin to count again.
    run.now_ns = 7;
    run.hears(0, Frame::Ping(2));
    assert_eq!(run.machine.deadline_ns(), Some(cancel_ns + 5));
    run.next_deadline();
    assert_eq!(run.ending(), Some(("not_returned", Some(Cause::Cancelled))));
    assert_eq!(run.machine.deadline_ns(), None);

    let mut run = Run::start(Receiver::new(ReceiverConfig {
        devices: vec![receiver::DeviceConfig {
            name: "device-0".to_owned(),
            capabilities: Capabilities { p2p: false, precopy: true },
        }],
        peer: PeerConfig { streams: 1, silence_ns },
        chunk_bytes: 4096,
        workers: 1,
        slots_per_device: 8,
        limits: TimeLimits::only_cancel(cancel_ns),
    }));
    exchange::begin(&mut run, 1);
    run.now_ns = 5;
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(run.machine.deadline_ns(), Some(cancel_ns + 5));
    run.now_ns = 7;
    run.hears(0, Frame::Ping(2));
    assert_eq!(run.machine.deadline_ns(), Some(cancel_ns + 5));
}

/// What a target waits for while nothing is owed begins anew with all of the state that comes.
#[test]
fn state_that_comes_puts_the_idle_limit_off() {
    let (idle_ns, later_ns) = (300_000_000, 200_000_000);
    let limits = TimeLimits { idle_ns, ..TimeLimits::only_cancel(1_000_000) };
    let mut run = exchange::loading(1, limits);
    assert_eq!(run.machine.deadline_ns(), Some(idle_ns));
    run.now_ns = later_ns;
    run.hears(0, Frame::Ping(1));
    assert_eq!(run.machine.deadline_ns(), Some(idle_ns), "a ping is no state");
    run.hears(0, Frame::Phase(exchange::place(1), DataPhase::PreCopy));
    assert_eq!(run.machine.deadline_ns(), Some(later_ns + idle_ns));
    run.next_deadline();
    assert_eq!(run.aborted_on(), [0]);
}

#[test]
fn a_chunk_makes_up_for_the_failures_before_it() {
    const TOLERATED: usize = 1000;
    let mut run = reading();
    for _ in 0..2 {
        for _ in 0..TOLERATED {
            run.reads(FIRST, ReadResult::Failed(EINTR));
        }
        assert!(run.asked.is_empty(), "nothing is wrong");
        run.reads(FIRST, CHUNK);
    }
    for _ in 0..TOLERATED {
        run.reads(FIRST, ReadResult::Failed(EINTR));
    }
    assert!(run.asked.is_empty());
    run.reads(FIRST, ReadResult::Failed(EINTR));
    assert_eq!(run.asked.get(&FIRST), Some(&Request::GetState), "one too many is looked into");
}

/// A device says that its initial data is read while reads are under way, which may still bring the
/// last of it: the mark comes after them.
#[test]
fn initial_data_is_sent_when_the_reads_that_were_under_way_are_back() {
    let marks = |run: &Run<Sender>| run.count(|frame| matches!(frame, Frame::InitialDataSent(_)));
    let mut run = reading();
    run.reads(FIRST, CHUNK);
    while run.asked.is_empty() {
        run.next_deadline();
    }
    let under_way = run.waiting_reads();
    assert!(under_way > 1, "{under_way}");
    let info = PrecopyInfo { initial_bytes: 0, dirty_bytes: 9, reinit: false };
    run.answers(FIRST, Request::PrecopyInfo, Reply::Info(info));
    for back in 0..under_way {
        assert_eq!(marks(&run), 0, "{back} of {under_way} are back");
        run.reads(FIRST, CHUNK);
    }
    assert_eq!(marks(&run), 1);
    let place = run.said.iter().rev().find_map(|(_, frame)| match frame {
        Frame::InitialDataSent(place) => Some(*place),
        _ => None,
    });
    // Begin and phase, the first chunk, those that were under way.
    let place = place.expect("just counted");
    assert_eq!((place.epoch, place.sequence.0), (Epoch(0), 2 + 1 + under_way as u64));
}

/// A device without initial data says so while nothing is read, because no slot is free.
#[test]
fn initial_data_is_sent_at_once_where_no_read_is_under_way() {
    let mut run = connected(&[true], 1, OnReset::Abort);
    run.set(FIRST, DeviceState::PreCopy, true);
    let mut chunks = 0;
    while run.waiting_reads() > 0 {
        run.reads(FIRST, CHUNK);
        chunks += 1;
    }
    while run.asked.is_empty() {
        run.next_deadline();
    }
    let info = PrecopyInfo { initial_bytes: 0, dirty_bytes: 9, reinit: false };
    run.answers(FIRST, Request::PrecopyInfo, Reply::Info(info));
    run.credits(FIRST, 0, 1);
    let place = run.said.iter().find_map(|(_, frame)| match frame {
        Frame::InitialDataSent(place) => Some(*place),
        _ => None,
    });
    assert_eq!(place.map(|place| place.sequence.0), Some(2 + chunks), "right after them");
}

#[test]
fn precopy_info_that_fails_is_asked_again_later_or_looked_into() {
    let asked = || {
        let mut run = reading();
        run.reads(FIRST, ReadResult::Empty);
        assert_eq!(run.asked.get(&FIRST), Some(&Request::PrecopyInfo));
        run
    };
    let mut run = asked();
    run.replies(FIRST, Request::PrecopyInfo, Err(EINTR));
    assert!(run.asked.is_empty(), "nothing is wrong");
    run.next_deadline();
    assert_eq!((run.now_ns, run.asked.get(&FIRST)), (1_000_000, Some(&Request::PrecopyInfo)));
    let mut run = asked();
    run.replies(FIRST, Request::PrecopyInfo, Err(libc::ENODEV));
    assert_eq!(run.asked.get(&FIRST), Some(&Request::GetState));
}
