//! A data fd that has nothing to read, and its death.

use super::*;

#[test]
fn a_drained_device_on_a_pipe_says_so_before_anything_else_happens() {
    let (reader, _writer) = pipe();
    let mut bed = Bed::new(reader, &double(drained_when_dry), BackendChoice::Auto);
    bed.give(read(DataPhase::PreCopy));
    assert_eq!(short(&bed.next()), "0 Empty");
}

/// A socket hangs up as mlx5's save fd does.
#[test]
fn a_drained_fd_that_dies_is_told_and_is_read_meanwhile() {
    for backend in BACKENDS {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .expect("sockets");
        let mut ring = open(&config(backend)).expect("a ring").ring;
        let (mut zeros, mut events) = (Zeros::new(CHUNK_BYTES), VecDeque::new());
        let id = DataFdId { device: DeviceId(0), number: 0 };
        let device = double(drained_when_dry);
        let file = (Arc::new(ours), FileKind::Pollable);
        let mut fd =
            DataFd::attach(id, Epoch(7), device, file, CHUNK_BYTES, &mut *ring).expect("a file");
        let mut next = |fd: &mut DataFd, job: Option<Job>| {
            let tools =
                &mut Tools { ring: &mut *ring, zeros: &mut zeros, events: &mut events, now_ns: 0 };
            job.into_iter().for_each(|job| fd.give(job, tools));
            loop {
                if let Some(event) = tools.events.pop_front() {
                    return short(&event);
                }
                let mut all = Vec::new();
                tools.ring.wait(Some(LONG), &mut all).expect("a wait");
                for done in all {
                    match Owner::of(done.token) {
                        Owner::Watch(_) => fd.watched(&done, tools),
                        _ => fd.done(done, tools),
                    }
                }
            }
        };
        assert_eq!(next(&mut fd, Some(read(DataPhase::PreCopy))), "7 Empty");
        rustix::io::write(&theirs, b"state").expect("a socket");
        assert_eq!(next(&mut fd, Some(read(DataPhase::PreCopy))), "7 5 bytes");
        assert_eq!(next(&mut fd, Some(read(DataPhase::PreCopy))), "7 Empty");
        shutdown(&theirs, Shutdown::Write).expect("a shutdown");
        assert_eq!(next(&mut fd, None), "7 hung up");
    }
}

#[test]
fn a_pipe_whose_other_end_is_closed_is_not_dead() {
    for backend in BACKENDS {
        let (reader, writer) = pipe();
        let mut bed = Bed::new(reader, &double(drained_when_dry), backend);
        bed.give(read(DataPhase::PreCopy));
        assert_eq!(short(&bed.next()), "0 Empty");
        drop(writer);
        bed.turn();
        assert!(bed.events.is_empty(), "{:?}", bed.events);
        bed.detach();
        assert_eq!(short(&bed.next()), "closed");
    }
}

/// A watch on an fd that is not drained, or that cannot be polled, would tell nothing, and hold the fd.
#[test]
fn only_a_drained_fd_that_polls_is_watched() {
    for backend in BACKENDS {
        let (reader, writer) = pipe();
        let mut bed = Bed::new(reader, &double(drained_when_dry), backend);
        rustix::io::write(&writer, b"state").expect("the pipe is open");
        bed.give(read(DataPhase::PreCopy));
        assert_eq!(short(&bed.next()), "0 5 bytes");
        assert_eq!(bed.ring.in_flight(), 0, "it has more");
        bed.give(read(DataPhase::PreCopy));
        assert_eq!(short(&bed.next()), "0 Empty");
        assert_eq!(bed.ring.in_flight(), 1, "its death is waited for");
        let mut bed = Bed::new(file(), &double(|_, _| errno(ENOMSG)), backend);
        bed.give(read(DataPhase::PreCopy));
        assert_eq!(short(&bed.next()), "0 Empty");
        assert_eq!(bed.ring.in_flight(), 0, "a file does not poll");
    }
}
