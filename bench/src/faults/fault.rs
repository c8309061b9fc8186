//! One fault: what goes wrong, and what is promised all the same.

use std::time::Duration;

use super::message::Command;
use super::plan::{Does, Plan, Reaction, Trigger};
use super::promise::{Also, Cause, Ending, Outcome, Promise};
use super::proxy::{Deed as NetDeed, Point, Rule};
use crate::device::{Call, Deed, DriverFault};
use crate::spec::{Limits, Side, Time};

/// Who misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A device's driver, or the embedder's code around it.
    Driver,
    /// The other host.
    Peer,
    /// What is between the two.
    Network,
    /// The host's kernel, or its VMM.
    Host,
    /// A target that stalls, against a switchover's budget.
    Budget,
}

impl Kind {
    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Driver => "driver",
            Kind::Peer => "peer",
            Kind::Network => "network",
            Kind::Host => "host",
            Kind::Budget => "budget",
        }
    }
}

/// A fault. Its name is unique.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) name: String,
    /// One sentence.
    pub(crate) about: String,
    pub(crate) kind: Kind,
    pub(crate) plan: Plan,
    pub(crate) promise: Promise,
    /// Only for who names it: it tests this program.
    pub(crate) hidden: bool,
}

/// A limit that is to strike.
pub(crate) const NEAR: Duration = Duration::from_secs(1);
/// What is left for the way back where a driver holds it up.
pub(crate) const BOUND: Duration = Duration::from_millis(500);

impl Fault {
    /// A migration in which nothing goes wrong yet, and nothing is promised.
    pub(crate) fn new(kind: Kind, name: impl Into<String>, about: impl Into<String>) -> Fault {
        Fault {
            name: name.into(),
            about: about.into(),
            kind,
            plan: Plan::new(),
            promise: Promise::default(),
            hidden: false,
        }
    }

    /// Changes the plan.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Plan)) -> Fault {
        change(&mut self.plan);
        self
    }

    /// The first device's driver misbehaves, once.
    pub(crate) fn once(self, side: Side, call: Call, deed: Deed) -> Fault {
        self.driver(side, DriverFault::once(call, deed))
    }

    /// The first device's driver misbehaves, again and again.
    pub(crate) fn always(self, side: Side, call: Call, deed: Deed) -> Fault {
        self.driver(side, DriverFault::always(call, deed))
    }

    /// The first device's driver misbehaves.
    pub(crate) fn driver(mut self, side: Side, fault: DriverFault) -> Fault {
        self.plan.host_mut(side).devices[0].faults.push(fault);
        self
    }

    /// Changes a host's limits.
    pub(crate) fn limit(mut self, side: Side, set: impl FnOnce(&mut Limits)) -> Fault {
        set(&mut self.plan.host_mut(side).choices.limits);
        self
    }

    /// This host's stall limit is near.
    pub(crate) fn stalls(self, side: Side) -> Fault {
        self.limit(side, |limits| limits.stall_limit = Some(Time(NEAR)))
    }

    /// This host does not wait long for drivers on the way back.
    pub(crate) fn hurries(self, side: Side) -> Fault {
        self.limit(side, |limits| limits.cancel_bound = Some(Time(BOUND)))
    }

    /// The network does something.
    pub(crate) fn net(mut self, rule: Rule) -> Fault {
        self.plan.net.rules.push(rule);
        self
    }

    /// The network does something at the first such frame toward this host.
    pub(crate) fn at(self, toward: Side, at: Point, deed: NetDeed) -> Fault {
        self.net(Rule::new(toward, at, deed))
    }

    /// Something is done at a moment.
    pub(crate) fn on(mut self, on: Trigger, does: Does) -> Fault {
        self.plan.reactions.push(Reaction { on, does });
        self
    }

    /// While this frame waits on its way, something is done; it goes on after `until`.
    pub(crate) fn while_waits(
        self,
        (toward, at): (Side, Point),
        does: Does,
        until: Option<Trigger>,
    ) -> Fault {
        let rule = self.plan.net.rules.len();
        let fault = self.at(toward, at, NetDeed::Gate).on(Trigger::Net(rule), does);
        fault.on(until.unwrap_or(Trigger::Net(rule)), Does::OpenGate)
    }

    /// This host's VMM does this while a frame waits that would let the migration go on.
    pub(crate) fn told_at(self, side: Side, point: (Side, Point), command: Command) -> Fault {
        self.while_waits(point, Does::Tell(side, command), Some(Trigger::Ended(side)))
    }

    /// This host ends so, for one of these reasons; or as a further call says.
    pub(crate) fn ends(mut self, side: Side, ending: Ending, causes: &[Cause]) -> Fault {
        let outcome = Outcome { ending, causes: causes.to_vec() };
        match side {
            Side::Source => self.promise.source.push(outcome),
            Side::Target => self.promise.target.push(outcome),
        }
        self
    }

    /// Both hosts end so: the migration completes.
    pub(crate) fn completes(self) -> Fault {
        self.ends(Side::Source, Ending::HandedOver, &[]).ends(Side::Target, Ending::Running, &[])
    }

    /// The guest runs on at the source, and nothing is left at the target; the host at which it was
    /// seen says why, and the other one that its peer gave up, or closed.
    pub(crate) fn returns(self, seen_by: Side, causes: &[Cause]) -> Fault {
        let (source, target) = match seen_by {
            Side::Source => (causes, HEARD),
            Side::Target => (HEARD, causes),
        };
        self.ends(Side::Source, Ending::Returned, source).ends(Side::Target, Ending::Blank, target)
    }

    /// And this is promised.
    pub(crate) fn also(mut self, also: Also) -> Fault {
        self.promise.also.push(also);
        self
    }
}

/// What the host is told that did not see it itself: the abort, or, where its stream was closed
/// first, the network.
pub(crate) const HEARD: &[Cause] = &[Cause::PeerAbort, Cause::Network];
