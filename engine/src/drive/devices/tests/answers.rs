//! What an answer of a data fd means, where a real one gives it.

use super::*;

#[test]
fn a_driver_that_writes_short_gets_every_byte_once() {
    for backend in BACKENDS {
        let (reader, writer) = pipe();
        // Less than a chunk, so that no write takes all of it.
        fcntl_setpipe_size(&writer, CHUNK_BYTES / 8).expect("a smaller pipe");
        let device = double(|_, result| result);
        let (header, slot) = chunk();
        let expected = slot.body().to_vec();
        let written = std::thread::spawn(move || {
            let mut written = Vec::new();
            std::fs::File::from(reader).read_to_end(&mut written).expect("the pipe is open");
            written
        });
        let mut fd = Bed::new(writer, &device, backend);
        let (slot, result) = fd.write_chunk(&header, Some(slot));
        drop(fd);
        assert_eq!(result, WriteResult::Written { hash: header.raw_hash });
        assert!(slot.is_some(), "the slot came back");
        assert!(written.join().expect("no panic") == expected);
        assert!(device.answers() > 1, "no write was short");
    }
}

#[test]
fn a_write_that_fails_after_bytes_has_failed() {
    for backend in BACKENDS {
        let device = double(|n, _| if n == 1 { Ok(CHUNK_BYTES / 2) } else { errno(ENODEV) });
        let mut fd = Bed::new(file(), &device, backend);
        let (header, slot) = chunk();
        let (slot, result) = fd.write_chunk(&header, Some(slot));
        assert_eq!((slot.is_some(), result), (true, WriteResult::Failed(ENODEV)));
        assert_eq!(device.answers(), 2, "it was asked again");
    }
}

#[test]
fn an_error_after_bytes_is_told_once_by_the_next_read() {
    for backend in BACKENDS {
        let (reader, writer) = pipe();
        rustix::io::write(&writer, b"state").expect("the pipe is open");
        let device = double(|n, result| if n == 2 { errno(ENODEV) } else { result });
        let mut fd = Bed::new(reader, &device, backend);
        let (slot, result) = fd.read_chunk(slot(), DataPhase::PreCopy);
        assert!(matches!(result, ReadResult::Chunk { bytes: 5, .. }), "{result:?}");
        assert_eq!(&slot.body()[..5], b"state");
        let (slot, result) = fd.read_chunk(slot, DataPhase::PreCopy);
        assert_eq!((result, device.answers()), (ReadResult::Failed(ENODEV), 2));
        rustix::io::write(&writer, b"more").expect("the pipe is open");
        let (_, result) = fd.read_chunk(slot, DataPhase::PreCopy);
        assert!(matches!(result, ReadResult::Chunk { bytes: 4, .. }), "{result:?}");
    }
}

#[test]
fn what_only_ends_a_chunk_is_met_again_by_the_next_read() {
    for (dry, then) in [(ENOMSG, ReadResult::Empty), (EAGAIN, ReadResult::Failed(ENODEV))] {
        let (reader, writer) = pipe();
        rustix::io::write(&writer, b"state").expect("the pipe is open");
        // Dry after five bytes, and still at the next read; EAGAIN there would be waited for.
        let device = match dry {
            ENOMSG => double(drained_when_dry),
            _ => double(|n, result| if n == 3 { errno(ENODEV) } else { result }),
        };
        let mut fd = Bed::new(reader, &device, BackendChoice::Auto);
        let (slot, result) = fd.read_chunk(slot(), DataPhase::PreCopy);
        assert!(matches!(result, ReadResult::Chunk { bytes: 5, .. }), "{result:?}");
        assert_eq!(fd.read_chunk(slot, DataPhase::PreCopy).1, then);
        assert_eq!(device.answers(), 3, "the driver was not asked");
    }
}

#[test]
fn a_driver_that_says_eagain_for_ever_is_given_up() {
    let device = double(|_, _| errno(EAGAIN));
    let mut fd = Bed::new(file(), &device, BackendChoice::Auto);
    let (header, slot) = chunk();
    let (slot, result) = fd.write_chunk(&header, Some(slot));
    assert_eq!((slot.is_some(), result), (true, WriteResult::Failed(EAGAIN)));
    assert_eq!(device.answers(), WRITE_AGAIN_MAX + 1);
    // A read of a file without a poll is the machine's to ask again.
    let mut slot = slot.expect("a slot");
    for phase in [DataPhase::PreCopy, DataPhase::StopCopy] {
        let device = double(|_, _| errno(EAGAIN));
        let mut fd = Bed::new(file(), &device, BackendChoice::Auto);
        let result;
        (slot, result) = fd.read_chunk(slot, phase);
        assert_eq!((result, device.answers()), (ReadResult::Failed(EAGAIN), 1), "{phase:?}");
    }
}

