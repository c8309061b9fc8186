//! The outer loop: which cap for the queue rule moves the most raw bytes per second.
//!
//! The caps form a ladder, raw at the bottom and the highest level at the top, and throughput has
//! one hill on it, so only the neighbours of the best rung are tried. One rung is in force at a
//! time. Its slice begins when the chunks chosen under the rung before are sent (their work is
//! still in the pipeline) and lasts [`SLICE`] chunks, more where slices scatter. Time in which
//! there was nothing in the pipeline is the reader's, not the rung's, and does not count. (A rung
//! under which the pipeline runs empty moves everything that is read: none can be better.) Nor does
//! time in which hardly anything was: a few bytes take a latency, and say nothing of speed.
//!
//! Keep the pipeline short: a switch takes effect after what is in it, so 2 to 4 chunks a worker
//! and a few more adapt within 64 MiB, and hundreds do not.

use super::LEVELS;

/// Whole chunks in a slice. It is bytes that count.
const SLICE: f64 = 24.0;
/// Whole chunks that a slice must have to end early.
const LEAST: f64 = 2.0;
/// The part of a whole chunk that must pass from one empty pipeline to the next for that to count.
const LITTLE: f64 = 0.25;
/// Chunks before the first rung is decided: the link's speed shows.
const WARM_UP: u64 = 8;
/// A slice may take this many times what the best rung would have needed; then it ends early.
const PATIENCE: f64 = 1.5;
/// How much better a tried rung must be to be taken, as a factor: above the noise of a slice.
const BETTER: f64 = 1.04;
/// A change of the best rung's throughput by this factor means that the data, the link or the
/// load is not what it was, and what is known of the other rungs is worth nothing.
const CHANGED: f64 = 1.35;
/// Slices of the best rung between two trials: at first, and at most. Every trial that changes
/// nothing doubles it.
const REST: u32 = 4;
const REST_MAX: u32 = 64;
/// The share of time that trials may waste.
const WASTE: f64 = 0.03;
/// Slices that scatter by more than this share are made longer in proportion, up to this factor.
const QUIET: f64 = 0.05;
const LONGER: f64 = 2.0;
/// Raw is left again, however little came of it before, if the workers and the link together
/// promise so many times as much.
const PROMISING: f64 = 1.5;
/// By how much compression may slow down the threads that feed the link.
const CROWDED: f64 = 2.0;
/// The rung to start on: level -5, from which raw is one step, and the higher levels are.
const START: usize = 1;
const RUNGS: usize = LEVELS.len() + 1;

/// The ladder.
#[derive(Debug)]
pub(super) struct Arms {
    chunk_bytes: f64,
    /// Raw bytes per nanosecond by rung, where known.
    value: [Option<f64>; RUNGS],
    best: usize,
    /// The first slice's rung is decided.
    started: bool,
    trial: Option<usize>,
    slice: Slice,
    /// Chunks chosen and sent. They drift apart when chunks are dropped, which lengthens a drain,
    /// until the queues are seen empty.
    chosen: u64,
    sent: u64,
    /// When the last one was.
    sent_ns: u64,
    /// Since when the pipeline has been empty.
    empty_since_ns: Option<u64>,
    /// Since when there has been something in it, and what has left it since.
    busy_since_ns: u64,
    busy_bytes: f64,
    /// Slices of the best rung until the next trial, and after how many the one after that comes.
    until_trial: u32,
    rest: u32,
    /// Time that trials may still waste, in nanoseconds.
    credit_ns: f64,
    model: Model,
    /// The last slice of the best rung was far from its value.
    doubted: bool,
    /// How far a slice of the best rung is from its value, as a share, on average; none before
    /// the second.
    noise: Option<f64>,
    last: Option<f64>,
    up_next: bool,
}

/// What is known besides the rungs' values, in bytes per nanosecond.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Model {
    /// What the path takes, in wire bytes.
    pub(super) link: f64,
    /// Raw bytes per wire byte of what is compressed.
    pub(super) ratio: f64,
    /// What the workers take at the lowest level, in raw bytes, if each has a core.
    pub(super) compressing: f64,
    /// The rung that promises most.
    pub(super) first: usize,
}

