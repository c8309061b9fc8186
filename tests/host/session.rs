//! Whole sessions in one process: real fds, real sockets, every kind of device and option.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vfio_ferry::compress::policy::Policy;
use vfio_ferry::machine::Notice;
use vfio_ferry::outcome::{DeviceOptions, Phase};
use vfio_ferry::ring::BackendChoice;
use vfio_ferry::session::Options;
use vfio_ferry::vfio::state::Capabilities;
use vfio_ferry_tests::device::{Conduit, Content, Drained, Plan, TestDevice};
use vfio_ferry_tests::pair::{Pair, Setup};
use vfio_ferry_tests::runs::{assert_handed_over, assert_moved, migrate, talkative};

fn device(plan: Plan) -> Arc<TestDevice> {
    Arc::new(TestDevice::new(plan))
}

#[test]
fn every_capability_set_migrates() {
    for capabilities in Capabilities::ALL {
        for conduit in [Conduit::Pipe, Conduit::File] {
            let (_, target) =
                migrate(Plan { capabilities, conduit, ..talkative() }, &Setup::default());
            let phase = |wanted| {
                target
                    .notices
                    .iter()
                    .any(|notice| matches!(notice, Notice::Phase { phase, .. } if phase == &wanted))
            };
            assert!(phase(Phase::StopCopy) && phase(Phase::Load) && phase(Phase::Resume));
        }
    }
}

#[test]
fn precopy_goes_through_both_kinds_of_drained_and_short_reads() {
    for conduit in [Conduit::Pipe, Conduit::File] {
        for drained in [Drained::NoMsg, Drained::Zero] {
            for lags in [false, true] {
                let piece_bytes = Some(30_000);
                let plan = Plan { conduit, drained, lags, piece_bytes, ..talkative() };
                migrate(plan, &Setup::default());
            }
        }
    }
}

#[test]
fn precopy_that_is_left_early_or_not_wanted_is_whole_too() {
    for precopy in [true, false] {
        let plan = talkative();
        let (from, to) = (device(plan.clone()), device(plan.target()));
        let device = DeviceOptions { precopy, ..DeviceOptions::default() };
        let pair =
            Pair::start(from_ref(&from), from_ref(&to), &Setup { device, ..Setup::default() });
        pair.source.switchover();
        let (source, target) = pair.end();
        assert_handed_over(&source, &target);
        assert_moved(&from, &to);
    }
}

#[test]
fn any_size_arrives() {
    let chunk = Options::default().chunk_bytes as u64;
    for bytes in [0, 1, 7, 176, 4096, chunk - 1, chunk, chunk + 1, 5 * chunk + 12_345] {
        for conduit in [Conduit::Pipe, Conduit::File] {
            for precopy in [false, true] {
                let capabilities = Capabilities { p2p: false, precopy };
                let plan = Plan { conduit, capabilities, rest_bytes: bytes, ..Plan::default() };
                migrate(plan, &Setup::default());
            }
        }
    }
}

#[test]
fn every_policy_sends_the_same_state() {
    let contents = [
        ("random", Content::random()),
        ("structured", Content::structured()),
        ("zero", Content::zero()),
    ];
    for (name, content) in &contents {
        for policy in [Policy::Raw, Policy::Zstd(1), Policy::Zstd(-5), Policy::Adaptive] {
            let plan = Plan { content: content.clone(), ..talkative() };
            let mut setup = Setup::default();
            setup.source.policy = policy;
            let (source, _) = migrate(plan, &setup);
            let [zero, raw, zstd] = source.report.devices[0].chunks;
            match (*name, policy) {
                ("zero", _) => assert!(zero > 0 && raw + zstd == 0),
                (_, Policy::Raw) => assert_eq!(zstd, 0),
                ("random", _) => assert_eq!(zstd, 0, "it does not shrink"),
                ("structured", Policy::Zstd(_)) => assert!(zstd > raw),
                _ => {}
            }
        }
    }
}

