//! The acceptor's sockets. One round takes in what has come, judges it, and lets time be over; it never
//! blocks and is bounded, however many knock.

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, io};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, sockopt};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::crowd::{Member, Origin, who_goes};
use super::gather::{Gathering, fits};
use super::greeting::{Heard, has_ended, hear, hear_in_kernel, hear_secured, reason_of, send_away};
use super::options::{DoorOptions, Protection};
use super::streams::{Stream, Streams};
use super::tls::{Handshake, Progress};
use super::turned_away::{Reason, Stranger, TurnedAway};
use super::waits::NO_ROOM;
use crate::error::TlsFault;
use crate::wire::Hello;

/// What an event of epoll is about, beside connections, which have numbers from [`FIRST`] on.
const LISTENER: u64 = 0;
const TIMER: u64 = 1;
const FIRST: u64 = 2;

/// Most of a kind that one round looks at.
const ROUND_MAX: usize = 64;

/// A connection whose session is not complete.
#[derive(Debug)]
struct Connection {
    number: u64,
    talk: Talk,
    peer: SocketAddr,
    member: Member,
    /// When it has to have said its hello.
    until: Option<Instant>,
    /// The session that its hello named.
    session: Option<u128>,
}

/// What a connection speaks so far.
enum Talk {
    /// Its handshake is not over.
    Handshake(OwnedFd, Box<Handshake>),
    /// Its hello, or more.
    Stream(Stream),
    /// Nothing any more: its handshake failed at the end, and the socket is closed.
    Nothing,
}

impl Talk {
    fn socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Talk::Handshake(socket, _) => Some(socket.as_fd()),
            Talk::Stream(stream) => Some(stream.socket()),
            Talk::Nothing => None,
        }
    }
}

impl Talk {
    /// Goes on with the handshake, and listens for the hello behind it.
    fn hear(&mut self) -> Heard {
        if let Talk::Handshake(socket, handshake) = self {
            match handshake.turn(socket) {
                Ok(Progress::Reads | Progress::Writes) => return Heard::Part,
                Ok(Progress::Done) => {}
                Err(fault) => return Heard::Stranger(reason_of(&fault)),
            }
            if let Err(fault) = self.secure() {
                return Heard::Stranger(reason_of(&fault));
            }
        }
        match self {
            Talk::Handshake(..) | Talk::Nothing => Heard::Stranger(Reason::NoHandshake),
            Talk::Stream(Stream::Plain(socket)) => hear(socket.as_fd()),
            Talk::Stream(Stream::Kernel(stream)) => hear_in_kernel(stream),
            Talk::Stream(Stream::Secured(secured)) => hear_secured(secured),
        }
    }

    /// The handshake is over.
    fn secure(&mut self) -> Result<(), TlsFault> {
        if let Talk::Handshake(socket, handshake) = std::mem::replace(self, Talk::Nothing) {
            *self = Talk::Stream(handshake.finish(socket)?.into());
        }
        Ok(())
    }

    fn key(&self) -> Option<[u8; 32]> {
        match self {
            Talk::Stream(stream) => stream.peer_key(),
            _ => None,
        }
    }
}

impl fmt::Debug for Talk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Talk").field(&self.socket()).finish()
    }
}

/// A session that is not complete, and when it has to be.
#[derive(Debug)]
struct Expected {
    gathering: Gathering,
    until: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Inner {
    listener: TcpListener,
    /// Whether epoll looks at the listener; else since when it does not, for want of fds.
    paused_until: Option<Instant>,
    epoll: Arc<OwnedFd>,
    timer: OwnedFd,
    options: DoorOptions,
    /// In the order in which they came, which is the order of their numbers.
    held: Vec<Connection>,
    expected: HashMap<u128, Expected>,
    complete: VecDeque<Streams>,
    turned_away: TurnedAway,
    next: u64,
}

impl Inner {
    pub(super) fn new(listener: TcpListener, options: DoorOptions) -> io::Result<Inner> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        Ok(Inner {
            listener,
            paused_until: None,
            epoll: Arc::new(epoll),
            timer,
            options,
            held: Vec::new(),
            expected: HashMap::new(),
            complete: VecDeque::new(),
            turned_away: TurnedAway::default(),
            next: FIRST,
        })
    }

