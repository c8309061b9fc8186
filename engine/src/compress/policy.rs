//! Raw or zstd, and which level: decided per chunk, from what the queues show.
//!
//! Throughput is the least of: reading, workers x compression speed, link x ratio, and the same on
//! the other host. No fixed choice is right: on a 10 Gb/s link and few cores compression loses, on
//! 2.5 Gb/s it wins, and in between the fastest is a mixture, part of the chunks compressed and
//! part raw, so that neither the link nor the workers ever wait. Two rules, one in the other:
//!
//! 1. **The queue rule** makes the mixture. Frames of a device leave in order, so a chunk chosen
//!    now can go on the link when everything ahead of it has gone, and not before a worker is done
//!    with it. Of raw and each level it takes the choice that is across the link first: a long
//!    queue gives time to compress for nothing, a short one does not, and on a slow link even a
//!    wait for the worker is shorter than the raw chunk's way. What levels cost and give is
//!    measured; a level not used lately is judged by the others, in proportion.
//! 2. **The outer loop** (`arms`) sets the rule's cap: raw only, or at most level -5, 1, 3, 6.
//!    The queue rule believes that a worker is free when it is idle. On few cores it is not:
//!    compression takes them from the reader and the network, the link then looks slower than it
//!    is, and the rule would compress still more. So what counts is measured: raw bytes per
//!    second, end to end, over a slice of chunks with each cap; the best is kept, and its
//!    neighbours are tried again now and then, for a few per cent of the time at most. Caps matter
//!    without contention too: the rule is greedy, and a high level now may cost the next chunks
//!    their worker.
//!
//! What the path takes is known only by what the target says that it is done with, and that time is
//! also a latency, and the target's work. `estimate` tells them apart. The first chunks go raw to
//! feel it, and it says what the outer loop measures first and which rungs are not worth a trial.
//!
//! Incompressible data is a matter of the chunk, not of the link: a device whose chunks did not
//! shrink is probed first, and then more and more seldom.
//!
//! `simulator` (tests) has what this is worth against every fixed choice: links of 0.1 to 12 GB/s,
//! 2 to 8 cores, shared by both ends or not, 240 cells, one seed of noise, with the window and its
//! credits as the machines have them:
//!
//! | state | worst cell | mean | cells at 0.95 or more of the best fixed choice |
//! |---|---|---|---|
//! | 1 GiB | 0.91 | 1.00 | 232 |
//! | 256 MiB | 0.88 | 0.99 | 198 |
//! | 64 MiB | 0.51 | 0.93 | 112 |
//! | 16 MiB | 0.44 | 0.81 | 78 |
//!
//! A small state is over before the levels are known; on a slow link the raw chunks at the start
//! weigh on it too: eight of them take as long as sixty that shrink well. Fewer do not tell how
//! fast the path is (4 in place of 8: the worst cell of 1 GiB falls from 0.91 to 0.50).
//!
//! Pure: time comes in as nanoseconds of any clock that does not go back. Chunks of zeros never
//! come here; they have no body to compress.

mod arms;
mod estimate;
#[cfg(test)]
mod simulator;

use arms::{Arms, Model};
pub use estimate::Departure;
use estimate::{Levels, PRIORS, Path};

/// The zstd levels that the adaptive policy chooses among. Above 6 zstd gains little on device
/// state and costs a multiple.
pub const LEVELS: [i32; 4] = [-5, 1, 3, 6];

/// What a link is taken for before anything was sent: 1 GB/s.
const LINK_PRIOR_BYTES_PER_NS: f64 = 1.0;

/// Chunks that go raw at the start, to feel how fast the path is.
const FEELERS: u64 = 8;

/// The part of a core that a worker is sure of: compression shares them with the reader, the
/// network and the devices.
const CORE: f64 = 0.5;

/// How many chunks in a row must fail to shrink before probing them becomes seldom.
const STREAK_FREE: u32 = 4;
/// The seldomest probing is one chunk in 2^this.
const STREAK_SHIFT_MAX: u32 = 5;

/// The embedder's choice for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Raw or a level, per chunk, whatever is fastest now.
    #[default]
    Adaptive,
    /// Never compress.
    Raw,
    /// Compress at this zstd level whatever shrinks.
    Zstd(i32),
}

