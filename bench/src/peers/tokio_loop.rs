//! The loop that a Rust program on tokio-uring would have: one piece of at most 1 MiB is read while the one
//! before it is sent, and received while the one before it is written. Raw, with a length in front of each
//! piece, 0 at a device's end.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;

use tokio_uring::Runtime;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::fs::File;
use tokio_uring::net::TcpStream as Socket;

use super::Peer;
use super::file::DataFd;

/// Most bytes of one read.
const READ_BYTES: usize = 1 << 20;
/// The length in front.
const HEAD_BYTES: usize = 8;
/// From the file's own position, as read(2): a data fd has no other.
const POSITION: u64 = u64::MAX;

/// The peer.
pub(crate) struct TokioLoop;

/// Why this host cannot run it; none if it can.
pub(crate) fn missing() -> Option<String> {
    Runtime::new(&tokio_uring::builder()).err().map(|error| format!("io_uring: {error}"))
}

/// A piece with its length in front.
type Piece = Vec<u8>;

fn piece() -> Piece {
    vec![0; HEAD_BYTES + READ_BYTES]
}

impl Peer for TokioLoop {
    fn send(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        Runtime::new(&tokio_uring::builder())?.block_on(send(devices, stream))
    }

    fn receive(&self, devices: &[DataFd<'_>], stream: &TcpStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        Runtime::new(&tokio_uring::builder())?.block_on(receive(devices, stream))
    }
}

async fn send(devices: &[DataFd<'_>], stream: TcpStream) -> io::Result<u64> {
    let socket = Rc::new(Socket::from_std(stream));
    let mut sent = 0;
    let mut idle = Some(piece());
    let mut sending = None;
    for data in devices {
        let file = File::from_std(fs::File::from(data.fd().try_clone_to_owned()?));
        loop {
            let buffer = idle.take().unwrap_or_else(piece);
            let (result, slice) = file.read_at(buffer.slice(HEAD_BYTES..), POSITION).await;
            let count = data.observe(result)?;
            let mut buffer = slice.into_inner();
            buffer[..HEAD_BYTES].copy_from_slice(&(count as u64).to_be_bytes());
            if let Some(sending) = sending.take() {
                idle = Some(sending.await??);
            }
            let (socket, length) = (Rc::clone(&socket), HEAD_BYTES + count);
            sending = Some(tokio_uring::spawn(async move {
                let (result, slice) = socket.write_all(buffer.slice(..length)).await;
                result.map(|()| slice.into_inner()) as io::Result<Piece>
            }));
            sent += length as u64;
            if count == 0 {
                break;
            }
        }
        file.close().await?;
    }
    if let Some(sending) = sending {
        sending.await??;
    }
    Ok(sent)
}

async fn receive(devices: &[DataFd<'_>], stream: TcpStream) -> io::Result<u64> {
    let socket = Rc::new(Socket::from_std(stream));
    let begin = |idle: Piece| tokio_uring::spawn(one(Rc::clone(&socket), idle));
    let mut received = 0;
    let mut idle = Some(piece());
    for data in devices {
        let file = File::from_std(fs::File::from(data.fd().try_clone_to_owned()?));
        let mut coming = begin(idle.take().unwrap_or_else(piece));
        loop {
            let (mut piece, length) = coming.await??;
            received += (HEAD_BYTES + length) as u64;
            if length == 0 {
                // Not before it is known that more comes: the next one may be somebody else's.
                idle = Some(piece);
                break;
            }
            coming = begin(idle.take().unwrap_or_else(self::piece));
            let (mut at, end) = (HEAD_BYTES, HEAD_BYTES + length);
            while at < end {
                let (result, slice) = file.write_at(piece.slice(at..end), POSITION).submit().await;
                at += data.observe(result)?;
                piece = slice.into_inner();
            }
            idle = Some(piece);
        }
        file.close().await?;
    }
    Ok(received)
}

/// Receives one piece, and says how long it is.
async fn one(socket: Rc<Socket>, mut piece: Piece) -> io::Result<(Piece, usize)> {
    let (mut at, mut end) = (0, HEAD_BYTES);
    while at < end {
        let (result, slice) = socket.read(piece.slice(at..end)).await;
        piece = slice.into_inner();
        match result? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => at += count,
        }
        if at == HEAD_BYTES && end == HEAD_BYTES {
            let mut head = [0; HEAD_BYTES];
            head.copy_from_slice(&piece[..HEAD_BYTES]);
            let length = u64::from_be_bytes(head);
            if length > READ_BYTES as u64 {
                return Err(io::Error::other(format!("a piece of {length}")));
            }
            end += length as usize;
        }
    }
    Ok((piece, end - HEAD_BYTES))
}
