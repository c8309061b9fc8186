//! Single exchanges with the pure machines: events in, actions out, with exact numbers. What many
//! seeds show better stands in the simulated world, `tests/host/world`.

mod chunks;
mod estimates;
mod forecast;
mod handovers;
mod limits;
mod loads;
mod owed;
mod partings;
mod receiver;
mod resets;
mod run;
mod seldom;
mod sender;
mod several;
mod train;