/// What to do with one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// Send it as it was read.
    Raw,
    /// Give it to a worker.
    Zstd {
        /// The zstd level.
        level: i32,
        /// Probe samples of it first and leave it raw if they do not shrink
        /// ([`Codec::probe`](super::codec::Codec::probe)).
        probe: bool,
    },
}

/// What the sender's queues show at the moment of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueView {
    /// Bytes that will go out before this chunk and need no worker any more: being sent, ready,
    /// and ready but waiting behind a chunk that is still being encoded.
    pub queued_wire_bytes: u64,
    /// At least one stream has nothing to send.
    pub streams_idle: bool,
    /// Chunks with a worker or waiting for one.
    pub encoding_now: u32,
    /// How many chunks of this device in a row did not shrink, by probe or in full. A chunk that
    /// shrank sets it to 0; chunks chosen raw leave it.
    pub incompressible_streak: u32,
}

/// Chooses for one session. See the top of this file.
#[derive(Debug)]
pub struct Controller {
    policy: Policy,
    workers: f64,
    chunk_bytes: f64,
    /// Wire bytes per nanosecond that the target takes.
    link: Path,
    /// What the levels cost and give.
    levels: Levels,
    /// Raw bytes per wire byte of what shrank lately, at whatever level.
    shrunk: f64,
    /// Raw bytes per wire byte of everything sent.
    sent_raw_bytes: u64,
    sent_wire_bytes: u64,
    choices: u64,
    arms: Arms,
}

impl Controller {
    /// For a session with this many compression workers (0: never compress) and chunks of this
    /// many bytes.
    pub fn new(policy: Policy, workers: u32, chunk_bytes: u32) -> Controller {
        let policy = if workers == 0 { Policy::Raw } else { policy };
        Controller {
            policy,
            workers: f64::from(workers.max(1)),
            chunk_bytes: f64::from(chunk_bytes.max(1)),
            link: Path::prior(LINK_PRIOR_BYTES_PER_NS),
            levels: Levels::default(),
            shrunk: PRIORS[1].1,
            sent_raw_bytes: 0,
            sent_wire_bytes: 0,
            choices: 0,
            arms: Arms::new(f64::from(chunk_bytes.max(1))),
        }
    }

    /// Chooses for the next chunk of a device. Call it once per chunk, when it has been read.
    pub fn choose(&mut self, now_ns: u64, view: &QueueView) -> Choice {
        self.choices += 1;
        let empty = view.queued_wire_bytes == 0 && view.encoding_now == 0;
        self.arms.chosen(now_ns, empty);
        let level = match self.policy {
            Policy::Raw => None,
            Policy::Zstd(level) => Some(level),
            Policy::Adaptive if self.choices <= FEELERS => None,
            Policy::Adaptive => self.queue_rule(now_ns, view),
        };
        self.arms.at_cap(level.is_some() && level == self.arms.cap());
        match level {
            Some(level) if self.worth_a_try(view.incompressible_streak) => {
                Choice::Zstd { level, probe: view.incompressible_streak > 0 }
            }
            _ => Choice::Raw,
        }
    }

    /// A worker is done with a chunk: at this level `raw_bytes` became `wire_bytes` (the same
    /// number if it was left raw) in `worker_ns` of its time, probe included.
    pub fn encoded(
        &mut self,
        _now_ns: u64,
        level: i32,
        raw_bytes: u64,
        wire_bytes: u64,
        worker_ns: u64,
    ) {
        let Some(index) = LEVELS.iter().position(|&known| known == level) else { return };
        // What a probe rejected says nothing about compressing what shrinks.
        if wire_bytes >= raw_bytes {
            return;
        }
        let (raw_bytes, wire_bytes) = (raw_bytes as f64, wire_bytes.max(1) as f64);
        self.levels.measured(index, raw_bytes, wire_bytes, worker_ns as f64);
        self.shrunk += (raw_bytes / wire_bytes - self.shrunk) / 16.0;
    }

    /// A chunk of so many wire bytes is submitted to a stream; `waited` if it was ready before the
    /// path had room for it. What this returns goes to [`sent`](Self::sent) or
    /// [`dropped`](Self::dropped).
    pub fn sending(&mut self, now_ns: u64, wire_bytes: u64, raw: bool, waited: bool) -> Departure {
        self.link.depart(now_ns, wire_bytes, raw, waited)
    }

