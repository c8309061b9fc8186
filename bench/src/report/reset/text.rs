//! The section as a person reads it.

use super::{Difference, Reset, Way, must_abort};
use crate::report::table::{Table, duration};
use crate::spec::{OnResetChoice, ResetAt, Size};

/// The section, for so many devices.
pub(crate) fn text(reset: &Reset, devices: u16) -> String {
    let chosen = match reset.on_reset {
        _ if must_abort(reset.at, reset.on_reset) => "abort",
        OnResetChoice::Restart => "restart",
        OnResetChoice::StopCopy | OnResetChoice::Abort => "stop-copy",
    };
    let mut text = format!(
        "reset of device 0 at {}, then {chosen}: {} of each, in turns\n\n",
        reset.at,
        match reset.rounds {
            1 => "1 round".to_owned(),
            rounds => format!("{rounds} rounds"),
        }
    );
    text += &table(reset, chosen);
    text +=
        "  medians; `state` is what was read from all devices, `all again` is both migrations\n\n";
    for (name, value) in lines(reset, devices) {
        text += &format!("  {name:<12} {value}\n");
    }
    text
}

fn table(reset: &Reset, chosen: &str) -> String {
    let mut table = Table::default();
    table.row(["", "downtime", "min", "total", "min", "state", "on the wire"]);
    table.row(way("no reset", &reset.without_reset));
    if let Some(with_reset) = &reset.with_reset {
        table.row(way(&format!("reset, {chosen}"), with_reset));
    }
    table.row(way("reset, all again", &reset.migrated_again));
    table.row(difference("the reset cost", &reset.cost));
    if let Some(saved) = &reset.saved {
        table.row(difference(&format!("{chosen} saved"), saved));
    }
    table.text()
}

fn way(name: &str, way: &Way) -> [String; 7] {
    [
        name.to_owned(),
        duration(way.downtime_ns.median),
        duration(way.downtime_ns.min),
        duration(way.total_ns.median),
        duration(way.total_ns.min),
        Size(way.read_bytes).to_string(),
        Size(way.wire_bytes).to_string(),
    ]
}

fn difference(name: &str, difference: &Difference) -> [String; 7] {
    [
        name.to_owned(),
        signed(difference.downtime_ns, duration),
        String::new(),
        signed(difference.total_ns, duration),
        String::new(),
        signed(difference.read_bytes, |bytes| Size(bytes).to_string()),
        signed(difference.wire_bytes, |bytes| Size(bytes).to_string()),
    ]
}

fn signed(value: i64, show: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { '-' } else { '+' };
    format!("{sign}{}", show(value.unsigned_abs()))
}

fn lines(reset: &Reset, devices: u16) -> Vec<(&'static str, String)> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (index, sight) in reset.seen.iter().enumerate() {
        let name = if index == 0 { "seen as" } else { "" };
        lines.push((name, format!("{} ({} of {})", sight.words(), sight.count, reset.rounds)));
    }
    lines.push((
        "told after",
        format!(
            "{}, {} at most: from the reset to the completion",
            duration(reset.told_after_ns.median),
            duration(reset.told_after_ns.max)
        ),
    ));
    match &reset.with_reset {
        Some(with_reset) => {
            let discarded = Size(reset.discarded_bytes);
            lines.push(("discarded", format!("{discarded} of device 0's state")));
            if devices > 1 {
                let (once, twice) = (with_reset, &reset.migrated_again);
                lines.push((
                    "the others",
                    format!(
                        "{} of state from {}; {} if all is sent again",
                        Size(once.other_devices_bytes),
                        match devices {
                            2 => "1 device".to_owned(),
                            _ => format!("{} devices", devices - 1),
                        },
                        Size(twice.other_devices_bytes)
                    ),
                ));
            }
        }
        None if !reset.as_chosen => {}
        None => {
            lines.push(("aborted", "the source's devices run again, the target was told".into()));
            if reset.at == ResetAt::Load && reset.on_reset != OnResetChoice::Abort {
                let why = "a reset of the target's device leaves the source with the whole state";
                lines.push(("", format!("({why}: it always ends so)")));
            }
        }
    }
    lines
}
