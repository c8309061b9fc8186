//! The grid as a person reads it: a row a cell, a column a contender.

use super::cell::Cell;
use super::link_name;
use crate::report::table::{Table, duration};
use crate::spec::{Entrant, Size};

/// The table.
pub(crate) fn text(cells: &[Cell], contenders: &[Entrant]) -> String {
    let mut table = Table::default();
    let mut head = vec![String::new(), "state".to_owned()];
    head.extend(contenders.iter().map(Entrant::to_string));
    head.extend(["share", "peer", "rounds"].map(str::to_owned));
    table.row(head);
    for cell in cells {
        let place = &cell.place;
        let mut row =
            vec![format!("{}, {}", link_name(place.link), place.data), place.state.to_string()];
        row.extend(contenders.iter().map(|&who| downtime(cell, who)));
        let ratio = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |it| format!("{it:.2}"));
        row.extend([ratio(cell.share()), ratio(cell.peer())]);
        let rounds = cell.entries.iter().map(|entry| entry.runs.len()).max().unwrap_or(0);
        row.push(format!("{rounds}{}", if cell.settled { "" } else { "~" }));
        table.row(row);
    }
    table.text()
}

fn downtime(cell: &Cell, who: Entrant) -> String {
    match cell.entries.iter().find(|entry| entry.contender == who) {
        None => "-".to_owned(),
        Some(entry) if entry.fault.is_some() => "FAILED".to_owned(),
        Some(entry) => duration(entry.downtime_ns),
    }
}

/// What stands below it.
pub(crate) fn legend() -> &'static str {
    "\n  medians of the downtime; share: the best fixed policy's over adaptive's; peer: the best other\n  \
     program's over adaptive's, less than 1 is faster; rounds~: medians that may still move\n"
}

/// Shares and peers by the size of the state, worst and mean.
pub(crate) fn summary(cells: &[Cell]) -> String {
    let mut sizes: Vec<Size> = cells.iter().map(|cell| cell.place.state).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let mut table = Table::default();
    table.row(["", "worst share", "mean", "worst peer", "mean", "cells"]);
    for size in sizes {
        let these: Vec<&Cell> = cells.iter().filter(|cell| cell.place.state == size).collect();
        let mut row = vec![size.to_string()];
        for of in [Cell::share, Cell::peer] {
            let values: Vec<f64> = these.iter().filter_map(|cell| of(cell)).collect();
            let worst = values.iter().copied().reduce(f64::min);
            let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
            row.push(worst.map_or("-".to_owned(), |worst| format!("{worst:.2}")));
            row.push(worst.map_or("-".to_owned(), |_| format!("{mean:.2}")));
        }
        row.push(these.len().to_string());
        table.row(row);
    }
    let mut text = format!("\n{}", table.text());
    let forecasts: Vec<bool> = cells.iter().flat_map(Cell::forecasts).collect();
    if !forecasts.is_empty() {
        let good = forecasts.iter().filter(|&&good| good).count();
        text += &format!(
            "\n  the forecast was within 10 % of the downtime, or 2 ms, in {good} of {} runs\n",
            forecasts.len()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::{cell, entry};
    use super::*;

    #[test]
    fn a_row_has_every_contender() {
        let mut failed = entry(Entrant::ALL[2], &[7]);
        failed.fault = Some("it differs".to_owned());
        let mut one = cell(vec![
            entry(Entrant::ALL[0], &[10]),
            entry(Entrant::ALL[1], &[8, 9, 10]),
            failed,
            entry(Entrant::ALL[5], &[20]),
        ]);
        one.settled = false;
        let text = text(&[one.clone()], &Entrant::ALL[..6]);
        let row = text.lines().nth(1).unwrap_or_default();
        for words in ["none, zero", "1 MiB", "10.00 ms", "9.00 ms", "FAILED", "0.90", "2.00", "3~"]
        {
            assert!(row.contains(words), "{words} is not in\n{text}");
        }
        let sum = summary(&[one.clone(), one]);
        assert!(sum.contains("1 MiB") && sum.contains("0.90") && sum.ends_with("2\n"), "{sum}");
    }
}
