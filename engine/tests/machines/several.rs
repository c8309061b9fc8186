//! Several devices at once, some of them without the P2P states: which is moved before which. And
//! how a device comes back: late, to STOP under a paused VM, by a reset.

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence, StreamId};
use vfio_ferry::machine::{
    Command, DeviceReport, Event, Machine, Notice, PeerConfig, ReadResult, Reply, Request,
    TimeLimits,
};
use vfio_ferry::outcome::{Cause, DeviceOptions};
use vfio_ferry::receiver::{self, Receiver, ReceiverConfig};
use vfio_ferry::sender::{DeviceConfig, Sender, SenderConfig};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{
    Accept, Begin, DataPhase, DevicePlace, Features, Frame, Offer, StateDigest, Total,
};

use crate::run::Run;

const P2P: DeviceId = DeviceId(0);
const PLAIN: DeviceId = DeviceId(1);
const OTHER: DeviceId = DeviceId(2);
const SET: fn(DeviceState) -> Request = Request::SetState;

fn capabilities(device: DeviceId) -> Capabilities {
    Capabilities { p2p: device != PLAIN, precopy: true }
}

/// A device of the source.
#[derive(Clone, Copy, Default)]
struct Kind {
    paused: bool,
    reset_to_return: bool,
}

/// A sender whose devices, the first `count` of those above, were announced.
fn source(count: u32, kind: Kind) -> Run<Sender> {
    let device = |number| DeviceConfig {
        name: format!("device-{number}"),
        capabilities: capabilities(DeviceId(number)),
        options: DeviceOptions { reset_to_return: kind.reset_to_return, ..Default::default() },
        paused: kind.paused,
        embedded: false,
    };
    let mut run = Run::start(Sender::new(SenderConfig {
        devices: (0..count).map(device).collect(),
        peer: PeerConfig { streams: 1, silence_ns: u64::MAX },
        session: 1,
        chunk_bytes: 4096,
        workers: 1,
        slots_per_device: 8,
        policy: Policy::Raw,
        path_bytes_per_s: None,
        precopy_poll_ns: u64::MAX,
        limits: TimeLimits::only_cancel(8_000_000),
    }));
    let features = Features::NONE;
    run.hears(0, Frame::Accept(Accept { version: 1, chunk_bytes: 4096, features, session: 1 }));
    run
}

/// One whose devices are in PRE_COPY when the vCPUs stop.
fn stopping(count: u32) -> Run<Sender> {
    let mut run = source(count, Kind::default());
    (0..count).for_each(|device| run.set(DeviceId(device), DeviceState::PreCopy, true));
    run.feed(Event::Command(Command::Switchover));
    run
}

/// One whose devices are all in STOP_COPY.
fn stopped() -> Run<Sender> {
    let mut run = stopping(3);
    run.set(P2P, DeviceState::PreCopyP2p, false);
    run.set(OTHER, DeviceState::PreCopyP2p, false);
    run.set(PLAIN, DeviceState::StopCopy, false);
    run.set(P2P, DeviceState::StopCopy, false);
    run.set(OTHER, DeviceState::StopCopy, false);
    run
}

fn asked<M>(run: &Run<M>, device: DeviceId) -> Option<Request> {
    run.asked.get(&device).copied()
}

#[test]
fn no_device_stops_while_another_may_still_write_to_it() {
    let mut run = stopping(3);
    assert_eq!(asked(&run, PLAIN), None, "the others are not quiet");
    run.set(P2P, DeviceState::PreCopyP2p, false);
    assert_eq!((asked(&run, P2P), asked(&run, PLAIN)), (None, None));
    run.set(OTHER, DeviceState::PreCopyP2p, false);
    assert_eq!(asked(&run, PLAIN), Some(SET(DeviceState::StopCopy)));
    assert_eq!((asked(&run, P2P), asked(&run, OTHER)), (None, None), "this one has no quiet state");
    run.set(PLAIN, DeviceState::StopCopy, false);
    assert_eq!(asked(&run, P2P), Some(SET(DeviceState::StopCopy)));
    assert_eq!(asked(&run, OTHER), Some(SET(DeviceState::StopCopy)));
}

