//! The network between two hosts, and whatever a peer can be seen to do: a relay that knows frames.
//!
//! A peer that never gives credit, never says that it has loaded, or only answers pings is an honest
//! engine some of whose frames are never said; the numbers of those that follow are moved, so that
//! nothing shows a gap. A frame that the network loses leaves one.

mod frame;
mod rule;

pub(crate) use frame::Kind;
pub(crate) use rule::{Deed, Point, Rule};

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

use crate::spec::Side;
use frame::Frame;
use rule::{Mode, Rules, Verdict};

/// Between two bytes that trickle.
const TRICKLE: Duration = Duration::from_millis(120);

/// What a narrow network holds of a connection, in each socket.
pub(crate) const NARROW_BYTES: usize = 64 << 10;

/// What is between two hosts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Net {
    /// TCP connections.
    pub(crate) streams: u16,
    /// It holds little of what a host does not take, so that the other one's sockets fill.
    pub(crate) is_narrow: bool,
    /// What it does.
    pub(crate) rules: Vec<Rule>,
}

/// Hears that a rule has struck, by its place in the list.
pub(crate) type OnDeed = Box<dyn Fn(usize) + Send + Sync>;

/// A running relay. Dropping it closes every connection.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    on_deed: OnDeed,
}

struct State {
    rules: Rules,
    /// Every socket, by connection.
    sockets: Vec<[TcpStream; 2]>,
    /// What a gate holds may pass.
    open: bool,
    closed: bool,
}

impl Proxy {
    /// Listens for a source, and connects each of its streams to `target`.
    pub(crate) fn start(target: SocketAddr, net: Net, on_deed: OnDeed) -> io::Result<Proxy> {
        let Net { streams, is_narrow, rules } = net;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        if is_narrow {
            // Its connections take that over.
            sockopt::set_socket_recv_buffer_size(&listener, NARROW_BYTES)?;
        }
        let address = listener.local_addr()?;
        let state =
            State { rules: Rules::new(rules), sockets: Vec::new(), open: false, closed: false };
        let shared =
            Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), on_deed });
        let relay = Arc::clone(&shared);
        thread::spawn(move || {
            for _ in 0..streams {
                // A host that has gone is what its runner hears of in another way.
                if relay.connect(&listener, target, is_narrow).is_err() {
                    return;
                }
            }
        });
        Ok(Proxy { address, shared })
    }

    /// Where the source connects to.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets what a gate holds pass.
    pub(crate) fn open(&self) {
        self.shared.lock().open = true;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.close_all();
        // The thread that accepts may still wait for a source.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(
        self: &Arc<Self>,
        listener: &TcpListener,
        target: SocketAddr,
        is_narrow: bool,
    ) -> io::Result<()> {
        let (source, _) = listener.accept()?;
        if self.lock().closed {
            return Ok(());
        }
        let target = TcpStream::connect(target)?;
        for socket in [&source, &target] {
            socket.set_nodelay(true)?;
            if is_narrow {
                sockopt::set_socket_send_buffer_size(socket, NARROW_BYTES)?;
            }
        }
        let sockets = [source.try_clone()?, target.try_clone()?];
        let number = {
            let mut state = self.lock();
            state.sockets.push(sockets);
            state.sockets.len() - 1
        };
        for (toward, from, to) in [
            (Side::Target, source.try_clone()?, target.try_clone()?),
            (Side::Source, target, source),
        ] {
            let shared = Arc::clone(self);
            let mut pump = Pump { shared, toward, number, from, to, moved_by: 0 };
            // An error is that one of the two hosts has closed its end.
            thread::spawn(move || {
                let _ = pump.run();
                pump.end();
            });
        }
        Ok(())
    }

    fn close_all(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.sockets.iter().for_each(close);
        self.changed.notify_all();
    }
}

fn close(connection: &[TcpStream; 2]) {
    for socket in connection {
        // It may be closed already.
        let _ = socket.shutdown(Shutdown::Both);
    }
}

/// One direction of one connection.
struct Pump {
    shared: Arc<Shared>,
    toward: Side,
    number: usize,
    from: TcpStream,
    to: TcpStream,
    /// How far the numbers of this stream's frames are moved.
    moved_by: u32,
}

impl Pump {
    fn run(&mut self) -> io::Result<()> {
        while let Some(mut frame) = Frame::read(&mut self.from)? {
            let verdict = self.shared.lock().rules.judge(self.toward, self.number, &frame);
            if let Some((rule, deed)) = &verdict.struck {
                self.strike(*rule, deed, &mut frame)?;
            }
            self.forward(frame, &verdict)?;
        }
        Ok(())
    }

    fn strike(&mut self, rule: usize, deed: &Deed, frame: &mut Frame) -> io::Result<()> {
        match deed {
            Deed::Flip => frame.flip(),
            Deed::Abort(text) => self.put_in(vec![Frame::abort(text)], frame)?,
            Deed::Discards(count) => {
                self.put_in((1..=*count).map(Frame::discard).collect(), frame)?;
            }
            Deed::Cut => self.shared.close_all(),
            Deed::CutOne => close(&self.shared.lock().sockets[self.number]),
            Deed::Lose
            | Deed::Gate
            | Deed::Silence
            | Deed::Trickle
            | Deed::OnlyPings
            | Deed::Withhold(_) => {}
        }
        (self.shared.on_deed)(rule);
        if *deed == Deed::Gate {
            let state = self.shared.lock();
            let wait = self.shared.changed.wait_while(state, |state| !state.open && !state.closed);
            drop(wait.unwrap_or_else(PoisonError::into_inner));
        }
        Ok(())
    }

    /// Frames that nobody has said, before this one.
    fn put_in(&mut self, frames: Vec<Frame>, next: &Frame) -> io::Result<()> {
        for mut frame in frames {
            frame.take_number_of(next, self.moved_by);
            self.moved_by = self.moved_by.wrapping_add(1);
            self.to.write_all(frame.bytes())?;
        }
        Ok(())
    }

    fn forward(&mut self, mut frame: Frame, verdict: &Verdict) -> io::Result<()> {
        match verdict.mode {
            Mode::Lost => {}
            Mode::Unsaid => self.moved_by = self.moved_by.wrapping_sub(1),
            Mode::Said => {
                // A damaged frame stays damaged: its hash is not made right.
                frame.move_number(self.moved_by);
                self.to.write_all(frame.bytes())?;
            }
            Mode::Trickling => {
                frame.move_number(self.moved_by);
                for byte in frame.bytes() {
                    self.to.write_all(&[*byte])?;
                    thread::sleep(TRICKLE);
                }
            }
            Mode::Silent => {
                let state = self.shared.lock();
                let wait = self.shared.changed.wait_while(state, |state| !state.closed);
                drop(wait.unwrap_or_else(PoisonError::into_inner));
            }
        }
        Ok(())
    }

    /// What one host has closed is closed toward the other.
    fn end(&self) {
        if !self.shared.lock().rules.hides_the_end(self.toward) {
            let _ = self.to.shutdown(Shutdown::Write);
        }
    }
}

#[cfg(test)]
mod tests;
