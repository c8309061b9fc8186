//! How often a device begins anew, and what follows then: exactly what its embedder chose.

use vfio_ferry::limits::RESTARTS_DEFAULT;
use vfio_ferry::machine::{Command, Event, Machine, ReadResult, Reply, Request};
use vfio_ferry::outcome::{Cause, DeviceOptions, Fallback, Fault, Observation, OnReset};
use vfio_ferry::sender::Sender;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::Frame;

use crate::run::Run;
use crate::sender::{FIRST, connected, connected_as, connected_with};

/// What a reset of the device leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    PreCopy,
    StopCopy,
    Abort,
}

/// Answers until the device saves, in PRE_COPY if that is asked for.
fn enter(run: &mut Run<Sender>) {
    loop {
        match run.asked.get(&FIRST) {
            Some(&Request::SetState(state)) => return run.set(FIRST, state, true),
            Some(Request::StopCopyLength) => {
                run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
            }
            None => run.feed(Event::Command(Command::Switchover)),
            other => panic!("{other:?} of a device that runs"),
        }
    }
}

/// The device begins to save, is reset, and that is seen in a read.
fn reset(run: &mut Run<Sender>) -> Then {
    enter(run);
    let before = discards(run);
    run.reads(FIRST, ReadResult::Failed(libc::ENODEV));
    run.found(FIRST, DeviceState::Running);
    // The way back, whatever follows.
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    let then = match discards(run) - before {
        0 => Then::Abort,
        1 if run.asked.get(&FIRST) == Some(&Request::SetState(DeviceState::PreCopy)) => {
            Then::PreCopy
        }
        1 => Then::StopCopy,
        more => panic!("one reset, and {more} discards"),
    };
    // The target is told which.
    let said = run.said.iter().rev().find_map(|(_, frame)| match frame {
        Frame::Discard(_, discard) => Some(discard.stop_copy_only),
        _ => None,
    });
    assert!(then == Then::Abort || said == Some(then == Then::StopCopy), "{then:?}, said {said:?}");
    then
}

fn discards(run: &Run<Sender>) -> usize {
    run.count(|frame| matches!(frame, Frame::Discard(..)))
}

/// Resets the device until the session is given up. What each reset led to.
fn until_abort(on_reset: OnReset) -> Vec<Then> {
    let mut run = connected(&[true], 1, on_reset);
    let mut led_to = vec![];
    while run.ending().is_none() {
        led_to.push(reset(&mut run));
        assert!(led_to.len() < 100, "there is no end to it");
    }
    let (ending, cause) = run.ending().expect("just seen");
    assert_eq!(ending, "returned");
    assert_eq!(cause, Some(Cause::DeviceReset));
    // One for each discarded epoch, and the last one.
    let completions = run.completions();
    let names: Vec<_> = completions.iter().map(|completion| completion.ending.name()).collect();
    assert_eq!(names, [&["restarted"].repeat(led_to.len() - 1)[..], &["aborted"]].concat());
    let epochs: Vec<_> = completions.iter().map(|completion| completion.epoch.0).collect();
    assert_eq!(epochs, (0..led_to.len() as u32).collect::<Vec<_>>());
    led_to
}

#[test]
fn a_device_begins_anew_as_often_as_was_allowed_and_not_once_more() {
    for attempts in 0..4 {
        let restarts = vec![Then::PreCopy; attempts as usize];
        let abort = OnReset::Restart { attempts, then: Fallback::Abort };
        assert_eq!(until_abort(abort), [&restarts[..], &[Then::Abort]].concat());
        let fallback = OnReset::Restart { attempts, then: Fallback::StopCopy };
        let expected = [&restarts[..], &[Then::StopCopy, Then::Abort]].concat();
        assert_eq!(until_abort(fallback), expected);
    }
}

#[test]
fn without_restarts_there_is_none() {
    assert_eq!(until_abort(OnReset::Abort), [Then::Abort]);
}