#[test]
fn one_device_alone_stops_at_once() {
    for count in [1, 2] {
        let mut run = source(count, Kind::default());
        run.set(P2P, DeviceState::PreCopy, true);
        run.feed(Event::Command(Command::Switchover));
        let next = if count == 1 { DeviceState::StopCopy } else { DeviceState::PreCopyP2p };
        assert_eq!(asked(&run, P2P), Some(SET(next)));
    }
}

#[test]
fn no_device_runs_again_while_another_is_stopped() {
    let mut run = stopped();
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(asked(&run, P2P), Some(SET(DeviceState::RunningP2p)));
    assert_eq!(asked(&run, PLAIN), None);
    run.set(P2P, DeviceState::RunningP2p, false);
    assert_eq!((asked(&run, P2P), asked(&run, PLAIN)), (None, None));
    run.set(OTHER, DeviceState::RunningP2p, false);
    assert_eq!(asked(&run, PLAIN), Some(SET(DeviceState::Running)));
    assert_eq!((asked(&run, P2P), asked(&run, OTHER)), (None, None));
    run.set(PLAIN, DeviceState::Running, false);
    run.found(PLAIN, DeviceState::Running);
    for device in [P2P, OTHER] {
        run.set(device, DeviceState::Running, false);
        run.found(device, DeviceState::Running);
    }
    assert_eq!(run.ending(), Some(("returned", Some(Cause::Cancelled))));
}

#[test]
fn a_device_that_does_not_come_back_holds_the_others_for_a_while_only() {
    let mut run = stopped();
    run.feed(Event::Command(Command::Cancel));
    run.set(OTHER, DeviceState::RunningP2p, false);
    run.next_deadline();
    assert_eq!(run.now_ns, 2_000_000, "a quarter of the bound");
    assert_eq!(asked(&run, PLAIN), Some(SET(DeviceState::Running)));
    assert_eq!(asked(&run, OTHER), Some(SET(DeviceState::Running)));
    // The one that was late is asked for RUNNING as soon as it answers.
    run.replies(P2P, SET(DeviceState::RunningP2p), Err(5));
    assert_eq!(asked(&run, P2P), Some(SET(DeviceState::Running)));
}

#[test]
fn before_the_switchover_all_devices_run_and_each_comes_back_by_itself() {
    let mut run = source(3, Kind::default());
    (0..3).for_each(|device| run.set(DeviceId(device), DeviceState::PreCopy, true));
    run.feed(Event::Command(Command::Cancel));
    for device in [P2P, PLAIN, OTHER] {
        assert_eq!(asked(&run, device), Some(SET(DeviceState::Running)));
    }
}

/// A receiver of the three devices, all of which are loaded.
fn target() -> Run<Receiver> {
    target_of(3)
}

/// The same with the first so many of them.
fn target_of(devices: u32) -> Run<Receiver> {
    let device = |number| receiver::DeviceConfig {
        name: format!("device-{number}"),
        capabilities: capabilities(DeviceId(number)),
    };
    let mut run = Run::start(Receiver::new(ReceiverConfig {
        devices: (0..devices).map(device).collect(),
        peer: PeerConfig { streams: 1, silence_ns: u64::MAX },
        chunk_bytes: 4096,
        workers: 1,
        slots_per_device: 8,
        limits: TimeLimits::only_cancel(8_000_000),
    }));
    run.hears(0, Frame::Hello(Offer::new(1, devices as usize, 4096).hello(1, StreamId(0))));
    for number in 0..devices {
        let device = DeviceId(number);
        let place =
            |sequence| DevicePlace { device, epoch: Epoch(0), sequence: Sequence(sequence) };
        let (name, opaque) = (format!("device-{number}"), bytes::Bytes::new());
        run.hears(0, Frame::Begin(place(0), Begin { name, precopy: true, p2p: true, opaque }));
        run.set(device, DeviceState::Resuming, true);
        let total = Total { bytes: 0, digest: StateDigest::new().finish() };
        run.hears(0, Frame::Phase(place(1), DataPhase::StopCopy));
        run.hears(0, Frame::End(place(2), total));
        run.found(device, DeviceState::Resuming);
        run.set(device, DeviceState::Stop, false);
        run.found(device, DeviceState::Stop);
    }
    run
}

#[test]
fn on_the_target_one_device_alone_runs_at_once() {
    let mut run = target_of(1);
    run.hears(0, Frame::Handover);
    run.found(P2P, DeviceState::Stop);
    run.set(P2P, DeviceState::Running, false);
    assert_eq!(run.ending(), Some(("running", None)));
}

