//! Data fds on pipes and files, with a device that has the last say over what they answer.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::thread::{Pid, gettid};

use super::data_fd::DataFd;
use super::{DataHandle, DataThread, Job, Starting};
use crate::buffers::{Arena, Slot};
use crate::drive::inbox::{Inbox, Input};
use crate::drive::waits::WRITE_AGAIN_MAX;
use crate::errno::{EAGAIN, EIO, ENODEV, ENOMSG};
use crate::ids::{DeviceId, Epoch, Sequence};
use crate::machine::{ReadResult, WriteResult};
use crate::ring::{BackendChoice, RingConfig, open};
use crate::threads::Threads;
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

/// For this thread alone: a ring belongs to who opens it.
fn data_fd(fd: OwnedFd, device: &Arc<Double>, backend: BackendChoice) -> (DataFd, Arc<AtomicU64>) {
    let stop = Arc::new(AtomicU64::new(0));
    let device: Arc<dyn MigrationDevice> = Arc::<Double>::clone(device);
    let mut opened = DataFd::open(device, backend, Arc::clone(&stop)).expect("a ring");
    opened.attach(1, Arc::new(fd), CHUNK_BYTES).expect("a file");
    (opened, stop)
}

/// What reaches a session's thread that is the test.
pub(in crate::drive) fn inbox() -> (Inbox, Receiver<Input>) {
    let (sender, inputs) = crossbeam_channel::unbounded();
    let ring = RingConfig { backend: BackendChoice::Auto, depth: 2, files: 1, zero_copy: None };
    let waker = open(&ring).expect("a ring").ring.waker();
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
        let (mut fd, _) = data_fd(writer, &device, backend);
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
        let (mut fd, _) = data_fd(file(), &device, backend);
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
        let (mut fd, _) = data_fd(reader, &device, backend);
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
        let (mut fd, _) = data_fd(reader, &device, BackendChoice::Auto);
        let (slot, result) = fd.read_chunk(slot(), DataPhase::PreCopy);
        assert!(matches!(result, ReadResult::Chunk { bytes: 5, .. }), "{result:?}");
        assert_eq!(fd.read_chunk(slot, DataPhase::PreCopy).1, then);
        assert_eq!(device.answers(), 3, "the driver was not asked");
    }
}

