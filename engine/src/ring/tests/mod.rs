//! Tests of both backends, on real files.

mod basics;
mod figures;
mod lifetime;
#[path = "../../../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "the tests crate exports it")]
mod skip;
mod streams;
mod twins;
mod zero_copy;

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{BackendChoice, BlockingThreads, Done, FileId, Op, Ring, RingConfig, Token, open};
use crate::buffers::Buffer;
use skip::skip;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);
/// Long enough for an operation to be parked.
const SHORT: Duration = Duration::from_millis(30);

/// A ring of each backend that this machine grants; a missing io_uring is said.
fn rings() -> Vec<Box<dyn Ring>> {
    [BackendChoice::IoUring, BackendChoice::Syscalls].into_iter().filter_map(ring).collect()
}

fn ring(backend: BackendChoice) -> Option<Box<dyn Ring>> {
    let config = RingConfig {
        backend,
        depth: 16,
        files: 8,
        blocking: BlockingThreads::plain(1),
        zero_copy: None,
    };
    match open(&config) {
        Ok(opened) => Some(opened.ring),
        Err(error) => {
            skip(format!("{backend:?}: {error}"));
            None
        }
    }
}

/// Waits for `count` completions, in the order of their tokens.
fn complete(ring: &mut dyn Ring, count: usize) -> Vec<Done> {
    let mut done = Vec::new();
    let deadline = Instant::now() + LONG;
    while done.len() < count {
        assert!(Instant::now() < deadline, "only {done:?} of {count} completed");
        ring.wait(Some(LONG), &mut done).expect("wait");
    }
    done.sort_by_key(|done| done.token);
    done
}

/// Waits a little and sees that nothing completes.
fn nothing_completes(ring: &mut dyn Ring) {
    let mut done = Vec::new();
    ring.wait(Some(SHORT), &mut done).expect("wait");
    assert!(done.is_empty(), "{done:?}");
}

fn submit(ring: &mut dyn Ring, token: u64, op: Op) {
    ring.submit(Token(token), op).expect("submit");
}

/// Submits and waits for that one operation.
fn run(ring: &mut dyn Ring, op: Op) -> (Result<usize, i32>, Vec<u8>) {
    submit(ring, u64::MAX, op);
    let done = complete(ring, 1).pop().expect("one completion");
    assert_eq!(done.token, Token(u64::MAX));
    (done.result, done.buffer.bytes().to_vec())
}

fn buffer(bytes: usize) -> Buffer {
    Buffer::Small(vec![0; bytes])
}

fn read(file: FileId, bytes: usize) -> Op {
    Op::read(file, buffer(bytes), 0..bytes)
}

fn try_read(file: FileId, bytes: usize) -> Op {
    Op::try_read(file, buffer(bytes), 0..bytes)
}

fn recv(file: FileId, bytes: usize) -> Op {
    Op::recv(file, buffer(bytes), 0..bytes)
}

fn write(file: FileId, bytes: &[u8]) -> Op {
    Op::write(file, Buffer::Small(bytes.to_vec()), 0..bytes.len())
}

fn send(file: FileId, bytes: &[u8]) -> Op {
    Op::send(file, Buffer::Small(bytes.to_vec()), 0..bytes.len())
}

/// Bytes that differ from one another and from place to place.
fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}

fn pipe() -> (Arc<OwnedFd>, OwnedFd) {
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (reader, writer) = rustix::pipe::pipe_with(flags).expect("pipe");
    (Arc::new(reader), writer)
}

fn memfd(content: &[u8]) -> Arc<OwnedFd> {
    let fd = rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
    rustix::io::pwrite(&fd, content, 0).expect("pwrite");
    Arc::new(fd)
}

/// A connected pair of TCP sockets over loopback.
fn tcp() -> (Arc<OwnedFd>, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let here = std::net::TcpStream::connect(listener.local_addr().expect("addr")).expect("connect");
    let (there, _) = listener.accept().expect("accept");
    (Arc::new(here.into()), there)
}
