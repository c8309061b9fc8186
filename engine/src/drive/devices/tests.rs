//! Data fds on pipes and files, with a device that has the last say over what they answer.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::thread::{Pid, gettid};

use super::data_fd::DataFd;
use super::{DataEvent, DataFds, Job, Tools, Zeros};
use crate::buffers::{Arena, Slot};
use crate::drive::clock::{left, now_ns};
use crate::drive::inbox::{Inbox, Input};
use crate::drive::owner::{DataFdId, Owner};
use crate::drive::waits::WRITE_AGAIN_MAX;
use crate::errno::{EAGAIN, EINPROGRESS, EIO, ENODEV, ENOMSG};
use crate::ids::{DeviceId, Epoch, Sequence};
use crate::machine::{NO_LIMIT_NS, ReadResult, WriteResult};
use crate::ring::{
    BackendChoice, BlockingThreads, Classes, Done, FileKind, Ring, RingConfig, open,
};
use crate::vfio::device::{MigrationDevice, PrecopyInfo};
use crate::vfio::state::{Capabilities, DeviceState};
use crate::wire::{DataHeader, DataPhase, DevicePlace, Encoding, chunk_hash};

const CHUNK_BYTES: usize = 64 << 10;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const BACKENDS: [BackendChoice; 2] = [BackendChoice::Auto, BackendChoice::Syscalls];

/// What a device makes of the n-th answer of its data fd, counted from 1.
pub(in crate::drive) type Observe = fn(u32, io::Result<usize>) -> io::Result<usize>;

pub(in crate::drive) struct Double {
    answers: AtomicU32,
    observe: Observe,
}

impl MigrationDevice for Double {
    fn capabilities(&self) -> io::Result<Capabilities> {
        unreachable!("not asked")
    }
    fn state(&self) -> io::Result<DeviceState> {
        unreachable!("not asked")
    }
    fn set_state(&self, _: DeviceState) -> io::Result<Option<OwnedFd>> {
        unreachable!("not asked")
    }
    fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
        unreachable!("not asked")
    }
    fn stop_copy_length(&self) -> io::Result<u64> {
        unreachable!("not asked")
    }
    fn reset(&self) -> io::Result<()> {
        unreachable!("not asked")
    }
    fn observe(&self, _: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        (self.observe)(self.answers.fetch_add(1, Ordering::SeqCst) + 1, result)
    }
}

pub(in crate::drive) fn double(observe: Observe) -> Arc<Double> {
    Arc::new(Double { answers: AtomicU32::new(0), observe })
}

impl Double {
    fn answers(&self) -> u32 {
        self.answers.load(Ordering::SeqCst)
    }
}

fn errno<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

/// As a test double on a pipe, which cannot answer ENOMSG.
fn drained_when_dry(_: u32, result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.raw_os_error() == Some(EAGAIN) => errno(ENOMSG),
        result => result,
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).expect("a pipe")
}

