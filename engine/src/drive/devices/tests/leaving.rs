//! Data fds that are taken away, and the next one.

use super::*;

#[test]
fn an_fd_is_closed_before_that_is_said() {
    for backend in BACKENDS {
        for turns in 0..20 {
            let (reader, writer) = pipe();
            let mut bed = Bed::new(reader, &double(|_, result| result), backend);
            for _ in 0..3 {
                bed.give(read(DataPhase::StopCopy));
            }
            if turns > 0 {
                // The kernel has it.
                bed.ring.wait(Some(Duration::ZERO), &mut Vec::new()).expect("a wait");
            }
            bed.detach();
            let told: Vec<String> = (0..4).map(|_| short(&bed.next())).collect();
            assert_eq!(told, ["0 Cancelled", "0 Cancelled", "0 Cancelled", "closed"]);
            let written = std::fs::File::from(writer).write(b"nobody reads");
            assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
        }
    }
}

/// In PRE_COPY a read is tried before it is waited for; it may be with a driver when the cancel comes.
#[test]
fn a_read_that_is_being_tried_is_given_back() {
    for backend in BACKENDS {
        for _ in 0..200 {
            let (reader, _writer) = pipe();
            let mut bed = Bed::new(reader, &double(|_, result| result), backend);
            bed.give(read(DataPhase::PreCopy));
            bed.complete_within(Duration::ZERO);
            bed.detach();
            assert_eq!(short(&bed.next()), "0 Cancelled");
            assert_eq!(short(&bed.next()), "closed");
        }
    }
}

#[test]
fn one_fd_is_read_after_another() {
    for backend in BACKENDS {
        let (first, _writer) = pipe();
        let mut bed = Bed::new(first, &double(|_, result| result), backend);
        bed.give(read(DataPhase::StopCopy));
        bed.detach();
        // Before the first one is known to be closed.
        let (second, writer) = pipe();
        bed.attach(second).expect("a file");
        bed.give(read(DataPhase::StopCopy));
        assert_eq!(short(&bed.next()), "0 Cancelled");
        assert_eq!(short(&bed.next()), "closed");
        rustix::io::write(&writer, b"state").expect("the pipe is open");
        assert_eq!(short(&bed.next()), "1 5 bytes");
        bed.give(read(DataPhase::StopCopy));
        bed.detach();
        assert_eq!(short(&bed.next()), "1 Cancelled");
        assert_eq!(short(&bed.next()), "closed");
        assert!(bed.fds.are_closed());
    }
}

#[test]
fn a_data_fd_that_cannot_be_used_is_said_and_the_next_one_can() {
    let (first, _writer) = pipe();
    let mut bed = Bed::new(first, &double(|_, result| result), BackendChoice::Auto);
    bed.detach();
    assert_eq!(short(&bed.next()), "closed");
    let datagrams = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    bed.attach(datagrams.into()).expect_err("no data fd");
    let job = read(DataPhase::PreCopy);
    assert!(bed.with(|fds, tools| fds.give(job, tools)).is_err(), "the job comes back");
    bed.detach();
    assert_eq!(short(&bed.next()), "closed");
    let (reader, writer) = pipe();
    rustix::io::write(&writer, b"state").expect("the pipe is open");
    bed.attach(reader).expect("a file");
    bed.give(read(DataPhase::PreCopy));
    assert_eq!(short(&bed.next()), "2 5 bytes");
}

/// What the driver holds, in a double, is an answer that does not come.
#[test]
fn an_operation_that_the_driver_holds_keeps_the_fd_open_and_nothing_waits_for_it() {
    for backend in BACKENDS {
        let (reader, writer) = pipe();
        let device = double(|n, result| if n < 5 { errno(EINPROGRESS) } else { result });
        let mut bed = Bed::new(reader, &device, backend);
        rustix::io::write(&writer, b"state").expect("the pipe is open");
        bed.give(read(DataPhase::StopCopy));
        bed.give(read(DataPhase::StopCopy));
        while device.answers() == 0 {
            bed.turn();
        }
        bed.detach();
        assert_eq!(short(&bed.next()), "0 Cancelled", "what was not begun comes back at once");
        assert!(bed.fds.is_detaching() && bed.events.is_empty());
        assert!(!bed.with(|fds, tools| fds.give_up(tools.now_ns)), "there is no limit");
        assert!(bed.fds.give_up(NO_LIMIT_NS), "its time is over");
        assert!(bed.fds.is_late());
        rustix::io::write(&writer, b"more").expect("it is still open");
        let (second, writer) = pipe();
        bed.attach(second).expect("a file");
        bed.give(read(DataPhase::StopCopy));
        rustix::io::write(&writer, b"other").expect("the pipe is open");
        let mut told: Vec<String> = (0..3).map(|_| short(&bed.next())).collect();
        told.sort();
        assert_eq!(told, ["0 5 bytes", "1 5 bytes", "closed late"]);
        assert!(!bed.fds.is_late());
    }
}

#[test]
fn what_is_left_of_a_devices_data_fds_is_known() {
    let (reader, _writer) = pipe();
    let mut bed = Bed::new(reader, &double(|_, result| result), BackendChoice::Auto);
    let is = |bed: &Bed| {
        let fds = &bed.fds;
        (fds.fd().is_some(), fds.is_detaching(), fds.is_late(), fds.are_closed())
    };
    assert_eq!(is(&bed), (true, false, false, false));
    bed.give(read(DataPhase::StopCopy));
    bed.detach();
    assert_eq!(is(&bed), (false, true, true, false), "a read is in flight");
    assert_eq!(short(&bed.next()), "0 Cancelled");
    assert_eq!(short(&bed.next()), "closed");
    assert_eq!(is(&bed), (false, false, false, true));
}

/// Nothing ends the watch over a drained fd but a cancel.
#[test]
fn an_fd_that_is_watched_is_closed_too() {
    for backend in BACKENDS {
        for turns in 0..2 {
            let (reader, writer) = pipe();
            let mut bed = Bed::new(reader, &double(drained_when_dry), backend);
            bed.give(read(DataPhase::PreCopy));
            assert_eq!(short(&bed.next()), "0 Empty");
            if turns > 0 {
                // The kernel has it.
                bed.ring.wait(Some(Duration::ZERO), &mut Vec::new()).expect("a wait");
            }
            bed.detach();
            assert_eq!(short(&bed.next()), "closed");
            assert!(!bed.fds.is_late());
            let written = std::fs::File::from(writer).write(b"nobody reads");
            assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
        }
    }
}