    /// The target says at once that it is done with these chunks: as they departed, and their
    /// bytes of state.
    pub fn sent(&mut self, now_ns: u64, chunks: impl IntoIterator<Item = (Departure, u64)>) {
        let mut last = None;
        for (departure, raw_bytes) in chunks {
            self.link.arrive(&departure);
            self.sent_raw_bytes += raw_bytes;
            self.sent_wire_bytes += departure.wire_bytes();
            self.arms.sent(now_ns, raw_bytes as f64);
            last = Some(departure);
        }
        if let Some(departure) = last {
            self.link.arrived(now_ns, &departure);
            let link = self.link.bytes_per_ns(now_ns);
            let model = Model {
                link,
                ratio: self.shrunk,
                compressing: self.workers / self.levels.expect(0).0,
                first: self.promising(link),
            };
            self.arms.sent_all(now_ns, model);
        }
    }

    /// Of a chunk that was submitted nobody will hear again: its epoch was discarded.
    pub fn dropped(&mut self, departure: &Departure) {
        self.link.forget(departure);
    }

    /// Raw bytes per wire byte over everything sent; 1 before the first.
    pub fn ratio(&self) -> f64 {
        if self.sent_wire_bytes == 0 {
            return 1.0;
        }
        self.sent_raw_bytes as f64 / self.sent_wire_bytes as f64
    }

    /// What the streams take while they have something to send, in wire bytes per second, lately;
    /// none before the first send completed.
    pub fn link_bytes_per_s(&self) -> Option<f64> {
        self.link.is_measured().then(|| self.link.bytes_per_ns(0) * 1e9)
    }

    /// State bytes per second end to end while there was something to do, over the last slice;
    /// none before the first slice ended.
    pub fn raw_bytes_per_s(&self) -> Option<f64> {
        self.arms.bytes_per_ns().map(|rate| rate * 1e9)
    }

    /// The rung, raw or a level, that moves most if each worker has half a core: what the workers
    /// make, or what the path takes of it.
    fn promising(&self, link: f64) -> usize {
        let levels = (0..LEVELS.len()).map(|index| {
            let (ns_per_byte, ratio) = self.levels.expect(index);
            (self.workers / ns_per_byte * CORE).min(link * ratio)
        });
        let mut best = (link, 0);
        for (index, promise) in levels.enumerate() {
            if promise > best.0 {
                best = (promise, index + 1);
            }
        }
        best.1
    }

    /// Of raw and the levels up to the cap, the choice with which this chunk is on the link's far
    /// side first.
    fn queue_rule(&self, now_ns: u64, view: &QueueView) -> Option<i32> {
        let cap = self.arms.cap()?;
        let link = self.link.bytes_per_ns(now_ns);
        let backlog = f64::from(view.encoding_now);
        let ahead_bytes = view.queued_wire_bytes as f64 + backlog * self.chunk_bytes / self.shrunk;
        let needed_ns = ahead_bytes / link;
        let mut first = (needed_ns + self.chunk_bytes / link, None);
        for (index, &level) in LEVELS.iter().enumerate().take_while(|&(_, &level)| level <= cap) {
            let (ns_per_byte, ratio) = self.levels.expect(index);
            let ready_ns = ns_per_byte * self.chunk_bytes * (1.0 + backlog / self.workers);
            let there_ns = ready_ns.max(needed_ns) + self.chunk_bytes / ratio / link;
            if there_ns < first.0 {
                first = (there_ns, Some(level));
            }
        }
        first.1
    }

