//! What is promised, against records that are made up.

use super::super::message::{DeviceSaid, End, Left, Moved};
use super::*;

const DIGEST: &str = "0123";

/// A device's way: at which time it was where, with whose state.
type Way = [(u64, DeviceState, Holds)];

use DeviceState::{PreCopy, Resuming, Running, Stop, StopCopy};
use Holds::{Blank, Loaded, Own, Partial};

const GONE: &Way = &[(0, Running, Own), (10, PreCopy, Own), (20, StopCopy, Own), (40, Stop, Own)];
const BACK: &Way =
    &[(0, Running, Own), (10, PreCopy, Own), (20, StopCopy, Own), (40, Running, Own)];
const ARRIVED: &Way =
    &[(0, Running, Own), (11, Resuming, Partial), (30, Stop, Loaded), (45, Running, Loaded)];
const RESET: &Way = &[(0, Running, Own), (11, Resuming, Partial), (30, Running, Blank)];

fn said(home: bool, state: Option<DeviceState>) -> DeviceSaid {
    let state = state.map(|state| state.name().to_owned());
    DeviceSaid { device: 0, home, state, stuck: false, was_reset: false }
}

fn host(way: &Way, ending: &str, cause: Option<&str>, said: DeviceSaid) -> HostRecord {
    let moved =
        way.iter().map(|&(at, state, holds)| (at, Moved { device: 0, state, holds })).collect();
    let end = End {
        ending: ending.to_owned(),
        cause: cause.map(str::to_owned),
        devices: vec![said],
        ..End::default()
    };
    let left = Left { digests: vec![Some(DIGEST.to_owned())], ..Left::default() };
    HostRecord {
        moved,
        switchover_ns: Some(20),
        end: Some((50, end)),
        left: Some(left),
        exit: Some("exit status: 0".to_owned()),
        ..HostRecord::default()
    }
}

fn completed() -> Record {
    Record {
        source: host(GONE, "handed_over", None, said(false, Some(Stop))),
        target: host(ARRIVED, "running", None, said(false, Some(Running))),
        ..Record::default()
    }
}

fn returned() -> Record {
    Record {
        source: host(BACK, "returned", Some("network"), said(true, Some(Running))),
        target: host(RESET, "blank", Some("peer_abort"), said(true, Some(Running))),
        ..Record::default()
    }
}

fn promised(source: Outcome, target: Outcome) -> Promise {
    Promise { source: vec![source], target: vec![target], also: Vec::new() }
}

fn outcome(ending: Ending, causes: &[Cause]) -> Outcome {
    Outcome { ending, causes: causes.to_vec() }
}

fn completes() -> Promise {
    promised(outcome(Ending::HandedOver, &[]), outcome(Ending::Running, &[]))
}

fn returns() -> Promise {
    promised(
        outcome(Ending::Returned, &[Cause::Network]),
        outcome(Ending::Blank, &[Cause::PeerAbort, Cause::Network]),
    )
}

#[track_caller]
fn kept(promise: &Promise, record: &Record) {
    assert_eq!(promise.broken(&Plan::new(), record), [""; 0]);
}

#[track_caller]
fn broken(promise: &Promise, record: &Record, words: &str) {
    let broken = promise.broken(&Plan::new(), record);
    assert!(broken.iter().any(|what| what.contains(words)), "{words}: {broken:?}");
}

#[test]
fn what_is_true_and_promised_is_kept() {
    kept(&completes(), &completed());
    kept(&returns(), &returned());
}

#[test]
fn another_ending_and_another_cause_are_not() {
    broken(&returns(), &completed(), "the source is handed_over; promised: returned (network)");
    let mut other = returns();
    other.source[0].causes = vec![Cause::TimeLimit];
    broken(&other, &returned(), "returned (network); promised: returned (time_limit)");
    broken(&completes(), &Record::default(), "the source is no end");
    let failed = Record { failure: Some("no end within 90 s".to_owned()), ..completed() };
    broken(&completes(), &failed, "no end within");
}