#[test]
fn a_driver_that_says_eagain_for_ever_is_given_up() {
    let device = double(|_, _| errno(EAGAIN));
    let (mut fd, _) = data_fd(file(), &device, BackendChoice::Auto);
    let (header, slot) = chunk();
    let (slot, result) = fd.write_chunk(&header, Some(slot));
    assert_eq!((slot.is_some(), result), (true, WriteResult::Failed(EAGAIN)));
    assert_eq!(device.answers(), WRITE_AGAIN_MAX + 1);
    // A read of a file without a poll is the machine's to ask again.
    let mut slot = slot.expect("a slot");
    for phase in [DataPhase::PreCopy, DataPhase::StopCopy] {
        let device = double(|_, _| errno(EAGAIN));
        let (mut fd, _) = data_fd(file(), &device, BackendChoice::Auto);
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
    let (mut fd, _) = data_fd(file(), &device, BackendChoice::Auto);
    let (header, slot) = chunk();
    let (_, result) = fd.write_chunk(&header, Some(slot));
    assert_eq!(result, WriteResult::Written { hash: header.raw_hash });
    assert_eq!(device.answers(), 2 * (PAUSES + 1));
}

#[test]
fn a_driver_that_takes_nothing_and_says_nothing_is_broken() {
    let device = double(|_, _| Ok(0));
    let (mut fd, _) = data_fd(file(), &device, BackendChoice::Auto);
    let (header, slot) = chunk();
    assert_eq!(fd.write_chunk(&header, Some(slot)).1, WriteResult::Failed(EIO));
    assert_eq!(device.answers(), 1);
}

#[test]
fn nothing_is_begun_on_an_fd_that_is_to_be_closed() {
    let device = double(|_, result| result);
    let (mut fd, stop) = data_fd(file(), &device, BackendChoice::Auto);
    stop.store(1, Ordering::Release);
    let (header, slot) = chunk();
    let (slot, result) = fd.write_chunk(&header, Some(slot));
    assert_eq!(result, WriteResult::Cancelled);
    let (_, result) = fd.read_chunk(slot.expect("a slot"), DataPhase::StopCopy);
    assert_eq!((result, device.answers()), (ReadResult::Cancelled, 0));
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
                let (mut fd, _) = data_fd(reader, &double(observe), backend);
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

/// A thread with one end of a pipe as its first data fd, and what it tells.
fn thread(fd: OwnedFd, device: Arc<Double>) -> (DataHandle, Receiver<Input>) {
    let (inbox, inputs) = inbox();
    let thread = DataThread { id: DeviceId(0), device, backend: BackendChoice::Auto, inbox };
    let mut handle = thread.spawn(&Threads::default()).and_then(Starting::wait).expect("a thread");
    handle.attach(Arc::new(fd), CHUNK_BYTES);
    (handle, inputs)
}

fn read(epoch: u32, phase: DataPhase) -> Job {
    Job::Read { epoch: Epoch(epoch), slot: slot(), phase }
}

#[test]
fn a_drained_device_on_a_pipe_says_so_before_anything_else_happens() {
    let (reader, _writer) = pipe();
    let (handle, inputs) = thread(reader, double(drained_when_dry));
    handle.submit(read(3, DataPhase::PreCopy)).expect("it lives");
    match inputs.recv_timeout(LONG) {
        Ok(Input::Read { epoch: Epoch(3), result: ReadResult::Empty, .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(handle.end().recv().is_err(), "it holds the device no more");
}

#[test]
fn an_fd_is_closed_before_its_thread_says_so() {
    for _ in 0..50 {
        let (reader, writer) = pipe();
        let (handle, inputs) = thread(reader, double(|_, result| result));
        for _ in 0..3 {
            handle.submit(read(3, DataPhase::StopCopy)).expect("it lives");
        }
        handle.detach(Epoch(3));
        let told: Vec<Input> = inputs.iter().take(4).collect();
        let [read @ .., Input::Detached { epoch: Epoch(3), .. }] = told.as_slice() else {
            panic!("{told:?}")
        };
        for input in read {
            let Input::Read { result: ReadResult::Cancelled, .. } = input else {
                panic!("{input:?}")
            };
        }
        let written = std::fs::File::from(writer).write(b"nobody reads");
        assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
    }
}

#[test]
fn one_thread_reads_one_fd_after_another_and_a_stop_is_for_those_before_it() {
    let (first, _writer) = pipe();
    let (mut handle, inputs) = thread(first, double(|_, result| result));
    let next = |expected: &str| {
        let input = inputs.recv_timeout(LONG).expect("it answers");
        let found = match &input {
            Input::Read { epoch, result: ReadResult::Cancelled, .. } => {
                format!("{epoch} cancelled")
            }
            Input::Read { epoch, result: ReadResult::Chunk { bytes, .. }, .. } => {
                format!("{epoch} {bytes} bytes")
            }
            Input::Detached { epoch, .. } => format!("{epoch} closed"),
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected);
    };
    handle.submit(read(0, DataPhase::StopCopy)).expect("it lives");
    handle.detach(Epoch(0));
    // Before the first one is known to be closed.
    let (second, writer) = pipe();
    handle.attach(Arc::new(second), CHUNK_BYTES);
    handle.submit(read(1, DataPhase::StopCopy)).expect("it lives");
    next("epoch 0 cancelled");
    next("epoch 0 closed");
    rustix::io::write(&writer, b"state").expect("the pipe is open");
    next("epoch 1 5 bytes");
    handle.submit(read(1, DataPhase::StopCopy)).expect("it lives");
    handle.detach(Epoch(1));
    next("epoch 1 cancelled");
    next("epoch 1 closed");
}

#[test]
fn a_data_fd_that_cannot_be_used_is_told_and_its_thread_lives() {
    let datagrams = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
    let (mut handle, inputs) = thread(datagrams.into(), double(|_, result| result));
    handle.submit(read(0, DataPhase::PreCopy)).expect("it lives");
    match inputs.recv_timeout(LONG) {
        Ok(Input::Local(fault)) => assert!(fault.message.contains("cannot be used"), "{fault}"),
        other => panic!("{other:?}"),
    }
    match inputs.recv_timeout(LONG) {
        Ok(Input::Read { result: ReadResult::Cancelled, .. }) => {}
        other => panic!("{other:?}"),
    }
    handle.detach(Epoch(0));
    assert!(matches!(inputs.recv_timeout(LONG), Ok(Input::Detached { .. })));
    let (reader, writer) = pipe();
    rustix::io::write(&writer, b"state").expect("the pipe is open");
    handle.attach(Arc::new(reader), CHUNK_BYTES);
    handle.submit(read(1, DataPhase::PreCopy)).expect("it lives");
    match inputs.recv_timeout(LONG) {
        Ok(Input::Read { result: ReadResult::Chunk { bytes: 5, .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_device_that_panics_over_an_answer_has_failed_and_its_thread_lives() {
    let (reader, writer) = pipe();
    let device = double(|n, result| if n == 1 { panic!("a defect") } else { result });
    let (handle, inputs) = thread(reader, device);
    rustix::io::write(&writer, b"state").expect("the pipe is open");
    handle.submit(read(0, DataPhase::StopCopy)).expect("it lives");
    match inputs.recv_timeout(LONG) {
        Ok(Input::Local(fault)) => {
            assert_eq!(fault.message, "observe of device 0 panicked: a defect");
        }
        other => panic!("{other:?}"),
    }
    match inputs.recv_timeout(LONG) {
        Ok(Input::Read { result: ReadResult::Failed(EIO), .. }) => {}
        other => panic!("{other:?}"),
    }
    rustix::io::write(&writer, b"more").expect("the pipe is open");
    handle.submit(read(0, DataPhase::StopCopy)).expect("it lives");
    match inputs.recv_timeout(LONG) {
        Ok(Input::Read { result: ReadResult::Chunk { bytes: 4, .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_death_of_a_data_fds_thread_is_told_and_its_fd_is_closed() {
    let (reader, writer) = pipe();
    let (handle, inputs) = thread(reader, double(|_, result| result));
    let (header, slot) = chunk();
    // More bytes than a slot has: nobody asks for that but a defect.
    let header = DataHeader { raw_bytes: 1 << 30, ..header };
    handle.submit(Job::Write { header, slot: Some(slot) }).expect("it lives");
    match inputs.recv_timeout(LONG) {
        Ok(Input::Died { device: DeviceId(0), fault }) => {
            assert!(fault.message.contains("the data fds of device 0 died"), "{fault}");
        }
        other => panic!("{other:?}"),
    }
    assert!(handle.submit(read(0, DataPhase::PreCopy)).is_err(), "the job comes back");
    drop(handle);
    let written = std::fs::File::from(writer).write(b"nobody reads");
    assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::BrokenPipe));
}
