//! What the kernel is told of a connection on which state comes in: to take much from the start, and to
//! keep nothing waiting at the other end.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use nix::sys::socket::setsockopt;
use nix::{setsockopt_impl, sockopt_impl};
use rustix::net::AddressFamily;
use rustix::net::sockopt::{set_tcp_quickack, socket_domain};

sockopt_impl!(
    /// From how many bytes on a socket counts as readable.
    ReceiveLowat,
    SetOnly,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    i32
);

/// A window of this much is worth having from the start: a large chunk.
const WINDOW_BYTES: i32 = 1 << 20;

/// Has the kernel take more at once than a new connection does, which begins with 64 KiB. Where a
/// packet is as long as that (loopback), the other end may have to wait for an acknowledgement
/// before it sends one at all (`tcp_snd_wnd_test`), and with nothing on its way for its probe timer:
/// 200 ms. SO_RCVLOWAT makes the buffer large enough for what it is told (`tcp_set_rcvlowat`), within
/// tcp_rmem, and leaves it to grow by itself, which SO_RCVBUF does not.
pub(crate) fn open_window(socket: impl AsFd) {
    if !is_tcp(&socket) {
        return;
    }
    for bytes in [WINDOW_BYTES, 1] {
        if let Err(error) = setsockopt(&socket, ReceiveLowat, &bytes) {
            tracing::debug!(%error, "SO_RCVLOWAT");
        }
    }
}

/// Acknowledges what has come. By itself the kernel may hold that back for 40 ms, in the hope of an
/// answer that it could go with (`tcp_send_delayed_ack`, TCP_ATO_MIN), and meanwhile a window that is
/// still small may not let the other end send the next packet. Sockets other than TCP are left alone.
pub(crate) fn acknowledge(socket: impl AsFd) {
    if is_tcp(&socket)
        && let Err(errno) = set_tcp_quickack(&socket, true)
    {
        tracing::debug!(%errno, "TCP_QUICKACK");
    }
}

/// Others fail with EOPNOTSUPP.
pub(crate) fn is_tcp(socket: impl AsFd) -> bool {
    matches!(socket_domain(socket), Ok(AddressFamily::INET | AddressFamily::INET6))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Two ends of a connection.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let one = TcpStream::connect(listener.local_addr().expect("its address"));
        (one.expect("loopback"), listener.accept().expect("it is there").0)
    }

    #[test]
    fn the_window_is_opened_and_the_socket_as_readable_as_before() {
        let (mut one, mut other) = pair();
        let buffer = || rustix::net::sockopt::socket_recv_buffer_size(&other).expect("its buffer");
        let before = buffer();
        open_window(&other);
        assert!(buffer() > before && buffer() > WINDOW_BYTES as usize, "{before}, {}", buffer());
        one.write_all(b"x").expect("room for one byte");
        other.set_nonblocking(true).expect("an option of the socket");
        let readable = rustix::event::PollFlags::IN;
        let mut polled = [rustix::event::PollFd::new(&other, readable)];
        let minute = rustix::event::Timespec { tv_sec: 60, tv_nsec: 0 };
        let ready = rustix::event::poll(&mut polled, Some(&minute));
        assert_eq!(ready, Ok(1), "one byte is enough");
        assert_eq!(other.read(&mut [0; 2]).expect("it came"), 1);
    }

    #[test]
    fn what_is_no_tcp_is_left_alone() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("sockets");
        assert!(!is_tcp(&one));
        open_window(&one);
        acknowledge(&one);
    }
}
