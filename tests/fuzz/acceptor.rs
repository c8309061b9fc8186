// An acceptor, and a crowd at its door that does what the bytes say: who comes from where, says which
// part of which hello or of something else, and leaves how. Whatever they do, what is held is bounded,
// every connection is accounted for once, and an honest source gets in.
// Shared by the fuzz target and by the ordinary test run, which replays the corpus.

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use vfio_ferry::ids::StreamId;
use vfio_ferry::session::{Acceptor, DoorOptions, Reason, Streams};
use vfio_ferry::wire::{Frame, Offer, encode};

/// Longer than anything here takes, on whatever machine.
const PATIENCE: Duration = Duration::from_secs(100);
const HELD_MAX: usize = 16;
const PER_ADDRESS_MAX: usize = 5;
/// Strangers that are there at one time: fewer than make an honest source's address the fullest.
const OPEN_MAX: usize = 20;
const HONEST: u128 = 0x600d;
const HONEST_STREAMS: usize = 2;

fn hello(session: u128, streams: usize, stream: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    let hello = Offer::new(streams, 1, 65536).hello(session, StreamId(stream));
    encode(&Frame::Hello(hello), 0, &mut bytes).expect("a hello");
    bytes
}

/// A connection that comes from 127.0.0.`from`.
fn knock(from: u8, address: SocketAddr) -> TcpStream {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.expect("a socket");
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, from), 0)).expect("a port");
    // The fuzzer's own timer sends signals, after which the kernel goes on.
    loop {
        match connect(&socket, &address) {
            Err(Errno::INTR | Errno::ALREADY) => std::thread::yield_now(),
            Ok(()) | Err(Errno::ISCONN) => break,
            Err(error) => panic!("it listens: {error}"),
        }
    }
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("TCP");
    stream
}

struct Crowd<'a> {
    bytes: std::slice::Iter<'a, u8>,
    door: &'a Acceptor,
    open: Vec<TcpStream>,
    /// Connections that were made, those that an embedder has taken, and those that may have been
    /// gone before they were accepted.
    came: u64,
    taken: u64,
    gone: u64,
}

impl Crowd<'_> {
    fn byte(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn someone(&mut self) -> Option<usize> {
        let choice = usize::from(self.byte());
        (!self.open.is_empty()).then(|| choice % self.open.len())
    }

    fn say(&mut self, bytes: &[u8]) {
        // Whoever was sent away hears it here.
        if let Some(at) = self.someone() {
            let _ = self.open[at].write_all(bytes);
        }
    }

    /// Something that a stranger does, or the embedder.
    fn act(&mut self, deed: u8) {
        match deed % 12 {
            0 | 1 if self.open.len() < OPEN_MAX => {
                let from = 2 + self.byte() % 4;
                self.open.push(knock(from, self.door.local_addr()));
                self.came += 1;
            }
            2 | 3 => {
                let (session, shape) = (self.byte(), self.byte());
                let (streams, stream) = (1 + shape % 4, shape / 4 % 4);
                let hello = hello(u128::from(session % 3), streams.into(), stream.into());
                self.say(&hello);
            }
            // A part of one: the rest may follow.
            4 => {
                let (session, at) = (self.byte(), self.byte());
                let hello = hello(u128::from(session % 3), 2, 0);
                let (first, second) = hello.split_at(usize::from(at) % hello.len());
                self.say(if session & 128 == 0 { first } else { second });
            }
            5 => {
                let (at, value) = (self.byte(), self.byte());
                let mut hello = hello(1, 2, 0);
                let at = usize::from(at) % hello.len();
                hello[at] ^= value;
                self.say(&hello);
            }
            6 => {
                let length = usize::from(self.byte() % 32);
                let bytes: Vec<u8> = (0..length).map(|_| self.byte()).collect();
                self.say(&bytes);
            }
            7 => {
                if let Some(at) = self.someone() {
                    let _ = self.open[at].shutdown(Shutdown::Write);
                }
            }
            8 => {
                if let Some(at) = self.someone() {
                    drop(self.open.swap_remove(at));
                }
            }
            9 => {
                if let Some(at) = self.someone() {
                    let stream = self.open.swap_remove(at);
                    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
                    self.gone += 1;
                }
            }
            10 => {
                let back = self.byte().is_multiple_of(2);
                match self.round() {
                    Some(streams) if back => self.door.give_back(streams),
                    Some(streams) => self.took(&streams),
                    None => {}
                }
            }
            _ => {
                if let Some(streams) = self.round() {
                    self.took(&streams);
                }
            }
        }
    }

    fn took(&mut self, streams: &Streams) {
        self.taken += streams.count() as u64;
    }

    /// An honest source, which comes from an address of its own.
    fn honest(&mut self) -> Vec<TcpStream> {
        self.came += HONEST_STREAMS as u64;
        let one = |number| {
            let mut stream = knock(1, self.door.local_addr());
            stream.write_all(&hello(HONEST, HONEST_STREAMS, number)).expect("it listens");
            stream.set_nonblocking(true).expect("a socket");
            stream
        };
        (0..HONEST_STREAMS as u16).map(one).collect()
    }

    /// A round of the acceptor's, after which its bounds hold.
    fn round(&self) -> Option<Streams> {
        let streams = self.door.poll().expect("it listens");
        assert!(self.door.held() <= HELD_MAX, "{} connections are held", self.door.held());
        let away = self.door.turned_away();
        let given = streams.as_ref().map_or(0, Streams::count) as u64;
        let known = away.total() + self.taken + given + self.door.held() as u64;
        assert!(known <= self.came, "of {} connections {known} are known: {away:?}", self.came);
        if let Some(streams) = &streams {
            assert_eq!(streams.peers().len(), streams.count());
            assert!((1..=4).contains(&streams.count()), "{}", streams.count());
        }
        streams
    }
}

