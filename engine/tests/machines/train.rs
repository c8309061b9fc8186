//! How the sender finds out how fast the path is.

use vfio_ferry::compress::policy::Hosts;
use vfio_ferry::ids::StreamId;
use vfio_ferry::machine::{Command, Event, Notice, ReadResult, Reply, Request};
use vfio_ferry::outcome::OnReset;
use vfio_ferry::sender::Sender;
use vfio_ferry::vfio::state::DeviceState;
use vfio_ferry::wire::Frame;

use crate::run::Run;
use crate::sender::{CHUNK_BYTES, FIRST, chunk, connected, info};

const HOSTS: Hosts = Hosts { cores: 1, shared: false };

/// A device that waits for the switchover, and a path that is to be tried.
fn waiting(streams: u16) -> Run<Sender> {
    let mut run = connected(&[false], streams, OnReset::Abort);
    run.feed(Event::Path { hosts: HOSTS, bytes_per_s: None, may_try: true });
    run
}

/// The pings that are out, in order.
fn pings(run: &Run<Sender>) -> Vec<(StreamId, u64)> {
    let ping = |(stream, frame): &(StreamId, Frame)| match frame {
        Frame::Ping(number) => Some((*stream, *number)),
        _ => None,
    };
    run.said.iter().filter_map(ping).collect()
}

/// The last ping's pong comes, so long after it.
fn pong(run: &mut Run<Sender>, after_ns: u64) {
    let (stream, number) = *pings(run).last().expect("a ping");
    run.now_ns += after_ns;
    run.hears(stream.0, Frame::Pong(number));
}

fn paths(run: &Run<Sender>) -> Vec<(u64, u64)> {
    let path = |notice: &Notice| match notice {
        Notice::Path { bytes_per_s, round_trip_ns } => Some((*bytes_per_s, *round_trip_ns)),
        _ => None,
    };
    run.notices.iter().filter_map(path).collect()
}

fn padding_bytes(run: &mut Run<Sender>) -> u64 {
    run.padding.drain(..).map(u64::from).sum()
}

/// The round trip is known.
fn pinged(run: &mut Run<Sender>, round_trip_ns: u64) {
    (0..3).for_each(|_| pong(run, round_trip_ns));
}

#[test]
fn longer_and_longer_bursts_say_how_fast_the_path_is() {
    let mut run = waiting(2);
    for late_ns in [7, 0, 1_000_000] {
        assert_eq!(padding_bytes(&mut run), 0, "the round trip first");
        pong(&mut run, 50_000 + late_ns);
    }
    for bytes in [16 << 10, 64 << 10, 256 << 10, 1 << 20] {
        assert!(run.padding.iter().all(|bytes| *bytes <= 64 << 10));
        assert_eq!(padding_bytes(&mut run), bytes);
        // Two bytes a nanosecond, and the way.
        pong(&mut run, 50_000 + bytes / 2);
    }
    assert_eq!((padding_bytes(&mut run), paths(&run)), (1 << 20, vec![]), "the last one twice");
    pong(&mut run, 3_000_000);
    assert_eq!(paths(&run), [(2_000_000_000, 50_000)]);
    assert!(pings(&run).iter().all(|(stream, _)| *stream == StreamId(0)), "behind the padding");
    assert_eq!((padding_bytes(&mut run), pings(&run).len()), (0, 8), "nothing more");
}

#[test]
fn a_slow_path_is_not_filled() {
    let mut run = waiting(1);
    pinged(&mut run, 0);
    // 13 ms for the first burst, at 10 Mbit a second: the next would take four times that.
    for late_ns in [100, 0, 9] {
        assert_eq!((padding_bytes(&mut run), paths(&run)), (16 << 10, vec![]));
        pong(&mut run, 13_107_200 + late_ns);
    }
    assert_eq!((padding_bytes(&mut run), paths(&run)), (0, vec![(1_250_000, 0)]));
}

