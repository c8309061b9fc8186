//! The peer as a machine sees it: which streams to it are idle, what control frames wait for one,
//! and whether it is still there.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Action, NO_LIMIT_NS, Outgoing, Turn, Wait, Waits};
use crate::ids::StreamId;
use crate::limits;
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::wire::{Frame, Kind};

/// A peer that gives up says why on every stream. After one of them broke without that, its abort
/// frame may still arrive on another: the machine waits silence / 32 for it, and a second where a
/// peer may be silent for ever.
const LAST_WORD_PART: u64 = 32;
const LAST_WORD_NS_MAX: u64 = 1_000_000_000;
/// A peer is pinged when nothing has come from it for silence / 4, or gone to it: it may be busy with
/// one long frame, and say nothing meanwhile.
const PING_PART: u64 = 4;

/// How a session watches its peer.
#[derive(Debug, Clone, Copy)]
pub struct PeerConfig {
    /// Number of streams.
    pub streams: u16,
    /// How long the peer may stay silent, in nanoseconds.
    pub silence_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Idle,
    Sending,
    Lost,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Peer {
    streams: Vec<Stream>,
    /// Frames that go out on one certain stream.
    fixed: VecDeque<(StreamId, Frame)>,
    control: VecDeque<Frame>,
    /// The peer understands more than the handshake.
    open: bool,
    /// The last frame was given.
    last: bool,
    silence_ns: u64,
    heard_ns: u64,
    said_ns: u64,
    pinged_ns: u64,
    pings: u64,
    /// Why the first stream that broke did so.
    broken: Option<Fault>,
    /// Only the peer's last word is still to come: any one stream can bring it.
    parting: bool,
    watched: bool,
    /// Bytes of unfinished frames since the last that counted as progress.
    part_bytes: u64,
    waits: Waits,
}

impl Peer {
    /// All streams idle. Nobody watches whether the peer is there before [`watch`](Self::watch).
    pub(crate) fn new(config: PeerConfig) -> Peer {
        Peer {
            streams: vec![Stream::Idle; usize::from(config.streams)],
            fixed: VecDeque::new(),
            control: VecDeque::new(),
            open: false,
            last: false,
            silence_ns: config.silence_ns,
            heard_ns: 0,
            said_ns: 0,
            pinged_ns: 0,
            pings: 0,
            broken: None,
            parting: false,
            watched: false,
            part_bytes: 0,
            waits: Waits::default(),
        }
    }

    /// Number of streams.
    pub(crate) fn streams(&self) -> usize {
        self.streams.len()
    }

    /// A frame that goes out on just this stream, before others and in order with those given
    /// here: the handshake, and what must not overtake or be overtaken.
    pub(crate) fn queue_on(&mut self, stream: StreamId, frame: Frame) {
        if !self.last {
            self.fixed.push_back((stream, frame));
        }
    }

    /// The handshake is over as far as this side can tell: other frames may go out.
    pub(crate) fn open(&mut self, turn: &Turn) {
        if !std::mem::replace(&mut self.open, true) {
            self.pinged_ns = turn.now_ns;
            self.ping_later();
        }
    }

    /// A frame for whichever stream is idle first, once the handshake is over.
    pub(crate) fn queue(&mut self, frame: Frame) {
        if !self.last {
            self.control.push_back(frame);
        }
    }

    /// Answers a ping on its own stream, so that the answer, too, shows a frame that was lost there;
    /// on any before the session is open.
    pub(crate) fn pong(&mut self, stream: StreamId, number: u64) {
        match self.open {
            true => self.queue_on(stream, Frame::Pong(number)),
            false => self.queue(Frame::Pong(number)),
        }
    }

