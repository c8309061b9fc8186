//! What two sides agree on.

use vfio_ferry::ids::StreamId;
use vfio_ferry::limits::{CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, DEVICES_MAX, STREAMS_MAX};
use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::wire::{
    Accept, Features, Hello, Offer, WireFault, WireLimits, decode_header, negotiate,
};

use crate::wire_samples::{halves, vector};

fn offer() -> Offer {
    Offer { version_min: 2, version_max: 4, ..Offer::new(4, 3, 256 << 10) }
}

fn hello(version_min: u8, version_max: u8) -> Hello {
    Hello { version_min, version_max, ..offer().hello(7, StreamId(1)) }
}

#[test]
fn wire_the_highest_common_version_wins_whatever_the_ranges() {
    for min in 0..=6 {
        for max in 0..=6 {
            let answer = negotiate(&offer(), &hello(min, max)).map(|accept| accept.version);
            // The obvious way: try all versions from the top.
            let common = (1..=6).rev().find(|v| (2..=4).contains(v) && (min..=max).contains(v));
            match (answer, common) {
                (Ok(version), Some(common)) => assert_eq!(version, common, "{min}..={max}"),
                (
                    Err(WireFault::NoCommonVersion { peer_min, peer_max, own_min, own_max }),
                    None,
                ) => {
                    assert_eq!((peer_min, peer_max, own_min, own_max), (min, max, 2, 4));
                    assert!(min <= max && max > 0, "{min}..={max} is no range at all");
                }
                (Err(WireFault::Handshake { field, .. }), None) => {
                    assert_eq!(field, "newest version");
                    assert!(min > max || max == 0, "{min}..={max} is a range");
                }
                other => panic!("{min}..={max}: {other:?}"),
            }
        }
    }
}

#[test]
fn wire_features_and_chunk_size_are_what_both_can_do() {
    let theirs = Hello { features: Features(u64::MAX), chunk_bytes: u32::MAX, ..hello(1, 3) };
    let expected = Accept {
        version: 3,
        features: Features::ZSTD,
        chunk_bytes: 256 << 10,
        session: theirs.session,
    };
    assert_eq!(negotiate(&offer(), &theirs), Ok(expected));
    let theirs = Hello { features: Features(2), chunk_bytes: 8192, ..hello(1, 3) };
    let expected = Accept { features: Features::NONE, chunk_bytes: 8192, ..expected };
    assert_eq!(negotiate(&offer(), &theirs), Ok(expected));
    assert_eq!(theirs.check(&expected), Ok(()));
    let unbounded = Offer { chunk_bytes: u32::MAX, ..offer() };
    let theirs = Hello { chunk_bytes: u32::MAX, ..hello(1, 3) };
    let agreed = negotiate(&unbounded, &theirs).expect("agreed").chunk_bytes;
    assert_eq!(agreed as usize, CHUNK_BYTES_MAX, "the engine's own limit holds");
}

#[test]
fn wire_a_hello_beyond_what_the_target_takes_is_refused_by_field() {
    let cases: [(&str, Hello); 8] = [
        ("number of streams", Hello { streams: 5, ..hello(2, 2) }),
        ("number of streams", Hello { streams: 0, stream: StreamId(0), ..hello(2, 2) }),
        ("stream", Hello { stream: StreamId(4), ..hello(2, 2) }),
        ("stream", Hello { streams: 1, stream: StreamId(1), ..hello(2, 2) }),
        ("number of devices", Hello { devices: 4, ..hello(2, 2) }),
        ("number of devices", Hello { devices: 0, ..hello(2, 2) }),
        ("chunk size", Hello { chunk_bytes: CHUNK_BYTES_MIN as u32 - 1, ..hello(2, 2) }),
        ("chunk size", Hello { chunk_bytes: 0, ..hello(2, 2) }),
    ];
    for (expected, hello) in cases {
        match negotiate(&offer(), &hello) {
            Err(WireFault::Handshake { field, .. }) => assert_eq!(field, expected, "{hello:?}"),
            other => panic!("{hello:?}: {other:?}"),
        }
    }
}