    pub(super) fn epoll(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    pub(super) fn turned_away(&self) -> &TurnedAway {
        &self.turned_away
    }

    /// One round.
    pub(super) fn round(&mut self, now: Instant) -> io::Result<Option<Streams>> {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut events = Vec::with_capacity(ROUND_MAX);
        match epoll::wait(&*self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once))
        {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        for event in events {
            match event.data.u64() {
                LISTENER => self.take_in(now)?,
                TIMER => {}
                number => self.hear(number, now),
            }
        }
        self.let_time_be_over(now)?;
        let streams = self.take_complete();
        self.set_timer(now)?;
        Ok(streams)
    }

    /// Accepts what waits in the kernel's queue.
    fn take_in(&mut self, now: Instant) -> io::Result<()> {
        for _ in 0..ROUND_MAX {
            match acceptfrom_with(&self.listener, SocketFlags::CLOEXEC) {
                Ok((socket, address)) => {
                    // What accept(2) of TCP does not say of a connection that is gone again.
                    let Some(Ok(peer)) = address.map(SocketAddr::try_from) else { continue };
                    self.admit(socket, peer, now);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    return self.make_room(now);
                }
                Err(errno @ (Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP)) => {
                    return Err(errno.into());
                }
                // A signal, or an error of the connection's network, which Linux tells here: accept(2)
                // says to go on.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// The system gives no more fds: a silent connection gives up its own, or the next one has to wait.
    fn make_room(&mut self, now: Instant) -> io::Result<()> {
        match self.held.iter().position(|held| held.member.silent) {
            Some(at) => self.drop_connection(at, Reason::Crowded),
            None => {
                epoll::delete(&*self.epoll, &self.listener)?;
                self.paused_until = Some(now + NO_ROOM);
            }
        }
        Ok(())
    }

    fn admit(&mut self, socket: OwnedFd, peer: SocketAddr, now: Instant) {
        let origin = Origin::of(peer.ip());
        let members: Vec<Member> = self.held.iter().map(|held| held.member).collect();
        let (in_all, per_origin) = (self.options.connections_max, self.options.per_address_max);
        if let Some(at) = who_goes(&members, origin, in_all, per_origin) {
            self.drop_connection(at, Reason::Crowded);
        }
        let number = self.next;
        self.next += 1;
        let member = Member { origin, silent: true };
        let until = now.checked_add(self.options.greeting_limit);
        let talk = match &self.options.protection {
            Protection::Tls(tls) => match Handshake::new(tls) {
                Ok(handshake) => Talk::Handshake(socket, Box::new(handshake)),
                Err(error) => {
                    tracing::warn!(%error, "a handshake could not begin");
                    return self.turned_away.add(Stranger { peer, reason: Reason::NoHandshake });
                }
            },
            _ => Talk::Stream(Stream::Plain(socket)),
        };
        // Edges: a part of a hello stays in the socket, and would be told of for ever.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let watched = talk.socket().map(|socket| {
            epoll::add(&*self.epoll, socket, EventData::new_u64(number), flags)?;
            sockopt::set_tcp_nodelay(socket, true)
        });
        self.held.push(Connection { number, talk, peer, member, until, session: None });
        match watched {
            // It may have said its hello already, and then is not silent for a moment.
            Some(Ok(())) => self.hear(number, now),
            _ => self.drop_connection(self.held.len() - 1, Reason::Closed),
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.held.binary_search_by_key(&number, |held| held.number).ok()
    }

    /// Something has come on a connection, or its end.
    fn hear(&mut self, number: u64, now: Instant) {
        // It may have been dropped in this round.
        let Some(at) = self.place(number) else { return };
        if self.held[at].session.is_none() {
            match self.held[at].talk.hear() {
                Heard::Part => return,
                Heard::Hello(hello) => {
                    if let Err(reason) = self.greeted(at, &hello, now) {
                        return self.drop_connection(at, reason);
                    }
                }
                Heard::Stranger(reason) => return self.drop_connection(at, reason),
            }
        }
        self.see_end(number);
    }

    /// Drops the session of a connection that has ended. Its end may have come together with its
    /// hello, as one edge of epoll's.
    fn see_end(&mut self, number: u64) {
        let Some(held) = self.place(number).map(|at| &self.held[at]) else { return };
        if let (Some(session), true) = (held.session, held.talk.socket().is_none_or(has_ended)) {
            self.drop_session(session, Reason::Closed);
        }
    }

    /// A connection has said its hello. Why it has to go, if it does.
    fn greeted(&mut self, at: usize, hello: &Hello, now: Instant) -> Result<(), Reason> {
        if !fits(hello) {
            return Err(Reason::BadHello);
        }
        let held = &mut self.held[at];
        held.member.silent = false;
        if !self.options.protection.allows(held.peer.ip()) {
            return Err(Reason::Unprotected);
        }
        if self.options.session.is_some_and(|session| session != hello.session) {
            return Err(Reason::Unexpected);
        }
        let until = now.checked_add(self.options.gathering_limit);
        let key = held.talk.key();
        let expected = self
            .expected
            .entry(hello.session)
            .or_insert_with(|| Expected { gathering: Gathering::new(*hello, key), until });
        let is_complete = expected.gathering.join(hello, key, held.number)?;
        held.session = Some(hello.session);
        held.until = None;
        if is_complete {
            self.completed(hello.session);
        }
        Ok(())
    }

    fn completed(&mut self, session: u128) {
        if self.complete.len() >= self.options.sessions_max {
            return self.drop_session(session, Reason::Busy);
        }
        let Some(Expected { gathering, .. }) = self.expected.remove(&session) else { return };
        let mut streams = Vec::new();
        for number in gathering.connections() {
            let Some(at) = self.place(number) else { continue };
            let Connection { talk, peer, .. } = self.held.remove(at);
            if let Talk::Stream(stream) = talk {
                // It fails for an fd that is not there only.
                let _ = epoll::delete(&*self.epoll, stream.socket());
                streams.push((stream, peer));
            }
        }
        self.complete.push_back(Streams::new(streams, Some(session), &self.options.protection));
    }

    /// The first session that is still there.
    fn take_complete(&mut self) -> Option<Streams> {
        while let Some(streams) = self.complete.pop_front() {
            if !streams.sockets().any(has_ended) {
                return Some(streams);
            }
            self.turn_session_away(streams, Reason::Closed);
        }
        None
    }

    pub(super) fn give_back(&mut self, streams: Streams) {
        self.complete.push_front(streams);
        // It fails for a time that is none only.
        let _ = self.set_timer(Instant::now());
    }

    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    fn let_time_be_over(&mut self, now: Instant) -> io::Result<()> {
        let is_over = |until: Option<Instant>| until.is_some_and(|until| until <= now);
        while let Some(at) = self.held.iter().position(|held| is_over(held.until)) {
            self.drop_connection(at, Reason::Silent);
        }
        let late =
            |(session, expected): (&u128, &Expected)| is_over(expected.until).then_some(*session);
        while let Some(session) = self.expected.iter().find_map(late) {
            self.drop_session(session, Reason::Incomplete);
        }
        if is_over(self.paused_until) {
            self.paused_until = None;
            epoll::add(&*self.epoll, &self.listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        }
        Ok(())
    }

    /// The timer makes the epoll fd readable when the next time is over, and at once while a session
    /// waits to be taken.
    fn set_timer(&mut self, now: Instant) -> io::Result<()> {
        let greetings = self.held.iter().filter_map(|held| held.until);
        let gatherings = self.expected.values().filter_map(|expected| expected.until);
        let next = greetings.chain(gatherings).chain(self.paused_until).min();
        let next = if self.complete.is_empty() { next } else { Some(now) };
        // 0 is no timer. What does not fit is as good as none.
        let left =
            next.map(|next| next.saturating_duration_since(now).max(Duration::from_nanos(1)));
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = left.and_then(|left| Timespec::try_from(left).ok()).unwrap_or(none);
        let once = Itimerspec { it_interval: none, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    /// Drops a connection; where its session has others, these too.
    fn drop_connection(&mut self, at: usize, reason: Reason) {
        match self.held[at].session {
            Some(session) => self.drop_session(session, reason),
            None => {
                let connection = self.held.remove(at);
                self.turn_away(connection, reason);
            }
        }
    }

    fn drop_session(&mut self, session: u128, reason: Reason) {
        let Some(Expected { gathering, .. }) = self.expected.remove(&session) else { return };
        for number in gathering.connections() {
            if let Some(at) = self.place(number) {
                let connection = self.held.remove(at);
                self.turn_away(connection, reason);
            }
        }
    }

    /// A session that was complete and not taken.
    fn turn_session_away(&mut self, streams: Streams, reason: Reason) {
        for (mut stream, peer) in streams.into_parts() {
            self.turned_away.add(Stranger { peer, reason });
            send_away(&mut stream, reason);
        }
    }

    fn turn_away(&mut self, connection: Connection, reason: Reason) {
        let Connection { talk, peer, member, .. } = connection;
        self.turned_away.add(Stranger { peer, reason });
        match talk {
            Talk::Stream(mut stream) if !member.silent => send_away(&mut stream, reason),
            // One who failed the handshake was told so by an alert, which must not be lost.
            Talk::Handshake(..) | Talk::Nothing => {}
            // Aborted rather than closed: a stranger leaves nothing behind, not even TIME_WAIT.
            Talk::Stream(stream) => {
                let _ = sockopt::set_socket_linger(stream.socket(), Some(Duration::ZERO));
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        while let Some(streams) = self.complete.pop_front() {
            self.turn_session_away(streams, Reason::Busy);
        }
        while let Some(connection) = self.held.pop() {
            self.turn_away(connection, Reason::Busy);
        }
    }
}

// Nothing of a stranger's is kept beyond these.
const _: () = assert!(size_of::<Connection>() <= 160);