#[test]
fn what_is_said_of_a_device_must_be_so() {
    let mut record = returned();
    record.source.moved.pop();
    broken(&returns(), &record, "device 0 is said to be in RUNNING, and is in STOP_COPY");
    broken(&returns(), &record, "returned, and device 0 is in STOP_COPY");
    let mut record = returned();
    record.target.moved.pop();
    broken(&returns(), &record, "blank, and device 0 is in RESUMING");
}

#[test]
fn a_device_that_runs_has_the_whole_state_of_the_source() {
    let mut record = completed();
    if let Some(left) = &mut record.target.left {
        left.digests[0] = Some("4567".to_owned());
    }
    broken(&completes(), &record, "not the source's");
    if let Some(left) = &mut record.target.left {
        left.digests[0] = None;
    }
    broken(&completes(), &record, "no whole state");
}

#[test]
fn two_hosts_never_run_the_guest() {
    let mut record = completed();
    let back = Moved { device: 0, state: Running, holds: Own };
    record.source.moved.push((49, back));
    broken(&completes(), &record, "both hosts ran");
    broken(&completes(), &record, "handed_over, and device 0 is in RUNNING");
    // A host that was dead by then runs nothing.
    let mut record = completed();
    record.source.moved.truncate(1);
    record.source.killed_ns = Some(44);
    record.source.end = None;
    kept(&promised(outcome(Ending::Killed, &[]), outcome(Ending::Running, &[])), &record);
}

#[test]
fn an_ending_that_says_that_a_device_is_away_names_one() {
    let mut record = returned();
    if let Some((_, end)) = &mut record.source.end {
        end.ending = "not_returned".to_owned();
    }
    let not_returned =
        promised(outcome(Ending::NotReturned, &[]), outcome(Ending::Blank, &[Cause::PeerAbort]));
    broken(&not_returned, &record, "every device is said to be home");
    let mut record = returned();
    record.target.end = host(RESET, "blank", Some("network"), said(false, Some(Running))).end;
    broken(&returns(), &record, "a device is not said to be home");
}

#[test]
fn a_late_device_is_back_when_that_was_told_and_is_so() {
    let mut promise =
        promised(outcome(Ending::NotReturned, &[]), outcome(Ending::Blank, &[Cause::PeerAbort]));
    promise.also.push(Also::CameBack(Side::Source));
    let mut record = returned();
    record.source.end = host(BACK, "not_returned", None, said(false, None)).end;
    broken(&promise, &record, "not said to be back");
    record.source.came_back.push((60, said(true, Some(Running))));
    kept(&promise, &record);
    record.source.moved.push((59, Moved { device: 0, state: StopCopy, holds: Own }));
    broken(&promise, &record, "not said to be back");
}

#[test]
fn text_is_clean_without_controls_and_turns() {
    let mut promise = returns();
    promise.also.push(Also::CleanText(Side::Source));
    let mut record = returned();
    let mut say = |text: &str| {
        if let Some((_, end)) = &mut record.source.end {
            end.message = text.to_owned();
        }
        promise.broken(&Plan::new(), &record).is_empty()
    };
    assert!(say("the target gave up: grün"));
    for text in ["\u{1b}[31m", "two\nlines", "\u{202e}back", "bell\u{7}"] {
        assert!(!say(text), "{text:?}");
    }
}

#[test]
fn a_barrier_holds_one_device_until_the_other_is_there() {
    let also = Also::Barrier { side: Side::Source, arrived: (0, StopCopy), before: (1, StopCopy) };
    let mut promise = completes();
    promise.also.push(also);
    let mut record = completed();
    record.source.asked.push((21, 1, StopCopy));
    kept(&promise, &record);
    record.source.asked[0].0 = 19;
    broken(&promise, &record, "device 1 was asked for STOP_COPY before device 0");
}

