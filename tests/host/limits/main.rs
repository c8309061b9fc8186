//! A peer that lives and does not do what it owes: each limit ends the session with its name, the
//! peer is told, and the devices are home. That a session does not end long after its limit is seen
//! where time is simulated; here that real sessions have the limits at all.

mod of_source;
mod of_target;

use std::time::Duration;

use vfio_ferry::outcome::{Cause, Fault, Observation};
use vfio_ferry::session::Options;
use vfio_ferry::wire::Abort;
use vfio_ferry_tests::peer::Peer;

/// The limit that a test is about. The others are as they are without a choice, and far longer.
const LIMIT: Duration = Duration::from_millis(700);
/// How often a peer shows that it lives: far more often than it would be taken for dead.
const LIFE: Duration = Duration::from_millis(120);

/// What the peer does until the session has ended. It gives the abort that it heard, where it
/// listens.
type Deed = Box<dyn FnOnce(Vec<Peer>) -> Option<Abort> + Send>;

fn deed(deed: impl FnOnce(Vec<Peer>) -> Option<Abort> + Send + 'static) -> Deed {
    Box::new(deed)
}

fn handshake() -> Options {
    Options { handshake_limit: LIMIT, ..Options::default() }
}

fn stall() -> Options {
    Options { stall_limit: LIMIT, ..Options::default() }
}

/// The limit's name is in what the embedder is told, and in what the peer was, if it listened.
fn assert_limit(limit: &str, owed: &str, fault: &Fault, heard: Option<&Abort>) {
    assert_eq!((fault.cause, fault.observed), (Cause::TimeLimit, Observation::Clock), "{fault}");
    assert!(fault.message.starts_with(&format!("{limit} (")), "{limit}: {fault}");
    assert!(fault.message.contains(owed), "{owed}: {fault}");
    if let Some(heard) = heard {
        let said = (heard.cause, heard.observed, heard.message.as_str());
        assert_eq!(said, (fault.cause, fault.observed, fault.message.as_str()));
    }
}
