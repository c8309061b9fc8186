//! Who owns what, and until when.

use super::*;
use crate::buffers::Arena;
use crate::ring::{FileKind, OpenError};

#[test]
fn a_ring_that_ends_waits_for_its_operations_and_frees_their_memory() {
    for backend in [BackendChoice::IoUring, BackendChoice::Syscalls] {
        let Some(mut ring) = ring(backend) else {
            continue;
        };
        let (arena, mut slots) = Arena::new(4, 64 << 10).expect("arena");
        let arena_left = Arc::downgrade(&arena);
        drop(arena);
        let (reader, writer) = pipe();
        let (here, there) = tcp();
        let data = ring.add_file(reader, FileKind::Pollable).expect("add");
        let socket = ring.add_file(Arc::clone(&here), FileKind::Socket).expect("add");
        let mut slot = || Buffer::Slot(slots.pop().expect("slot"));
        submit(&mut *ring, 1, Op::read(data, slot(), 0..100));
        submit(&mut *ring, 2, Op::recv(socket, slot(), 0..100));
        nothing_completes(&mut *ring);
        // Never seen by the kernel before the end.
        submit(&mut *ring, 3, Op::send(socket, slot(), 0..100));
        assert_eq!(Arc::strong_count(&here), 2);
        drop(ring);
        assert_eq!(Arc::strong_count(&here), 1, "the file was not let go");
        drop(slots);
        assert_eq!(arena_left.strong_count(), 0, "a slot was not let go");
        // Nobody reads any more, so nothing of this lands in freed memory.
        let _ = rustix::io::write(&writer, &[0xee; 100]);
        let _ = rustix::io::write(&there, &[0xee; 100]);
    }
}

#[test]
fn a_ring_ends_with_an_operation_on_a_worker() {
    for mut ring in rings() {
        let content = memfd(&pattern(1, 1 << 20));
        let file = ring.add_file(Arc::clone(&content), FileKind::Blocking).expect("add");
        submit(&mut *ring, 1, read(file, 1 << 20));
        if ring.backend() == crate::ring::Backend::IoUring {
            ring.wait(Some(Duration::ZERO), &mut Vec::new()).expect("wait");
        }
        drop(ring);
        assert_eq!(Arc::strong_count(&content), 1, "the file was not let go");
        // A worker that still reads would move the position once more.
        let position = || rustix::fs::tell(&*content).expect("tell");
        let before = position();
        std::thread::sleep(SHORT);
        assert_eq!(position(), before, "the operation outlived its ring");
    }
}

#[test]
fn a_waker_outlives_its_ring() {
    for mut ring in rings() {
        let waker = ring.waker();
        ring.wait(Some(Duration::ZERO), &mut Vec::new()).expect("wait");
        drop(ring);
        waker.wake();
        waker.wake();
    }
}

#[test]
fn a_thousand_rings_leave_no_descriptor_behind() {
    let open_files = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
    for backend in [BackendChoice::IoUring, BackendChoice::Syscalls] {
        let before = open_files();
        for _ in 0..1000 {
            let Some(mut ring) = ring(backend) else {
                return;
            };
            let (reader, _writer) = pipe();
            let file = ring.add_file(reader, FileKind::Pollable).expect("add");
            submit(&mut *ring, 1, read(file, 10));
            ring.wait(Some(Duration::ZERO), &mut Vec::new()).expect("wait");
        }
        // Other tests open files at the same time.
        assert!(open_files() < before + 200, "{before} before, {} after", open_files());
    }
}

#[test]
fn bounds_are_checked_before_anything_is_made() {
    for (depth, files) in [(0, 1), (1, 0), (u32::MAX, 1), (1, u32::MAX)] {
        for backend in [BackendChoice::Auto, BackendChoice::Syscalls] {
            let config = RingConfig {
                backend,
                depth,
                files,
                blocking: BlockingThreads::plain(1),
                zero_copy: None,
            };
            assert!(matches!(open(&config).map(|_| ()), Err(OpenError::Config(_))));
        }
    }
}
