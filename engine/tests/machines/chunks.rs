//! A chunk's way on the source: how much is read at once, what a worker is given, what goes out in
//! which order and from which slot.

use vfio_ferry::compress::policy::{Hosts, Policy};
use vfio_ferry::ids::{DeviceId, SlotId};
use vfio_ferry::limits::FRAMES_QUEUED_MAX;
use vfio_ferry::machine::{
    Action, Command, EncodeResult, Event, Machine, PeerConfig, ReadResult, TimeLimits,
};
use vfio_ferry::outcome::DeviceOptions;
use vfio_ferry::sender::{DeviceConfig, Sender, SenderConfig};
use vfio_ferry::vfio::state::{Capabilities, DeviceState};
use vfio_ferry::wire::{Accept, Encoding, Features, Frame};

use crate::run::Run;
use crate::sender::{FIRST, SECOND, chunk};

const KIB: u32 = 1 << 10;
const CHUNK_BYTES: u32 = 1024 * KIB;
/// Begin and phase come before the first chunk.
const FIRST_CHUNK: u64 = 2;

const STALL_NS: u64 = 20_000_000;

/// Devices in PRE_COPY, whose chunks may go out; one worker.
fn reading(policy: Policy, devices: usize) -> Run<Sender> {
    reading_of(1, policy, &vec![1; devices])
}

/// The same on so many streams, with devices of these weights.
fn reading_of(streams: u16, policy: Policy, weights: &[u32]) -> Run<Sender> {
    let device = |weight: &u32| DeviceConfig {
        name: "device".to_owned(),
        capabilities: Capabilities { p2p: false, precopy: true },
        options: DeviceOptions { weight: *weight, ..DeviceOptions::default() },
        paused: false,
        embedded: false,
    };
    let mut run = Run::start(Sender::new(SenderConfig {
        devices: weights.iter().map(device).collect(),
        peer: PeerConfig { streams, silence_ns: u64::MAX },
        session: 1,
        chunk_bytes: CHUNK_BYTES,
        workers: 1,
        slots_per_device: 8,
        policy,
        path_bytes_per_s: None,
        precopy_poll_ns: 1_000_000,
        limits: TimeLimits { stall_ns: STALL_NS, ..TimeLimits::only_cancel(1_000_000) },
    }));
    let (version, features) = (1, Features::ALL);
    let accept = Accept { version, chunk_bytes: CHUNK_BYTES, features, session: 1 };
    (0..streams).for_each(|stream| run.hears(stream, Frame::Accept(accept)));
    for device in [FIRST, SECOND].into_iter().take(weights.len()) {
        run.set(device, DeviceState::PreCopy, true);
        run.credits(device, 0, 1);
    }
    run
}

/// The driver gives as much as it is asked for.
fn fill(run: &mut Run<Sender>) -> u32 {
    let bytes = run.read_bytes()[0];
    run.reads(FIRST, chunk(bytes));
    bytes
}

/// Which chunks are with the worker, and whether it looks at samples first.
fn with_worker(run: &Run<Sender>) -> Vec<(u64, bool)> {
    let chunks = run.work.iter().map(|action| match action {
        Action::Encode { chunk, probe, .. } => (chunk.sequence.0, *probe),
        other => panic!("{other:?} of a source"),
    });
    chunks.collect()
}

/// The worker is through with one of its chunks: into so many bytes, or it did not shrink. The slots
/// that it was in, and that it was compressed into.
fn encode(run: &mut Run<Sender>, index: usize, body_bytes: Option<u32>) -> (SlotId, SlotId) {
    let Some(Action::Encode { chunk, slot, into, .. }) = run.work.remove(index) else {
        panic!("the worker has nothing to do");
    };
    let (worker_ns, cpu_ns) = (1000, 1000);
    let result = match body_bytes {
        Some(body_bytes) => {
            EncodeResult::Compressed { body_bytes, body_hash: 9, worker_ns, cpu_ns }
        }
        None => EncodeResult::Incompressible { worker_ns, cpu_ns },
    };
    run.feed(Event::Encoded { chunk, slot, into, result });
    (slot, into)
}

#[test]
fn an_fd_that_gives_much_is_read_in_larger_and_larger_chunks() {
    let read = |policy| {
        let mut run = reading(policy, 1);
        let mut asked = Vec::new();
        for _ in 0..8 {
            asked.push(fill(&mut run) / KIB);
            if !run.work.is_empty() {
                encode(&mut run, 0, Some(1));
            }
        }
        asked
    };
    assert_eq!(read(Policy::Raw), [128, 128, 128, 256, 384, 640, 1024, 1024]);
    // What a worker compresses stays in a core's cache.
    assert_eq!(read(Policy::Zstd(1)), [128, 128, 128, 256, 256, 256, 256, 256]);
}

