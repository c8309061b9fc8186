//! What is known of a run: what each host was told, and what its devices say of themselves.

use super::message::{Command, DeviceSaid, End, HostEvent, Left, Moved, What};
use super::plan::Plan;
use crate::engine::DeviceState;
use crate::spec::Side;

/// A run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    /// The source's host.
    pub(crate) source: HostRecord,
    /// The target's.
    pub(crate) target: HostRecord,
    /// When the fault came, on CLOCK_MONOTONIC: the first of them.
    pub(crate) struck_ns: Option<u64>,
    /// A process could not be started, or the runner's patience was over.
    pub(crate) failure: Option<String>,
}

/// A host.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostRecord {
    /// Why its session could not be started.
    pub(crate) refused: Option<String>,
    /// When the guest was stopped.
    pub(crate) switchover_ns: Option<u64>,
    /// The states that its drivers were asked for.
    pub(crate) asked: Vec<(u64, usize, DeviceState)>,
    /// Where its devices were, and whose state they had.
    pub(crate) moved: Vec<(u64, Moved)>,
    /// How its session ended.
    pub(crate) end: Option<(u64, End)>,
    /// Late devices that came back.
    pub(crate) came_back: Vec<(u64, DeviceSaid)>,
    /// When its session was dropped.
    pub(crate) dropped_ns: Option<u64>,
    /// When it was killed.
    pub(crate) killed_ns: Option<u64>,
    /// What was left of it.
    pub(crate) left: Option<Left>,
    /// How its process ended.
    pub(crate) exit: Option<String>,
}

impl Record {
    /// A host.
    pub(crate) fn host(&self, side: Side) -> &HostRecord {
        match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// A host, to be added to.
    pub(crate) fn host_mut(&mut self, side: Side) -> &mut HostRecord {
        match side {
            Side::Source => &mut self.source,
            Side::Target => &mut self.target,
        }
    }

    /// Takes in that the fault came.
    pub(crate) fn strike(&mut self, at_ns: u64) {
        self.struck_ns.get_or_insert(at_ns);
    }

    /// Takes in what a host said.
    pub(crate) fn take(&mut self, side: Side, event: HostEvent) {
        let HostEvent { at_ns, what } = event;
        if what == What::Struck {
            return self.strike(at_ns);
        }
        let host = self.host_mut(side);
        match what {
            What::Refused(why) => host.refused = Some(why),
            What::Switchover => host.switchover_ns = Some(at_ns),
            What::Asked { device, state } => host.asked.push((at_ns, device, state)),
            What::Moved(moved) => host.moved.push((at_ns, moved)),
            What::Finished(end) => host.end = Some((at_ns, *end)),
            What::CameBack(said) => host.came_back.push((at_ns, said)),
            What::Done(Command::Drop) => host.dropped_ns = Some(at_ns),
            What::Left(left) => host.left = Some(left),
            What::Listening(_)
            | What::Started
            | What::Connected
            | What::Phase(_)
            | What::Struck
            | What::Done(_) => {}
        }
    }

    /// How long the guest stood still: from its stop until it could run on somewhere. Where nobody
    /// could know that it may, until its VMM was told so. None: it was never stopped.
    pub(crate) fn still_ns(&self, plan: &Plan) -> Option<u64> {
        let stopped = self.source.switchover_ns?;
        if plan.source.devices.iter().any(|device| !device.found.is_running()) {
            return None;
        }
        let runs_there = self.target.end.as_ref().filter(|(_, end)| end.ending == "running");
        let told = self.source.end.as_ref().map(|(at, _)| *at);
        let back = self.source.came_back.iter().map(|(at, _)| *at).max();
        let until = match (runs_there, self.source.ending()) {
            (Some((at, _)), _) => Some(*at),
            (None, Some("not_returned")) => back.or(told),
            _ => told.or(self.source.dropped_ns).or(self.source.killed_ns),
        };
        until.map(|until| until.saturating_sub(stopped))
    }

    /// What explains that the guest stood still for so long: limits that struck, and slow drivers.
    pub(crate) fn explained(&self, plan: &Plan) -> String {
        let mut why: Vec<String> = Vec::new();
        for side in [Side::Source, Side::Target] {
            let Some((_, end)) = &self.host(side).end else { continue };
            if end.cause.as_deref() == Some("time_limit") {
                let name = end.message.split(" is over").next().unwrap_or_default();
                why.push(name.trim().to_owned());
            }
            let limits = &plan.host(side).choices.limits;
            let silent = end.message.starts_with("the peer was silent");
            if let (true, Some(silence)) = (silent, limits.peer_silence) {
                why.push(format!("peer_silence ({silence})"));
            }
            let bounded = ["not_returned", "not_blank"].contains(&end.ending.as_str())
                || (end.ending == "unconfirmed" && end.cause.as_deref() == Some("cancelled"));
            if let (true, Some(bound)) = (bounded, limits.cancel_bound) {
                why.push(format!("cancel_bound ({bound})"));
            }
            let late = plan.host(side).late_ms();
            if late > 0 {
                why.push(format!("the driver ({late} ms)"));
            }
        }
        why.dedup();
        why.join(" + ")
    }
}

impl HostRecord {
    /// The ending's name; none before the end.
    pub(crate) fn ending(&self) -> Option<&str> {
        self.end.as_ref().map(|(_, end)| end.ending.as_str())
    }

    /// Where a device was last, before this time.
    pub(crate) fn last_moved(&self, device: usize, before_ns: u64) -> Option<Moved> {
        let of_it = |(at, moved): &&(u64, Moved)| moved.device == device && *at <= before_ns;
        self.moved.iter().rev().find(of_it).map(|(_, moved)| *moved)
    }

    /// Where each device ended.
    pub(crate) fn places(&self) -> Vec<Moved> {
        let count = self.moved.iter().map(|(_, moved)| moved.device + 1).max().unwrap_or(0);
        (0..count).filter_map(|device| self.last_moved(device, u64::MAX)).collect()
    }

    /// Devices that were not where they belong at the end, or of which nobody knew, and that have not
    /// come back.
    pub(crate) fn late(&self) -> usize {
        let Some((_, end)) = &self.end else { return 0 };
        let is_away = ["not_returned", "not_blank"].contains(&end.ending.as_str());
        let is_late = |said: &&DeviceSaid| {
            let back = |(_, back): &(u64, DeviceSaid)| back.device == said.device;
            !said.home && (is_away || said.state.is_none()) && !self.came_back.iter().any(back)
        };
        end.devices.iter().filter(is_late).count()
    }
}
