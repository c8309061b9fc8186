//! A run is two processes of this program, a source and a target, which talk over TCP. The parent
//! starts them, tells each what to do on its standard input, and hears from each on its standard
//! output, in lines of JSON. A process serves one run, so that its CPU and peak memory are the run's.

pub(crate) mod agent;
pub(crate) mod control;
pub(crate) mod doubles;
pub(crate) mod entrance;
pub(crate) mod identity;
pub(crate) mod message;
pub(crate) mod pair;
pub(crate) mod pulse;
pub(crate) mod room;
mod sampler;
pub(crate) mod usage;
