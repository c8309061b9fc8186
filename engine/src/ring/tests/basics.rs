//! One property a test, each on both backends.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl};

use super::*;
use crate::errno;
use crate::ring::{Classes, FileKind, Rejected};

fn on_both(test: impl Fn(&mut dyn Ring)) {
    for mut ring in rings() {
        eprintln!("on {:?}", ring.backend());
        test(&mut *ring);
        assert_eq!(ring.in_flight(), 0);
    }
}

#[test]
fn a_read_is_short_when_there_is_less_and_0_at_the_end() {
    on_both(|ring| {
        let (reader, writer) = pipe();
        let file = ring.add_file(reader, FileKind::Pollable).expect("add");
        rustix::io::write(&writer, b"abc").expect("write");
        let (result, bytes) = run(ring, read(file, 10));
        assert_eq!((result, &bytes[..3]), (Ok(3), &b"abc"[..]));
        drop(writer);
        assert_eq!(run(ring, read(file, 10)).0, Ok(0));
        assert_eq!(run(ring, read(file, 10)).0, Ok(0));
    });
}

#[test]
fn a_read_goes_into_its_range_only() {
    on_both(|ring| {
        let (reader, writer) = pipe();
        let file = ring.add_file(reader, FileKind::Pollable).expect("add");
        rustix::io::write(&writer, b"abcdef").expect("write");
        let op = Op::read(file, buffer(8), 2..6);
        assert_eq!(run(ring, op), (Ok(4), b"\0\0abcd\0\0".to_vec()));
    });
}

#[test]
fn a_parked_read_is_woken_by_data() {
    on_both(|ring| {
        let (reader, writer) = pipe();
        let file = ring.add_file(reader, FileKind::Pollable).expect("add");
        submit(ring, 1, read(file, 10));
        nothing_completes(ring);
        rustix::io::write(&writer, b"late").expect("write");
        assert_eq!(complete(ring, 1)[0].result, Ok(4));
    });
}

#[test]
fn a_try_read_does_not_wait() {
    on_both(|ring| {
        let (reader, writer) = pipe();
        let file = ring.add_file(reader, FileKind::Pollable).expect("add");
        assert_eq!(run(ring, try_read(file, 10)).0, Err(errno::EAGAIN));
        rustix::io::write(&writer, b"xy").expect("write");
        assert_eq!(run(ring, try_read(file, 10)).0, Ok(2));
        assert_eq!(run(ring, try_read(file, 10)).0, Err(errno::EAGAIN));
        drop(writer);
        assert_eq!(run(ring, try_read(file, 10)).0, Ok(0));
    });
}

#[test]
fn a_parked_read_can_be_cancelled_and_the_file_used_again() {
    on_both(|ring| {
        let (reader, writer) = pipe();
        let file = ring.add_file(reader, FileKind::Pollable).expect("add");
        for round in 0..3 {
            submit(ring, round, read(file, 10));
            nothing_completes(ring);
            ring.cancel(Token(round));
            ring.cancel(Token(round));
            let done = complete(ring, 1);
            assert_eq!((done[0].token, done[0].result), (Token(round), Err(errno::ECANCELED)));
        }
        rustix::io::write(&writer, b"still here").expect("write");
        assert_eq!(run(ring, read(file, 10)).0, Ok(10));
        ring.cancel(Token(0));
        nothing_completes(ring);
    });
}

#[test]
fn a_parked_receive_and_a_full_send_can_be_cancelled() {
    on_both(|ring| {
        let (here, mut there) = tcp();
        let file = ring.add_file(here, FileKind::Socket).expect("add");
        submit(ring, 1, recv(file, 100));
        submit(ring, 2, send(file, &pattern(1, 32 << 20)));
        there.write_all(b"some").expect("write");
        nothing_completes(ring);
        assert_eq!(ring.in_flight(), 2);
        ring.cancel(Token(1));
        ring.cancel(Token(2));
        for done in complete(ring, 2) {
            assert_eq!(done.result, Err(errno::ECANCELED));
        }
    });
}

#[test]
fn blocking_files_are_read_and_written_at_their_position() {
    on_both(|ring| {
        let content = pattern(3, 10_000);
        let fd = memfd(&content);
        let file = ring.add_file(Arc::clone(&fd), FileKind::Blocking).expect("add");
        assert_eq!(run(ring, read(file, 6000)), (Ok(6000), content[..6000].to_vec()));
        assert_eq!(run(ring, read(file, 6000)).0, Ok(4000));
        assert_eq!(run(ring, read(file, 6000)).0, Ok(0));
        assert_eq!(run(ring, write(file, b"more")).0, Ok(4));
        let mut end = [0; 4];
        rustix::io::pread(&*fd, &mut end, 10_000).expect("pread");
        assert_eq!(&end, b"more");
    });
}

