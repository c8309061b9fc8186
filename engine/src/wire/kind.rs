//! What a frame can be, and which header fields and body sizes each kind has.

#![forbid(unsafe_code)]

use std::fmt;

use crate::limits::{CONTROL_BODY_BYTES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX};

/// What a frame is. An integer, so that a kind of a later version survives parsing; bit 15 says
/// that a reader which does not know it may skip it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(pub u16);

/// Which header fields beyond those that all frames have, and which body, a kind has.
pub(super) enum Shape {
    /// A chunk of state; its lengths are the session's.
    Data,
    /// Everything else. `device` means device and epoch; lengths are in bytes.
    Control { device: bool, sequence: bool, body_min: u32, body_max: u32 },
}

/// Body of [`Kind::HELLO`] as version 1 writes it; later versions may write more. In bytes.
pub(super) const HELLO_BODY: usize = 40;
/// Body of [`Kind::ACCEPT`], in bytes.
pub(super) const ACCEPT_BODY: usize = 32;
/// Fixed part of [`Kind::BEGIN`]'s body, in bytes.
pub(super) const BEGIN_FIXED: usize = 8;
/// Fixed part of [`Kind::ABORT`]'s body, in bytes.
pub(super) const ABORT_FIXED: usize = 12;
/// Body of [`Kind::PHASE`], in bytes.
const PHASE_BODY: usize = 4;
/// Body of [`Kind::DISCARD`], in bytes.
const DISCARD_BODY: usize = 16;
/// Body of [`Kind::END`] and [`Kind::LOADED`], in bytes.
const TOTAL_BODY: usize = 24;

const BEGIN_MAX: usize = BEGIN_FIXED + NAME_BYTES_MAX + MESSAGE_BYTES_MAX;
const ABORT_MAX: usize = ABORT_FIXED + TEXT_BYTES_MAX;

const _: () = assert!(BEGIN_MAX <= CONTROL_BODY_BYTES_MAX && ABORT_MAX <= CONTROL_BODY_BYTES_MAX);

const fn control(device: bool, sequence: bool, body_min: usize, body_max: usize) -> Shape {
    Shape::Control { device, sequence, body_min: body_min as u32, body_max: body_max as u32 }
}

/// One row a kind, in the order of their numbers from 1.
static KINDS: [(&str, Shape); 17] = [
    ("hello", control(false, false, HELLO_BODY, CONTROL_BODY_BYTES_MAX)),
    ("accept", control(false, false, ACCEPT_BODY, ACCEPT_BODY)),
    ("begin", control(true, true, BEGIN_FIXED, BEGIN_MAX)),
    ("data", Shape::Data),
    ("phase", control(true, true, PHASE_BODY, PHASE_BODY)),
    ("initial_data_sent", control(true, true, 0, 0)),
    ("initial_data_loaded", control(true, false, 0, 0)),
    ("discard", control(true, true, DISCARD_BODY, DISCARD_BODY)),
    ("end", control(true, true, TOTAL_BODY, TOTAL_BODY)),
    ("loaded", control(true, false, TOTAL_BODY, TOTAL_BODY)),
    ("handover", control(false, false, 0, 0)),
    ("running", control(false, false, 0, 0)),
    ("credit", control(true, true, 0, 0)),
    ("abort", control(false, false, ABORT_FIXED, ABORT_MAX)),
    ("message", control(false, false, 0, MESSAGE_BYTES_MAX)),
    ("ping", control(false, true, 0, 0)),
    ("pong", control(false, true, 0, 0)),
];

/// The row of a kind; none if this version does not know it.
pub(super) fn shape(kind: Kind) -> Option<&'static Shape> {
    row(kind).map(|(_, shape)| shape)
}

fn row(kind: Kind) -> Option<&'static (&'static str, Shape)> {
    KINDS.get(usize::from(kind.0).checked_sub(1)?)
}

impl Kind {
    /// [`Frame::Hello`](super::Frame::Hello).
    pub const HELLO: Kind = Kind(1);
    /// [`Frame::Accept`](super::Frame::Accept).
    pub const ACCEPT: Kind = Kind(2);
    /// [`Frame::Begin`](super::Frame::Begin).
    pub const BEGIN: Kind = Kind(3);
    /// A chunk of state: [`DataHeader`](super::DataHeader).
    pub const DATA: Kind = Kind(4);
    /// [`Frame::Phase`](super::Frame::Phase).
    pub const PHASE: Kind = Kind(5);
    /// [`Frame::InitialDataSent`](super::Frame::InitialDataSent).
    pub const INITIAL_DATA_SENT: Kind = Kind(6);
    /// [`Frame::InitialDataLoaded`](super::Frame::InitialDataLoaded).
    pub const INITIAL_DATA_LOADED: Kind = Kind(7);
    /// [`Frame::Discard`](super::Frame::Discard).
    pub const DISCARD: Kind = Kind(8);
    /// [`Frame::End`](super::Frame::End).
    pub const END: Kind = Kind(9);
    /// [`Frame::Loaded`](super::Frame::Loaded).
    pub const LOADED: Kind = Kind(10);
    /// [`Frame::Handover`](super::Frame::Handover).
    pub const HANDOVER: Kind = Kind(11);
    /// [`Frame::Running`](super::Frame::Running).
    pub const RUNNING: Kind = Kind(12);
    /// [`Frame::Credit`](super::Frame::Credit).
    pub const CREDIT: Kind = Kind(13);
    /// [`Frame::Abort`](super::Frame::Abort).
    pub const ABORT: Kind = Kind(14);
    /// [`Frame::Message`](super::Frame::Message).
    pub const MESSAGE: Kind = Kind(15);
    /// [`Frame::Ping`](super::Frame::Ping).
    pub const PING: Kind = Kind(16);
    /// [`Frame::Pong`](super::Frame::Pong).
    pub const PONG: Kind = Kind(17);

    /// Zeros, to be skipped: [`padding`](super::padding). No version reads them.
    pub const PADDING: Kind = Kind(Kind::OPTIONAL_BIT);

    /// The bit that says: skip this frame if its kind is unknown.
    pub const OPTIONAL_BIT: u16 = 1 << 15;

    /// This version knows the kind.
    pub fn is_known(self) -> bool {
        row(self).is_some()
    }

    /// A reader that does not know the kind may skip the frame.
    pub fn is_optional(self) -> bool {
        self.0 & Kind::OPTIONAL_BIT != 0
    }

    /// The kinds that may travel before a version is agreed: their headers are of version 1 for
    /// ever, whatever version the session agrees on.
    pub(super) fn is_handshake(self) -> bool {
        matches!(self, Kind::HELLO | Kind::ACCEPT | Kind::ABORT)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match row(*self) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "kind {:#06x}", self.0),
        }
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({self})")
    }
}
