//! Bytes of state per second, end to end, while there is something to do.

/// So many whole chunks are remembered: half of them at least, and no more.
const CHUNKS: u64 = 256;
/// The part of a chunk that must move before all is idle again for that to count: a few bytes take
/// a latency, and say nothing of speed.
const LITTLE: u64 = 4;

/// See the module's text.
#[derive(Debug)]
pub(super) struct Meter {
    chunk_bytes: u64,
    /// Bytes that were read and that the target is not done with.
    out_bytes: u64,
    /// Since when there have been some, or the last was counted; and what was done with since.
    since_ns: u64,
    moved_bytes: u64,
    bytes: u64,
    ns: u64,
}

impl Meter {
    /// For chunks of this many bytes, if they are whole.
    pub(super) fn new(chunk_bytes: u32) -> Meter {
        let chunk_bytes = u64::from(chunk_bytes.max(1));
        Meter { chunk_bytes, out_bytes: 0, since_ns: 0, moved_bytes: 0, bytes: 0, ns: 0 }
    }

    /// A chunk was read.
    pub(super) fn enters(&mut self, now_ns: u64, bytes: u64) {
        if self.out_bytes == 0 {
            (self.since_ns, self.moved_bytes) = (now_ns, 0);
        }
        self.out_bytes += bytes;
    }

    /// The target is done with chunks of so many bytes, all at once. In how many nanoseconds how many
    /// bytes have moved, if that says something.
    pub(super) fn leaves(&mut self, now_ns: u64, bytes: u64) -> Option<(u64, u64)> {
        self.forgets(bytes);
        self.moved_bytes += bytes;
        if self.moved_bytes < self.chunk_bytes / LITTLE {
            return None;
        }
        let moved = (now_ns.saturating_sub(self.since_ns), self.moved_bytes);
        (self.ns, self.bytes) = (self.ns + moved.0, self.bytes + moved.1);
        (self.since_ns, self.moved_bytes) = (now_ns, 0);
        if self.bytes > CHUNKS * self.chunk_bytes {
            (self.bytes, self.ns) = (self.bytes / 2, self.ns / 2);
        }
        Some(moved)
    }

    /// Of so many bytes that were read nobody will hear again.
    pub(super) fn forgets(&mut self, bytes: u64) {
        self.out_bytes = self.out_bytes.saturating_sub(bytes);
    }

    /// What was measured; none before there is anything.
    pub(super) fn bytes_per_s(&self) -> Option<f64> {
        (self.ns > 0).then(|| self.bytes as f64 * 1e9 / self.ns as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u32 = 262_144;

    /// So many chunks, one after another, each at a byte a nanosecond.
    fn run(meter: &mut Meter, now_ns: &mut u64, chunks: u32) {
        for _ in 0..chunks {
            meter.enters(*now_ns, u64::from(CHUNK));
            *now_ns += u64::from(CHUNK);
            meter.leaves(*now_ns, u64::from(CHUNK));
        }
    }

    fn is_a_gigabyte(meter: &Meter) {
        let rate = meter.bytes_per_s().expect("it was measured");
        assert!((0.99e9..1.01e9).contains(&rate), "{rate}");
    }

    #[test]
    fn idle_time_does_not_count() {
        let (mut meter, mut now_ns) = (Meter::new(CHUNK), 0);
        for _ in 0..300 {
            run(&mut meter, &mut now_ns, 1);
            now_ns += 1_000_000_000;
        }
        is_a_gigabyte(&meter);
    }

    /// Where something is always under way no time is counted twice.
    #[test]
    fn what_overlaps_is_as_fast_as_what_does_not() {
        let (mut meter, mut now_ns) = (Meter::new(CHUNK), 0);
        meter.enters(now_ns, u64::from(CHUNK));
        for _ in 0..20 {
            meter.enters(now_ns, u64::from(CHUNK));
            now_ns += u64::from(CHUNK);
            let moved = meter.leaves(now_ns, u64::from(CHUNK));
            assert_eq!(moved, Some((u64::from(CHUNK), u64::from(CHUNK))));
        }
        is_a_gigabyte(&meter);
    }

    #[test]
    fn a_trickle_is_not_taken_for_the_speed() {
        let (mut meter, mut now_ns) = (Meter::new(CHUNK), 0);
        run(&mut meter, &mut now_ns, 3);
        for _ in 0..1000 {
            meter.enters(now_ns, 4);
            now_ns += 50_000;
            meter.leaves(now_ns, 4);
        }
        is_a_gigabyte(&meter);
    }

    #[test]
    fn what_was_dropped_is_not_waited_for() {
        let (mut meter, mut now_ns) = (Meter::new(CHUNK), 0);
        meter.enters(now_ns, 50);
        meter.forgets(50);
        now_ns += 1_000_000_000;
        run(&mut meter, &mut now_ns, 3);
        is_a_gigabyte(&meter);
    }

    #[test]
    fn it_follows_what_changes() {
        let (mut meter, mut now_ns) = (Meter::new(CHUNK), 0);
        for _ in 0..1000 {
            meter.enters(now_ns, u64::from(CHUNK));
            now_ns += 10 * u64::from(CHUNK);
            meter.leaves(now_ns, u64::from(CHUNK));
        }
        run(&mut meter, &mut now_ns, 4000);
        is_a_gigabyte(&meter);
    }
}
