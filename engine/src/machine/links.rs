//! The streams of a session as a machine sees them: which are idle, what control frames wait, and
//! whether the peer is still there.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Action, Outgoing};
use crate::ids::StreamId;
use crate::limits;
use crate::outcome::{Breach, Cause, Fault, Observation};
use crate::wire::{Frame, Kind};

/// A peer that gives up says why on every stream. Where one of them breaks without that, the word
/// may still be on its way on another: it is waited for this part of the silence that is put up
/// with.
const WORD_PART: u64 = 32;

/// How a session watches its peer.
#[derive(Debug, Clone, Copy)]
pub struct LinksConfig {
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
pub struct Links {
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
    pinged_ns: u64,
    pings: u64,
    /// A stream broke, and when that ends the session.
    doubt: Option<(u64, Fault)>,
    /// Only the peer's last word is still to come: any one stream can bring it.
    parting: bool,
}

impl Links {
    /// All streams idle, the peer heard of at `now_ns`.
    pub fn new(config: LinksConfig, now_ns: u64) -> Links {
        Links {
            streams: vec![Stream::Idle; usize::from(config.streams)],
            fixed: VecDeque::new(),
            control: VecDeque::new(),
            open: false,
            last: false,
            silence_ns: config.silence_ns,
            heard_ns: now_ns,
            pinged_ns: now_ns,
            pings: 0,
            doubt: None,
            parting: false,
        }
    }

    /// Number of streams.
    pub fn count(&self) -> usize {
        self.streams.len()
    }

    /// A frame that goes out on just this stream, before others and in order with those given
    /// here: the handshake, and what must not overtake or be overtaken.
    pub fn queue_on(&mut self, stream: StreamId, frame: Frame) {
        if !self.last {
            self.fixed.push_back((stream, frame));
        }
    }

    /// The handshake is over as far as this side can tell: other frames may go out.
    pub fn open(&mut self) {
        self.open = true;
    }

    /// A frame for whichever stream is idle first, once the handshake is over.
    pub fn queue(&mut self, frame: Frame) {
        if !self.last {
            self.control.push_back(frame);
        }
    }

