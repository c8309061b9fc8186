//! What an answer means for a chunk, as a table.

use super::*;
use crate::drive::devices::chunk::{Chunk, State, Step, Then, What, was_read, was_written};
use crate::drive::waits::INTERRUPTED_MAX;
use crate::errno::{ECANCELED, EINTR};
use crate::limits::HEADER_BYTES;
use crate::ring::OpKind;
use DataPhase::{PreCopy, StopCopy};

const FILE: State = State { has_poll: false, stopped: false };
const POLLED: State = State { has_poll: true, stopped: false };
const BYTES: usize = 100;

/// The same data fd once it is being taken away.
fn stopped(fd: State) -> State {
    State { stopped: true, ..fd }
}

fn reading(patient: bool) -> Chunk {
    let what = What::Read { phase: PreCopy, patient };
    Chunk::new(what, HEADER_BYTES..HEADER_BYTES + BYTES, 0)
}

fn writing() -> Chunk {
    let (header, _) = chunk();
    let what = What::Write { header, hash: header.raw_hash, again: 0 };
    Chunk::new(what, HEADER_BYTES..HEADER_BYTES + BYTES, 0)
}

fn goes_on(chunk: &mut Chunk, observed: Result<usize, i32>, fd: State) -> String {
    let buffer = Zeros::new(CHUNK_BYTES).buffer();
    match chunk.goes_on(buffer, observed, fd) {
        Step::Operate(_) => "operates".to_owned(),
        Step::Pause(_, _, Then::Operate) => "pauses".to_owned(),
        Step::Pause(_, _, Then::Fail(errno)) => format!("pauses, fails with {errno}"),
        Step::Pause(_, _, Then::Observe(_)) => "is held".to_owned(),
        Step::End(_, Ok(())) => "ends".to_owned(),
        Step::End(_, Err(errno)) => format!("fails with {errno}"),
    }
}

#[test]
fn a_read_that_gives_no_byte() {
    let pauses = |errno| format!("pauses, fails with {errno}");
    let fails = |errno| format!("fails with {errno}");
    let cases = [
        (true, EAGAIN, FILE, pauses(EAGAIN)),
        (true, EAGAIN, POLLED, fails(EAGAIN)),
        (true, EAGAIN, stopped(FILE), fails(ECANCELED)),
        (false, EAGAIN, stopped(POLLED), fails(ECANCELED)),
        (true, EINTR, FILE, pauses(EINTR)),
        (true, EINTR, POLLED, pauses(EINTR)),
        (true, EINTR, stopped(FILE), fails(EINTR)),
        (false, EINTR, POLLED, pauses(EINTR)),
        (false, EINTR, stopped(POLLED), fails(EINTR)),
        (true, ECANCELED, stopped(POLLED), fails(ECANCELED)),
        (true, ENODEV, FILE, fails(ENODEV)),
        (false, ENODEV, POLLED, fails(ENODEV)),
    ];
    for (patient, errno, fd, then) in cases {
        let found = goes_on(&mut reading(patient), Err(errno), fd);
        assert_eq!(found, then, "{patient} {errno} {fd:?}");
    }
    for fd in [FILE, POLLED, stopped(POLLED)] {
        let mut chunk = reading(true);
        assert_eq!(goes_on(&mut chunk, Ok(0), fd), "ends", "{fd:?}");
        assert_eq!(chunk.rest, HEADER_BYTES..HEADER_BYTES + BYTES);
    }
}

#[test]
fn a_read_waits_once_it_was_tried_and_only_for_its_first_byte() {
    let mut chunk = reading(false);
    assert_eq!(chunk.operation(), OpKind::TryRead);
    assert_eq!(goes_on(&mut chunk, Err(EAGAIN), POLLED), "operates");
    assert_eq!(chunk.operation(), OpKind::Read);
    assert_eq!(goes_on(&mut chunk, Ok(40), POLLED), "operates");
    assert_eq!((chunk.operation(), chunk.rest.len()), (OpKind::TryRead, 60));
    for errno in [EAGAIN, EINTR] {
        for fd in [FILE, POLLED] {
            let mut begun = reading(true);
            goes_on(&mut begun, Ok(40), fd);
            let found = goes_on(&mut begun, Err(errno), fd);
            assert_eq!(found, format!("fails with {errno}"), "{fd:?}: the bytes are a chunk");
        }
    }
}

#[test]
fn bytes_are_read_on_while_there_is_data_and_room_and_an_fd_that_polls() {
    let cases = [(40, POLLED, "operates"), (BYTES, POLLED, "ends"), (40, FILE, "ends")];
    for (bytes, fd, then) in cases {
        assert_eq!(goes_on(&mut reading(true), Ok(bytes), fd), then, "{bytes} {fd:?}");
    }
    for fd in [FILE, POLLED] {
        assert_eq!(goes_on(&mut reading(true), Ok(40), stopped(fd)), "ends", "{fd:?}");
    }
}