    /// Whether a chunk of a device with this streak is given to a worker at all. The choice among
    /// chunks is by a hash of their count, so that devices taking turns do not fall into step.
    fn worth_a_try(&self, streak: u32) -> bool {
        let shift = streak.saturating_sub(STREAK_FREE - 1).min(STREAK_SHIFT_MAX);
        let hash = self.choices.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        hash & ((1 << shift) - 1) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u32 = 256 << 10;

    fn view(queued_wire_bytes: u64, encoding_now: u32) -> QueueView {
        QueueView { queued_wire_bytes, encoding_now, ..QueueView::default() }
    }

    /// A controller that has seen a link of this speed.
    fn with_link(gb_s: f64) -> Controller {
        let mut controller = Controller::new(Policy::Adaptive, 2, CHUNK);
        let mut now_ns = 0;
        controller.choices = FEELERS;
        for _ in 0..100 {
            let departure = controller.sending(now_ns, u64::from(CHUNK), true, true);
            now_ns += (f64::from(CHUNK) / gb_s) as u64;
            controller.sent(now_ns, [(departure, u64::from(CHUNK))]);
        }
        controller
    }

    #[test]
    fn a_fixed_policy_is_what_it_says() {
        for streak in [0, 1, 3] {
            let view = QueueView { incompressible_streak: streak, ..view(0, 0) };
            let choice = Controller::new(Policy::Zstd(3), 2, CHUNK).choose(0, &view);
            assert_eq!(choice, Choice::Zstd { level: 3, probe: streak > 0 });
            assert_eq!(Controller::new(Policy::Raw, 2, CHUNK).choose(0, &view), Choice::Raw);
            assert_eq!(Controller::new(Policy::Zstd(3), 0, CHUNK).choose(0, &view), Choice::Raw);
        }
    }

    #[test]
    fn a_fast_idle_link_gets_raw_and_a_slow_one_does_not() {
        assert_eq!(with_link(12.0).choose(0, &view(0, 0)), Choice::Raw);
        assert!(matches!(with_link(0.1).choose(0, &view(0, 0)), Choice::Zstd { .. }));
    }

    #[test]
    fn a_queue_gives_time_to_compress_and_a_backlog_takes_it() {
        let mut controller = with_link(3.0);
        assert_eq!(controller.choose(0, &view(0, 0)), Choice::Raw);
        assert!(matches!(controller.choose(0, &view(4 << 20, 0)), Choice::Zstd { .. }));
        assert_eq!(controller.choose(0, &view(4 << 20, 100)), Choice::Raw);
    }

    #[test]
    fn incompressible_chunks_are_probed_ever_more_seldom_but_for_ever() {
        let tried = |streak: u32| {
            let mut controller = Controller::new(Policy::Zstd(1), 2, CHUNK);
            let view = QueueView { incompressible_streak: streak, ..view(0, 0) };
            let choices = (0..6400).map(|_| controller.choose(0, &view));
            choices.filter(|choice| *choice != Choice::Raw).count()
        };
        assert_eq!(tried(3), 6400);
        assert!((2900..3500).contains(&tried(4)), "{}", tried(4));
        for streak in [9, 100, u32::MAX] {
            assert!((130..270).contains(&tried(streak)), "{}", tried(streak));
        }
    }

    #[test]
    fn two_devices_taking_turns_are_both_probed() {
        let mut controller = Controller::new(Policy::Zstd(1), 2, CHUNK);
        let hopeless = QueueView { incompressible_streak: 50, ..view(0, 0) };
        let tried: Vec<usize> =
            (0..20_000).filter(|_| controller.choose(0, &hopeless) != Choice::Raw).collect();
        assert!(tried.iter().any(|index| index % 2 == 0));
        assert!(tried.iter().any(|index| index % 2 == 1));
    }

    #[test]
    fn the_read_outs_are_what_was_fed_in() {
        let fresh = Controller::new(Policy::Adaptive, 2, CHUNK);
        assert_eq!((fresh.link_bytes_per_s(), fresh.raw_bytes_per_s()), (None, None));
        assert_eq!(fresh.ratio(), 1.0);
        let link = with_link(2.0).link_bytes_per_s().expect("measured");
        assert!((1.9e9..2.1e9).contains(&link), "{link}");
        let mut controller = fresh;
        let departure = controller.sending(0, 100, false, false);
        controller.sent(10, [(departure, 400)]);
        assert_eq!(controller.ratio(), 4.0);
    }

    #[test]
    fn idle_time_is_not_the_links() {
        let mut controller = Controller::new(Policy::Adaptive, 2, CHUNK);
        for second in 0..200 {
            let now_ns = second * 1_000_000_000;
            let departure = controller.sending(now_ns, 100_000, true, true);
            controller.sent(now_ns + 100_000, [(departure, 100_000)]);
        }
        let link = controller.link_bytes_per_s().expect("measured");
        assert!((0.99e9..1.01e9).contains(&link), "{link}");
    }
}