#[test]
fn a_driver_that_takes_a_little_now_and_then_is_not_given_up() {
    const PAUSES: u32 = WRITE_AGAIN_MAX * 2 / 3;
    // Half of the chunk after so many EAGAINs, and the other half after as many again.
    let device = double(|n, _| match n % (PAUSES + 1) {
        0 => Ok(CHUNK_BYTES / 2),
        _ => errno(EAGAIN),
    });
    let mut fd = Bed::new(file(), &device, BackendChoice::Auto);
    let (header, slot) = chunk();
    let (_, result) = fd.write_chunk(&header, Some(slot));
    assert_eq!(result, WriteResult::Written { hash: header.raw_hash });
    assert_eq!(device.answers(), 2 * (PAUSES + 1));
}

#[test]
fn a_driver_that_takes_nothing_and_says_nothing_is_broken() {
    let device = double(|_, _| Ok(0));
    let mut fd = Bed::new(file(), &device, BackendChoice::Auto);
    let (header, slot) = chunk();
    assert_eq!(fd.write_chunk(&header, Some(slot)).1, WriteResult::Failed(EIO));
    assert_eq!(device.answers(), 1);
}

/// EAGAIN does not mean drained: mlx5 says so while it saves. In STOP_COPY nothing but the end is
/// asked for, so even a double that says ENOMSG for EAGAIN is waited for.
#[test]
fn a_device_that_is_still_saving_is_waited_for_in_every_phase() {
    let cases: [(DataPhase, Observe); 2] =
        [(DataPhase::PreCopy, |_, result| result), (DataPhase::StopCopy, drained_when_dry)];
    for backend in BACKENDS {
        for (phase, observe) in cases {
            let (reader, writer) = pipe();
            let (told, thread) = crossbeam_channel::bounded(1);
            let reading = std::thread::spawn(move || {
                let slot = slot();
                let mut fd = Bed::new(reader, &double(observe), backend);
                told.send(gettid()).expect("the test waits");
                fd.read_chunk(slot, phase).1
            });
            until_asleep(thread.recv().expect("it begins"));
            // It has ended where the next line fails.
            let _ = rustix::io::write(&writer, b"state");
            let result = reading.join().expect("no panic");
            assert!(matches!(result, ReadResult::Chunk { bytes: 5, .. }), "{phase:?}: {result:?}");
        }
    }
}

#[test]
fn a_device_that_panics_over_an_answer_has_failed_and_the_session_hears_why() {
    let (reader, writer) = pipe();
    let device = double(|n, result| if n == 1 { panic!("a defect") } else { result });
    let mut bed = Bed::new(reader, &device, BackendChoice::Auto);
    rustix::io::write(&writer, b"state").expect("the pipe is open");
    bed.give(read(DataPhase::StopCopy));
    assert_eq!(short(&bed.next()), "observe of device 0 panicked: a defect");
    assert_eq!(short(&bed.next()), format!("0 {:?}", ReadResult::Failed(EIO)));
    rustix::io::write(&writer, b"more").expect("the pipe is open");
    bed.give(read(DataPhase::StopCopy));
    assert_eq!(short(&bed.next()), "0 4 bytes");
}

#[test]
fn a_read_behind_the_end_does_not_ask_the_driver() {
    let device = double(|_, result| result);
    let mut bed = Bed::new(file(), &device, BackendChoice::Auto);
    for _ in 0..2 {
        assert_eq!(bed.read_chunk(slot(), DataPhase::StopCopy).1, ReadResult::End);
    }
    assert_eq!(device.answers(), 1);
    assert_eq!(bed.read_chunk(slot(), DataPhase::PreCopy).1, ReadResult::Empty);
    assert_eq!(device.answers(), 2, "in PRE_COPY there may be more");
}

#[test]
fn a_pause_is_over_when_its_time_is() {
    let device = double(|_, _| errno(EAGAIN));
    let mut bed = Bed::new(file(), &device, BackendChoice::Auto);
    bed.give(read(DataPhase::StopCopy));
    let at = loop {
        match bed.fds.deadline_ns() {
            Some(at) => break at,
            None => bed.complete(),
        }
    };
    bed.look(at - 1);
    assert!(bed.events.is_empty() && bed.fds.deadline_ns() == Some(at), "it is early");
    bed.look(at);
    assert_eq!(bed.events.len(), 1, "it is time");
    assert_eq!(short(&bed.next()), format!("0 {:?}", ReadResult::Failed(EAGAIN)));
}

#[test]
fn zeros_that_are_not_what_was_sent_are_not_written() {
    let device = double(|_, result| result);
    let mut bed = Bed::new(file(), &device, BackendChoice::Auto);
    let (raw, slot) = chunk();
    let header = DataHeader { encoding: Encoding::Zero, body_bytes: 0, ..raw };
    let (_, result) = bed.write_chunk(&header, None);
    let WriteResult::Corrupt(fault) = result else { panic!("{result:?}") };
    assert!(fault.message.contains("its zeros have another hash"), "{fault}");
    let header = DataHeader { raw_hash: raw.raw_hash ^ 1, ..raw };
    let (_, result) = bed.write_chunk(&header, Some(slot));
    let WriteResult::Corrupt(fault) = result else { panic!("{result:?}") };
    assert!(!fault.message.contains("zeros"), "{fault}");
    assert_eq!(device.answers(), 0, "nothing reached the driver");
}
