//! What the kernel knows of a stream: how fast it is, and whether it leads to this host again.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, setsockopt};
use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};
use rustix::net::{getpeername, getsockname};

use crate::tcp::is_tcp;

/// The first part of `struct tcp_info` (linux/tcp.h), which only grows at its end. This much of it
/// has been there since 4.9.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[expect(unreachable_pub, reason = "the macro makes its option public")]
pub struct Info {
    /// Bit 0 of the last of these says that there was too little to send: the rate is what was
    /// offered, and the path may take more.
    flags: [u8; 8],
    others: [u64; 13],
    /// tcpi_max_pacing_rate: SO_MAX_PACING_RATE in bytes per second, all ones where it is not set.
    max_pacing_rate: u64,
    more: [u64; 3],
    notsent_bytes: u32,
    /// tcpi_min_rtt, in microseconds: the shortest round trip of some minutes.
    min_rtt: u32,
    data_segs: u64,
    /// tcpi_delivery_rate, in bytes per second: what was acknowledged within about a round trip,
    /// lately.
    delivery_rate: u64,
}

sockopt_impl!(
    /// What TCP knows of a connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    Info
);

sockopt_impl!(
    /// How much TCP takes beyond what is on its way, in bytes.
    NotSentLowat,
    Both,
    libc::IPPROTO_TCP,
    libc::TCP_NOTSENT_LOWAT,
    u32
);

/// What the socket takes beyond what is on its way. A chunk that the kernel has taken is bound as it
/// is, and megabytes of them would be on a slow link before anybody knows that it is slow; half of
/// this starves the link.
const UNSENT_BYTES: u32 = 512 << 10;

/// Has the kernel take no more than it can send soon; sockets other than TCP are left alone.
pub(super) fn keep_unsent_short(socket: impl AsFd) {
    if is_tcp(&socket)
        && let Err(error) = setsockopt(&socket, NotSentLowat, &UNSENT_BYTES)
    {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT");
    }
}

/// What the kernel has measured of a stream.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::drive) struct Speed {
    pub(in crate::drive) bytes_per_s: u64,
    /// There was too little to send: it may be faster.
    pub(in crate::drive) at_least: bool,
    /// The shortest round trip of late, in nanoseconds; 0 where nobody knows.
    pub(in crate::drive) round_trip_ns: u64,
}

/// How fast a stream is; none if it is not TCP, or nothing was sent.
pub(super) fn speed(socket: impl AsFd) -> Option<Speed> {
    speed_of(&getsockopt(&socket, TcpInfo).ok()?)
}

fn speed_of(info: &Info) -> Option<Speed> {
    // What waits to be paced is not on its way: the kernel does not measure that.
    let speed = Speed {
        bytes_per_s: info.delivery_rate.min(info.max_pacing_rate),
        at_least: info.flags[7] & 1 != 0,
        round_trip_ns: Some(info.min_rtt)
            .filter(|us| *us != u32::MAX)
            .map_or(0, |us| u64::from(us) * 1000),
    };
    (speed.bytes_per_s > 0).then_some(speed)
}

/// What the stream takes at most; none if it has no limit.
pub(super) fn cap(socket: impl AsFd) -> Option<u64> {
    cap_of(&getsockopt(&socket, TcpInfo).ok()?)
}

fn cap_of(info: &Info) -> Option<u64> {
    Some(info.max_pacing_rate).filter(|rate| *rate != u64::MAX)
}

