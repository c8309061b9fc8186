//! A run whose choices are bytes: how a fuzzer leads the world to where no seed happens to go. Shared
//! with `tests/fuzz`.

use super::check::Check;
use super::plan::{Hostile, Plan};
use super::rng::Rng;
use super::schedule::HostId;
use super::world::{TIME, World};

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

/// The longest that a fuzzer makes; a run that goes on for longer is left to chance.
const TAPE_BYTES_MAX: usize = 4096;

/// The tape of a seed's run, if the limits of its time fit.
pub(crate) fn of_seed(seed: u64) -> Option<Vec<u8>> {
    let (mut rng, mut time) = (Rng::written_down(seed), Rng::written_down(seed ^ TIME));
    let mut plan = Plan::draw(&mut rng, false);
    plan.draw_time(&mut time);
    let time = time.written.unwrap_or_default();
    let mut world = World::of(plan, rng);
    let _ = world.run();
    let rest = world.schedule.rng.written.take().unwrap_or_default();
    let mut tape = [&[0, u8::try_from(time.len()).ok()?], &time[..], &rest].concat();
    tape.truncate(TAPE_BYTES_MAX);
    Some(tape)
}