#[test]
fn on_the_target_none_runs_while_another_is_stopped() {
    let mut run = target();
    run.hears(0, Frame::Handover);
    for device in [P2P, PLAIN, OTHER] {
        run.found(device, DeviceState::Stop);
    }
    assert_eq!(asked(&run, PLAIN), None);
    run.set(P2P, DeviceState::RunningP2p, false);
    assert_eq!((asked(&run, P2P), asked(&run, PLAIN)), (None, None));
    run.set(OTHER, DeviceState::RunningP2p, false);
    assert_eq!(asked(&run, PLAIN), Some(SET(DeviceState::Running)));
    assert_eq!((asked(&run, P2P), asked(&run, OTHER)), (None, None));
    run.set(PLAIN, DeviceState::Running, false);
    run.set(P2P, DeviceState::Running, false);
    run.set(OTHER, DeviceState::Running, false);
    assert_eq!(run.ending(), Some(("running", None)));
}

fn came_back<M>(run: &Run<M>) -> Vec<&DeviceReport> {
    let reports = run.notices.iter().filter_map(|notice| match notice {
        Notice::CameBack(report) => Some(report),
        _ => None,
    });
    reports.collect()
}

#[test]
fn a_source_device_that_is_late_comes_back_and_is_told_of_once() {
    let mut run = source(1, Kind::default());
    run.feed(Event::Command(Command::Cancel));
    run.next_deadline();
    assert_eq!(run.ending(), Some(("not_returned", Some(Cause::Cancelled))));
    assert_eq!((came_back(&run).len(), run.machine.deadline_ns()), (0, None));
    run.set(P2P, DeviceState::PreCopy, true);
    assert_eq!(came_back(&run).len(), 0, "it is only on its way");
    run.set(P2P, DeviceState::Running, false);
    run.found(P2P, DeviceState::Running);
    let told = came_back(&run);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].home, told[0].state), (true, Some(DeviceState::Running)));
    assert!(run.machine.reports()[0].home);
    run.feed(Event::Tick);
    assert_eq!(came_back(&run).len(), 1);
}

#[test]
fn a_target_device_that_is_late_is_reset_all_the_same() {
    let mut run = target();
    run.hears(0, Frame::Handover);
    run.feed(Event::Command(Command::Cancel));
    run.next_deadline();
    assert_eq!(run.ending(), Some(("not_blank", Some(Cause::Cancelled))));
    assert_eq!(came_back(&run).len(), 0);

    let mut run = target();
    run.feed(Event::Command(Command::Cancel));
    assert_eq!(asked(&run, P2P), Some(Request::Reset));
    for device in [PLAIN, OTHER] {
        run.answers(device, Request::Reset, Reply::Reset);
        run.found(device, DeviceState::Running);
    }
    run.next_deadline();
    assert_eq!(run.ending(), Some(("not_blank", Some(Cause::Cancelled))));
    run.answers(P2P, Request::Reset, Reply::Reset);
    run.found(P2P, DeviceState::Running);
    let told = came_back(&run);
    assert_eq!((told.len(), told[0].device, told[0].home), (1, P2P, true));
}

#[test]
fn after_the_handover_a_late_device_is_put_to_stop_and_told_of() {
    let mut run = source(1, Kind::default());
    run.set(P2P, DeviceState::PreCopy, true);
    run.feed(Event::Command(Command::Switchover));
    run.set(P2P, DeviceState::StopCopy, false);
    run.credits(P2P, 0, 1);
    (0..2).for_each(|_| run.reads(P2P, ReadResult::End));
    run.found(P2P, DeviceState::StopCopy);
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    run.hears(0, Frame::Loaded { device: P2P, epoch: Epoch(0), total });
    run.hears(0, Frame::Running);
    run.next_deadline();
    assert_eq!(run.ending(), Some(("handed_over", None)));
    assert_eq!(run.machine.reports()[0].state, None);
    run.set(P2P, DeviceState::Stop, false);
    let told = came_back(&run);
    assert_eq!((told.len(), told[0].state), (1, Some(DeviceState::Stop)));
}

