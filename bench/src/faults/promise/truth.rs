//! What an ending says is true, by the word of the devices; and that no two hosts run the guest.

use super::super::message::{DeviceSaid, Holds, Moved};
use super::super::plan::Plan;
use super::super::record::{HostRecord, Record};
use crate::engine::DeviceState;
use crate::spec::Side;

/// What is not true, a sentence each.
pub(super) fn broken(plan: &Plan, record: &Record) -> Vec<String> {
    let mut broken = Vec::new();
    for side in [Side::Source, Side::Target] {
        let host = record.host(side);
        let of_host = said(host).into_iter().chain(place(plan, record, side)).chain(process(host));
        broken.extend(of_host.map(|what| format!("{}: {what}", side.name())));
    }
    broken.extend(two_run(record).then(|| "both hosts ran the devices at once".to_owned()));
    broken
}

/// Whether the source has told the target to run, as far as it can know.
pub(super) fn handed_over(record: &Record) -> bool {
    matches!(record.source.ending(), Some("handed_over" | "unconfirmed"))
        || runs_loaded(&record.target)
}

fn runs_loaded(host: &HostRecord) -> bool {
    host.moved.iter().any(|(_, it)| it.holds == Holds::Loaded && it.state.is_running())
}

/// What is said of each device's state at the end is so.
fn said(host: &HostRecord) -> Vec<String> {
    let at_the_end =
        host.end.iter().flat_map(|(at, end)| end.devices.iter().map(move |said| (*at, said)));
    let later = host.came_back.iter().map(|(at, said)| (*at, said));
    let is_wrong = |(at, said): (u64, &DeviceSaid)| {
        let state = said.state.as_deref()?;
        let is = host.last_moved(said.device, at)?.state.name();
        let device = said.device;
        (state != is).then(|| format!("device {device} is said to be in {state}, and is in {is}"))
    };
    at_the_end.chain(later).filter_map(is_wrong).collect()
}

/// The devices are where the ending says.
fn place(plan: &Plan, record: &Record, side: Side) -> Vec<String> {
    let host = record.host(side);
    let Some((at, end)) = &host.end else { return Vec::new() };
    let count = plan.host(side).devices.len();
    let somebody_is_away = || match end.devices.iter().any(|said| !said.home) {
        true => Vec::new(),
        false => vec![format!("{}, and yet every device is said to be home", end.ending)],
    };
    let everybody_is_home = || match end.devices.iter().all(|said| said.home) {
        true => None,
        false => Some(format!("{}, and yet a device is not said to be home", end.ending)),
    };
    let each = |is_right: &dyn Fn(usize, Moved) -> bool| -> Vec<String> {
        (0..count)
            .filter_map(|device| {
                let Some(moved) = host.last_moved(device, *at) else {
                    return Some(format!("nothing is known of device {device}"));
                };
                let (ending, state, holds) = (&end.ending, moved.state, moved.holds);
                let wrong = !is_right(device, moved);
                wrong.then(|| format!("{ending}, and device {device} is in {state}, {holds:?}"))
            })
            .collect()
    };
    match end.ending.as_str() {
        "returned" => {
            let mut wrong = each(&|device, moved| {
                let was_reset = plan.source.resets()
                    || end.devices.iter().any(|said| said.device == device && said.was_reset);
                moved.state == plan.source.devices[device].found
                    && (moved.holds == Holds::Own || (was_reset && moved.holds == Holds::Blank))
            });
            wrong.extend(everybody_is_home());
            wrong
        }
        "not_returned" | "not_blank" => somebody_is_away(),
        // It is on its way to STOP: what nobody knows yet is what a driver holds.
        "handed_over" | "unconfirmed" => each(&|_, moved| !moved.state.is_running()),
        "running" => {
            let mut wrong = each(&|_, moved| {
                moved.state == DeviceState::Running && moved.holds == Holds::Loaded
            });
            wrong.extend(other_state(record));
            wrong
        }
        "blank" => {
            let mut wrong = each(&|_, moved| {
                moved.state == DeviceState::Running
                    && matches!(moved.holds, Holds::Own | Holds::Blank)
            });
            wrong.extend(everybody_is_home());
            wrong
        }
        other => vec![format!("there is no such ending: {other}")],
    }
}

/// The target's devices have what the source's gave, to the byte.
fn other_state(record: &Record) -> Option<String> {
    let target = &record.target.left.as_ref()?.digests;
    if target.iter().any(Option::is_none) {
        return Some("a device that runs has no whole state".to_owned());
    }
    // A source that was killed says nothing any more.
    let source = &record.source.left.as_ref()?.digests;
    (source != target).then(|| "the loaded state is not the source's".to_owned())
}

/// The process itself behaved.
fn process(host: &HostRecord) -> Vec<String> {
    let mut wrong = Vec::new();
    if host.killed_ns.is_some() {
        return wrong;
    }
    if let Some(exit) = host.exit.as_ref().filter(|exit| !exit.contains("exit status: 0")) {
        wrong.push(format!("the process ended with {exit}"));
    }
    if host.left.as_ref().is_some_and(|left| left.strangers > 0) {
        wrong.push("two threads used one data fd".to_owned());
    }
    wrong
}

/// Whether a device of the source ran while one of the target did, with the source's state.
fn two_run(record: &Record) -> bool {
    let here = spans(&record.source, |moved| moved.state.is_running());
    let there =
        spans(&record.target, |moved| moved.state.is_running() && moved.holds == Holds::Loaded);
    here.iter().any(|(from, to)| there.iter().any(|(since, until)| from < until && since < to))
}

/// When a device of the host was so.
fn spans(host: &HostRecord, is_so: impl Fn(&Moved) -> bool) -> Vec<(u64, u64)> {
    let mut spans = Vec::new();
    let dead_ns = host.killed_ns.unwrap_or(u64::MAX);
    for (place, (from, moved)) in host.moved.iter().enumerate() {
        if is_so(moved) {
            let of_it = |(_, later): &&(u64, Moved)| later.device == moved.device;
            let until = host.moved[place + 1..].iter().find(of_it).map_or(dead_ns, |(at, _)| *at);
            spans.push((*from, until));
        }
    }
    spans
}
