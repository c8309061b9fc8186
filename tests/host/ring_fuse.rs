//! Reads that block in a driver, and the errnos that pipes and sockets never give: see
//! [`FuseFile`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fuser::{Errno, ReplyData};
use vfio_ferry::buffers::{Arena, Buffer, Slot};
use vfio_ferry::errno::is_interruption;
use vfio_ferry::ring::{
    Backend, BackendChoice, BlockingThreads, Done, FileId, FileKind, Op, Ring, RingConfig, Token,
    open,
};
use vfio_ferry_tests::fuse::{Asked, FuseFile};
use vfio_ferry_tests::skip::skip;

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 64 << 10;

/// A mounted file, a ring with it, and the reads that wait for an answer.
struct Bench {
    ring: Box<dyn Ring>,
    file: FileId,
    slots: Vec<Slot>,
    reads: Receiver<ReplyData>,
    // The last: whatever has it open is closed before.
    _mounted: FuseFile,
}

impl Bench {
    fn new(name: &str, backend: BackendChoice) -> Option<Bench> {
        let config = RingConfig {
            backend,
            depth: 4,
            files: 2,
            blocking: BlockingThreads::plain(1),
            zero_copy: None,
        };
        let mut ring = match open(&config) {
            Ok(opened) => opened.ring,
            Err(error) => return skipped(&error),
        };
        let (sender, reads) = channel();
        let driver = move |asked| match asked {
            // The test outlives its mount.
            Asked::Read(reply, _) => drop(sender.send(reply)),
            Asked::Write(reply, _) => reply.error(Errno::EBADF),
        };
        let mounted = match FuseFile::mount(name, driver) {
            Ok(mounted) => mounted,
            Err(error) => return skipped(&error),
        };
        let opened = mounted.open().expect("open");
        let file = ring.add_file(Arc::new(opened.into()), FileKind::Blocking).expect("add");
        let (_, slots) = Arena::new(2, CHUNK_BYTES).expect("arena");
        Some(Bench { ring, file, slots, reads, _mounted: mounted })
    }

    fn read(&mut self, token: u64) {
        let buffer = Buffer::Slot(self.slots.pop().expect("slot"));
        let op = Op::read(self.file, buffer, 64..64 + CHUNK_BYTES);
        self.ring.submit(Token(token), op).expect("submit");
    }

    /// The read that waits, once it has reached the driver.
    fn held(&mut self) -> ReplyData {
        self.nothing_completes();
        self.reads.recv_timeout(LONG).expect("the read reaches the driver")
    }

    fn nothing_completes(&mut self) {
        let mut done = Vec::new();
        self.ring.wait(Some(SHORT), &mut done).expect("wait");
        assert!(done.is_empty(), "{done:?}");
    }

    fn completes(&mut self) -> Done {
        let mut done = Vec::new();
        self.ring.wait(Some(LONG), &mut done).expect("wait");
        assert_eq!(done.len(), 1);
        done.pop().expect("one")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // In this order, on failure too: answer what is held, close the file (which asks the
        // driver), unmount. A driver that is gone before its file leaves the process stuck.
        let deadline = Instant::now() + LONG;
        while self.ring.in_flight() > 0 && Instant::now() < deadline {
            self.reads.try_iter().for_each(|reply| reply.error(Errno::ENODEV));
            let _ = self.ring.wait(Some(SHORT), &mut Vec::new());
        }
        let _ = self.ring.remove_file(self.file);
    }
}

fn skipped(why: &dyn std::error::Error) -> Option<Bench> {
    skip(why);
    None
}

#[test]
fn a_blocked_read_ends_with_enodev_when_the_driver_says_so() {
    let Some(mut bench) = Bench::new("enodev", BackendChoice::IoUring) else {
        return;
    };
    for (round, (answer, errno)) in
        [(Errno::ENODEV, libc::ENODEV), (Errno::EINVAL, libc::EINVAL), (Errno::EIO, libc::EIO)]
            .into_iter()
            .enumerate()
    {
        bench.read(round as u64);
        let held = bench.held();
        held.error(answer);
        let done = bench.completes();
        assert_eq!((done.token, done.result), (Token(round as u64), Err(errno)));
        let Buffer::Slot(slot) = done.buffer else { panic!("another buffer") };
        bench.slots.push(slot);
    }
}