/// What is being measured.
#[derive(Debug, Default)]
struct Slice {
    /// It begins when this many chunks have been sent.
    after_sent: u64,
    start_ns: Option<u64>,
    bytes: f64,
    /// Choices since the rung came into force, and how many were at its cap.
    choices: u32,
    at_cap: u32,
}

impl Arms {
    /// For chunks of this many bytes, if they are whole.
    pub(super) fn new(chunk_bytes: f64) -> Arms {
        Arms {
            chunk_bytes,
            value: [None; RUNGS],
            best: START,
            started: false,
            trial: None,
            slice: Slice { after_sent: WARM_UP, ..Slice::default() },
            chosen: 0,
            sent: 0,
            sent_ns: 0,
            empty_since_ns: None,
            busy_since_ns: 0,
            busy_bytes: 0.0,
            until_trial: 0,
            rest: REST,
            credit_ns: 0.0,
            model: Model::default(),
            doubted: false,
            noise: None,
            last: None,
            up_next: true,
        }
    }

    /// The highest level that may be used; none for raw only.
    pub(super) fn cap(&self) -> Option<i32> {
        self.rung().checked_sub(1).map(|index| LEVELS[index])
    }

    /// The last slice's throughput in bytes per nanosecond.
    pub(super) fn bytes_per_ns(&self) -> Option<f64> {
        self.last
    }

    /// A chunk enters the pipeline, which is `empty` but for it as far as the queues show.
    pub(super) fn chosen(&mut self, now_ns: u64, empty: bool) {
        if empty {
            // Chunks of a discarded epoch were chosen and never sent.
            self.sent = self.chosen;
        }
        let since = self.empty_since_ns.take().or(empty.then_some(self.sent_ns));
        if let (Some(since), Some(start)) = (since, &mut self.slice.start_ns) {
            *start += now_ns.saturating_sub(since.max(*start));
        }
        if since.is_some() {
            (self.busy_since_ns, self.busy_bytes) = (now_ns, 0.0);
        }
        self.chosen += 1;
    }

    /// Whether that chunk's level is the rung's cap.
    pub(super) fn at_cap(&mut self, is: bool) {
        self.slice.choices += 1;
        self.slice.at_cap += u32::from(is);
    }

    /// A chunk leaves the pipeline, one of those that do at once.
    pub(super) fn sent(&mut self, now_ns: u64, raw_bytes: f64) {
        self.sent += 1;
        self.sent_ns = now_ns;
        self.busy_bytes += raw_bytes;
        if self.slice.start_ns.is_some() {
            self.slice.bytes += raw_bytes;
        }
    }

    /// That was all that leaves it at once. Slices begin and end only here: what is acknowledged
    /// together took the time since the last acknowledgement, all of it.
    pub(super) fn sent_all(&mut self, now_ns: u64, model: Model) {
        self.model = model;
        if self.sent >= self.chosen {
            self.sent = self.chosen;
            self.empty_since_ns = Some(now_ns);
            self.forget_a_trickle(now_ns);
        }
        let Some(start_ns) = self.slice.start_ns else {
            if self.sent >= self.slice.after_sent {
                self.slice.start_ns = Some(now_ns);
                if !self.started {
                    self.start_on(model.first);
                }
            }
            return;
        };
        let ns = now_ns.saturating_sub(start_ns).max(1) as f64;
        let longer = (self.noise.unwrap_or(0.0) / QUIET).clamp(1.0, LONGER);
        let whole = SLICE * self.chunk_bytes * longer;
        let hopeless = self.trial.is_some()
            && self.slice.bytes >= LEAST * self.chunk_bytes
            && self.value[self.best].is_some_and(|best| ns > PATIENCE * whole / best);
        if self.slice.bytes >= whole || hopeless {
            self.end_slice(self.slice.bytes / ns, ns);
        }
    }

    /// The pipeline is empty again: if hardly anything was in it, that was no part of the slice.
    fn forget_a_trickle(&mut self, now_ns: u64) {
        if let Some(start) = &mut self.slice.start_ns
            && *start <= self.busy_since_ns
            && self.busy_bytes < LITTLE * self.chunk_bytes
        {
            *start += now_ns.saturating_sub(self.busy_since_ns);
            self.slice.bytes -= self.busy_bytes;
        }
    }