    /// The embedder's bytes, as [`queue`](Self::queue). A fault beyond the bound on those that wait:
    /// the session tells its embedder before it comes to that.
    pub(crate) fn queue_message(&mut self, bytes: Bytes) -> Result<(), Fault> {
        let max = limits::MESSAGES_WAITING_MAX;
        if self.control.len() - self.answers() >= max {
            return Err(Fault::session(
                Cause::Local,
                Observation::Embedder,
                format!("{max} messages of the embedder already wait for the peer to read"),
            ));
        }
        self.queue(Frame::Message(bytes));
        Ok(())
    }

    /// Drops the waiting frames and puts this one in their place, on every stream: whichever of
    /// them the peer sees end first, it has read there why. Nothing is sent after it.
    pub(crate) fn queue_last(&mut self, frame: Frame) {
        self.control.clear();
        self.fixed = (0..self.streams.len())
            .filter(|&index| self.streams[index] != Stream::Lost)
            .map(|index| (StreamId(index as u16), frame.clone()))
            .collect();
        self.open = true;
        self.last = true;
    }

    /// Whether this frame waits for a stream.
    pub(crate) fn holds(&self, frame: &Frame) -> bool {
        self.control.contains(frame)
    }

    /// Part of a frame has travelled. True whenever that has come to as much as counts.
    pub(crate) fn part_moved(&mut self, bytes: u32) -> bool {
        self.part_bytes += u64::from(bytes);
        let moved = self.part_bytes >= limits::PROGRESS_BYTES_MIN;
        if moved {
            self.part_bytes = 0;
        }
        moved
    }

    /// Takes a waiting frame out again. False if it is not waiting: it may have reached the peer.
    pub(crate) fn take_back(&mut self, frame: &Frame) -> bool {
        let waiting = self.control.len();
        self.control.retain(|each| each != frame);
        self.control.len() < waiting
    }

    /// A peer that makes this side answer without reading the answers: there is a bound to that.
    pub(crate) fn check_flood(&self) -> Result<(), Breach> {
        let max = limits::ANSWERS_WAITING_MAX;
        let flooded = self.answers() + self.fixed.len() > max;
        if flooded { Err(Breach::Answers { max }) } else { Ok(()) }
    }

    fn answers(&self) -> usize {
        self.control.iter().filter(|frame| frame.kind() != Kind::MESSAGE).count()
    }

    /// Whether everything that was queued is sent, or no stream is left that could take it.
    pub(crate) fn is_told(&self) -> bool {
        let out = self.fixed.is_empty() && self.control.is_empty();
        self.is_lost() || (out && !self.streams.contains(&Stream::Sending))
    }

    /// Whether all streams are lost.
    fn is_lost(&self) -> bool {
        self.streams.iter().all(|stream| *stream == Stream::Lost)
    }

    /// An idle stream, if there is one.
    pub(crate) fn idle(&self) -> Option<StreamId> {
        self.streams.iter().position(|s| *s == Stream::Idle).map(|i| StreamId(i as u16))
    }

    /// Sends on a stream that [`idle`](Self::idle) named.
    pub(crate) fn send(&mut self, turn: &mut Turn, stream: StreamId, what: Outgoing) {
        debug_assert_eq!(self.streams[stream.index()], Stream::Idle);
        self.streams[stream.index()] = Stream::Sending;
        self.said_ns = turn.now_ns;
        self.ping_later();
        turn.act(Action::Send { stream, what });
    }

    /// Gives waiting control frames to idle streams.
    pub(crate) fn pump(&mut self, turn: &mut Turn) {
        let mut waiting = std::mem::take(&mut self.fixed);
        while let Some((stream, frame)) = waiting.pop_front() {
            match self.streams[stream.index()] {
                Stream::Idle => self.send(turn, stream, Outgoing::Frame(frame)),
                Stream::Sending => self.fixed.push_back((stream, frame)),
                Stream::Lost => {}
            }
        }
        while self.open && !self.control.is_empty() {
            let Some(stream) = self.idle() else { return };
            if let Some(frame) = self.control.pop_front() {
                self.send(turn, stream, Outgoing::Frame(frame));
            }
        }
    }

