//! Data fds on pipes and files, with a device that has the last say over what they answer.
//!
//! ```text
//! answers.rs   what an answer means, where a real fd gives it
//! chunks.rs    the same as a table, without an fd
//! drained.rs   a fd that has nothing to read, and its death
//! leaving.rs   fds that are taken away
//! ```

mod answers;
mod chunks;
mod drained;
mod leaving;

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
    interrupts: AtomicU32,
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
    fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::SeqCst);
    }
    fn observe(&self, _: BorrowedFd<'_>, result: io::Result<usize>) -> io::Result<usize> {
        (self.observe)(self.answers.fetch_add(1, Ordering::SeqCst) + 1, result)
    }
}

pub(in crate::drive) fn double(observe: Observe) -> Arc<Double> {
    Arc::new(Double { answers: AtomicU32::new(0), interrupts: AtomicU32::new(0), observe })
}

impl Double {
    /// How often it was told that the session is ending.
    pub(in crate::drive) fn interrupts(&self) -> u32 {
        self.interrupts.load(Ordering::SeqCst)
    }

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
        self.complete();
        self.look(now_ns());
    }

    /// Waits for what completes.
    fn complete(&mut self) {
        let due = self.fds.deadline_ns().and_then(|at| left(now_ns(), at));
        self.complete_within(due.unwrap_or(LONG));
    }

    fn complete_within(&mut self, timeout: Duration) {
        let mut done: Vec<Done> = Vec::new();
        self.ring.wait(Some(timeout), &mut done).expect("a wait");
        for done in done {
            self.with(|fds, tools| fds.done(Owner::of(done.token), done, tools));
        }
    }

    /// The clock says this.
    fn look(&mut self, now_ns: u64) {
        let Bed { ring, zeros, events, fds, .. } = self;
        fds.look_at_the_clock(&mut Tools { ring: &mut **ring, zeros, events, now_ns });
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
pub(crate) fn until_asleep(thread: Pid) {
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
