//! The TCP connections of a run: congestion control set and read back, sending paced where a link
//! is modelled.
//!
//! Pacing needs no privilege: SO_MAX_PACING_RATE makes TCP itself pace (`sk_pacing_rate`), on
//! loopback too and with any congestion control, without an fq qdisc.

mod info;
mod pacing;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::thread;
use std::time::Instant;

use rustix::net::sockopt;

use crate::engine::{COMES_UP_WITHIN, LOOK_AGAIN, Streams};
use crate::spec::{Link, Shaper};

/// Opens a listening socket.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address)
}

/// Takes `count` connections.
pub(crate) fn accept(
    listener: &TcpListener,
    count: u16,
    link: &Link,
) -> io::Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let (stream, _) = listener.accept()?;
            prepare(&stream, link)?;
            Ok(stream)
        })
        .collect()
}

/// The addresses of a `HOST:PORT`.
pub(crate) fn resolve(text: &str) -> io::Result<Vec<SocketAddr>> {
    let addresses: Vec<SocketAddr> = text.to_socket_addrs()?.collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}

/// Makes connections of a session what those of [`connect`] are.
pub(crate) fn adopt(streams: &Streams, link: &Link) -> io::Result<()> {
    let count = streams.count() as u64;
    streams.sockets().try_for_each(|socket| {
        prepare(&socket, link)?;
        pace(&socket, link, count)
    })
}

/// Opens `count` connections to the first address that answers, which share the link's rate.
pub(crate) fn connect(
    addresses: &[SocketAddr],
    count: u16,
    link: &Link,
) -> io::Result<Vec<TcpStream>> {
    let started = Instant::now();
    (0..count)
        .map(|_| {
            let stream = loop {
                match TcpStream::connect(addresses) {
                    Err(error)
                        if error.kind() == io::ErrorKind::ConnectionRefused
                            && started.elapsed() < COMES_UP_WITHIN =>
                    {
                        thread::sleep(LOOK_AGAIN);
                    }
                    result => break result?,
                }
            };
            prepare(&stream, link)?;
            pace(&stream, link, count.into())?;
            Ok(stream)
        })
        .collect()
}

/// Gives a connection its share of the link.
fn pace(stream: &impl AsFd, link: &Link, count: u64) -> io::Result<()> {
    match link.rate.filter(|_| link.shaper == Shaper::Pacing) {
        Some(rate) => pacing::limit(stream, (rate.0 / count).max(1)),
        None => Ok(()),
    }
}

fn prepare(stream: &impl AsFd, link: &Link) -> io::Result<()> {
    sockopt::set_tcp_nodelay(stream, true)?;
    if let Some(name) = &link.congestion {
        sockopt::set_tcp_congestion(stream, name)?;
    }
    Ok(())
}

/// Bytes that the kernel has put on the wire for a connection, without those that it sent again.
pub(crate) fn sent_bytes(stream: &impl AsFd) -> io::Result<u64> {
    let info = info::of(stream)?;
    Ok(info.tcpi_bytes_sent.saturating_sub(info.tcpi_bytes_retrans))
}

/// Bytes that the kernel has taken from it.
pub(crate) fn received_bytes(stream: &TcpStream) -> io::Result<u64> {
    Ok(info::of(stream)?.tcpi_bytes_received)
}

/// The congestion control that the kernel says the connections use.
pub(crate) fn congestion_in_use(streams: &Streams) -> io::Result<String> {
    let mut names =
        streams.sockets().map(sockopt::tcp_congestion).collect::<Result<Vec<String>, _>>()?;
    names.sort();
    names.dedup();
    Ok(names.join("+"))
}

/// Checks that this user may use a congestion control, before anything is started.
///
/// TCP_CONGESTION asks for CAP_NET_ADMIN (EPERM) unless the name is on the list of those that are
/// allowed, and says ENOENT unless the host has it (`tcp_set_congestion_control`).
pub(crate) fn check_congestion(name: &str) -> Result<(), String> {
    let probe = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    sockopt::set_tcp_congestion(&probe, name).map_err(|error| {
        let (allowed, available) = (host_congestion("allowed_"), host_congestion("available_"));
        let error = io::Error::from(error);
        format!("{error} (allowed to every user: {allowed}; this host has: {available})")
    })
}

/// What a `tcp_..._congestion_control` of this host says.
fn host_congestion(which: &str) -> String {
    let path = format!("/proc/sys/net/ipv4/tcp_{which}congestion_control");
    let text = std::fs::read_to_string(path);
    text.map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::engine::plain;
    use crate::spec::Rate;

    fn pair(link: &Link) -> (TcpStream, TcpStream) {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap_or_else(|e| panic!("{e}"));
        let address = listener.local_addr().unwrap_or_else(|e| panic!("{e}"));
        let mut source = connect(&[address], 1, link).unwrap_or_else(|e| panic!("{e}"));
        let mut target = accept(&listener, 1, link).unwrap_or_else(|e| panic!("{e}"));
        (source.remove(0), target.remove(0))
    }

    #[test]
    fn congestion_control_is_what_was_asked_for() {
        for name in host_congestion("allowed_").split(' ') {
            let link = Link { congestion: Some(name.to_owned()), ..Link::default() };
            let (source, target) = pair(&link);
            let both = congestion_in_use(&plain(vec![source, target]));
            assert_eq!(both.map_err(|e| e.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn without_a_name_the_hosts_own_is_kept_and_told() {
        let (source, target) = pair(&Link::default());
        let both = congestion_in_use(&plain(vec![source, target])).map_err(|e| e.to_string());
        assert_eq!(both, Ok(host_congestion("")));
    }

    #[test]
    fn pacing_holds_the_rate() {
        let rate = 50_000_000;
        let link = Link { rate: Some(Rate(rate)), ..Link::default() };
        let (mut source, mut target) = pair(&link);
        let bytes = 10_000_000usize;
        let reader = thread::spawn(move || {
            let mut left = bytes;
            let mut buffer = vec![0; 1 << 16];
            while left > 0 {
                left -= target.read(&mut buffer).unwrap_or_else(|e| panic!("{e}"));
            }
        });
        let started = Instant::now();
        source.write_all(&vec![0; bytes]).unwrap_or_else(|e| panic!("{e}"));
        reader.join().unwrap_or_else(|_| panic!("reader"));
        let measured = bytes as f64 / started.elapsed().as_secs_f64();
        assert!(measured < rate as f64 * 1.10, "measured {measured:.0} B/s");
    }
}
