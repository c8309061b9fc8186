//! A frame that is lost between two honest engines, or comes twice or too late: refused with the
//! next one on its stream, whatever it was, and both hosts end.

use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use vfio_ferry::outcome::{Cause, DeviceOptions, SourceEnding, TargetEnding};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::{Options, SourceSession, TargetSession};
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::{Header, Kind};
use vfio_ferry_tests::device::{Holding, TestDevice};
use vfio_ferry_tests::pair::{Ended, end, sources, targets};
use vfio_ferry_tests::proxy::{Fate, Way, channel};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, talkative};

const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Syscalls];
const MISSING: &str = "a frame is missing on this stream: ";

/// What is mishandled: the first frame of a kind, on one stream or any.
#[derive(Debug, Clone, Copy)]
struct Case {
    streams: usize,
    way: Way,
    kind: Kind,
    fate: Fate,
}

type Ends = (Ended<vfio_ferry::session::Source>, Ended<vfio_ferry::session::Target>);

/// Migrates one device over a channel that mishandles one frame at most; how often it did.
fn migrate(case: Case, backend: BackendChoice) -> (Ends, [Arc<TestDevice>; 2], u32) {
    let plan = talkative();
    let to = Arc::new(TestDevice::new(plan.target()));
    let from = Arc::new(TestDevice::new(plan));
    let spoiled = Arc::new(AtomicU32::new(0));
    let counted = spoiled.clone();
    let fates = move |way, _, header: &Header| {
        let is_it = case.fate != Fate::Passes && (way, header.kind) == (case.way, case.kind);
        match is_it && counted.fetch_add(1, Ordering::SeqCst) == 0 {
            true => case.fate,
            false => Fate::Passes,
        }
    };
    let (ours, theirs) = channel(case.streams, Arc::new(fates));
    let options = Options { backend, chunk_bytes: 32 << 10, ..Options::default() };
    let devices = sources(from_ref(&from), &DeviceOptions::default());
    let source = SourceSession::start(devices, ours, options.clone()).expect("a source");
    let target = TargetSession::start(targets(from_ref(&to)), theirs, options).expect("a target");
    source.switchover();
    let ends = (end(source), end(target));
    (ends, [from, to], spoiled.load(Ordering::SeqCst))
}

#[test]
fn a_channel_that_loses_nothing_is_no_hindrance() {
    for backend in BACKENDS {
        let case = Case { streams: 2, way: Way::ToTarget, kind: Kind::DATA, fate: Fate::Passes };
        let ((source, target), [from, to], _) = migrate(case, backend);
        assert_handed_over(&source, &target);
        assert_moved(&from, &to);
    }
}

#[test]
fn a_data_frame_that_does_not_come_in_its_turn_ends_both_hosts() {
    for backend in BACKENDS {
        for streams in [1, 2] {
            for fate in [Fate::Lost, Fate::Twice, Fate::Late] {
                assert_refused(
                    Case { streams, way: Way::ToTarget, kind: Kind::DATA, fate },
                    backend,
                );
            }
        }
    }
}

#[test]
fn so_does_any_other_frame_in_either_direction() {
    let frames = [(Way::ToTarget, Kind::PHASE), (Way::ToSource, Kind::CREDIT)];
    for (way, kind) in frames {
        for fate in [Fate::Lost, Fate::Twice] {
            assert_refused(Case { streams: 1, way, kind, fate }, BackendChoice::Auto);
        }
    }
}

fn assert_refused(case: Case, backend: BackendChoice) {
    let ((source, target), [from, to], spoiled) = migrate(case, backend);
    assert!(spoiled > 0, "{case:?}: there was no such frame");
    let SourceEnding::Returned(ours) = source.report.ending else {
        panic!("{case:?}: {}", source.report.ending)
    };
    let TargetEnding::Blank(theirs) = target.report.ending else {
        panic!("{case:?}: {}", target.report.ending)
    };
    let (found, other) = match case.way {
        Way::ToTarget => (theirs, ours),
        Way::ToSource => (ours, theirs),
    };
    assert_eq!(found.cause, Cause::Network, "{case:?}: {found}");
    assert!(found.message.starts_with(MISSING), "{case:?}: {found}");
    // With another stream the other host is told why, if that comes in time; with none, it sees the
    // only one end.
    let told = other.cause == Cause::PeerAbort && other.message.contains(MISSING);
    let cut = other.cause == Cause::Network;
    assert!(cut || told && case.streams > 1, "{case:?}: {other}");
    assert_eq!((from.state_now(), from.holding()), (DeviceState::Running, Holding::Own));
    assert_eq!((to.state_now(), to.holding()), (DeviceState::Running, Holding::Blank));
    assert_eq!((from.violations(), to.violations()), (vec![], vec![]));
}