#[test]
fn a_write_goes_on_until_all_is_taken_or_the_fd_is_taken_away() {
    for fd in [FILE, POLLED] {
        let mut chunk = writing();
        assert_eq!(chunk.operation(), OpKind::Write);
        assert_eq!(goes_on(&mut chunk, Ok(40), fd), "operates");
        assert_eq!(goes_on(&mut chunk, Err(EAGAIN), fd), "pauses");
        assert_eq!(goes_on(&mut chunk, Ok(60), fd), "ends");
        assert_eq!(goes_on(&mut writing(), Ok(0), fd), format!("fails with {EIO}"));
        assert_eq!(goes_on(&mut writing(), Err(EINTR), fd), format!("fails with {EINTR}"));
        let fd = stopped(fd);
        assert_eq!(goes_on(&mut writing(), Ok(40), fd), format!("fails with {ECANCELED}"));
        assert_eq!(goes_on(&mut writing(), Err(EAGAIN), fd), format!("fails with {ECANCELED}"));
        assert_eq!(goes_on(&mut writing(), Ok(BYTES), fd), "ends", "it was written");
    }
}

#[test]
fn a_write_that_nobody_interrupted_begins_again_so_many_times() {
    let mut chunk = writing();
    assert!(!chunk.begins_again(Err(ENODEV), FILE) && !chunk.begins_again(Ok(7), FILE));
    for time in 0..INTERRUPTED_MAX {
        assert!(chunk.begins_again(Err(EINTR), FILE), "{time}");
    }
    assert!(!chunk.begins_again(Err(EINTR), FILE), "for ever");
    assert!(!writing().begins_again(Err(EINTR), stopped(FILE)), "it was interrupted");
    assert!(!reading(true).begins_again(Err(EINTR), FILE), "a read is the machine's to count");
}

#[test]
fn what_a_read_without_bytes_says_hangs_on_the_phase() {
    let slot = slot();
    let mut zeros = Zeros::new(CHUNK_BYTES);
    let mut read = |last, phase, fd| match was_read((&slot, 0), last, phase, fd, &mut zeros) {
        (result, None) => result,
        (result, pending) => panic!("{result:?}, and {pending:?}"),
    };
    assert_eq!(read(Ok(()), PreCopy, FILE), ReadResult::Empty);
    assert_eq!(read(Ok(()), StopCopy, FILE), ReadResult::End);
    assert_eq!(read(Err(ENOMSG), PreCopy, FILE), ReadResult::Empty);
    assert_eq!(read(Err(ENOMSG), StopCopy, FILE), ReadResult::Failed(ENOMSG));
    for errno in [EINTR, ECANCELED] {
        assert_eq!(read(Err(errno), StopCopy, stopped(FILE)), ReadResult::Cancelled);
        assert_eq!(read(Err(errno), StopCopy, FILE), ReadResult::Failed(errno), "by nobody here");
    }
    assert_eq!(read(Err(ENODEV), StopCopy, stopped(FILE)), ReadResult::Failed(ENODEV));
}

#[test]
fn what_ends_a_chunk_that_has_bytes_is_kept_if_the_next_read_cannot_meet_it_again() {
    let (_, slot) = chunk();
    let mut zeros = Zeros::new(CHUNK_BYTES);
    let mut pending = |last, fd| {
        let (result, pending) = was_read((&slot, 7), last, PreCopy, fd, &mut zeros);
        let hash = chunk_hash(&slot.body()[..7]);
        assert_eq!(result, ReadResult::Chunk { bytes: 7, zero: false, hash });
        pending
    };
    for last in [Ok(()), Err(EAGAIN), Err(ENOMSG)] {
        assert_eq!(pending(last, FILE), None, "{last:?}");
    }
    assert_eq!(pending(Err(ENODEV), FILE), Some(ENODEV));
    assert_eq!(pending(Err(EINTR), FILE), Some(EINTR), "nobody here interrupted it");
    assert_eq!(pending(Err(EINTR), stopped(FILE)), None);
    assert_eq!(pending(Err(ENODEV), stopped(FILE)), Some(ENODEV));
}

#[test]
fn a_write_is_cancelled_only_by_who_takes_the_fd_away() {
    assert_eq!(was_written(9, Ok(()), stopped(FILE)), WriteResult::Written { hash: 9 });
    for errno in [EINTR, ECANCELED] {
        assert_eq!(was_written(9, Err(errno), stopped(FILE)), WriteResult::Cancelled);
        assert_eq!(was_written(9, Err(errno), FILE), WriteResult::Failed(errno));
    }
    assert_eq!(was_written(9, Err(EIO), stopped(FILE)), WriteResult::Failed(EIO));
}