#[test]
fn stop_copy_is_bounded_by_the_default() {
    let mut expected = vec![Then::StopCopy; RESTARTS_DEFAULT as usize];
    expected.push(Then::Abort);
    assert_eq!(until_abort(OnReset::StopCopy), expected);
}

/// A reset in progress answers as a device that is gone, and GET_STATE says nothing of it until it
/// is done: what it says then counts, and only a state that has settled is a failure.
#[test]
fn a_reset_that_shows_late_is_a_reset() {
    for errno in [libc::ENODEV, libc::EIO] {
        for unchanged in [1, 4] {
            let mut run = connected(&[true], 1, OnReset::restart());
            enter(&mut run);
            run.reads(FIRST, ReadResult::Failed(errno));
            for _ in 0..unchanged {
                run.found(FIRST, DeviceState::PreCopy);
                assert_eq!(run.asked.get(&FIRST), None, "it is given time");
                run.next_deadline();
            }
            run.found(FIRST, DeviceState::Running);
            run.set(FIRST, DeviceState::Running, false);
            run.found(FIRST, DeviceState::Running);
            assert_eq!(discards(&run), 1, "errno {errno}, unchanged {unchanged} times");
            assert_eq!(run.ending(), None);
        }
    }
}

#[test]
fn a_failure_that_has_settled_is_one() {
    let mut run = connected(&[true], 1, OnReset::restart());
    enter(&mut run);
    run.reads(FIRST, ReadResult::Failed(libc::EIO));
    let mut asked = 0;
    while run.asked.get(&FIRST) == Some(&Request::GetState) {
        run.found(FIRST, DeviceState::PreCopy);
        asked += 1;
        if run.asked.is_empty() {
            run.next_deadline();
        }
    }
    assert!(asked > 1, "it was asked once");
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceFailure))));
    assert_eq!(discards(&run), 0);
}

/// The time that a failure has to show itself as a reset is its own, and not what is left of that
/// of an epoch which was given up meanwhile.
#[test]
fn a_failure_of_a_new_epoch_has_its_own_time_to_settle() {
    let mut run = connected(&[true], 1, OnReset::restart());
    enter(&mut run);
    run.reads(FIRST, ReadResult::Failed(libc::EIO));
    run.found(FIRST, DeviceState::PreCopy);
    assert_eq!(run.asked.get(&FIRST), None, "it is given time");
    // Its embedder knows.
    let (cause, observed) = (Cause::DeviceReset, Observation::Embedder);
    let fault = Fault::device(FIRST, cause, observed, None, "the guest did it");
    run.feed(Event::Command(Command::Discard(FIRST, fault)));
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    run.now_ns = 1_000_000_000;
    enter(&mut run);
    run.reads(FIRST, ReadResult::Failed(libc::EIO));
    run.found(FIRST, DeviceState::PreCopy);
    assert_eq!(run.asked.get(&FIRST), None, "and given time again");
    run.next_deadline();
    run.found(FIRST, DeviceState::Running);
    assert_eq!((discards(&run), run.aborted_on().len()), (2, 0), "it was another reset");
}

/// The guest finds a reset device whatever came later.
#[test]
fn a_reset_on_the_way_back_is_reported_after_another_way_back_without() {
    let options = DeviceOptions {
        on_reset: OnReset::restart(),
        reset_to_return: true,
        ..DeviceOptions::default()
    };
    let mut run = connected_with(false, &[(true, options)], 1);
    enter(&mut run);
    run.reads(FIRST, ReadResult::Failed(libc::ENODEV));
    run.found(FIRST, DeviceState::Running);
    for _ in 0..3 {
        run.replies(FIRST, Request::SetState(DeviceState::Running), Err(libc::EIO));
        run.found(FIRST, DeviceState::PreCopy);
    }
    run.answers(FIRST, Request::Reset, Reply::Reset);
    run.found(FIRST, DeviceState::Running);
    assert!(run.machine.reports()[0].was_reset);
    enter(&mut run);
    run.feed(Event::Command(Command::Cancel));
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::Cancelled))));
    assert!(run.machine.reports()[0].was_reset);
}