#[test]
fn what_does_not_shrink_is_read_in_large_chunks_until_some_of_it_does() {
    let mut run = reading(Policy::Zstd(1), 1);
    let mut raw = 0;
    while raw < 8 {
        assert!(run.read_bytes().iter().all(|bytes| *bytes <= 256 * KIB), "{raw} went raw");
        fill(&mut run);
        if !run.work.is_empty() {
            encode(&mut run, 0, None);
        }
        raw = run.sent_data.len();
    }
    fill(&mut run);
    assert_eq!(run.read_bytes().last(), Some(&(1024 * KIB)));
    while run.work.is_empty() {
        fill(&mut run);
    }
    encode(&mut run, 0, Some(1));
    fill(&mut run);
    assert_eq!(run.read_bytes().last(), Some(&(256 * KIB)));
}

#[test]
fn chunks_wait_for_a_worker_which_has_the_next_one_with_it() {
    let mut run = reading(Policy::Zstd(1), 1);
    for _ in 0..4 {
        run.reads(FIRST, chunk(4096));
    }
    assert_eq!(with_worker(&run), [(FIRST_CHUNK, false), (FIRST_CHUNK + 1, false)]);
    assert_eq!(run.sent_data, [], "they would go out raw");
    // The later one is done first, and waits for nothing.
    let (slot, into) = encode(&mut run, 1, Some(100));
    let (sent, from) = run.sent_data.pop().expect("it went out");
    assert_eq!((sent.place.sequence.0, sent.offset), (FIRST_CHUNK + 1, 4096));
    assert_eq!((sent.encoding, sent.raw_bytes, sent.raw_hash), (Encoding::Zstd, 4096, 7));
    assert_eq!((sent.body_bytes, sent.body_hash, from), (100, 9, Some(into)));
    assert_ne!(slot, into);
    assert_eq!(with_worker(&run), [(FIRST_CHUNK, false), (FIRST_CHUNK + 2, false)]);

    // What does not shrink goes out from where it was read to, and the next one is tried by samples.
    let (slot, _) = encode(&mut run, 0, None);
    let (sent, from) = run.sent_data.pop().expect("it went out");
    assert_eq!((sent.place.sequence.0, sent.offset), (FIRST_CHUNK, 0));
    assert_eq!((sent.encoding, sent.body_bytes, sent.body_hash), (Encoding::Raw, 4096, 7));
    assert_eq!(from, Some(slot));
    assert_eq!(with_worker(&run), [(FIRST_CHUNK + 2, false), (FIRST_CHUNK + 3, true)]);
    encode(&mut run, 0, Some(100));
    run.reads(FIRST, chunk(4096));
    assert_eq!(with_worker(&run), [(FIRST_CHUNK + 3, true), (FIRST_CHUNK + 4, false)]);
    encode(&mut run, 0, Some(100));
    encode(&mut run, 0, Some(100));
    // Only the reads have slots now.
    assert_eq!(run.machine.slots_out(), run.waiting_reads());
}

#[test]
fn the_worker_is_given_chunks_of_both_devices_in_turn() {
    let mut run = reading(Policy::Zstd(1), 2);
    let zero = ReadResult::Chunk { bytes: 4096, zero: true, hash: 7 };
    for device in [FIRST, SECOND] {
        for _ in 0..4 {
            run.reads(device, chunk(4096));
        }
    }
    let mut order = Vec::new();
    while let Some(Action::Encode { chunk, .. }) = run.work.front() {
        order.push(chunk.device.0);
        encode(&mut run, 0, Some(1000));
    }
    assert_eq!(order.len(), 8);
    // What the worker has with it was chosen before the others went out.
    let of_first = order[..6].iter().filter(|device| **device == FIRST.0).count();
    assert_eq!(of_first, 3, "{order:?}");
    // Zeros have no body to compress.
    run.reads(FIRST, zero);
    let (sent, from) = run.sent_data.last().expect("they went out");
    assert_eq!((sent.encoding, sent.raw_bytes, sent.body_bytes), (Encoding::Zero, 4096, 0));
    assert_eq!((*from, run.work.len()), (None, 0));
}

