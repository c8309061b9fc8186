//! The kinds of strangers.

use std::cell::Cell;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect as connect_to, socket_with,
};
use vfio_ferry::ids::StreamId;
use vfio_ferry::session::{Acceptor, Protection, SourceSession, connect};
use vfio_ferry::wire::{Frame, Offer};
use vfio_ferry_tests::pair::end;
use vfio_ferry_tests::peer::bytes;

use crate::honest::Visit;
use vfio_ferry_tests::moment::{MOMENTS, Moment};

/// One kind.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// So many of each moment are turned away.
    pub(crate) count: u64,
    kind: Kind,
}

enum Kind {
    /// They connect, say this, and stay until the end.
    Say(fn() -> Vec<u8>),
    /// They close, or reset.
    Close,
    Reset,
    /// Another honest source, with state of its own.
    Source,
}

pub(crate) fn all() -> Vec<Row> {
    let row = |name, count, kind| Row { name, count, kind };
    vec![
        row("silent, 3", 3, Kind::Say(Vec::new)),
        row("connect and close, 3", 3, Kind::Close),
        row("HTTP", 1, Kind::Say(|| b"GET / HTTP/1.1\r\nHost: target\r\n\r\n".to_vec())),
        row("a port scan, 50 resets", 50, Kind::Reset),
        row("a hello of 64 streams", 1, Kind::Say(claim)),
        row("another source, 1 MiB", 0, Kind::Source),
        row("silent, 400", 400, Kind::Say(Vec::new)),
    ]
}

/// The hello of the first of 64 streams, of a session of its own.
fn claim() -> Vec<u8> {
    thread_local!(static SESSION: Cell<u128> = const { Cell::new(1) });
    let session = SESSION.replace(SESSION.get() + 1);
    bytes(&Frame::Hello(Offer::new(64, 1, 65536).hello(session, StreamId(0))))
}

/// From an address that is not the honest source's: of two that have the same, who came first goes first.
fn knock(address: SocketAddr) -> TcpStream {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("one");
    let from = SocketAddrV4::new(Ipv4Addr::new(127, 0, 2, 1), 0);
    bind(&socket, &from).expect("an address of this host");
    connect_to(&socket, &address).expect("it listens");
    socket.into()
}

impl Row {
    /// An honest migration with these in each of its moments. How long it took.
    pub(crate) fn round(&self, door: &Acceptor, bytes: u64) -> Duration {
        let visit = Visit::new(bytes);
        let plain = Protection::Loopback;
        if let Kind::Source = self.kind {
            let others = MOMENTS.map(|_| Visit::new(1 << 20));
            let started = |moment: Moment, address| {
                let streams = connect(address, 2).expect("it listens");
                let other: SourceSession = others[moment as usize].source(streams.into());
                other.switchover();
                Some(Ending(Some(other)))
            };
            return visit.migrate_beside(door, &plain, &others, started);
        }
        visit.migrate(door, &plain, |_, address| self.knocks(address))
    }

    fn knocks(&self, address: SocketAddr) -> Vec<TcpStream> {
        let one = |_| {
            let mut stream = knock(address);
            match &self.kind {
                Kind::Say(words) => {
                    // One who came before it may have been pushed out by it.
                    let _ = stream.write_all(&words());
                    return Some(stream);
                }
                Kind::Close | Kind::Source => {}
                Kind::Reset => {
                    set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket");
                }
            }
            None
        };
        (0..self.count).filter_map(one).collect()
    }
}

/// A source that has to have handed over when this goes.
struct Ending(Option<SourceSession>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            let ended = end(session).report.ending;
            assert_eq!(ended, vfio_ferry::session::SourceEnding::HandedOver);
        }
    }
}
