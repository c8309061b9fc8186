//! The tables of stages, pinned and printed.

use super::*;

/// Holds a host's tables against the committed grid; `wants` is the grid of its requests.
pub(crate) fn check_grid<S: Stages>(stages: &[S], wants: &str, file: &str) {
    pinned(file, &(grid(stages) + wants));
}

/// Holds the diagram in a source file's text against the table. What leads to an end other than a
/// discard or an abort is shown.
pub(crate) fn check_diagram<S: Stages>(source: &str) {
    let diagram = diagram::<S>();
    let shown = source.lines().filter_map(|line| line.strip_prefix("//! "));
    let shown: Vec<&str> = shown.filter(|line| line.contains(" --")).collect();
    let until = S::ARCS.iter().position(|arc| arc.on == On::Discard).expect("a discard");
    let rows: Vec<&str> = diagram.lines().take(until).collect();
    assert_eq!(shown, rows);
}

/// The diagram of a table, a line for each row.
fn diagram<S: Stages>() -> String {
    let lines = S::ARCS.iter().map(|arc| {
        let from: Vec<String> = arc.from.iter().map(|stage| format!("{stage:?}")).collect();
        let fd = match arc.fd {
            Fd::New => ", data fd",
            Fd::NewUnlessOpen => ", data fd unless open",
            Fd::None | Fd::Ignored => "",
        };
        format!("{} --{}{fd}--> {:?}\n", from.join(" "), arc.on, arc.to)
    });
    lines.collect()
}

/// The full grid of a table: what follows in every stage on everything that may happen, with and
/// without a data fd given and one open. Stages in which nothing may happen on it are left out.
fn grid<S: Stages>(stages: &[S]) -> String {
    let mut all = vec![On::Begin, On::Confirmed, On::Handover, On::Discard, On::Reuse];
    all.extend([On::Closed, On::Back, On::Abort]);
    all.extend(DeviceState::ALL.map(On::Set));
    all.extend(DeviceState::ALL.map(On::Found));
    let mut text = String::from(
        "# stage, event: next stage. SET_STATE: no fd | given | one is open | given and one is open\n",
    );
    for stage in stages {
        for on in &all {
            let fds = [(false, false), (true, false), (false, true), (true, true)];
            let fds = if matches!(on, On::Set(_)) { &fds[..] } else { &fds[..1] };
            let cell = |(given, open): &(bool, bool)| match stage.next(*on, *given, *open) {
                Next::To(stage) => format!("{stage:?}"),
                Next::UnexpectedFd => "unexpected fd".to_owned(),
                Next::None => "-".to_owned(),
            };
            let cells: Vec<String> = fds.iter().map(cell).collect();
            if cells.iter().any(|cell| cell != "-") {
                text.push_str(&format!("{stage:?}, {on}: {}\n", cells.join(" | ")));
            }
        }
    }
    text
}

/// Holds a text against a committed file. UPDATE_SNAPSHOTS=1 writes it.
fn pinned(file: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let committed = std::fs::read_to_string(&path).expect("the committed text");
    for (line, (now, committed)) in text.lines().zip(committed.lines()).enumerate() {
        assert_eq!(now, committed, "{file}, line {}", line + 1);
    }
    assert_eq!(text.lines().count(), committed.lines().count(), "{file}");
}