#[test]
fn frames_that_wait_have_one_bound_wherever_they_wait() {
    let mut run = reading(Policy::Zstd(1), 1);
    run.hold(0);
    // The first one is being sent.
    run.reads(FIRST, ReadResult::Chunk { bytes: 4096, zero: true, hash: 7 });
    // Two with the worker, three that wait for it, zeros.
    for _ in 0..5 {
        run.reads(FIRST, chunk(4096));
    }
    assert_eq!((run.work.len(), run.sent_data.len()), (2, 1));
    let mut waiting = 5;
    while waiting < FRAMES_QUEUED_MAX {
        assert!(run.waiting_reads() > 0, "{waiting} wait");
        run.reads(FIRST, ReadResult::Chunk { bytes: 4096, zero: true, hash: 7 });
        waiting += 1;
    }
    // What was asked for before is still taken.
    let asked = run.waiting_reads();
    for _ in 0..asked {
        run.reads(FIRST, ReadResult::Chunk { bytes: 4096, zero: true, hash: 7 });
    }
    assert_eq!((asked, run.waiting_reads()), (1, 0));
}

/// Bytes sent over weight are kept level.
#[test]
fn a_device_of_three_times_the_weight_sends_three_times_as_much() {
    let mut run = reading_of(1, Policy::Raw, &[1, 3]);
    run.hold(0);
    for device in [FIRST, SECOND].into_iter().cycle().take(16) {
        run.reads(device, chunk(4096));
    }
    run.release(0);
    let order: Vec<u32> = run.sent_data.iter().map(|(header, _)| header.place.device.0).collect();
    assert_eq!(order.len(), 16);
    // Three shares are a little less than one: whole bytes are reckoned with.
    assert_eq!(order[..10], [0, 1, 1, 1, 1, 0, 1, 1, 1, 0]);
}

/// What goes raw must not wait for a worker: it is given the chunk that is farthest from the link,
/// one at a time, and none whose turn would come before it is compressed.
#[test]
fn where_the_link_takes_most_of_it_raw_a_worker_is_given_what_is_far_from_it() {
    let given = |megabytes_per_s: u64, devices: &[DeviceId]| {
        let mut run = reading(Policy::Adaptive, devices.len());
        let (hosts, rate) = (Hosts { cores: 4, shared: false }, megabytes_per_s * 1_000_000);
        run.feed(Event::Path { hosts, bytes_per_s: Some(rate), may_try: false });
        run.hold(0);
        for device in devices.iter().cycle().take(8) {
            run.reads(*device, chunk(4096));
        }
        assert_eq!(run.sent_data.len(), 1, "it goes raw");
        let chunks = run.work.iter().map(|action| match action {
            Action::Encode { chunk, .. } => (chunk.device, chunk.sequence.0 - FIRST_CHUNK),
            other => panic!("{other:?} of a source"),
        });
        let chunks: Vec<_> = chunks.collect();
        assert_eq!(chunks.len(), 1, "{chunks:?}");
        (chunks[0], run)
    };
    for (megabytes_per_s, alone, of_two) in [(1200, 1, 0), (2000, 2, 0), (3000, 3, 1), (4000, 4, 1)]
    {
        let ((_, number), mut run) = given(megabytes_per_s, &[FIRST]);
        assert_eq!(number, alone, "at {megabytes_per_s} MB/s");
        encode(&mut run, 0, None);
        assert_eq!(with_worker(&run), [(FIRST_CHUNK + 7, true)], "the last one");
        // With another device the turn of each comes half as often.
        let (found, _) = given(megabytes_per_s, &[FIRST, SECOND]);
        assert_eq!(found, (SECOND, of_two), "at {megabytes_per_s} MB/s");
    }
}

/// Its reads have nowhere to go: the streams hold all slots.
#[test]
fn a_driver_that_was_not_asked_for_data_does_not_owe_any() {
    let mut run = reading_of(9, Policy::Raw, &[1]);
    run.feed(Event::Command(Command::Switchover));
    run.set(FIRST, DeviceState::StopCopy, false);
    (0..9).for_each(|stream| run.hold(stream));
    assert_eq!(run.machine.deadline_ns(), Some(STALL_NS), "it was asked");
    while run.waiting_reads() > 0 {
        run.reads(FIRST, chunk(4096));
    }
    assert_eq!((run.sent_data.len(), run.machine.slots_out()), (8, 8));
    assert_eq!(run.machine.deadline_ns(), None);
    run.release(3);
    assert_eq!(run.waiting_reads(), 1);
    assert_eq!(run.machine.deadline_ns(), Some(STALL_NS));
}