#[test]
fn a_receive_fills_its_range_and_is_short_only_at_the_end() {
    on_both(|ring| {
        let (here, mut there) = tcp();
        let file = ring.add_file(here, FileKind::Socket).expect("add");
        let sent = pattern(4, 300_000);
        let mine = sent.clone();
        let peer = std::thread::spawn(move || {
            for piece in mine.chunks(70_001) {
                there.write_all(piece).expect("write");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        assert_eq!(run(ring, recv(file, 200_000)), (Ok(200_000), sent[..200_000].to_vec()));
        let (result, bytes) = run(ring, recv(file, 200_000));
        assert_eq!((result, &bytes[..100_000]), (Ok(100_000), &sent[200_000..]));
        assert_eq!(run(ring, recv(file, 1)).0, Ok(0));
        peer.join().expect("peer");
    });
}

#[test]
fn a_send_goes_out_whole_and_in_order() {
    on_both(|ring| {
        let (here, mut there) = tcp();
        let file = ring.add_file(here, FileKind::Socket).expect("add");
        let sent = pattern(5, 24 << 20);
        let peer = std::thread::spawn(move || {
            let mut received = vec![0; 24 << 20];
            for piece in received.chunks_mut(100_000) {
                there.read_exact(piece).expect("read");
            }
            received
        });
        for piece in sent.chunks(8 << 20) {
            assert_eq!(run(ring, send(file, piece)).0, Ok(piece.len()));
        }
        assert!(peer.join().expect("peer") == sent);
    });
}

#[test]
fn a_lost_peer_is_an_error_to_sends_and_an_end_to_receives() {
    on_both(|ring| {
        let (here, there) = tcp();
        let file = ring.add_file(here, FileKind::Socket).expect("add");
        drop(there);
        assert_eq!(run(ring, recv(file, 10)).0, Ok(0));
        assert_eq!(run(ring, send(file, b"lost in the network")).0, Ok(19));
        // The peer's RST may take a moment.
        let mut sends = (0..10_000).map(|_| run(ring, send(file, b"refused")).0);
        let lost = sends.find(Result::is_err).expect("refused in the end");
        assert!(matches!(lost, Err(errno::EPIPE | errno::ECONNRESET)), "{lost:?}");
        drop(sends);
        assert_eq!(run(ring, send(file, b"refused")).0, Err(errno::EPIPE));
    });
}

#[test]
fn a_reset_before_any_byte_is_an_error_and_after_some_an_end() {
    on_both(|ring| {
        for some in [false, true] {
            let (here, mut there) = tcp();
            let file = ring.add_file(here, FileKind::Socket).expect("add");
            // Unread data makes the peer's close a reset.
            assert_eq!(run(ring, send(file, b"never read")).0, Ok(10));
            submit(ring, 1, recv(file, 10));
            if some {
                there.write_all(b"half").expect("write");
            }
            nothing_completes(ring);
            drop(there);
            let expected = if some { Ok(4) } else { Err(errno::ECONNRESET) };
            assert_eq!(complete(ring, 1)[0].result, expected);
            ring.remove_file(file).expect("remove");
        }
    });
}

#[test]
fn a_write_to_a_pipe_without_readers_is_epipe() {
    on_both(|ring| {
        let (reader, writer) = pipe();
        let file = ring.add_file(Arc::new(writer), FileKind::Pollable).expect("add");
        assert_eq!(run(ring, write(file, b"abc")).0, Ok(3));
        drop(reader);
        assert_eq!(run(ring, write(file, b"abc")).0, Err(errno::EPIPE));
    });
}

#[test]
fn a_write_to_a_full_pipe_waits() {
    on_both(|ring| {
        let (reader, writer) = pipe();
        let file = ring.add_file(Arc::new(writer), FileKind::Pollable).expect("add");
        let full = run(ring, write(file, &pattern(6, 1 << 20))).0.expect("write");
        assert!(full < 1 << 20);
        submit(ring, 1, write(file, b"tail"));
        nothing_completes(ring);
        let mut taken = vec![0; full];
        rustix::io::read(&*reader, &mut taken).expect("read");
        assert_eq!(complete(ring, 1)[0].result, Ok(4));
    });
}

#[test]
fn one_operation_of_each_direction_a_file() {
    on_both(|ring| {
        let (here, _there) = tcp();
        let socket = ring.add_file(here, FileKind::Socket).expect("add");
        let (reader, _writer) = pipe();
        let data = ring.add_file(reader, FileKind::Pollable).expect("add");
        submit(ring, 1, recv(socket, 10));
        submit(ring, 2, read(data, 10));
        submit(ring, 3, send(socket, b"the other way is free"));
        let refused = |ring: &mut dyn Ring, op| match ring.submit(Token(9), op) {
            Err(Rejected { errno, .. }) => errno,
            Ok(()) => 0,
        };
        assert_eq!(refused(ring, recv(socket, 10)), errno::EBUSY);
        assert_eq!(refused(ring, read(data, 10)), errno::EBUSY);
        assert_eq!(refused(ring, try_read(data, 10)), errno::EBUSY);
        assert_eq!(ring.remove_file(data).expect_err("busy").raw_os_error(), Some(errno::EBUSY));
        ring.cancel(Token(1));
        ring.cancel(Token(2));
        complete(ring, 3);
        ring.remove_file(data).expect("remove");
        assert_eq!(refused(ring, read(data, 10)), errno::EBADF);
        assert_eq!(refused(ring, read(socket, 10)), errno::EINVAL);
        assert_eq!(refused(ring, recv(socket, 0)), errno::EINVAL);
        let outside = Op::recv(socket, buffer(10), 5..11);
        assert_eq!(refused(ring, outside), errno::EINVAL);
        let (reader, _writer) = pipe();
        let data = ring.add_file(reader, FileKind::Pollable).expect("add");
        assert_eq!(refused(ring, recv(data, 10)), errno::ENOTSOCK);
        submit(ring, 9, read(data, 10));
        assert_eq!(refused(ring, recv(socket, 10)), errno::EEXIST);
        ring.cancel(Token(9));
        complete(ring, 1);
    });
}

#[test]
fn a_full_ring_gives_the_operation_back() {
    on_both(|ring| {
        let pipes: Vec<_> = (0..8).map(|_| tcp()).collect();
        let mut tokens = 0..;
        let files: Vec<_> = pipes
            .iter()
            .map(|(fd, _)| ring.add_file(Arc::clone(fd), FileKind::Socket).expect("add"))
            .collect();
        let (reader, _writer) = pipe();
        let full = ring.add_file(reader, FileKind::Pollable).expect_err("eight files at most");
        assert_eq!(full.raw_os_error(), Some(errno::EMFILE));
        // 16 operations fit: a receive and a send a file, where the send must not end at once.
        for file in &files {
            submit(ring, tokens.next().expect("token"), recv(*file, 10));
            submit(ring, tokens.next().expect("token"), send(*file, &vec![1; 16 << 20]));
        }
        assert_eq!(ring.in_flight(), 16);
        nothing_completes(ring);
        (0..16).for_each(|token| ring.cancel(Token(token)));
        assert_eq!(complete(ring, 16).len(), 16);
    });
}

#[test]
fn a_wake_is_not_lost_and_counts_once() {
    on_both(|ring| {
        let waker = ring.waker();
        waker.wake();
        waker.wake();
        let start = Instant::now();
        ring.wait(Some(LONG), &mut Vec::new()).expect("wait");
        assert!(start.elapsed() < LONG / 2, "the wake before the wait was lost");
        let start = Instant::now();
        ring.wait(Some(SHORT), &mut Vec::new()).expect("wait");
        assert!(start.elapsed() >= SHORT, "one wake ended two waits");
        for _ in 0..200 {
            let waker = ring.waker();
            let other = std::thread::spawn(move || waker.wake());
            let start = Instant::now();
            ring.wait(Some(LONG), &mut Vec::new()).expect("wait");
            assert!(start.elapsed() < LONG / 2, "a wake was lost");
            other.join().expect("waker");
        }
    });
}

#[test]
fn o_nonblock_is_set_on_pollable_files_only_and_restored() {
    let is_set = |fd: &OwnedFd| fcntl_getfl(fd).expect("getfl").contains(OFlags::NONBLOCK);
    on_both(|ring| {
        let (reader, _writer) = pipe();
        let file = ring.add_file(Arc::clone(&reader), FileKind::Pollable).expect("add");
        assert!(is_set(&reader));
        ring.remove_file(file).expect("remove");
        assert!(!is_set(&reader));
        let plain = memfd(b"");
        ring.add_file(Arc::clone(&plain), FileKind::Blocking).expect("add");
        assert!(!is_set(&plain));
        let (before, _writer) = pipe();
        rustix::fs::fcntl_setfl(&*before, OFlags::NONBLOCK).expect("setfl");
        let file = ring.add_file(Arc::clone(&before), FileKind::Pollable).expect("add");
        ring.remove_file(file).expect("remove");
        assert!(is_set(&before), "it was set before and is not the ring's to take off");
    });
    for mut ring in rings() {
        let (reader, _writer) = pipe();
        let file = ring.add_file(Arc::clone(&reader), FileKind::Pollable).expect("add");
        submit(&mut *ring, 1, read(file, 1));
        nothing_completes(&mut *ring);
        drop(ring);
        assert!(!is_set(&reader));
    }
}

#[test]
fn a_file_is_closed_when_it_is_taken_out_and_when_the_ring_ends() {
    let closed = |writer: &OwnedFd| rustix::io::write(writer, b"x") == Err(rustix::io::Errno::PIPE);
    for mut ring in rings() {
        let (removed, to_removed) = pipe();
        let (kept, to_kept) = pipe();
        let file = ring.add_file(removed, FileKind::Pollable).expect("add");
        let other = ring.add_file(kept, FileKind::Pollable).expect("add");
        submit(&mut *ring, 1, read(file, 1));
        submit(&mut *ring, 2, read(other, 1));
        nothing_completes(&mut *ring);
        ring.cancel(Token(1));
        complete(&mut *ring, 1);
        ring.remove_file(file).expect("remove");
        assert!(closed(&to_removed), "{:?} keeps a file that was removed", ring.backend());
        let backend = ring.backend();
        drop(ring);
        assert!(closed(&to_kept), "{backend:?} keeps a file after its end");
    }
}

#[test]
fn classes_are_found_out() {
    use std::os::fd::AsFd;
    let classes = Classes::new().expect("a descriptor");
    let (reader, writer) = pipe();
    let (socket, _there) = tcp();
    assert_eq!(classes.class(reader.as_fd()).expect("class"), FileKind::Pollable);
    assert_eq!(classes.class(writer.as_fd()).expect("class"), FileKind::Pollable);
    assert_eq!(classes.class(socket.as_fd()).expect("class"), FileKind::Socket);
    assert_eq!(classes.class(memfd(b"").as_fd()).expect("class"), FileKind::Blocking);
    let memory = std::fs::File::open("/proc/self/mem").expect("open");
    assert_eq!(classes.class(memory.as_fd()).expect("class"), FileKind::Blocking);
    let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").expect("bind");
    assert!(classes.class(datagrams.as_fd()).is_err());
}

#[test]
fn a_receive_that_has_enough_takes_more_where_it_is_there_and_waits_for_none() {
    for mut ring in rings() {
        let (here, there) = tcp();
        let file = ring.add_file(here, FileKind::Socket).expect("add");
        let sent = pattern(7, 1000);
        let recv = || Op::recv_enough(file, buffer(100), 10..70, 40);
        let mut taken = 0;
        let mut take = |ring: &mut dyn Ring, sent_first: usize, sent_then: usize| {
            let send = |bytes: usize, from: usize| {
                rustix::io::write(&there, &sent[from..from + bytes]).expect("the socket takes it");
            };
            send(sent_first, taken);
            submit(ring, 1, recv());
            if sent_then > 0 {
                nothing_completes(ring);
                send(sent_then, taken + sent_first);
            }
            let done = complete(ring, 1).pop().expect("one completion");
            let moved = done.result.expect("it has enough");
            assert!((40..=60).contains(&moved), "{moved}");
            assert_eq!(done.buffer.bytes()[10..10 + moved], sent[taken..taken + moved]);
            assert!(done.buffer.bytes()[10 + moved..].iter().all(|byte| *byte == 0));
            taken += moved;
            moved
        };
        assert_eq!(take(&mut *ring, 40, 0), 40, "it has enough");
        assert_eq!(take(&mut *ring, 60, 0), 60, "more is there");
        assert_eq!(take(&mut *ring, 45, 0), 45, "some more is there");
        assert_eq!(take(&mut *ring, 15, 25), 40, "it waits for what is missing");
    }
}
