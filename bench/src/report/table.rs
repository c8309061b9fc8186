//! The report as a person reads it.

use super::run::{Runs, guest_runs_in};
use super::spread::Spread;
use crate::spec::{Rate, Size};

/// Rows of cells in aligned columns: the first to the left, the others to the right.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    /// Adds a row.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.push(cells.into_iter().map(Into::into).collect());
    }

    /// Adds a row in front of all others.
    pub(crate) fn head<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.insert(0, cells.into_iter().map(Into::into).collect());
    }

    /// The text, indented, a line each row.
    pub(crate) fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::from(" ");
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line += &match column {
                    0 => format!(" {cell:<width$}"),
                    _ => format!("   {cell:>width$}"),
                };
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// The report of several runs of one kind. What a side does not know is left out.
pub(crate) fn runs(runs: &Runs) -> String {
    let one = runs.runs == 1;
    let mut times = Table::default();
    let mut time = |name: &str, spread: &Spread| match (one, spread.max) {
        (_, 0) => {}
        (true, _) => times.row([name.to_owned(), duration(spread.median)]),
        (false, _) => times.row([
            name.to_owned(),
            duration(spread.median),
            duration(spread.min),
            duration(spread.max),
        ]),
    };
    // A target that has no clock in common with its source knows no downtime.
    let knows_downtime = runs.downtime_ns.max > 0;
    let (before, stopped): (Vec<_>, Vec<_>) =
        runs.phases_ns.iter().partition(|(name, _)| guest_runs_in(name));
    for (name, spread) in before {
        time(name, spread);
    }
    time("downtime", &runs.downtime_ns);
    for (name, spread) in stopped {
        let indent = if knows_downtime { "  " } else { "" };
        time(&format!("{indent}{name}"), spread);
    }
    time("total", &runs.total_ns);
    if !one {
        times.head(["", "median", "min", "max"]);
    }
    let mut text = times.text();
    text += &overlap(runs);
    text.push('\n');
    for (name, value) in lines(runs) {
        text += &format!("  {name:<12} {value}\n");
    }
    text
}

fn lines(runs: &Runs) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("state", Size(runs.state_bytes).to_string()),
        ("on the wire", format!("{}, {}", Size(runs.wire_bytes), ratio(runs))),
        ("throughput", Rate(runs.throughput_bytes_per_s).to_string()),
    ];
    if let Some(forecast) = &runs.forecast {
        lines.push((
            "forecast",
            format!(
                "{}; {:.2} times as much came; within 10 % or 2 ms in {} of {}",
                duration(forecast.downtime_ns.median),
                forecast.came_over_forecast,
                forecast.good,
                forecast.runs
            ),
        ));
    }
    lines.push((
        "cpu",
        match runs.device_cpu_ns {
            0 => duration(runs.cpu_ns),
            device => format!(
                "{} in both processes, of which the test device {}",
                duration(runs.cpu_ns),
                duration(device)
            ),
        },
    ));
    let sides = [("source", runs.peak_rss_source_bytes), ("target", runs.peak_rss_target_bytes)];
    let memory: Vec<String> = sides
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(side, bytes)| format!("{side} {}", Size(*bytes)))
        .collect();
    lines.push(("peak memory", memory.join(", ")));
    lines.push(("backend", runs.backend.clone()));
    lines.push(("congestion", runs.tcp_congestion.clone()));
    if runs.protection != "none" {
        let words = match runs.protection.as_str() {
            "tls_kernel" => "TLS, sealed and opened by the kernel",
            "tls_user_space" => "TLS, sealed and opened by the engine",
            other => other,
        };
        lines.push(("protection", words.to_owned()));
    }
    if runs.resets > 0 {
        let discarded = match runs.discarded_bytes {
            0 => String::new(),
            bytes => format!("; {} of state sent in vain", Size(bytes)),
        };
        lines.push(("resets", format!("{}{discarded}", runs.resets)));
    }
    lines
}

/// That the phases are not the downtime's parts, where they are not.
fn overlap(runs: &Runs) -> String {
    match runs.phases_overlap_ns {
        0 => String::new(),
        ns => format!(
            "\n  phases overlap by {}: each is that of the device which was longest in it, and\n  resume is \
             the target's part of handover\n",
            duration(ns)
        ),
    }
}

/// State over wire. What was sent in vain is on both sides of it: the bytes on the wire have it.
fn ratio(runs: &Runs) -> String {
    match runs.ratio {
        0.0 => "-".to_owned(),
        ratio => format!("ratio {ratio:.2}"),
    }
}

/// A duration to four digits or so.
pub(crate) fn duration(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{:.2} us", ns as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} ms", ns as f64 / 1e6),
        _ => format!("{:.3} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.row(["", "median"]);
        table.row(["downtime", "1.00 ms"]);
        assert_eq!(table.text(), "              median\n  downtime   1.00 ms\n");
    }

    #[test]
    fn durations() {
        assert_eq!(duration(0), "0.00 us");
        assert_eq!(duration(85_400), "85 us");
        assert_eq!(duration(312_456_789), "312.46 ms");
        assert_eq!(duration(2_000_000_000), "2.000 s");
    }
}
