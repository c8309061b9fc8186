//! A run whose choices are bytes: how a fuzzer leads the world to where no seed happens to go. Shared
//! with `tests/fuzz`.

use super::check::Check;
use super::plan::{Hostile, Plan};
use super::rng::Rng;
use super::schedule::HostId;
use super::world::World;

/// One run. The first byte says how often the hostile host's frames are tampered with (0: never, both
/// are honest), the second how many of the bytes that follow choose the limits of time; the rest choose
/// everything else.
pub(crate) fn run(tape: &[u8], hostile: HostId) -> Check {
    let [often, times, rest @ ..] = tape else { return Ok(()) };
    let (time, rest) = rest.split_at(rest.len().min(usize::from(*times)));
    let mut rng = Rng::of_tape(rest);
    let mut plan = Plan::draw(&mut rng, *often > 0);
    plan.draw_time(&mut Rng::of_tape(time));
    plan.hostile = (*often > 0).then_some(Hostile { host: hostile, one_in: u64::from(*often) });
    World::of(plan, rng).run()
}
