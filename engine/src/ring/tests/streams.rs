//! Sends of any size on one ring, receives of any other size on another, over TCP: the bytes
//! arrive whole and in order, whichever backend is at which end.

use proptest::prelude::*;

use super::*;
use crate::buffers::Arena;
use crate::ring::FileKind;

const CHUNK_BYTES: usize = 256 << 10;

/// Sends `pieces` of a pattern from an arena's slots, then ends the stream.
fn send_pieces(backend: BackendChoice, fd: Arc<OwnedFd>, pieces: &[usize]) -> bool {
    let (arena, mut slots) = Arena::new(1, CHUNK_BYTES).expect("arena");
    let config = RingConfig {
        backend,
        depth: 4,
        files: 1,
        blocking: BlockingThreads::plain(1),
        zero_copy: Some(arena),
    };
    let mut ring = match open(&config) {
        Ok(opened) => opened.ring,
        Err(error) => {
            skip(format!("{backend:?}: {error}"));
            return false;
        }
    };
    let file = ring.add_file(Arc::clone(&fd), FileKind::Socket).expect("add");
    for (number, &bytes) in (0..).zip(pieces) {
        let mut slot = slots.pop().expect("slot");
        slot.frame_mut()[..bytes].copy_from_slice(&pattern(number, bytes));
        submit(&mut *ring, number, Op::send(file, Buffer::Slot(slot), 0..bytes));
        let done = complete(&mut *ring, 1).pop().expect("done");
        assert_eq!(done.result, Ok(bytes));
        let Buffer::Slot(mut slot) = done.buffer else { panic!("another buffer came back") };
        // From now on it is ours: nothing of this may arrive.
        slot.frame_mut()[..bytes].fill(0xee);
        slots.push(slot);
    }
    rustix::net::shutdown(&fd, rustix::net::Shutdown::Write).expect("shutdown");
    true
}

/// Receives in `pieces`, and again, until the stream ends.
fn receive_pieces(ring: &mut dyn Ring, fd: Arc<OwnedFd>, pieces: &[usize]) -> Vec<u8> {
    let file = ring.add_file(fd, FileKind::Socket).expect("add");
    let mut received = Vec::new();
    for &bytes in pieces.iter().cycle() {
        let (result, buffer) = run(ring, recv(file, bytes));
        let moved = result.expect("recv");
        received.extend_from_slice(&buffer[..moved]);
        if moved < bytes {
            break;
        }
    }
    received
}

fn streams_arrive(sent: &[usize], received: &[usize]) {
    let backends = [BackendChoice::IoUring, BackendChoice::Syscalls];
    let expected: Vec<u8> =
        (0..).zip(sent).flat_map(|(number, &bytes)| pattern(number, bytes)).collect();
    for sender in backends {
        for receiver in backends {
            let Some(mut ring) = ring(receiver) else {
                continue;
            };
            let (here, there) = tcp();
            let there = Arc::new(there.into());
            let pieces = sent.to_vec();
            let sending = std::thread::spawn(move || send_pieces(sender, here, &pieces));
            let arrived = receive_pieces(&mut *ring, there, received);
            if sending.join().expect("sender") {
                assert!(arrived == expected, "{sender:?} to {receiver:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn frames_of_any_size_arrive_over_tcp(
        sent in proptest::collection::vec(1..CHUNK_BYTES, 1..12),
        received in proptest::collection::vec(1..2 * CHUNK_BYTES, 1..6),
    ) {
        streams_arrive(&sent, &received);
    }
}
