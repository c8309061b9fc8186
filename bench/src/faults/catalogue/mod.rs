//! All faults, in the order in which they are printed.

mod budget;
mod devices;
mod host;
mod network;
mod peer;
mod reset;
mod source_driver;
mod target_driver;

use super::fault::{Fault, Kind};
use super::plan::Plan;
use super::promise::Ending;
use super::proxy::{Kind as FrameKind, Point};
use crate::spec::Side::{self, Source, Target};

/// All faults.
pub(crate) fn all() -> Vec<Fault> {
    let mut all = vec![Fault::new(Kind::Host, "none", "nothing goes wrong").completes(), hidden()];
    all.extend(source_driver::faults());
    all.extend(target_driver::faults());
    all.extend(reset::faults());
    all.extend(peer::faults());
    all.extend(network::faults());
    all.extend(host::faults());
    all.extend(devices::faults());
    all.extend(budget::faults());
    all
}

/// A promise that cannot be kept.
fn hidden() -> Fault {
    let about = "nothing goes wrong, and the opposite is promised";
    let mut fault = Fault::new(Kind::Host, "self-test-broken-promise", about)
        .ends(Source, Ending::Returned, &[])
        .ends(Target, Ending::Blank, &[]);
    fault.hidden = true;
    fault
}

/// A frame that goes to a host.
type Place = (Side, Point);

/// A migration's stages, by the frame that ends each: before the handover.
const STAGES: [(&str, Place); 6] = [
    ("accept", (Source, Point::Frame(FrameKind::Accept))),
    ("begin", (Target, Point::Frame(FrameKind::Begin))),
    ("data", (Target, Point::Frame(FrameKind::Data))),
    ("stop-copy", (Target, Point::StopCopy)),
    ("end", (Target, Point::Frame(FrameKind::End))),
    ("loaded", (Source, Point::Frame(FrameKind::Loaded))),
];

/// More than a target's credit and every socket on the way hold.
fn fills(plan: &mut Plan) {
    const LARGE_BYTES: u64 = 64 << 20;
    for side in [Source, Target] {
        plan.host_mut(side).devices[0].rest_bytes = LARGE_BYTES;
    }
    (plan.net.streams, plan.net.is_narrow) = (1, true);
}

/// The two frames of the handover.
const HANDOVER: Place = (Target, Point::Frame(FrameKind::Handover));
const RUNNING: Place = (Source, Point::Frame(FrameKind::Running));

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own_a_sentence_and_a_promise() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|fault| fault.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        assert!(all.len() >= 100, "{}", all.len());
        for fault in &all {
            let is_named = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(fault.name.chars().all(is_named), "{}", fault.name);
            assert!(!fault.about.is_empty() && !fault.about.ends_with('.'), "{}", fault.name);
            let promise = &fault.promise;
            assert!(!promise.source.is_empty() && !promise.target.is_empty(), "{}", fault.name);
        }
    }
}