#[test]
fn a_host_that_was_late_once_is_no_slow_path() {
    let mut run = waiting(1);
    pinged(&mut run, 50_000);
    pong(&mut run, 5_000_000);
    pong(&mut run, 60_000);
    assert_eq!(padding_bytes(&mut run), 2 * (16 << 10) + (64 << 10), "the next size follows");
}

#[test]
fn a_burst_that_comes_sooner_than_a_ping_is_no_endless_path() {
    let mut run = waiting(1);
    pinged(&mut run, 4_000_000);
    (0..5).for_each(|_| pong(&mut run, 800_000));
    assert_eq!(paths(&run), [((1 << 20) * 10_000, 800_000)], "an eighth of the time");
}

#[test]
fn a_burst_that_state_came_between_is_tried_again() {
    let mut run = connected(&[true], 1, OnReset::Abort);
    run.feed(Event::Path { hosts: HOSTS, bytes_per_s: None, may_try: true });
    pinged(&mut run, 10_000);
    assert_eq!((padding_bytes(&mut run), pings(&run).len()), (16 << 10, 4));
    run.set(FIRST, DeviceState::PreCopy, true);
    run.credits(FIRST, 0, 1);
    run.reads(FIRST, chunk(CHUNK_BYTES));
    pong(&mut run, 1_000_000);
    assert_eq!((padding_bytes(&mut run), pings(&run).len()), (0, 4), "state is on its way");
    // Begin and phase come before the chunk.
    run.credits(FIRST, 0, 3);
    run.reads(FIRST, ReadResult::Empty);
    assert_eq!((padding_bytes(&mut run), pings(&run).len()), (16 << 10, 5));
}

/// Where state comes between every time, padding would take its part of the path for ever.
#[test]
fn a_path_that_is_never_free_is_not_tried_for_ever() {
    let mut run = connected(&[true], 1, OnReset::Abort);
    run.feed(Event::Path { hosts: HOSTS, bytes_per_s: None, may_try: true });
    pinged(&mut run, 10_000);
    run.set(FIRST, DeviceState::PreCopy, true);
    run.credits(FIRST, 0, 1);
    let (mut bursts, mut rounds) = (0, 0);
    while padding_bytes(&mut run) > 0 {
        bursts += 1;
        assert!(bursts <= 16, "no end to it");
        // A chunk comes before the burst is through.
        run.reads(FIRST, chunk(CHUNK_BYTES));
        pong(&mut run, 1_000_000);
        rounds += 1;
        run.credits(FIRST, 0, 100 * rounds);
        run.reads(FIRST, ReadResult::Empty);
        run.answers(FIRST, Request::PrecopyInfo, info(0, 1, false));
        run.answers(FIRST, Request::StopCopyLength, Reply::Length(0));
    }
    assert_eq!((bursts, paths(&run)), (16, vec![]));
}

#[test]
fn nothing_is_tried_once_the_guest_is_stopped() {
    let mut run = waiting(1);
    run.feed(Event::Command(Command::Switchover));
    pong(&mut run, 50_000);
    assert_eq!((padding_bytes(&mut run), pings(&run).len()), (0, 1));
}

#[test]
fn what_is_known_or_somebody_else_s_is_not_tried() {
    for (bytes_per_s, may_try) in [(None, false), (Some(1_000_000), true)] {
        let mut run = connected(&[false], 1, OnReset::Abort);
        run.feed(Event::Path { hosts: HOSTS, bytes_per_s, may_try });
        assert_eq!((padding_bytes(&mut run), pings(&run).len()), (0, 0));
    }
}

#[test]
fn pongs_that_nobody_asked_for_mean_nothing() {
    let mut run = waiting(1);
    for number in [0, 1, 1 << 63 | 7, u64::MAX] {
        run.hears(0, Frame::Pong(number));
    }
    assert_eq!((padding_bytes(&mut run), paths(&run)), (0, vec![]));
    pinged(&mut run, 5);
    assert_eq!(padding_bytes(&mut run), 16 << 10);
}