#[test]
fn backends_and_shapes_of_the_two_hosts_may_differ() {
    use BackendChoice::{Auto, Syscalls};
    for (ours, theirs) in [(Auto, Auto), (Auto, Syscalls), (Syscalls, Auto), (Syscalls, Syscalls)] {
        for conduit in [Conduit::Pipe, Conduit::File] {
            let mut setup = Setup { streams: 3, ..Setup::default() };
            setup.source = Options { backend: ours, chunk_bytes: 64 << 10, ..setup.source };
            setup.target = Options { backend: theirs, workers: 1, ..setup.target };
            let (source, target) = migrate(Plan { conduit, ..talkative() }, &setup);
            if ours == Syscalls {
                assert_eq!(source.report.backend, vfio_ferry::ring::Backend::Syscalls);
            }
            assert_eq!(target.report.fallback, None);
        }
    }
}

#[test]
fn the_smaller_chunk_is_agreed_on() {
    for (ours, theirs) in [(64 << 10, 256 << 10), (256 << 10, 64 << 10), (1 << 20, 4096)] {
        let mut setup = Setup::default();
        setup.source.chunk_bytes = ours;
        setup.target.chunk_bytes = theirs;
        let (source, _) = migrate(talkative(), &setup);
        let agreed = source.notices.iter().find_map(|notice| match notice {
            Notice::Connected { chunk_bytes, .. } => Some(*chunk_bytes as usize),
            _ => None,
        });
        assert_eq!(agreed, Some(ours.min(theirs)));
    }
}

#[test]
fn the_embedders_own_bytes_arrive() {
    let plan = talkative();
    let (from, to) = (device(plan.clone()), device(plan.target()));
    let opaque = Bytes::from(vec![0xa5; vfio_ferry::limits::MESSAGE_BYTES_MAX]);
    let setup = Setup {
        streams: 1,
        device: DeviceOptions { opaque: opaque.clone(), ..DeviceOptions::default() },
        ..Setup::default()
    };
    let mut pair = Pair::start(&[from], &[to], &setup);
    // Wait until the sessions are agreed on; before that there is nobody to send to.
    let connected = pair.source.wait_event(Some(Duration::from_secs(60)));
    assert!(format!("{connected:?}").contains("Connected"), "{connected:?}");
    let messages = [Bytes::new(), Bytes::from_static(b"from the source"), opaque.clone()];
    for message in &messages {
        pair.source.send_message(message.clone()).expect("short enough");
    }
    let beyond = Bytes::from(vec![0; vfio_ferry::limits::MESSAGE_BYTES_MAX + 1]);
    assert!(pair.source.send_message(beyond).is_err());
    pair.switch_over_when_ready();
    let (source, target) = pair.end();
    assert_handed_over(&source, &target);
    let begun = target.notices.iter().find_map(|notice| match notice {
        Notice::Begin { begin, .. } => Some(begin),
        _ => None,
    });
    let begun = begun.expect("a begin comes first");
    assert_eq!((begun.name.as_str(), &begun.opaque), ("device-0", &opaque));
    assert!(begun.precopy && begun.p2p);
    let arrived: Vec<Bytes> = target
        .notices
        .into_iter()
        .filter_map(|notice| match notice {
            Notice::Message(bytes) => Some(bytes),
            _ => None,
        })
        .collect();
    assert_eq!(arrived, messages);
}

#[test]
fn the_source_hears_how_far_it_is() {
    // Only PRE_COPY's own word makes it ready: what is left is small, but comes in its time.
    let (source, _) = migrate(talkative(), &Setup::default());
    let count = |wanted: fn(&Notice) -> bool| source.notices.iter().filter(|n| wanted(n)).count();
    assert!(count(|n| matches!(n, Notice::InitialDataLoaded { .. })) >= 1, "{:#?}", source.notices);
    assert_eq!(count(|n| matches!(n, Notice::Completion(_))), 1);
    assert_eq!(count(|n| matches!(n, Notice::Connected { .. })), 1);
}