#[test]
fn wire_an_answer_that_goes_beyond_the_hello_is_refused() {
    let hello = Hello { features: Features(0b101), ..hello(2, 4) };
    let good = Accept { version: 3, features: Features(0b100), chunk_bytes: 8192, session: 7 };
    assert_eq!(hello.check(&good), Ok(()));
    let field = |accept| match hello.check(&accept) {
        Err(WireFault::Handshake { field, .. } | WireFault::OtherSession { field }) => field,
        other => panic!("{accept:?}: {other:?}"),
    };
    assert_eq!(field(Accept { session: 8, ..good }), "session");
    assert_eq!(field(Accept { version: 1, ..good }), "version");
    assert_eq!(field(Accept { version: 5, ..good }), "version");
    assert_eq!(field(Accept { features: Features(0b010), ..good }), "features");
    assert_eq!(field(Accept { features: Features(0b1000), ..good }), "features");
    assert_eq!(field(Accept { chunk_bytes: 4095, ..good }), "chunk size");
    assert_eq!(field(Accept { chunk_bytes: (256 << 10) + 1, ..good }), "chunk size");
}

#[test]
fn wire_streams_of_two_sessions_are_told_apart() {
    let first = hello(1, 3);
    let later = Hello { stream: StreamId(3), ..first };
    assert_eq!(later.same_session(&first), Ok(()));
    let cases = [
        Hello { session: 8, ..later },
        Hello { version_min: 2, ..later },
        Hello { version_max: 4, ..later },
        Hello { features: Features::NONE, ..later },
        Hello { streams: 3, ..later },
        Hello { devices: 2, ..later },
        Hello { chunk_bytes: 4096, ..later },
    ];
    for other in cases {
        assert!(
            matches!(other.same_session(&first), Err(WireFault::OtherSession { .. })),
            "{other:?}"
        );
    }
}

#[test]
fn wire_an_offer_stays_within_the_engines_limits() {
    let most = Offer::new(usize::MAX, usize::MAX, usize::MAX);
    assert_eq!(usize::from(most.streams), STREAMS_MAX);
    assert_eq!(most.devices as usize, DEVICES_MAX);
    assert_eq!(most.chunk_bytes as usize, CHUNK_BYTES_MAX);
    let least = Offer::new(0, 0, 0);
    assert_eq!((least.streams, least.devices), (1, 1));
    assert_eq!(least.chunk_bytes as usize, CHUNK_BYTES_MIN);
}

#[test]
fn wire_what_was_not_agreed_is_refused_at_the_header() {
    let (zstd, _) = halves(&vector("accepted/data_zstd"));
    let (credit, _) = halves(&vector("accepted/credit"));
    let own = Offer::new(1, 3, 64 << 10);
    let agreed = |features, chunk_bytes| {
        let accept = Accept { version: 1, features, chunk_bytes, session: 0 };
        WireLimits::agreed(&own, &accept)
    };
    assert!(decode_header(&zstd, &agreed(Features::ZSTD, 4096)).is_ok());
    assert_eq!(
        decode_header(&zstd, &agreed(Features::NONE, 4096)),
        Err(WireFault::EncodingNotAgreed)
    );
    assert_eq!(
        decode_header(&zstd, &agreed(Features::ZSTD, 4095)),
        Err(WireFault::RawLength { found: 4096, max: 4095 })
    );
    assert!(decode_header(&credit, &WireLimits::from(&own)).is_ok());
    let fewer = WireLimits { devices: 2, ..WireLimits::from(&own) };
    assert!(matches!(
        decode_header(&credit, &fewer),
        Err(WireFault::DeviceNumber { found: 2, devices: 2, .. })
    ));
}

#[test]
fn wire_faults_say_who_is_at_fault() {
    let damaged: Fault = WireFault::HeaderHash { found: 1, expected: 2 }.into();
    assert_eq!((damaged.cause, damaged.observed), (Cause::Network, Observation::Stream));
    let hostile: Fault = WireFault::EncodingNotAgreed.into();
    assert_eq!(hostile.cause, Cause::PeerMisbehaviour);
    assert_eq!(hostile.message, WireFault::EncodingNotAgreed.to_string());
}