#[test]
fn a_guest_stands_still_until_it_can_run_on_somewhere() {
    let plan = Plan::new();
    assert_eq!(completed().still_ns(&plan), Some(30));
    assert_eq!(returned().still_ns(&plan), Some(30));
    let mut record = returned();
    record.source.end = host(BACK, "not_returned", None, said(false, None)).end;
    record.source.came_back.push((80, said(true, Some(Running))));
    assert_eq!(record.still_ns(&plan), Some(60));
    record.source.switchover_ns = None;
    assert_eq!(record.still_ns(&plan), None);
}

#[test]
fn a_guest_that_stands_still_for_too_long_is_told() {
    let mut promise = returns();
    promise.also.push(Also::StillBelow(Duration::from_nanos(31)));
    kept(&promise, &returned());
    promise.also.push(Also::StillBelow(Duration::from_nanos(30)));
    broken(&promise, &returned(), "stood still for 30.0ns");
}

#[test]
fn a_guest_that_is_stopped_and_comes_back_was_stopped_in_vain() {
    let mut promise = returns();
    promise.also.push(Also::NotStoppedInVain);
    let mut record = returned();
    broken(&promise, &record, "in vain");
    record.source.switchover_ns = None;
    kept(&promise, &record);
}

/// What is promised besides: each of it kept by one record and broken by another.
#[test]
fn what_is_promised_besides_is_looked_at() {
    let kept_and_broken = |also: Also, keep: fn(&mut Record), spoil: fn(&mut Record), says| {
        let mut promise = returns();
        promise.also.push(also);
        let mut record = returned();
        keep(&mut record);
        kept(&promise, &record);
        spoil(&mut record);
        broken(&promise, &record, says);
    };
    fn peak(record: &mut Record, bytes: u64) {
        record.source.left.as_mut().expect("it is there").peak_rss_bytes = bytes;
    }
    fn end(record: &mut Record) -> &mut End {
        &mut record.source.end.as_mut().expect("it has ended").1
    }
    let most = Also::PeakBelow(Side::Source, 3 << 20);
    let below = |record: &mut Record| peak(record, (3 << 20) - 1);
    kept_and_broken(most, below, |record| peak(record, 3 << 20), "had 3 MiB");
    kept_and_broken(most, below, |record| peak(record, 0), "had 0 MiB");
    kept_and_broken(most, below, |record| record.source.left = None, "had 0 MiB");
    let reset = |record: &mut Record| end(record).devices[0].was_reset = true;
    let not = |record: &mut Record| end(record).devices[0].was_reset = false;
    kept_and_broken(Also::WasReset, reset, not, "nobody says");
    let asked = |record: &mut Record| record.source.asked.push((1, 0, PreCopy));
    kept_and_broken(Also::Untouched(Side::Source), |_| {}, asked, "were touched");
    let never = Also::Never(Side::Source, Resuming);
    let moved = |record: &mut Record| {
        let moved = Moved { device: 0, state: Resuming, holds: Own };
        record.source.moved.insert(0, (0, moved));
    };
    kept_and_broken(never, |_| {}, moved, "was in RESUMING");
    let words = |record: &mut Record| end(record).message = "a key is used up".to_owned();
    let others = |record: &mut Record| end(record).message = "it broke".to_owned();
    kept_and_broken(Also::Says(Side::Source, "key is used"), words, others, "is not in");
    let plain = |record: &mut Record| end(record).backend = "syscalls".to_owned();
    let ring = |record: &mut Record| end(record).backend = "io_uring".to_owned();
    kept_and_broken(Also::PlainCalls(Side::Source), plain, ring, "plain system calls");
    let away = |record: &mut Record| {
        let moved = Moved { device: 0, state: Stop, holds: Own };
        record.source.moved.push((60, moved));
    };
    kept_and_broken(Also::BackHome(Side::Source), |_| {}, away, "is not back");
}
