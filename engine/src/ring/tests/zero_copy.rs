//! Zero-copy sends turn themselves off where the kernel copies, and nothing is lost over it.

use std::io::Read;

use super::*;
use crate::buffers::Arena;
use crate::errno;
use crate::ring::{FileKind, ZeroCopyStats};

const CHUNK_BYTES: usize = 256 << 10;

/// A ring with an arena registered, if this machine grants it.
fn zero_copy_ring() -> Option<(Box<dyn Ring>, Vec<crate::buffers::Slot>)> {
    let (arena, slots) = Arena::new(4, CHUNK_BYTES).expect("arena");
    let backend = BackendChoice::IoUring;
    let config = RingConfig {
        backend,
        depth: 8,
        files: 4,
        blocking: BlockingThreads::plain(1),
        zero_copy: Some(arena),
    };
    let opened = match open(&config) {
        Ok(opened) => opened.ring,
        Err(error) => {
            skip(error);
            return None;
        }
    };
    if !opened.zero_copy().registered {
        skip("no SEND_ZC, or RLIMIT_MEMLOCK is too low for the arena");
        return None;
    }
    Some((opened, slots))
}

#[test]
fn over_loopback_the_kernel_copies_and_zero_copy_goes_off() {
    let Some((mut ring, mut slots)) = zero_copy_ring() else {
        return;
    };
    let (here, mut there) = tcp();
    let (other, _other_there) = tcp();
    let socket = ring.add_file(here, FileKind::Socket).expect("add");
    ring.add_file(other, FileKind::Socket).expect("add");
    assert_eq!(ring.zero_copy().sockets_on, 2);
    let rounds = 20;
    let peer = std::thread::spawn(move || {
        let mut all = Vec::new();
        there.read_to_end(&mut all).expect("read");
        all
    });
    let mut sent = Vec::new();
    for round in 0..rounds {
        let mut slot = slots.pop().expect("slot");
        let id = slot.id();
        slot.frame_mut().copy_from_slice(&pattern(round, 64 + CHUNK_BYTES));
        sent.extend_from_slice(slot.frame());
        let op = Op::send(socket, Buffer::Slot(slot), 0..64 + CHUNK_BYTES);
        submit(&mut *ring, round, op);
        let done = complete(&mut *ring, 1).pop().expect("done");
        assert_eq!(done.result, Ok(64 + CHUNK_BYTES));
        let Buffer::Slot(mut slot) = done.buffer else { panic!("another buffer came back") };
        assert_eq!(slot.id(), id);
        // The buffer is ours again: the kernel must not send what is written to it now.
        slot.frame_mut().fill(0xee);
        slots.push(slot);
    }
    let stats = ring.zero_copy();
    eprintln!("{stats:?}");
    assert_eq!(stats.copied_sends, stats.zero_copy_sends, "loopback copies");
    assert!((1..=2).contains(&stats.zero_copy_sends), "it went on after the first report");
    assert_eq!(stats.sockets_on, 1, "the other socket has not been tried");
    drop(ring);
    assert!(peer.join().expect("peer") == sent);
}

#[test]
fn small_sends_and_foreign_buffers_are_plain() {
    let Some((mut ring, mut slots)) = zero_copy_ring() else {
        return;
    };
    let (_other_arena, mut foreign) = Arena::new(1, CHUNK_BYTES).expect("arena");
    let (here, _there) = tcp();
    let file = ring.add_file(here, FileKind::Socket).expect("add");
    let own = Buffer::Slot(slots.pop().expect("slot"));
    let foreign = Buffer::Slot(foreign.pop().expect("slot"));
    for (buffer, bytes) in [(own, 4096), (foreign, 65536), (buffer(65536), 65536)] {
        let (result, _) = run(&mut *ring, Op::send(file, buffer, 0..bytes));
        assert_eq!(result, Ok(bytes));
    }
    assert_eq!(ring.zero_copy().zero_copy_sends, 0);
    assert_eq!(ring.zero_copy().sockets_on, 1);
}

#[test]
fn a_socket_that_cannot_is_sent_to_plainly() {
    let Some((mut ring, mut slots)) = zero_copy_ring() else {
        return;
    };
    let (here, mut there) = std::os::unix::net::UnixStream::pair().expect("pair");
    let file = ring.add_file(Arc::new(here.into()), FileKind::Socket).expect("add");
    let mut slot = slots.pop().expect("slot");
    slot.body_mut().copy_from_slice(&pattern(8, CHUNK_BYTES));
    let expected = slot.frame().to_vec();
    let peer = std::thread::spawn(move || {
        let mut all = Vec::new();
        there.read_to_end(&mut all).expect("read");
        all
    });
    let range = 0..expected.len();
    let (result, _) = run(&mut *ring, Op::send(file, Buffer::Slot(slot), range));
    assert_eq!(result, Ok(expected.len()));
    let ZeroCopyStats { sockets_on, zero_copy_sends, .. } = ring.zero_copy();
    assert_eq!((sockets_on, zero_copy_sends), (0, 1));
    drop(ring);
    assert!(peer.join().expect("peer") == expected);
}

#[test]
fn a_zero_copy_send_whose_peer_is_gone_gives_its_buffer_back() {
    let Some((mut ring, mut slots)) = zero_copy_ring() else {
        return;
    };
    let (here, there) = tcp();
    let file = ring.add_file(here, FileKind::Socket).expect("add");
    submit(&mut *ring, 1, recv(file, 1));
    let slot = slots.pop().expect("slot");
    let range = 0..slot.frame().len();
    submit(&mut *ring, 2, Op::send(file, Buffer::Slot(slot), range));
    ring.wait(Some(SHORT), &mut Vec::new()).expect("wait");
    drop(there);
    let mut done = Vec::new();
    while ring.in_flight() > 0 {
        ring.wait(Some(LONG), &mut done).expect("wait");
    }
    let slot = slots.pop().expect("slot");
    let op = Op::send(file, Buffer::Slot(slot), 0..CHUNK_BYTES);
    let (result, _) = run(&mut *ring, op);
    assert!(matches!(result, Err(errno::EPIPE | errno::ECONNRESET)), "{result:?}");
}
