//! The sender and its devices: what is read, what is discarded, and what begins anew.

use vfio_ferry::compress::policy::Policy;
use vfio_ferry::ids::{DeviceId, Epoch, Sequence};
use vfio_ferry::machine::{
    Command, Event, Notice, PeerConfig, ReadResult, Reply, Request, TimeLimits,
};
use vfio_ferry::outcome::{Breach, Cause, DeviceOptions, Fault, Observation, OnReset};
use vfio_ferry::sender::{DeviceConfig, Sender, SenderConfig};
use vfio_ferry::vfio::device::PrecopyInfo;
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{Accept, Features, Frame, StateDigest, Total};

use crate::run::Run;

pub(crate) const FIRST: DeviceId = DeviceId(0);
pub(crate) const SECOND: DeviceId = DeviceId(1);
pub(crate) const CHUNK_BYTES: u32 = 4096;
pub(crate) const SILENCE_NS: u64 = 10_000_000_000;

/// A sender whose devices wait to be asked; `precopy` says which of them save in PRE_COPY.
pub(crate) fn connected(precopy: &[bool], streams: u16, on_reset: OnReset) -> Run<Sender> {
    connected_as(false, precopy, streams, on_reset)
}

/// The same, with devices that their VMM moves or the engine does.
pub(crate) fn connected_as(
    embedded: bool,
    precopy: &[bool],
    streams: u16,
    on_reset: OnReset,
) -> Run<Sender> {
    let options = DeviceOptions { on_reset, ..DeviceOptions::default() };
    let devices: Vec<_> = precopy.iter().map(|precopy| (*precopy, options.clone())).collect();
    connected_with(embedded, &devices, streams)
}

/// The same, with options of their own.
pub(crate) fn connected_with(
    embedded: bool,
    devices: &[(bool, DeviceOptions)],
    streams: u16,
) -> Run<Sender> {
    let device = |(number, (precopy, options)): (usize, &(bool, DeviceOptions))| DeviceConfig {
        name: format!("device-{number}"),
        capabilities: Capabilities { p2p: false, precopy: *precopy },
        options: options.clone(),
        paused: false,
        embedded,
    };
    let mut run = Run::start(Sender::new(SenderConfig {
        devices: devices.iter().enumerate().map(device).collect(),
        peer: PeerConfig { streams, silence_ns: SILENCE_NS },
        session: 1,
        chunk_bytes: CHUNK_BYTES,
        workers: 1,
        slots_per_device: 8,
        policy: Policy::Raw,
        path_bytes_per_s: None,
        precopy_poll_ns: 1_000_000,
        limits: TimeLimits::only_cancel(1_000_000),
    }));
    let (version, features, session) = (1, Features::NONE, 1);
    for stream in 0..streams {
        let accept = Accept { version, chunk_bytes: CHUNK_BYTES, features, session };
        run.hears(stream, Frame::Accept(accept));
    }
    run
}

/// One device in PRE_COPY, whose frames may go out.
pub(crate) fn precopy(streams: u16) -> Run<Sender> {
    let mut run = connected(&[true], streams, OnReset::Abort);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.credits(FIRST, 0, 1);
    run
}

pub(crate) fn chunk(bytes: u32) -> ReadResult {
    ReadResult::Chunk { bytes, zero: false, hash: 7 }
}

pub(crate) fn info(initial_bytes: u64, dirty_bytes: u64, reinit: bool) -> Reply {
    Reply::Info(PrecopyInfo { initial_bytes, dirty_bytes, reinit })
}

pub(crate) fn broken() -> Fault {
    Fault::session(Cause::Network, Observation::Stream, "a stream broke")
}

#[test]
fn a_read_that_fails_after_bytes_is_not_one_of_a_dead_fd() {
    for (bytes, seen) in [(None, Observation::DeadOnArrival), (Some(1), Observation::Read)] {
        let mut run = precopy(1);
        if let Some(bytes) = bytes {
            run.reads(FIRST, chunk(bytes));
        }
        run.reads(FIRST, ReadResult::Failed(19));
        run.found(FIRST, DeviceState::Running);
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        assert_eq!(run.fault().map(|fault| fault.observed), Some(seen));
    }
}

#[test]
fn a_device_that_fails_is_not_restarted() {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.reads(FIRST, ReadResult::Failed(libc::ENOTCONN));
    while run.asked.get(&FIRST) == Some(&Request::GetState) {
        run.found(FIRST, DeviceState::PreCopy);
        if run.asked.is_empty() {
            // A reset in progress would look the same for a while.
            run.next_deadline();
        }
    }
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceFailure))));
}

#[test]
fn an_fd_where_none_may_be_is_read_or_given_up_as_was_chosen() {
    for (on_reset, begins) in [(OnReset::Abort, 0), (OnReset::restart(), 1)] {
        let mut run = connected(&[true], 1, on_reset);
        run.set(FIRST, DeviceState::PreCopy, true);
        run.feed(Event::Command(Command::Switchover));
        run.set(FIRST, DeviceState::StopCopy, true);
        let discards = run.count(|frame| matches!(frame, Frame::Discard(..)));
        assert_eq!((discards, run.aborted_on().len()), (begins, 1 - begins));
        let completion = run.completions().first().and_then(|c| c.fault.clone());
        if begins == 1 {
            let fault = completion.expect("the first epoch has ended");
            assert_eq!(fault.cause, Cause::DeviceReset);
            assert_eq!(fault.observed, Observation::UnexpectedFd);
            run.reads(FIRST, chunk(1));
        } else {
            run.set(FIRST, DeviceState::Running, false);
            run.found(FIRST, DeviceState::Running);
            assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceReset))));
        }
    }
}