    /// The first slice's rung: raw or a level. It begins when what was chosen before is
    /// sent: until then both hosts touch their buffers for the first time.
    fn start_on(&mut self, rung: usize) {
        self.best = rung;
        self.slice = Slice { after_sent: self.chosen, ..Slice::default() };
        self.started = true;
    }

    fn end_slice(&mut self, value: f64, ns: f64) {
        let before = self.rung();
        let up_first = self.slice.at_cap * 2 >= self.slice.choices;
        self.last = Some(value);
        match self.trial.take() {
            None => self.measured_best(value, ns),
            Some(rung) => self.measured_trial(rung, value, ns),
        }
        self.trial = self.next_trial(up_first, ns);
        // The pipeline still holds what was chosen under another rung.
        let after_sent = if self.rung() == before { self.sent } else { self.chosen };
        self.slice = Slice { after_sent, ..Slice::default() };
    }

    fn measured_best(&mut self, value: f64, ns: f64) {
        self.credit_ns += ns * WASTE;
        self.until_trial = self.until_trial.saturating_sub(1);
        let Some(known) = self.value[self.best] else {
            self.value[self.best] = Some(value);
            return;
        };
        let deviation = (value / known - 1.0).abs().min(1.0);
        self.noise = Some(self.noise.map_or(deviation, |noise| noise + (deviation - noise) / 4.0));
        let far = value > known * CHANGED || known > value * CHANGED;
        if far && self.doubted {
            self.value = [None; RUNGS];
            self.rest = REST;
            self.until_trial = 0;
        }
        self.doubted = far && !self.doubted;
        self.value[self.best] = Some((known + value) / 2.0);
    }

    fn measured_trial(&mut self, rung: usize, value: f64, ns: f64) {
        self.value[rung] = Some(value);
        let best = self.value[self.best].unwrap_or(0.0);
        if value > best * BETTER.max(1.0 + self.noise.unwrap_or(0.0)) {
            self.best = rung;
            self.rest = REST;
        } else {
            self.credit_ns = (self.credit_ns - ns * (1.0 - value / best).max(0.0)).max(-2.0 * ns);
            self.rest = (self.rest * 2).min(REST_MAX);
        }
        self.until_trial = self.rest;
    }

    /// The rung to try next, or none to stay on the best: an unknown neighbour at once, a known
    /// one after a rest and for as little as the credit allows.
    fn next_trial(&mut self, up_first: bool, slice_ns: f64) -> Option<usize> {
        let best = self.value[self.best]?;
        // A higher level helps where the link is full in spite of this one.
        let full = self.model.link * self.model.ratio < best * CROWDED;
        let up = Some(self.best + 1).filter(|&rung| rung < RUNGS);
        let up = up.filter(|&rung| rung == 1 || (up_first && full));
        // Raw cannot pass the link, even if compression next to it slowed that down.
        let down = self.best.checked_sub(1);
        let down = down.filter(|&rung| rung > 0 || self.model.link * CROWDED > best);
        let order = if self.model.link > best { [down, up] } else { [up, down] };
        if let Some(rung) = order.into_iter().flatten().find(|&rung| self.value[rung].is_none()) {
            return Some(rung);
        }
        if self.until_trial > 0 {
            return None;
        }
        self.up_next = !self.up_next;
        let order = if self.up_next { [up, down] } else { [down, up] };
        let promise = self.model.compressing.min(self.model.link * self.model.ratio);
        order.into_iter().flatten().find(|&rung| {
            if self.best == 0 && promise > best * PROMISING {
                return true;
            }
            let value = self.value[rung].unwrap_or(best);
            self.credit_ns >= slice_ns * (best / value - 1.0).clamp(0.0, PATIENCE)
        })
    }