const FURTHER: [DeviceState; 3] =
    [DeviceState::PreCopyP2p, DeviceState::Stop, DeviceState::StopCopy];

/// An embedded device in PRE_COPY whose data fd has died, found where its VMM has taken it without
/// the engine's knowledge.
fn taken_ahead(on_reset: OnReset, found: DeviceState, result: ReadResult) -> Run<Sender> {
    let mut run = connected_as(true, &[true], 1, on_reset);
    enter(&mut run);
    run.reads(FIRST, result);
    run.found(FIRST, found);
    assert_eq!(run.asked.get(&FIRST), None, "it is not known yet what that means");
    run.next_deadline();
    run.found(FIRST, found);
    assert_eq!(run.ending(), None, "nor after a second look");
    run.feed(Event::Command(Command::Switchover));
    run
}

/// The device was reset, and the VM stopped before the engine had looked: the kernel has given a new
/// data fd on the way to STOP_COPY, and that is what tells.
#[test]
fn a_device_that_was_taken_ahead_was_reset_if_there_is_a_new_data_fd() {
    for found in FURTHER {
        for policy in [OnReset::restart(), OnReset::StopCopy] {
            let mut run = taken_ahead(policy, found, ReadResult::Failed(libc::ENODEV));
            run.set(FIRST, DeviceState::StopCopy, true);
            assert_eq!(discards(&run), 1, "{found}");
            assert!(run.waiting_reads() > 0, "{found}: the new data fd is read");
            run.credits(FIRST, 1, 1);
            assert_eq!(
                run.completions()[0].fault.as_ref().map(|f| f.cause),
                Some(Cause::DeviceReset)
            );
            run.reads(FIRST, ReadResult::End);
            while run.waiting_reads() > 0 {
                run.reads(FIRST, ReadResult::End);
            }
            run.found(FIRST, DeviceState::StopCopy);
            assert_eq!(run.count(|frame| matches!(frame, Frame::End(..))), 1, "{found}");
            assert_eq!(run.ending(), None);
        }
        let mut run = taken_ahead(OnReset::Abort, found, ReadResult::Failed(libc::ENODEV));
        run.set(FIRST, DeviceState::StopCopy, true);
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceReset))), "{found}");
    }
}

/// No new data fd: nothing was reset, the device has failed.
#[test]
fn a_device_that_was_taken_ahead_has_failed_if_there_is_none() {
    for found in FURTHER {
        for errno in [libc::ENODEV, libc::EIO] {
            let mut run = taken_ahead(OnReset::restart(), found, ReadResult::Failed(errno));
            run.set(FIRST, DeviceState::StopCopy, false);
            run.set(FIRST, DeviceState::Running, false);
            run.found(FIRST, DeviceState::Running);
            assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceFailure))), "{found}");
            assert_eq!(discards(&run), 0, "{found}");
        }
    }
}

/// That a device which its VMM had stopped refuses PRECOPY_INFO is no failure; another errno is.
#[test]
fn a_device_that_was_taken_ahead_may_refuse_precopy_info() {
    for (errno, failed) in [(libc::EINVAL, false), (libc::EIO, true)] {
        let mut run = connected_as(true, &[true], 1, OnReset::restart());
        enter(&mut run);
        run.reads(FIRST, ReadResult::Empty);
        run.replies(FIRST, Request::PrecopyInfo, Err(errno));
        run.found(FIRST, DeviceState::Stop);
        run.feed(Event::Command(Command::Switchover));
        run.set(FIRST, DeviceState::StopCopy, false);
        if failed {
            run.set(FIRST, DeviceState::Running, false);
            run.found(FIRST, DeviceState::Running);
            assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceFailure))));
            let fault = run.fault().expect("just seen");
            assert!(fault.message.contains("its state is unchanged"), "{fault}");
        } else {
            assert_eq!((run.asked.len(), run.aborted_on()), (0, vec![]));
            assert!(run.waiting_reads() > 0, "its state is read");
        }
    }
}