    /// A send on this stream ended.
    pub(crate) fn sent(&mut self, stream: StreamId) {
        if self.streams[stream.index()] == Stream::Sending {
            self.streams[stream.index()] = Stream::Idle;
        }
    }

    /// This stream is over. A fault if the session is over with it. One that only broke is
    /// [kept](Self::broken) while there are others: bounded, because the first one's deadline
    /// stands and nothing can complete until then.
    pub(crate) fn lost(
        &mut self,
        turn: &Turn,
        stream: StreamId,
        fault: Fault,
    ) -> Result<(), Fault> {
        self.streams[stream.index()] = Stream::Lost;
        if !self.parting {
            let damaged = !matches!(fault.breach, None | Some(Breach::Cut { .. }));
            if damaged || fault.cause != Cause::Network {
                return Err(fault);
            }
            if self.broken.is_none() && self.watched {
                let word_ns = (self.silence_ns / LAST_WORD_PART).min(LAST_WORD_NS_MAX);
                self.waits.set(Wait::LastWord, turn.after(word_ns));
            }
            self.broken.get_or_insert(fault.clone());
        }
        match (self.is_lost(), &self.broken) {
            (true, Some(first)) => Err(first.clone()),
            (true, None) => Err(fault),
            (false, _) => Ok(()),
        }
    }

    /// Why a stream broke, if one did: the peer's word of it may still be on its way on another.
    pub(crate) fn broken(&self) -> Option<&Fault> {
        self.broken.as_ref()
    }

    /// From here on only a peer of whom no stream is left is lost.
    pub(crate) fn part(&mut self) {
        self.parting = true;
    }

    /// Begins to watch whether the peer is there.
    pub(crate) fn watch(&mut self, turn: &Turn) {
        self.watched = true;
        self.heard(turn);
    }

    /// Nothing depends on the peer any more.
    pub(crate) fn unwatch(&mut self) {
        self.watched = false;
        self.waits = Waits::default();
    }

    /// Something arrived.
    pub(crate) fn heard(&mut self, turn: &Turn) {
        self.heard_ns = turn.now_ns;
        if self.watched {
            self.waits.set(Wait::Silence, turn.after(self.silence_ns));
            self.ping_later();
        }
    }

    fn ping_later(&mut self) {
        if self.open && self.watched && self.silence_ns != NO_LIMIT_NS {
            let quiet_ns = self.heard_ns.min(self.said_ns).max(self.pinged_ns);
            self.waits.set(Wait::Ping, quiet_ns.saturating_add(self.silence_ns / PING_PART));
        }
    }

    /// On every idle stream: each then shows whether a frame before the ping was lost on it.
    fn ping(&mut self) {
        self.pings += 1;
        let frame = Frame::Ping(self.pings);
        if self.idle().is_none() {
            return self.queue(frame);
        }
        for index in 0..self.streams.len() {
            if self.streams[index] == Stream::Idle {
                self.queue_on(StreamId(index as u16), frame.clone());
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        self.waits.deadline_ns()
    }

    /// Pings a quiet peer; a fault if it has been silent for too long, or a stream's end was never
    /// explained.
    pub(crate) fn tick(&mut self, turn: &Turn) -> Result<(), Fault> {
        while let Some(wait) = self.waits.take_due(turn.now_ns) {
            match (wait, &self.broken) {
                (Wait::LastWord, Some(fault)) => return Err(fault.clone()),
                (Wait::Silence, _) => {
                    let silence_ms = turn.now_ns.saturating_sub(self.heard_ns) / 1_000_000;
                    return Err(Fault::session(
                        Cause::Network,
                        Observation::Stream,
                        format!(
                            "the peer was silent for {silence_ms} ms; it may have died or be cut \
                             off"
                        ),
                    ));
                }
                _ => {
                    self.ping();
                    self.pinged_ns = turn.now_ns;
                    self.ping_later();
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