    /// The embedder's bytes, as [`queue`](Self::queue). A fault beyond the bound on those that wait:
    /// the session tells its embedder before it comes to that.
    pub fn queue_message(&mut self, bytes: Bytes) -> Result<(), Fault> {
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
    pub fn queue_last(&mut self, frame: Frame) {
        self.control.clear();
        self.fixed = (0..self.streams.len())
            .filter(|&index| self.streams[index] != Stream::Lost)
            .map(|index| (StreamId(index as u16), frame.clone()))
            .collect();
        self.open = true;
        self.last = true;
    }

    /// Takes a waiting frame out again. False if it is not waiting: it may have reached the peer.
    pub fn take_back(&mut self, frame: &Frame) -> bool {
        let waiting = self.control.len();
        self.control.retain(|each| each != frame);
        self.control.len() < waiting
    }

    /// A peer that makes this side answer without reading the answers: there is a bound to that.
    pub fn flooded(&self) -> Option<Breach> {
        let max = limits::ANSWERS_WAITING_MAX;
        (self.control.len() > max && self.answers() > max).then_some(Breach::Answers { max })
    }

    fn answers(&self) -> usize {
        self.control.iter().filter(|frame| frame.kind() != Kind::MESSAGE).count()
    }

    /// Whether no control frame waits.
    pub fn control_is_out(&self) -> bool {
        self.fixed.is_empty() && self.control.is_empty()
    }

    /// Whether some stream is still in use.
    pub fn any_sending(&self) -> bool {
        self.streams.contains(&Stream::Sending)
    }

    /// Whether all streams are lost.
    pub fn all_lost(&self) -> bool {
        self.streams.iter().all(|stream| *stream == Stream::Lost)
    }

    /// An idle stream, if there is one.
    pub fn idle(&self) -> Option<StreamId> {
        self.streams.iter().position(|s| *s == Stream::Idle).map(|i| StreamId(i as u16))
    }

    /// How many streams are idle.
    pub fn idle_count(&self) -> usize {
        self.streams.iter().filter(|s| **s == Stream::Idle).count()
    }

    /// Sends on a stream that [`idle`](Self::idle) named.
    pub fn send(&mut self, stream: StreamId, what: Outgoing, actions: &mut Vec<Action>) {
        debug_assert_eq!(self.streams[stream.index()], Stream::Idle);
        self.streams[stream.index()] = Stream::Sending;
        actions.push(Action::Send { stream, what });
    }

    /// Gives waiting control frames to idle streams.
    pub fn pump(&mut self, actions: &mut Vec<Action>) {
        let mut waiting = std::mem::take(&mut self.fixed);
        while let Some((stream, frame)) = waiting.pop_front() {
            match self.streams[stream.index()] {
                Stream::Idle => self.send(stream, Outgoing::Frame(frame), actions),
                Stream::Sending => self.fixed.push_back((stream, frame)),
                Stream::Lost => {}
            }
        }
        while self.open && !self.control.is_empty() {
            let Some(stream) = self.idle() else { return };
            if let Some(frame) = self.control.pop_front() {
                self.send(stream, Outgoing::Frame(frame), actions);
            }
        }
    }

    /// A send on this stream ended.
    pub fn sent(&mut self, stream: StreamId) {
        if self.streams[stream.index()] == Stream::Sending {
            self.streams[stream.index()] = Stream::Idle;
        }
    }

    /// This stream is over. Returns the fault if the session is over with it. One that only broke
    /// leaves it [in doubt](Self::doubt) while there are others: bounded, because the first one's
    /// deadline stands and nothing can complete until then.
    pub fn lost(&mut self, now_ns: u64, stream: StreamId, fault: Fault) -> Option<Fault> {
        self.streams[stream.index()] = Stream::Lost;
        let all_lost = self.all_lost();
        if self.parting {
            return all_lost.then_some(fault);
        }
        let damaged = !matches!(fault.breach, None | Some(Breach::Cut { .. }));
        if damaged || fault.cause != Cause::Network {
            return Some(fault);
        }
        let until_ns = now_ns + self.silence_ns / WORD_PART;
        let (_, first) = self.doubt.get_or_insert((until_ns, fault));
        all_lost.then(|| first.clone())
    }

    /// Why a stream broke, if the peer's word of it may still be on its way on another one.
    pub fn doubt(&self) -> Option<&Fault> {
        self.doubt.as_ref().map(|(_, fault)| fault)
    }

    /// From here on only a peer of whom no stream is left is lost.
    pub fn part(&mut self) {
        self.parting = true;
    }

    /// Something arrived.
    pub fn heard(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
    }

    /// When to look at the peer again.
    pub fn deadline_ns(&self) -> u64 {
        let silent_ns = self.heard_ns + self.silence_ns;
        let look_ns = if self.open { silent_ns.min(self.ping_at_ns()) } else { silent_ns };
        self.doubt.as_ref().map_or(look_ns, |(until_ns, _)| look_ns.min(*until_ns))
    }

    fn ping_at_ns(&self) -> u64 {
        self.heard_ns.max(self.pinged_ns) + self.silence_ns / 4
    }

    /// Pings a quiet peer; a fault if it has been silent for too long, or a stream's end was never
    /// explained.
    pub fn tick(&mut self, now_ns: u64) -> Result<(), Fault> {
        if let Some((_, fault)) = self.doubt.as_ref().filter(|(until_ns, _)| now_ns >= *until_ns) {
            return Err(fault.clone());
        }
        if now_ns >= self.heard_ns + self.silence_ns {
            let silence_ms = (now_ns - self.heard_ns) / 1_000_000;
            return Err(Fault::session(
                Cause::Network,
                Observation::Stream,
                format!("the peer was silent for {silence_ms} ms; it may have died or be cut off"),
            ));
        }
        if self.open && now_ns >= self.ping_at_ns() {
            self.pinged_ns = now_ns;
            self.pings += 1;
            self.queue(Frame::Ping(self.pings));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(streams: u16) -> Links {
        Links::new(LinksConfig { streams, silence_ns: 1000 }, 0)
    }

    fn sent(links: &mut Links) -> Vec<Frame> {
        let mut actions = Vec::new();
        links.pump(&mut actions);
        let frames = actions.into_iter().map(|action| match action {
            Action::Send { stream, what: Outgoing::Frame(frame) } => {
                links.sent(stream);
                frame
            }
            action => panic!("{action:?}"),
        });
        frames.collect()
    }

    #[test]
    fn only_the_handshake_goes_out_before_the_session_is_open() {
        let mut links = links(2);
        links.queue(Frame::Ping(1));
        links.queue_on(StreamId(1), Frame::Handover);
        assert_eq!(links.tick(500), Ok(()));
        assert_eq!(links.deadline_ns(), 1000);
        assert_eq!(sent(&mut links), [Frame::Handover]);
        links.open();
        assert_eq!(sent(&mut links), [Frame::Ping(1)]);
        assert_eq!(links.tick(500), Ok(()));
        assert_eq!(sent(&mut links), [Frame::Ping(1)]);
    }

    #[test]
    fn nothing_follows_the_last_frame() {
        let mut links = links(1);
        links.queue(Frame::Ping(1));
        links.queue_last(Frame::Running);
        links.queue(Frame::Ping(2));
        links.queue_on(StreamId(0), Frame::Ping(3));
        assert_eq!(sent(&mut links), [Frame::Running]);
        assert_eq!(sent(&mut links), []);
    }

    #[test]
    fn an_embedder_that_gives_more_than_the_peer_reads_is_stopped() {
        let mut links = links(1);
        links.open();
        for _ in 0..limits::MESSAGES_WAITING_MAX {
            links.queue(Frame::Ping(0));
            assert_eq!(links.queue_message(Bytes::new()), Ok(()));
        }
        assert!(links.queue_message(Bytes::new()).is_err());
        // The ping and the message that go out make room for one.
        assert_eq!(sent(&mut links).len() + sent(&mut links).len(), 2);
        assert_eq!(links.queue_message(Bytes::new()), Ok(()));
        assert!(links.queue_message(Bytes::new()).is_err());
    }

    #[test]
    fn a_stream_that_broke_is_the_end_once_no_other_can_say_why() {
        let broke = |text| Fault::session(Cause::Network, Observation::Stream, text);
        let mut links = links(3);
        assert_eq!(links.lost(0, StreamId(1), broke("first")), None);
        assert_eq!(links.deadline_ns(), 1000 / WORD_PART);
        assert_eq!(links.lost(9, StreamId(0), broke("second")), None);
        assert_eq!(links.tick(1000 / WORD_PART - 1), Ok(()), "the first one's deadline stands");
        assert_eq!(links.tick(1000 / WORD_PART), Err(broke("first")));
        assert_eq!(links.lost(9, StreamId(2), broke("third")), Some(broke("first")));
    }

    #[test]
    fn what_the_wire_does_not_allow_is_the_end_at_once() {
        let fault = Fault::breach(Breach::Answers { max: 1 });
        assert_eq!(links(2).lost(0, StreamId(0), fault.clone()), Some(fault));
    }

    #[test]
    fn a_last_word_may_come_on_any_stream() {
        let fault = Fault::session(Cause::Network, Observation::Stream, "broke");
        let mut links = links(2);
        links.part();
        assert_eq!(links.lost(0, StreamId(0), fault.clone()), None);
        assert_eq!((links.doubt(), links.deadline_ns()), (None, 1000));
        assert_eq!(links.lost(0, StreamId(1), fault.clone()), Some(fault));
    }

    #[test]
    fn a_peer_that_asks_and_never_reads_is_found_out_and_an_embedders_messages_are_not() {
        let mut links = links(1);
        for _ in 0..limits::MESSAGES_WAITING_MAX {
            assert_eq!(links.queue_message(Bytes::new()), Ok(()));
        }
        for number in 0..limits::ANSWERS_WAITING_MAX as u64 {
            links.queue(Frame::Pong(number));
            assert_eq!(links.flooded(), None);
        }
        links.queue(Frame::Pong(0));
        assert!(matches!(links.flooded(), Some(Breach::Answers { .. })));
    }
}
