// The simulated world of tests/host/world, as modules of a fuzz target's root, where its macros look
// for them.
#[path = "../host/world/act.rs"]
mod act;
#[path = "../host/world/both.rs"]
mod both;
#[path = "../host/world/bounds.rs"]
mod bounds;
#[path = "../host/world/check.rs"]
mod check;
#[path = "../host/world/clock.rs"]
mod clock;
#[path = "../host/world/control.rs"]
mod control;
#[path = "../host/world/coverage.rs"]
mod coverage;
#[path = "../host/world/device.rs"]
mod device;
#[path = "../host/world/draw.rs"]
mod draw;
#[path = "../host/world/fd.rs"]
mod fd;
#[path = "../host/world/hostile.rs"]
mod hostile;
#[path = "../host/world/invariants.rs"]
mod invariants;
#[path = "../host/world/late.rs"]
mod late;
#[path = "../host/world/loss.rs"]
mod loss;
#[path = "../host/world/net.rs"]
mod net;
#[path = "../host/world/p2p.rs"]
mod p2p;
#[path = "../host/world/plan.rs"]
mod plan;
#[path = "../host/world/rng.rs"]
mod rng;
#[path = "../host/world/schedule.rs"]
mod schedule;
#[path = "../host/world/side.rs"]
mod side;
#[path = "../host/world/tape.rs"]
mod tape;
#[path = "../host/world/time.rs"]
mod time;
#[path = "../host/world/trace.rs"]
mod trace;
#[path = "../host/world/world.rs"]
mod world;
