//! A link of a certain rate between two QEMUs: what the source sends is taken out of its socket at that
//! rate, as a network card would, and what the target answers at once. The system's buffers of the
//! source's connection are the system's choice; behind the link there is next to none but the target's.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_send_buffer_size;

use crate::checks::Outcome;

/// What is taken at a time.
const PART: usize = 8 << 10;
const LITTLE: usize = 32 << 10;
const LATE: Duration = Duration::from_millis(30);

/// A link that one connection may use.
#[derive(Debug)]
pub(super) struct Link {
    port: u16,
}

impl Link {
    /// To a port of this host, at so many bytes a second; 0: none in between.
    pub(super) fn new(to: u16, bytes_per_s: u64) -> Outcome<Link> {
        if bytes_per_s == 0 {
            return Ok(Link { port: to });
        }
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        // It ends with the connection; what went wrong the migration says.
        thread::spawn(move || {
            let _ = carry(&listener, to, bytes_per_s);
        });
        Ok(Link { port })
    }

    /// Where the source connects to.
    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

fn carry(listener: &TcpListener, to: u16, bytes_per_s: u64) -> io::Result<()> {
    let (mut source, _) = listener.accept()?;
    let mut target = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], to)))?;
    for stream in [&source, &target] {
        stream.set_nodelay(true)?;
    }
    set_socket_send_buffer_size(&target, LITTLE)?;
    let (mut answers, mut answered) = (target.try_clone()?, source.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut answers, &mut answered);
        let _ = answered.shutdown(Shutdown::Write);
    });
    let mut part = [0; PART];
    let mut free_at = Instant::now();
    loop {
        let count = source.read(&mut part)?;
        if count == 0 {
            return target.shutdown(Shutdown::Write);
        }
        // What was not used is not saved up, but for what a sleep takes too long.
        free_at = free_at.max(Instant::now().checked_sub(LATE).unwrap_or(free_at));
        free_at += Duration::from_nanos(count as u64 * 1_000_000_000 / bytes_per_s);
        sleep(free_at.saturating_duration_since(Instant::now()));
        target.write_all(&part[..count])?;
    }
}