#[test]
fn what_the_embedder_discards_begins_anew_where_there_is_such_a_device() {
    let fault = || Fault::session(Cause::DeviceReset, Observation::Embedder, "a guest's FLR");
    let discards = |run: &Run<Sender>| run.count(|frame| matches!(frame, Frame::Discard(..)));
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.feed(Event::Command(Command::Discard(SECOND, fault())));
    assert_eq!((discards(&run), run.aborted_on()), (0, vec![]), "there is no second one");
    run.feed(Event::Command(Command::Discard(FIRST, fault())));
    assert_eq!((discards(&run), run.aborted_on()), (1, vec![]));
}

/// A device that was reset in PRE_COPY, seen by a read, and may restart; it is on its way back.
fn restarting() -> Run<Sender> {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.reads(FIRST, ReadResult::Failed(19));
    run.found(FIRST, DeviceState::Running);
    run
}

#[test]
fn a_device_that_does_not_come_back_ends_the_session() {
    let mut run = restarting();
    for _ in 0..6 {
        if run.asked.get(&FIRST) == Some(&Request::SetState(DeviceState::Running)) {
            run.replies(FIRST, Request::SetState(DeviceState::Running), Err(5));
            run.found(FIRST, DeviceState::StopCopy);
        }
    }
    let (ending, cause) = run.ending().expect("it ends");
    assert_eq!((ending, cause), ("not_returned", Some(Cause::DeviceError)));
}

#[test]
fn a_device_that_begins_anew_is_in_its_first_phase_again() {
    let mut run = restarting();
    let phases = |run: &Run<Sender>| {
        let phases = run.notices.iter().filter_map(|notice| match notice {
            Notice::Phase { phase, .. } => Some(phase.name()),
            _ => None,
        });
        phases.collect::<Vec<_>>()
    };
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    run.set(FIRST, DeviceState::PreCopy, true);
    assert_eq!(phases(&run), ["start", "pre_copy", "start", "pre_copy"]);
}

#[test]
fn after_the_switchover_a_discard_announces_stop_copy_data_alone() {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.feed(Event::Command(Command::Switchover));
    run.set(FIRST, DeviceState::StopCopy, false);
    run.reads(FIRST, ReadResult::Failed(19));
    run.found(FIRST, DeviceState::Running);
    let flags: Vec<bool> = run
        .said
        .iter()
        .filter_map(|(_, frame)| match frame {
            Frame::Discard(_, discard) => Some(discard.stop_copy_only),
            _ => None,
        })
        .collect();
    assert_eq!(flags, [true]);
}

#[test]
fn a_reset_is_said_to_be_seen_as_it_was_seen_first() {
    let mut run = connected(&[true], 1, OnReset::restart());
    run.set(FIRST, DeviceState::PreCopy, true);
    run.reads(FIRST, chunk(1));
    run.feed(Event::Command(Command::Switchover));
    run.reads(FIRST, ReadResult::Failed(19));
    run.set(FIRST, DeviceState::StopCopy, true);
    let fault = run.completions()[0].fault.clone().expect("the epoch has ended");
    assert_eq!((fault.observed, fault.cause), (Observation::Read, Cause::DeviceReset));
}

#[test]
fn what_the_target_says_of_a_discarded_epoch_is_late_and_of_others_wrong() {
    let total = Total { bytes: 0, digest: StateDigest::new().finish() };
    let of = |device, epoch| {
        [
            Frame::Credit { device, epoch, up_to: Sequence(9) },
            Frame::InitialDataLoaded { device, epoch },
            Frame::Loaded { device, epoch, total },
        ]
    };
    let phases = |run: &Run<Sender>| run.count(|frame| matches!(frame, Frame::Phase(..)));
    let mut run = restarting();
    of(FIRST, Epoch(0)).into_iter().for_each(|frame| run.hears(0, frame));
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    run.set(FIRST, DeviceState::PreCopy, true);
    assert_eq!((phases(&run), run.aborted_on()), (0, vec![]), "credit of another epoch");
    run.credits(FIRST, 1, 1);
    assert_eq!(phases(&run), 1);

    for (device, epoch) in [(FIRST, Epoch(2)), (SECOND, Epoch(0))] {
        for frame in of(device, epoch) {
            let mut run = restarting();
            run.hears(0, frame);
            run.set(FIRST, DeviceState::Running, false);
            run.found(FIRST, DeviceState::Running);
            let breach = run.fault().and_then(|fault| fault.breach.clone());
            let right = match breach {
                Some(Breach::Epoch { found, current, .. }) => {
                    (found, current) == (Epoch(2), Epoch(1))
                }
                Some(Breach::UnknownDevice { device, .. }) => device == SECOND,
                _ => false,
            };
            assert!(right, "{breach:?}");
        }
    }
}