/// Whether the other end of a stream is on this host: it has the same address.
pub(super) fn is_local(socket: impl AsFd) -> bool {
    let ip = |address| SocketAddr::try_from(address).ok().map(|address: SocketAddr| address.ip());
    let (Ok(here), Ok(Some(there))) = (getsockname(&socket), getpeername(&socket)) else {
        return false;
    };
    let here = ip(here);
    here.is_some() && here == ip(there)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::mem::offset_of;
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::tcp::acknowledge;

    #[test]
    fn the_fields_stand_where_the_kernel_has_them() {
        assert_eq!(
            offset_of!(Info, max_pacing_rate),
            offset_of!(libc::tcp_info, tcpi_max_pacing_rate)
        );
        assert_eq!(offset_of!(Info, min_rtt), offset_of!(libc::tcp_info, tcpi_min_rtt));
        assert_eq!(offset_of!(Info, delivery_rate), offset_of!(libc::tcp_info, tcpi_delivery_rate));
        assert_eq!(offset_of!(Info, flags) + 6, offset_of!(libc::tcp_info, tcpi_snd_rcv_wscale));
    }

    /// Two ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let one = TcpStream::connect(listener.local_addr().expect("its address"));
        (one.expect("loopback"), listener.accept().expect("it is there").0)
    }

    #[test]
    fn what_has_come_is_acknowledged_when_that_is_asked_for() {
        let (mut one, mut other) = pair();
        assert_eq!(offset_of!(Info, others) + 16, offset_of!(libc::tcp_info, tcpi_unacked));
        let unacknowledged =
            |socket: &TcpStream| getsockopt(socket, TcpInfo).expect("TCP").others[2] as u32;
        // A conversation: the kernel takes each message for a question that is answered soon.
        for _ in 0..10 {
            one.write_all(b"question").expect("room");
            other.read_exact(&mut [0; 8]).expect("it came");
            acknowledge(&other);
            assert_eq!(unacknowledged(&one), 0);
            other.write_all(b"answer").expect("room");
            one.read_exact(&mut [0; 6]).expect("it came");
        }
    }

    #[test]
    fn a_connection_to_oneself_is_local_and_has_a_speed() {
        let (mut stream, _peer) = pair();
        keep_unsent_short(&stream);
        let unsent = getsockopt(&stream, NotSentLowat).expect("TCP");
        assert_eq!(unsent, 524_288, "half a megabyte");
        assert!(is_local(&stream));
        assert_eq!(cap(&stream), None);
        assert!(speed(&stream).is_none(), "nothing was sent");
        stream.write_all(&[0; 65536]).expect("the buffer takes it");
        // Acknowledged by the kernel, whoever reads.
        while speed(&stream).is_none() {
            std::thread::yield_now();
        }
    }

    sockopt_impl!(MaxPacingRate, SetOnly, libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, usize);

    #[test]
    fn a_stream_that_is_paced_takes_no_more() {
        let (stream, _peer) = pair();
        setsockopt(&stream, MaxPacingRate, &3_000_000).expect("TCP");
        assert_eq!(cap(&stream), Some(3_000_000));
    }

    #[test]
    fn what_the_kernel_says_is_a_speed() {
        let info = Info {
            flags: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe],
            others: [0; 13],
            max_pacing_rate: u64::MAX,
            more: [0; 3],
            notsent_bytes: 0,
            min_rtt: 70,
            data_segs: 0,
            delivery_rate: 5_000_000,
        };
        let found = |info| {
            let speed = speed_of(&info).expect("something was sent");
            (speed.bytes_per_s, speed.at_least, speed.round_trip_ns)
        };
        assert_eq!((found(info), cap_of(&info)), ((5_000_000, false, 70_000), None));
        let mut offered = info;
        offered.flags[7] = 1;
        assert_eq!(found(offered), (5_000_000, true, 70_000), "there was too little to send");
        let unknown = Info { min_rtt: u32::MAX, ..info };
        assert_eq!(found(unknown), (5_000_000, false, 0), "nobody knows how far it is");
        let paced = Info { max_pacing_rate: 1_000_000, ..info };
        assert_eq!((found(paced), cap_of(&paced)), ((1_000_000, false, 70_000), Some(1_000_000)));
        assert!(speed_of(&Info { delivery_rate: 0, ..info }).is_none(), "nothing was sent");
    }

    #[test]
    fn what_is_no_tcp_has_no_speed() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        keep_unsent_short(&one);
        assert!(!is_local(&one));
        assert!(cap(&one).is_none() && speed(&one).is_none());
    }
}
