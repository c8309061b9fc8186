//! The only source of chance: SplitMix64 under one seed. Written out here, not taken from a crate,
//! so that a seed found today replays after every update. A fuzzer's choices come first, where it
//! makes them.

/// A stream of numbers.
#[derive(Debug, Clone)]
pub(crate) struct Rng {
    state: u64,
    /// What a fuzzer chose, the next one last; a choice takes as many bytes as it has need of.
    tape: Vec<u8>,
    /// What was chosen so far.
    pub(crate) written: Option<Vec<u8>>,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        let state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x9e37_79b9_7f4a_7c15;
        Rng { state, tape: Vec::new(), written: None }
    }

    /// These choices, and what chance makes of them once they are used up.
    pub(crate) fn of_tape(tape: &[u8]) -> Rng {
        let seed = tape.iter().fold(0, |sum: u64, byte| sum.rotate_left(9) ^ u64::from(*byte));
        Rng { tape: tape.iter().rev().copied().collect(), ..Rng::new(seed) }
    }

    /// Writes down what it chooses, as a tape that chooses the same.
    pub(crate) fn written_down(seed: u64) -> Rng {
        Rng { written: Some(Vec::new()), ..Rng::new(seed) }
    }

    /// A choice from the tape, of this many bytes.
    fn chosen(&mut self, bytes: usize) -> Option<u64> {
        let from = self.tape.len().checked_sub(bytes)?;
        Some(self.tape.drain(from..).rev().fold(0, |sum, byte| sum << 8 | u64::from(byte)))
    }

    fn write_down(&mut self, choice: u64, bytes: usize) {
        if let Some(written) = &mut self.written {
            written.extend_from_slice(&choice.to_be_bytes()[8 - bytes..]);
        }
    }

    fn chance(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn next(&mut self) -> u64 {
        let next = self.chosen(8).unwrap_or_else(|| self.chance());
        self.write_down(next, 8);
        next
    }

    /// Choices after which chance goes on as if they had not been.
    pub(crate) fn aside<T>(&mut self, choose: impl FnOnce(&mut Rng) -> T) -> T {
        let state = self.state;
        let chosen = choose(self);
        self.state = state;
        chosen
    }

    /// A number below `end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let bytes = (64 - end.saturating_sub(1).leading_zeros()).div_ceil(8) as usize;
        let below = match end {
            0 => 0,
            // Chance is drawn upon all the same, so that the seeds of before keep their runs.
            1 => {
                self.chance();
                0
            }
            _ => self.chosen(bytes).unwrap_or_else(|| self.chance()) % end,
        };
        self.write_down(below, bytes);
        below
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// A number up to `high`, small ones as likely as large ones.
    pub(crate) fn log(&mut self, high: u64) -> u64 {
        let bits = self.below(u64::from(64 - high.leading_zeros()) + 1);
        self.below((1u64 << bits).min(high + 1))
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
