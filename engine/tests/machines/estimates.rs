//! What the source reckons: how long the guest would stand still if it stopped now, and what the
//! target has of the initial data.

use vfio_ferry::ids::Epoch;
use vfio_ferry::machine::{Command, Event, Notice, ReadResult, Reply, Request};
use vfio_ferry::outcome::OnReset;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::Frame;

use crate::sender::{CHUNK_BYTES, FIRST, SECOND, chunk, connected, info, precopy};

#[test]
fn the_estimate_is_what_is_left_over_the_rate_so_far() {
    let mut run = connected(&[true, false], 1, OnReset::Abort);
    // The second one has no PRE_COPY: it counts with its STOP_COPY data alone.
    run.answers(SECOND, Request::StopCopyLength, Reply::Length(1_000_000));
    run.set(FIRST, DeviceState::PreCopy, true);
    run.credits(FIRST, 0, 1);
    run.reads(FIRST, ReadResult::Empty);
    run.answers(FIRST, Request::PrecopyInfo, info(100, 900, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(3_000_000));
    let early = run.estimate();
    assert_eq!((early.pending_bytes, early.stop_copy_bytes), (1000, Some(4_000_000)));
    assert_eq!((early.state_bytes_per_s, early.downtime_ns), (0, None), "nothing has moved");
    assert!(!early.initial_data_loaded);
    assert_eq!(early.switchover_budget_ns, None, "there is none");

    // Chunk after chunk, each done with 8192 ns after it was read: half a byte a nanosecond.
    for number in 0..64 {
        run.reads(FIRST, chunk(CHUNK_BYTES));
        run.now_ns += 2 * u64::from(CHUNK_BYTES);
        // Begin and phase come before the chunks.
        run.credits(FIRST, 0, 2 + number + 1);
    }
    assert_eq!(run.sent_data.len(), 64);
    run.reads(FIRST, ReadResult::Empty);
    while !run.asked.contains_key(&FIRST) {
        run.next_deadline();
    }
    // Two chunks are read and cannot go out.
    run.hold(0);
    run.answers(FIRST, Request::PrecopyInfo, info(0, 991_904, false));
    run.reads(FIRST, chunk(CHUNK_BYTES));
    run.reads(FIRST, chunk(CHUNK_BYTES));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(3_000_000));
    let estimate = run.estimate();
    // The stream is held by the word that the initial data is sent.
    assert_eq!(estimate.pending_bytes, 991_904 + 2 * 4096);
    assert_eq!(estimate.stop_copy_bytes, Some(4_000_000));
    assert_eq!(estimate.state_bytes_per_s, 500_000_000);
    assert_eq!(estimate.downtime_ns, Some(10_000_192));
    // 64 bytes of header for each chunk of 4096.
    assert!((estimate.ratio - 0.984_615_384).abs() < 1e-6, "{}", estimate.ratio);
}

#[test]
fn a_size_that_one_driver_does_not_say_is_unknown_for_all() {
    let mut run = connected(&[false, false], 1, OnReset::Abort);
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1_000_000));
    assert!(!run.notices.iter().any(|notice| matches!(notice, Notice::Estimate(_))));
    run.replies(SECOND, Request::StopCopyLength, Err(libc::ENOTTY));
    let estimate = run.estimate();
    assert_eq!((estimate.stop_copy_bytes, estimate.pending_bytes), (None, 0));
    assert!(estimate.initial_data_loaded, "there is none");
}

#[test]
fn an_estimate_that_waiting_cannot_make_better_says_so() {
    let mut run = precopy(1);
    run.reads(FIRST, ReadResult::Empty);
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1 << 40));
    assert!(!run.estimate().converged, "the initial data is not loaded");
    run.hears(0, Frame::InitialDataLoaded { device: FIRST, epoch: Epoch(0) });
    assert!(run.estimate().converged);
    run.next_deadline();
    run.answers(FIRST, Request::PrecopyInfo, info(0, 4096, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1 << 40));
    assert!(!run.estimate().converged, "there is more to read before the stop");
    // A device that says that it has no more may still be read.
    while run.asked.is_empty() {
        run.next_deadline();
    }
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1 << 40));
    assert!(!run.estimate().converged);
    // And what was read may still wait to be sent.
    run.hold(0);
    for _ in 0..2 {
        run.reads(FIRST, chunk(1));
    }
    run.reads(FIRST, ReadResult::Empty);
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1 << 40));
    assert!(!run.estimate().converged);
    run.release(0);
    run.next_deadline();
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1 << 40));
    assert!(run.estimate().converged);
}

#[test]
fn of_two_answers_that_are_out_only_the_last_one_means_that_initial_data_is_loaded() {
    let loaded = |frame: &Notice| matches!(frame, Notice::InitialDataLoaded { .. });
    let marks = |frame: &Frame| matches!(frame, Frame::InitialDataSent(_));
    let answer = || Frame::InitialDataLoaded { device: FIRST, epoch: Epoch(0) };
    let mut run = precopy(1);
    run.reads(FIRST, ReadResult::Empty);
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, false));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    assert_eq!(run.count(marks), 1);
    // More initial data, before the target has answered.
    run.next_deadline();
    run.answers(FIRST, Request::PrecopyInfo, info(0, 0, true));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    assert_eq!(run.count(marks), 2);
    run.hears(0, answer());
    assert!(!run.notices.iter().any(loaded), "the second mark is still out");
    run.hears(0, answer());
    assert_eq!(run.notices.iter().filter(|notice| loaded(notice)).count(), 1);
    assert!(run.estimate().initial_data_loaded);
    // A third one answers nothing.
    run.hears(0, answer());
    assert!(matches!(run.count(|frame| matches!(frame, Frame::Abort(_))), 1));
}

#[test]
fn nothing_is_estimated_once_the_vm_has_stopped() {
    let mut run = connected(&[false], 1, OnReset::Abort);
    run.feed(Event::Command(Command::Switchover));
    run.answers(FIRST, Request::StopCopyLength, Reply::Length(1));
    assert!(!run.notices.iter().any(|notice| matches!(notice, Notice::Estimate(_))));
}
