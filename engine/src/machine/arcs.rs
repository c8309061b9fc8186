//! How a table of stages is read: where a device rests, what moves it on, and where to. Each host
//! has a table of its own, `ARCS` in its `stage.rs`; the diagrams in the documentation and the
//! pinned grids are printed from them.

use std::fmt;

use crate::vfio::state::DeviceState;

/// What moves a device from one stage to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    /// Its begin frame was queued (source) or is next in order (target).
    Begin,
    /// SET_STATE succeeded.
    Set(DeviceState),
    /// GET_STATE, asked because the stage wanted it, found this state.
    Found(DeviceState),
    /// The target has confirmed the whole state.
    Confirmed,
    /// The session was handed over.
    Handover,
    /// Its epoch was discarded: it is brought back.
    Discard,
    /// Its epoch was discarded, and SET_STATE has already opened the next one's data fd.
    Reuse,
    /// The old epoch's data fd is closed.
    Closed,
    /// It is back in RUNNING.
    Back,
    /// The session is given up.
    Abort,
}

/// The data fd that a SET_STATE must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fd {
    /// None.
    None,
    /// A new one.
    New,
    /// A new one, unless one is open already: the saving states share theirs.
    NewUnlessOpen,
    /// Whatever: it is not used.
    Ignored,
}

/// One row: from any of these stages, on this, to that one.
#[derive(Debug)]
pub(crate) struct Arc<S: 'static> {
    pub(crate) from: &'static [S],
    pub(crate) on: On,
    pub(crate) fd: Fd,
    pub(crate) to: S,
}

/// What a table says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next<S> {
    /// The device is in this stage now.
    To(S),
    /// SET_STATE inside the saving states gave a new fd: the session that was open had died.
    UnexpectedFd,
    /// No row: this may not happen here.
    None,
}

/// Looks a stage up. `given`: SET_STATE gave a data fd; `open`: the device has one.
pub(crate) fn next<S: Copy + PartialEq>(
    arcs: &[Arc<S>],
    stage: S,
    on: On,
    given: bool,
    open: bool,
) -> Next<S> {
    let Some(arc) = arcs.iter().find(|arc| arc.on == on && arc.from.contains(&stage)) else {
        return Next::None;
    };
    let right = match arc.fd {
        Fd::None => !given,
        Fd::New => given,
        Fd::NewUnlessOpen => given != open,
        Fd::Ignored => true,
    };
    match (right, given && open) {
        (true, _) => Next::To(arc.to),
        (false, true) => Next::UnexpectedFd,
        (false, false) => Next::None,
    }
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            On::Begin => f.write_str("begin"),
            On::Set(state) => write!(f, "SET_STATE({state})"),
            On::Found(state) => write!(f, "GET_STATE == {state}"),
            On::Confirmed => f.write_str("loaded frame"),
            On::Handover => f.write_str("handover"),
            On::Discard => f.write_str("discard"),
            On::Reuse => f.write_str("discard, new data fd"),
            On::Closed => f.write_str("old data fd closed"),
            On::Back => f.write_str("back in RUNNING"),
            On::Abort => f.write_str("abort"),
        }
    }
}

/// The diagram of a table, a line for each row.
#[cfg(test)]
pub(crate) fn diagram<S: fmt::Debug>(arcs: &[Arc<S>]) -> String {
    let lines = arcs.iter().map(|arc| {
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
#[cfg(test)]
pub(crate) fn grid<S: Copy + PartialEq + fmt::Debug>(stages: &[S], arcs: &[Arc<S>]) -> String {
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
            let cell = |(given, open): &(bool, bool)| match next(arcs, *stage, *on, *given, *open) {
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

/// Holds a text against a committed file, or against the lines between two marks of one.
/// UPDATE_SNAPSHOTS=1 writes it.
#[cfg(test)]
pub(crate) fn pinned(file: &str, text: &str) {
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