#[test]
fn enomsg_is_delivered_and_the_next_read_works() {
    let Some(mut bench) = Bench::new("enomsg", BackendChoice::IoUring) else {
        return;
    };
    bench.read(1);
    let held = bench.held();
    held.error(Errno::from_i32(libc::ENOMSG));
    assert_eq!(bench.completes().result, Err(libc::ENOMSG));
    bench.read(2);
    let held = bench.held();
    held.data(&[7; CHUNK_BYTES]);
    let done = bench.completes();
    assert_eq!(done.result, Ok(CHUNK_BYTES));
    assert!(done.buffer.bytes()[64..64 + CHUNK_BYTES].iter().all(|byte| *byte == 7));
}

#[test]
fn a_cancel_does_not_free_what_the_driver_still_holds() {
    for backend in [BackendChoice::IoUring, BackendChoice::Syscalls] {
        cancel_does_not_free(backend);
    }
}

fn cancel_does_not_free(backend: BackendChoice) {
    let Some(mut bench) = Bench::new(&format!("cancel-{backend:?}"), backend) else {
        return;
    };
    bench.read(1);
    let held = bench.held();
    bench.ring.cancel(Token(1));
    // The ring stays responsive meanwhile: it waits, and can be woken.
    bench.nothing_completes();
    assert_eq!(bench.ring.in_flight(), 1);
    bench.ring.waker().wake();
    let start = Instant::now();
    bench.ring.wait(Some(LONG), &mut Vec::new()).expect("wait");
    assert!(start.elapsed() < LONG / 2);
    held.data(&[9; CHUNK_BYTES]);
    let done = bench.completes();
    // The answer, or an interruption: either way the buffer is back, and only now.
    let fits = done.result.map_or_else(is_interruption, |bytes| bytes == CHUNK_BYTES);
    assert!(fits, "{done:?}");
    println!("a cancelled read that was answered late: {:?}", done.result);
}

#[test]
fn a_ring_that_ends_waits_for_the_driver() {
    for backend in [BackendChoice::IoUring, BackendChoice::Syscalls] {
        end_waits(backend);
    }
}

fn end_waits(backend: BackendChoice) {
    let Some(mut bench) = Bench::new(&format!("end-{backend:?}"), backend) else {
        return;
    };
    bench.read(1);
    let held = bench.held();
    let answered = Arc::new(AtomicBool::new(false));
    let answering = Arc::clone(&answered);
    let late = std::thread::spawn(move || {
        std::thread::sleep(SHORT * 3);
        answering.store(true, Ordering::SeqCst);
        held.data(&[1; CHUNK_BYTES]);
    });
    let config = RingConfig {
        backend: BackendChoice::Syscalls,
        depth: 1,
        files: 1,
        blocking: BlockingThreads::plain(1),
        zero_copy: None,
    };
    let other = open(&config).expect("a ring to put in its place").ring;
    drop(std::mem::replace(&mut bench.ring, other));
    assert!(answered.load(Ordering::SeqCst), "the ring ended while the driver held its buffer");
    late.join().expect("late");
}

#[test]
fn with_system_calls_a_read_that_was_cancelled_before_the_call_is_not_made() {
    let Some(mut bench) = Bench::new("syscalls", BackendChoice::Syscalls) else {
        return;
    };
    assert_eq!(bench.ring.backend(), Backend::Syscalls);
    bench.read(1);
    bench.ring.cancel(Token(1));
    assert_eq!(bench.completes().result, Err(libc::ECANCELED));
    bench.read(2);
    bench.held().error(Errno::ENODEV);
    assert_eq!(bench.completes().result, Err(libc::ENODEV));
}