/// STOP_COPY itself fails: it is not asked for again and again.
#[test]
fn a_device_that_was_taken_ahead_and_cannot_stop_has_failed() {
    let mut run =
        taken_ahead(OnReset::restart(), DeviceState::Stop, ReadResult::Failed(libc::ENODEV));
    run.replies(FIRST, Request::SetState(DeviceState::StopCopy), Err(libc::EIO));
    run.next_deadline();
    run.found(FIRST, DeviceState::Stop);
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceFailure))));
}

/// Before the switchover the VMM's word or a later look may tell as well.
#[test]
fn a_device_that_was_taken_ahead_and_comes_back_was_reset() {
    let mut run = connected_as(true, &[true], 1, OnReset::restart());
    enter(&mut run);
    run.reads(FIRST, ReadResult::Failed(libc::ENODEV));
    run.found(FIRST, DeviceState::StopCopy);
    run.next_deadline();
    run.found(FIRST, DeviceState::Running);
    run.set(FIRST, DeviceState::Running, false);
    run.found(FIRST, DeviceState::Running);
    assert_eq!(discards(&run), 1);
    assert_eq!(run.asked.get(&FIRST), Some(&Request::SetState(DeviceState::PreCopy)));
}

/// A device that the engine moves is nowhere by itself.
#[test]
fn a_driven_device_that_is_further_was_moved_by_somebody() {
    for found in [DeviceState::Stop, DeviceState::StopCopy] {
        let mut run = connected(&[true], 1, OnReset::restart());
        enter(&mut run);
        run.reads(FIRST, ReadResult::Failed(libc::ENODEV));
        run.found(FIRST, found);
        run.set(FIRST, DeviceState::Running, false);
        run.found(FIRST, DeviceState::Running);
        assert_eq!(run.ending(), Some(("returned", Some(Cause::DeviceFailure))), "{found}");
    }
}

/// It is where an abort would bring it: who waits for the news need not wait for that. Of one that
/// is elsewhere that cannot be said.
#[test]
fn a_reset_is_told_at_once_where_it_ends_the_session() {
    let told = |on_reset, found| {
        let mut run = connected(&[true], 1, on_reset);
        enter(&mut run);
        run.reads(FIRST, ReadResult::Failed(libc::ENODEV));
        run.found(FIRST, found);
        run.completions().iter().map(|completion| completion.ending.name()).collect::<Vec<_>>()
    };
    assert_eq!(told(OnReset::Abort, DeviceState::Running), ["aborted"]);
    assert_eq!(told(OnReset::restart(), DeviceState::Running), ["restarted"]);
    assert_eq!(told(OnReset::Abort, DeviceState::Error), [""; 0], "it is not back");
}

/// Once the vCPUs are stopped there is no PRE_COPY any more.
#[test]
fn a_device_that_is_reset_after_the_switchover_saves_in_stop_copy_from_then_on() {
    let mut run = connected(&[true], 1, OnReset::restart());
    enter(&mut run);
    run.feed(Event::Command(Command::Switchover));
    run.set(FIRST, DeviceState::StopCopy, true);
    let fault = run.completions()[0].fault.clone().expect("the epoch is lost");
    assert_eq!(fault.cause, Cause::DeviceReset);
    assert!(fault.message.contains("SET_STATE(STOP_COPY) gave a new data fd"), "{fault}");
    assert!(fault.message.contains("worthless"), "{fault}");
}

/// Where its VMM says that it was reset, nobody has asked the kernel where it is now.
#[test]
fn the_state_of_an_embedded_device_is_not_known_once_its_vmm_says_that_it_was_reset() {
    for (embedded, known) in [(true, None), (false, Some(DeviceState::PreCopy))] {
        let mut run = connected_as(embedded, &[true], 1, OnReset::restart());
        enter(&mut run);
        let (cause, seen) = (Cause::DeviceReset, Observation::Embedder);
        let fault = Fault::device(FIRST, cause, seen, None, "a guest's FLR");
        run.feed(Event::Command(Command::Discard(FIRST, fault)));
        assert_eq!(run.completions()[0].state, known);
    }
}
