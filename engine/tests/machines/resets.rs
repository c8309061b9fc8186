//! How often a device begins anew, and what follows then: exactly what its embedder chose.

use vfio_ferry::limits::RESTARTS_DEFAULT;
use vfio_ferry::machine::{Command, Event, ReadResult, Reply, Request};
use vfio_ferry::outcome::{Cause, Fallback, OnReset};
use vfio_ferry::sender::Sender;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::Frame;

use crate::run::Run;
use crate::sender::{FIRST, connected};

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
