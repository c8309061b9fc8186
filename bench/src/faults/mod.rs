//! What becomes of the guest when things go wrong: every fault that a driver, a peer, the network or
//! a host can show, through real processes.
//!
//! ```text
//! host      one host as a process: a VMM around a session, and test devices that say where they are
//! proxy     what is between the two: a relay that knows frames
//! plan      what one run is: both hosts, the network, what is done when
//! record    what is known of a run
//! promise   what was promised of it, and whether it was kept
//! fault     one fault: a plan and its promise
//! catalogue all faults
//! process   the runner's side of a host's process
//! runner    from a fault to a record
//! report    a table, and JSON
//! ```

mod catalogue;
mod fault;
pub(crate) mod host;
mod message;
mod plan;
mod process;
mod promise;
mod proxy;
mod record;
pub(crate) mod report;
mod runner;

pub(crate) use catalogue::all;
pub(crate) use fault::Fault;
pub(crate) use runner::run;