    fn rung(&self) -> usize {
        self.trial.unwrap_or(self.best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: f64 = 262_144.0;

    /// Chunks that each take as long as `speed` (bytes per nanosecond) of the rung in force says.
    fn run(arms: &mut Arms, now_ns: &mut u64, chunks: u32, speed: [f64; RUNGS]) {
        for _ in 0..chunks {
            arms.chosen(*now_ns, false);
            arms.at_cap(true);
            *now_ns += (CHUNK / speed[arms.rung()]) as u64;
            arms.sent(*now_ns, CHUNK);
            arms.sent_all(
                *now_ns,
                Model { link: speed[0], ratio: 1.0, compressing: 1.0, first: 0 },
            );
        }
    }

    #[test]
    fn it_climbs_to_the_best_rung_from_either_side_within_64_mib() {
        for best in 0..RUNGS {
            let speed: [f64; RUNGS] =
                std::array::from_fn(|rung| 2.0 / (1.0 + 0.3 * rung.abs_diff(best) as f64));
            let (mut arms, mut now_ns) = (Arms::new(CHUNK), 0);
            run(&mut arms, &mut now_ns, 256, speed);
            assert_eq!(arms.best, best);
        }
    }

    #[test]
    fn trials_cost_a_few_per_cent() {
        let speed = [0.2, 0.5, 1.0, 0.5, 0.2];
        let (mut arms, mut now_ns) = (Arms::new(CHUNK), 0);
        run(&mut arms, &mut now_ns, 256, speed);
        let (start_ns, chunks) = (now_ns, 20_000);
        run(&mut arms, &mut now_ns, chunks, speed);
        let ideal_ns = f64::from(chunks) * CHUNK;
        let share = ideal_ns / (now_ns - start_ns) as f64;
        assert!(share > 0.96, "{share:.3}");
    }

    #[test]
    fn another_load_is_noticed() {
        let (mut arms, mut now_ns) = (Arms::new(CHUNK), 0);
        run(&mut arms, &mut now_ns, 2000, [0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(arms.best, 4);
        run(&mut arms, &mut now_ns, 2000, [3.0, 2.0, 1.0, 0.6, 0.3]);
        assert_eq!(arms.best, 0);
    }

    #[test]
    fn an_empty_pipeline_does_not_count() {
        let (mut arms, mut now_ns) = (Arms::new(CHUNK), 0);
        for _ in 0..300 {
            run(&mut arms, &mut now_ns, 1, [1.0; RUNGS]);
            now_ns += 1_000_000_000;
        }
        let speed = arms.bytes_per_ns().expect("slices have ended");
        assert!((speed - 1.0).abs() < 0.01, "{speed}");
    }

    #[test]
    fn a_trickle_is_not_taken_for_the_speed() {
        for chunks in 0..120 {
            let (mut arms, mut now_ns) = (Arms::new(CHUNK), 0);
            run(&mut arms, &mut now_ns, 40 + chunks, [1.0; RUNGS]);
            for _ in 0..1000 {
                now_ns += 1_000_000_000;
                arms.chosen(now_ns, true);
                now_ns += 50_000;
                arms.sent(now_ns, 4.0);
                arms.sent_all(now_ns, Model { link: 1.0, ratio: 1.0, compressing: 1.0, first: 0 });
            }
            let speed = arms.bytes_per_ns().expect("slices have ended");
            assert!(speed > 0.9, "{speed} after {chunks}");
        }
    }

    #[test]
    fn chunks_that_are_never_sent_do_not_stop_it() {
        let (mut arms, mut now_ns) = (Arms::new(CHUNK), 0);
        (0..50).for_each(|_| arms.chosen(0, false));
        run(&mut arms, &mut now_ns, 600, [2.0, 1.5, 1.0, 0.5, 0.25]);
        assert_eq!(arms.best, 0);
    }

    #[test]
    fn idle_time_is_known_again_after_chunks_were_dropped() {
        let (mut arms, mut now_ns) = (Arms::new(CHUNK), 0);
        run(&mut arms, &mut now_ns, 60, [1.0; RUNGS]);
        (0..50).for_each(|_| arms.chosen(now_ns, false));
        for _ in 0..300 {
            now_ns += 1_000_000_000;
            arms.chosen(now_ns, true);
            now_ns += 262_144;
            arms.sent(now_ns, CHUNK);
            arms.sent_all(now_ns, Model { link: 1.0, ratio: 1.0, compressing: 1.0, first: 0 });
        }
        let speed = arms.bytes_per_ns().expect("slices have ended");
        assert!((speed - 1.0).abs() < 0.01, "{speed}");
    }
}
