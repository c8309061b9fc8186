//! What the sender reckons the downtime would be, and what it measures for the next forecast.

use std::time::Duration;

use vfio_ferry::ids::Epoch;
use vfio_ferry::machine::{Command, Event, Machine, ReadResult, Reply, Request};
use vfio_ferry::outcome::{DeviceOptions, Latencies, OnReset};
use vfio_ferry::sender::Sender;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{Frame, StateDigest, Total};

use crate::run::Run;
use crate::sender::{CHUNK_BYTES, FIRST, SECOND, chunk, connected_with, info, precopy};

/// Drained, asked, and all of it loaded at the target.
fn ready(run: &mut Run<Sender>, stop_copy_bytes: u64) {
    run.reads(FIRST, ReadResult::Empty);
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(stop_copy_bytes));
    run.hears(0, Frame::InitialDataLoaded { device: FIRST, epoch: Epoch(0) });
}

/// The kernel has measured the stream.
fn round_trip(run: &mut Run<Sender>, round_trip_ns: u64) {
    run.feed(Event::Link { bytes_per_s: 1_000_000_000, at_least: true, round_trip_ns });
}

#[test]
fn a_little_of_which_no_rate_is_known_takes_the_round_trips() {
    let mut run = precopy(1);
    round_trip(&mut run, 50_000);
    round_trip(&mut run, 0); // Nobody knows: that is no news.
    ready(&mut run, u64::from(CHUNK_BYTES) / 4);
    let estimate = run.estimate();
    assert_eq!((estimate.state_bytes_per_s, estimate.latency_ns), (0, 100_000));
    assert_eq!(estimate.downtime_ns, Some(100_000), "loaded, and running");

    let mut run = precopy(1);
    ready(&mut run, u64::from(CHUNK_BYTES) / 4 + 1);
    assert_eq!(run.estimate().downtime_ns, None, "who knows how fast that is");
}

#[test]
fn what_is_known_of_the_transitions_is_in_the_forecast() {
    let ms = |ms| Some(Duration::from_millis(ms));
    let known = [
        Latencies { stop: ms(3), load: ms(40), run: None },
        Latencies { stop: ms(20), load: ms(5), run: ms(1) },
    ];
    let options =
        |which: usize| DeviceOptions { latencies: known[which], ..DeviceOptions::default() };
    let mut run = connected_with(false, &[(false, options(0)), (false, options(1))], 1);
    round_trip(&mut run, 2_000_000);
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(500));
    run.answers(SECOND, Request::StopCopyLength, Reply::Length(500));
    // They stop, load and run at the same time. Where a run is not known it is a round trip.
    assert_eq!(run.estimate().latency_ns, 20_000_000 + 40_000_000 + 2_000_000);
    assert_eq!(run.estimate().downtime_ns, Some(62_000_000));
}

#[test]
fn the_initial_data_s_arrival_is_a_measurement() {
    let mut run = precopy(1);
    run.reads(FIRST, chunk(CHUNK_BYTES));
    run.reads(FIRST, chunk(CHUNK_BYTES));
    run.now_ns += u64::from(CHUNK_BYTES);
    // No credit has come for them.
    ready(&mut run, 1_000_000);
    assert_eq!(run.estimate().state_bytes_per_s, 2_000_000_000);
    // And what comes with the credit later is not counted twice.
    run.now_ns += 1_000_000;
    run.credits(FIRST, 0, 4);
    run.next_deadline();
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1_000_000));
    assert_eq!(run.estimate().state_bytes_per_s, 2_000_000_000);
}

#[test]
fn what_the_transitions_took_is_reported() {
    let mut run = precopy(1);
    ready(&mut run, 100);
    assert_eq!(run.machine.reports()[0].latencies, Latencies::default());
    run.now_ns = 1_000_000_000;
    run.feed(Event::Command(Command::Switchover));
    run.now_ns += 30;
    run.set(FIRST, DeviceState::StopCopy, false);
    run.reads(FIRST, ReadResult::Empty);
    run.now_ns += 4;
    run.reads(FIRST, chunk(100));
    run.now_ns += 500;
    run.reads(FIRST, ReadResult::End);
    while run.waiting_reads() > 0 {
        run.reads(FIRST, ReadResult::End);
    }
    run.found(FIRST, DeviceState::StopCopy);
    run.now_ns += 6000;
    // Begin, a phase, a mark, a phase, the chunk.
    run.credits(FIRST, 0, 5);
    run.now_ns += 700;
    let mut digest = StateDigest::new();
    digest.chunk(7, 100);
    let total = Total { bytes: 100, digest: digest.finish() };
    run.hears(0, Frame::Loaded { device: FIRST, epoch: Epoch(0), total });
    run.now_ns += 90;
    run.hears(0, Frame::Running);
    let ns = |ns| Some(Duration::from_nanos(ns));
    let expected = Latencies { stop: ns(34), load: ns(700), run: ns(90) };
    assert_eq!(run.machine.reports()[0].latencies, expected);
}

#[test]
fn what_a_reset_has_interrupted_is_not_measured() {
    let mut run = connected_with(false, &[(true, restarts())], 1);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.credits(FIRST, 0, 1);
    ready(&mut run, 100);
    run.feed(Event::Command(Command::Switchover));
    run.set(FIRST, DeviceState::StopCopy, false);
    run.now_ns += 30;
    // Before its first byte.
    run.reads(FIRST, ReadResult::Failed(libc::ENODEV));
    run.found(FIRST, DeviceState::Running);
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    run.now_ns += 1_000_000_000;
    run.set(FIRST, DeviceState::StopCopy, true);
    run.reads(FIRST, chunk(100));
    assert_eq!(run.machine.reports()[0].latencies.stop, None, "a second of it was the way back");
}

fn restarts() -> DeviceOptions {
    DeviceOptions { on_reset: OnReset::restart(), ..DeviceOptions::default() }
}