/// One crowd. The first byte chooses the options.
pub(crate) fn acceptor(data: &[u8]) {
    let [choices, deeds @ ..] = data else { return };
    let door = Acceptor::bind(
        "127.0.0.1:0",
        DoorOptions {
            connections_max: HELD_MAX,
            per_address_max: PER_ADDRESS_MAX,
            sessions_max: 1 + usize::from(choices & 1),
            greeting_limit: PATIENCE,
            gathering_limit: PATIENCE,
            session: (choices & 2 != 0).then_some(HONEST),
            ..DoorOptions::default()
        },
    );
    let door = door.expect("a port");
    let bytes = deeds.iter();
    let mut crowd = Crowd { bytes, door: &door, open: Vec::new(), came: 0, taken: 0, gone: 0 };
    while let Some(deed) = crowd.bytes.next() {
        crowd.act(*deed);
    }
    // They are still there when the honest source comes.
    let deadline = Instant::now() + PATIENCE;
    let waits = |what: &str| {
        assert!(Instant::now() < deadline, "{what}: {:?}", door.turned_away());
        std::thread::yield_now();
    };
    let mut honest = crowd.honest();
    let streams = loop {
        waits("the honest source is not let in");
        match crowd.round() {
            Some(streams) if streams.session() == Some(HONEST) => break streams,
            Some(other) => crowd.took(&other),
            None => {}
        }
        // As many sessions as may wait to be taken were before it: it is told so, and comes again.
        if honest[0].peek(&mut [0]).is_ok() {
            assert!(door.turned_away().count(Reason::Busy) > 0, "{:?}", door.turned_away());
            honest = crowd.honest();
        }
    };
    crowd.took(&streams);
    assert_eq!(streams.count(), HONEST_STREAMS);
    for (peer, stream) in streams.peers().iter().zip(&honest) {
        assert_eq!(*peer, stream.local_addr().expect("its address"));
    }
    // Nothing is left to do: whoever waits by fd sleeps.
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_ready = || {
        let mut fds = [PollFd::from_borrowed_fd(door.fd(), PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, Some(&at_once))).expect("an fd") > 0
    };
    while is_ready() {
        waits("the acceptor's fd is readable for ever");
        if let Some(streams) = crowd.round() {
            crowd.took(&streams);
        }
    }
    // All leave, and each was accounted for.
    crowd.open.clear();
    loop {
        if let Some(streams) = crowd.round() {
            crowd.took(&streams);
        }
        let known = door.turned_away().total() + crowd.taken;
        if door.held() == 0 && known + crowd.gone >= crowd.came {
            break;
        }
        waits("connections that left are still held");
    }
}
