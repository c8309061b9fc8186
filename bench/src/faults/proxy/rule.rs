//! What the network does, and at which frame.

use super::frame::{Frame, Kind};
use crate::spec::Side;

/// A frame on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    /// Of this kind.
    Frame(Kind),
    /// The one that says that STOP_COPY begins.
    StopCopy,
    /// Any on the connection with this number.
    Connection(usize),
}

/// What happens there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// The frame is lost, those before and after it are not.
    Lose,
    /// A bit of it is flipped.
    Flip,
    /// Every connection is closed, in both directions.
    Cut,
    /// This connection is.
    CutOne,
    /// Nothing passes any more, in either direction, and nobody is told: a cable is out.
    Silence,
    /// From here on one byte passes each 120 ms, in this direction.
    Trickle,
    /// From here on nothing but pings and their answers is said, in this direction.
    OnlyPings,
    /// From here on this is never said, in this direction.
    Withhold(Point),
    /// It waits until the runner lets it pass.
    Gate,
    /// An abort with these words comes before it.
    Abort(&'static str),
    /// So many discards of device 0 come before it.
    Discards(u32),
}

/// One deed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Frames that go to this host.
    pub(crate) toward: Side,
    /// At which one.
    pub(crate) at: Point,
    /// How many such frames pass before.
    pub(crate) skip: u32,
    /// What happens.
    pub(crate) deed: Deed,
}

impl Rule {
    /// At the first such frame.
    pub(crate) fn new(toward: Side, at: Point, deed: Deed) -> Rule {
        Rule { toward, at, skip: 0, deed }
    }
}

impl Point {
    fn is(self, connection: usize, frame: &Frame) -> bool {
        match self {
            Point::Frame(kind) => frame.is(kind),
            Point::StopCopy => frame.begins_stop_copy(),
            Point::Connection(number) => connection == number,
        }
    }
}

/// The rules, and how far they have come.
pub(super) struct Rules(Vec<(Rule, Progress)>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    ToSkip(u32),
    Struck,
}

/// How a frame travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// As it is.
    Said,
    /// Byte by byte.
    Trickling,
    /// Not at all, and the next one's number shows that it is missing.
    Lost,
    /// It was never said.
    Unsaid,
    /// Nothing travels any more.
    Silent,
}

/// What becomes of a frame.
pub(super) struct Verdict {
    /// The rule whose moment this is, by its place.
    pub(super) struck: Option<(usize, Deed)>,
    /// How the frame then travels.
    pub(super) mode: Mode,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Rules {
        Rules(rules.into_iter().map(|rule| (rule.clone(), Progress::ToSkip(rule.skip))).collect())
    }

    /// Says what becomes of the next frame of a connection.
    pub(super) fn judge(&mut self, toward: Side, connection: usize, frame: &Frame) -> Verdict {
        let struck = self.strike(toward, connection, frame);
        let in_force = self.0.iter().filter(|(_, progress)| *progress == Progress::Struck);
        let mut modes = in_force.filter_map(|(rule, _)| {
            let concerns = rule.toward == toward;
            match &rule.deed {
                Deed::Silence => Some(Mode::Silent),
                Deed::Trickle if concerns => Some(Mode::Trickling),
                Deed::Withhold(point) if concerns && point.is(connection, frame) => {
                    Some(Mode::Unsaid)
                }
                Deed::OnlyPings if concerns && !(frame.is(Kind::Ping) || frame.is(Kind::Pong)) => {
                    Some(Mode::Unsaid)
                }
                _ => None,
            }
        });
        let mode = match &struck {
            Some((_, Deed::Lose)) => Some(Mode::Lost),
            _ => modes.next_back(),
        };
        Verdict { struck, mode: mode.unwrap_or(Mode::Said) }
    }

    fn strike(&mut self, toward: Side, connection: usize, frame: &Frame) -> Option<(usize, Deed)> {
        for (place, (rule, progress)) in self.0.iter_mut().enumerate() {
            if rule.toward != toward || !rule.at.is(connection, frame) {
                continue;
            }
            match *progress {
                Progress::ToSkip(0) => {
                    *progress = Progress::Struck;
                    return Some((place, rule.deed.clone()));
                }
                Progress::ToSkip(left) => *progress = Progress::ToSkip(left - 1),
                Progress::Struck => {}
            }
        }
        None
    }

    /// Whether a host is not even told that the other one has closed its end: a cable is out, or
    /// the other one lives and does not say what it owes.
    pub(super) fn hides_the_end(&self, toward: Side) -> bool {
        let hides = |rule: &Rule| match rule.deed {
            Deed::Silence => true,
            Deed::OnlyPings | Deed::Withhold(_) => rule.toward == toward,
            _ => false,
        };
        self.0.iter().any(|(rule, progress)| *progress == Progress::Struck && hides(rule))
    }
}