/// A file that blocks, as a resume fd without a poll does.
fn file() -> OwnedFd {
    rustix::fs::memfd_create("data", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd")
}

fn slot() -> Slot {
    Arena::new(1, CHUNK_BYTES).expect("memory").1.remove(0)
}

/// A device's data fds on a ring of this thread.
struct Bed {
    ring: Box<dyn Ring>,
    classes: Classes,
    zeros: Zeros,
    events: VecDeque<DataEvent>,
    device: Arc<Double>,
    fds: DataFds,
    epochs: u32,
}

fn config(backend: BackendChoice) -> RingConfig {
    RingConfig { backend, depth: 8, files: 4, blocking: BlockingThreads::plain(1), zero_copy: None }
}

impl Bed {
    /// Data fds of which this is the first.
    fn new(fd: OwnedFd, device: &Arc<Double>, backend: BackendChoice) -> Bed {
        let mut bed = Bed {
            ring: open(&config(backend)).expect("a ring").ring,
            classes: Classes::new().expect("a descriptor"),
            zeros: Zeros::new(CHUNK_BYTES),
            events: VecDeque::new(),
            device: Arc::clone(device),
            fds: DataFds::of(DeviceId(0)),
            epochs: 0,
        };
        bed.attach(fd).expect("a file");
        bed
    }

    fn attach(&mut self, fd: OwnedFd) -> io::Result<()> {
        let device: Arc<dyn MigrationDevice> = Arc::<Double>::clone(&self.device);
        let (epoch, with) = (Epoch(self.epochs), (&self.classes, CHUNK_BYTES));
        self.epochs += 1;
        self.fds.attach(epoch, device, fd, with, &mut *self.ring)
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut DataFds, &mut Tools) -> T) -> T {
        let Bed { ring, zeros, events, fds, .. } = self;
        call(fds, &mut Tools { ring: &mut **ring, zeros, events, now_ns: now_ns() })
    }

    fn give(&mut self, job: Job) {
        self.with(|fds, tools| fds.give(job, tools)).expect("an fd is attached");
    }

    fn detach(&mut self) {
        self.with(|fds, tools| fds.detach(NO_LIMIT_NS, tools));
    }

    /// What happens next, waited for.
    fn next(&mut self) -> DataEvent {
        let start = Instant::now();
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(start.elapsed() < LONG, "nothing happens");
            self.turn();
        }
    }

    /// One wait, and what comes of it.
    fn turn(&mut self) {
        let due = self.fds.deadline_ns().and_then(|at| left(now_ns(), at));
        let mut done: Vec<Done> = Vec::new();
        self.ring.wait(Some(due.unwrap_or(LONG)), &mut done).expect("a wait");
        for done in done {
            self.with(|fds, tools| fds.done(Owner::of(done.token), done, tools));
        }
        self.with(|fds, tools| fds.look_at_the_clock(tools));
    }

    fn read_chunk(&mut self, slot: Slot, phase: DataPhase) -> (Slot, ReadResult) {
        self.give(Job::Read { slot, bytes: CHUNK_BYTES, phase });
        match self.next() {
            DataEvent::Read { slot, result, .. } => (slot, result),
            other => panic!("{other:?}"),
        }
    }

    fn write_chunk(
        &mut self,
        header: &DataHeader,
        slot: Option<Slot>,
    ) -> (Option<Slot>, WriteResult) {
        self.give(Job::Write { header: *header, slot });
        match self.next() {
            DataEvent::Written { slot, result, .. } => (slot, result),
            other => panic!("{other:?}"),
        }
    }
}

/// What reaches a session's thread that is the test.
pub(in crate::drive) fn inbox() -> (Inbox, Receiver<Input>) {
    let (sender, inputs) = crossbeam_channel::unbounded();
    let waker = open(&config(BackendChoice::Auto)).expect("a ring").ring.waker();
    (Inbox::new(sender, waker), inputs)
}

/// A chunk whose bytes differ from place to place, in a slot.
fn chunk() -> (DataHeader, Slot) {
    let mut slot = slot();
    for (place, byte) in slot.body_mut().iter_mut().enumerate() {
        *byte = (place % 251) as u8;
    }
    let hash = chunk_hash(slot.body());
    let (device, epoch, sequence) = (DeviceId(0), Epoch(0), Sequence(0));
    let header = DataHeader {
        place: DevicePlace { device, epoch, sequence },
        offset: 0,
        encoding: Encoding::Raw,
        raw_bytes: CHUNK_BYTES as u32,
        body_bytes: CHUNK_BYTES as u32,
        body_hash: hash,
        raw_hash: hash,
    };
    (header, slot)
}

/// Waits until a thread of this process sleeps in the kernel, or has ended.
pub(in crate::drive) fn until_asleep(thread: Pid) {
    let path = format!("/proc/self/task/{thread}/stat");
    let start = Instant::now();
    // The state is what follows the name, which stands in brackets.
    while let Ok(stat) = std::fs::read_to_string(&path)
        && stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('S'))
    {
        assert!(start.elapsed() < LONG, "{stat}");
        std::thread::yield_now();
    }
}

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

fn read(phase: DataPhase) -> Job {
    Job::Read { slot: slot(), bytes: CHUNK_BYTES, phase }
}

/// What an event says, in short.
fn short(event: &DataEvent) -> String {
    match event {
        DataEvent::Read { epoch, result: ReadResult::Chunk { bytes, .. }, .. } => {
            format!("{} {bytes} bytes", epoch.0)
        }
        DataEvent::Read { epoch, result, .. } => format!("{} {result:?}", epoch.0),
        DataEvent::Written { result, .. } => format!("{result:?}"),
        DataEvent::HungUp { epoch, .. } => format!("{} hung up", epoch.0),
        DataEvent::Closed { awaited: true, .. } => "closed".to_owned(),
        DataEvent::Closed { awaited: false, .. } => "closed late".to_owned(),
        DataEvent::Local(fault) => fault.message.clone(),
    }
}

#[test]
fn a_drained_device_on_a_pipe_says_so_before_anything_else_happens() {
    let (reader, _writer) = pipe();
    let mut bed = Bed::new(reader, &double(drained_when_dry), BackendChoice::Auto);
    bed.give(read(DataPhase::PreCopy));
    assert_eq!(short(&bed.next()), "0 Empty");
}

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