#[test]
fn a_paused_vms_device_saves_from_stop_and_goes_back_to_stop() {
    let mut run = source(3, Kind { paused: true, ..Kind::default() });
    for device in [P2P, PLAIN, OTHER] {
        run.answers(device, Request::StopCopyLength, Reply::Length(7));
    }
    assert!(run.said.iter().all(|(_, frame)| match frame {
        Frame::Begin(_, begin) => !begin.precopy,
        _ => true,
    }));
    assert!(run.estimate().converged, "it cannot change");
    run.feed(Event::Command(Command::Switchover));
    for device in [P2P, PLAIN, OTHER] {
        // None of them writes to any other: there is nothing to wait for.
        run.set(device, DeviceState::StopCopy, true);
    }
    run.feed(Event::Command(Command::Cancel));
    for device in [P2P, PLAIN, OTHER] {
        run.set(device, DeviceState::Stop, false);
        run.found(device, DeviceState::Stop);
    }
    assert_eq!(run.ending(), Some(("returned", Some(Cause::Cancelled))));
}

#[test]
fn a_device_that_refuses_to_run_is_reset_only_where_that_was_allowed() {
    for (allowed, ending) in [(false, "not_returned"), (true, "returned")] {
        let mut run = source(1, Kind { reset_to_return: allowed, ..Kind::default() });
        run.set(P2P, DeviceState::PreCopy, true);
        run.feed(Event::Command(Command::Cancel));
        for _ in 0..3 {
            run.replies(P2P, SET(DeviceState::Running), Err(5));
            run.found(P2P, DeviceState::PreCopy);
        }
        if allowed {
            run.answers(P2P, Request::Reset, Reply::Reset);
            run.found(P2P, DeviceState::Running);
        }
        assert_eq!(run.ending(), Some((ending, Some(Cause::Cancelled))));
        let report = &run.machine.reports()[0];
        assert_eq!((report.home, report.was_reset), (allowed, allowed));
    }
}

#[test]
fn a_device_that_seems_gone_is_asked_until_a_reset_shows_itself() {
    for shows in [true, false] {
        let mut run = source(1, Kind::default());
        run.set(P2P, DeviceState::PreCopy, true);
        run.reads(P2P, ReadResult::Failed(libc::ENODEV));
        for again in 1..=15 {
            run.found(P2P, DeviceState::PreCopy);
            assert_eq!((run.aborted_on(), asked(&run, P2P)), (vec![], None));
            run.next_deadline();
            assert_eq!(run.now_ns, again * 20_000_000);
        }
        let last = if shows { DeviceState::Running } else { DeviceState::PreCopy };
        run.found(P2P, last);
        run.set(P2P, DeviceState::Running, false);
        run.found(P2P, DeviceState::Running);
        let cause = if shows { Cause::DeviceReset } else { Cause::DeviceFailure };
        assert_eq!(run.ending(), Some(("returned", Some(cause))));
    }
}

#[test]
fn zeros_that_the_target_does_not_take_are_not_read_without_end() {
    let mut run = source(1, Kind::default());
    run.set(P2P, DeviceState::PreCopy, true);
    let zeros = ReadResult::Chunk { bytes: 4096, zero: true, hash: 7 };
    let mut read = 0;
    while run.waiting_reads() > 0 && read < 1000 {
        run.reads(P2P, zeros);
        read += 1;
    }
    assert!((256..265).contains(&read), "{read}");
    // What is taken makes room, and credit without an end is not believed.
    run.credits(P2P, 0, 1);
    while run.waiting_reads() > 0 && read < 10_000 {
        run.reads(P2P, zeros);
        read += 1;
    }
    assert_eq!(run.sent_data.len(), 1024);
    assert!((1280..1290).contains(&read), "{read}");
}

#[test]
fn sizes_that_no_device_has_are_not_taken_for_small_ones() {
    let mut run = source(2, Kind::default());
    for device in [P2P, PLAIN] {
        run.set(device, DeviceState::PreCopy, true);
        run.reads(device, ReadResult::Empty);
        let (initial_bytes, dirty_bytes) = (0, 1 << 63);
        let info =
            vfio_ferry::vfio::device::PrecopyInfo { initial_bytes, dirty_bytes, reinit: false };
        run.answers(device, Request::PrecopyInfo, Reply::Info(info));
        run.answers(device, Request::StopCopyLength, Reply::Length(1 << 63));
    }
    let estimate = run.estimate();
    assert_eq!((estimate.pending_bytes, estimate.stop_copy_bytes), (u64::MAX, Some(u64::MAX)));
    assert!(!estimate.converged);
}
