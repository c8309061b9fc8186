//! The thread of one data fd: the only place where it is read or written, one operation at a time,
//! on a ring of its own. While there is nothing to read, an fd that has a poll is watched for its
//! death: that is how a reset of a drained device shows at once.
//!
//! The thread ends when its jobs' channel is closed. Whatever is in flight then is cancelled and
//! waited for: a driver that ignores the cancel keeps this thread, its slot and its fd until it
//! returns, and nobody else waits for that.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::jobs::{self, JobQueue, JobSender, Next};
use super::{Inbox, Input};
use crate::buffers::{Buffer, Slot};
use crate::compress::codec::is_zero;
use crate::errno::{EAGAIN, EIO, ENOMSG, is_interruption};
use crate::ids::{DeviceId, Epoch};
use crate::limits::HEADER_BYTES;
use crate::machine::{ReadResult, WriteResult};
use crate::outcome::{Breach, Fault};
use crate::ring::{
    BackendChoice, Done, FileId, FileKind, Op, OpKind, Ring, RingConfig, Token, class, open,
};
use crate::vfio::device::MigrationDevice;
use crate::wire::{DataHeader, DataPhase, Encoding, chunk_hash};

/// A resume fd has no poll that would tell when it takes more: how often it is asked, and how long
/// it is left alone in between.
const AGAIN_MAX: u32 = 1000;
const AGAIN_PAUSE: Duration = Duration::from_millis(1);

/// What the thread is to do next.
#[derive(Debug)]
pub(super) enum Job {
    Read { slot: Slot, phase: DataPhase },
    Write { header: DataHeader, slot: Option<Slot> },
}

/// What a data fd's thread is made from.
pub(super) struct DataThread {
    pub(super) device: DeviceId,
    pub(super) epoch: Epoch,
    pub(super) fd: Arc<OwnedFd>,
    pub(super) behind: Arc<dyn MigrationDevice>,
    pub(super) backend: BackendChoice,
    pub(super) chunk_bytes: usize,
    pub(super) inbox: Inbox,
}

/// The other end of a running thread.
#[derive(Debug)]
pub(super) struct DataHandle {
    jobs: JobSender,
    stop: Arc<AtomicBool>,
}

impl DataHandle {
    /// Gives the thread a job; it comes back if the thread has ended.
    pub(super) fn submit(&self, job: Job) -> Result<(), Box<Job>> {
        self.jobs.send(job)
    }

    /// Lets the thread end. It reports [`Input::Detached`] when it is through.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.jobs.end();
    }
}

impl DataThread {
    /// Starts the thread, and waits until its ring is open.
    pub(super) fn spawn(self) -> io::Result<DataHandle> {
        let (opened, ready) = crossbeam_channel::bounded(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        std::thread::Builder::new().name(format!("ferry-fd-{}", self.device.0)).spawn(
            move || {
                let device = self.device;
                let epoch = self.epoch;
                let inbox = self.inbox.clone();
                match Channel::open(self, stopping) {
                    Ok(channel) => {
                        let (jobs, queue) = jobs::channel(channel.ring.waker());
                        let _ = opened.send(Ok(jobs));
                        channel.run(&queue);
                        inbox.send(Input::Detached { device, epoch });
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                    }
                }
            },
        )?;
        let jobs = ready.recv().map_err(|_| io::Error::other("a data fd's thread died"))??;
        Ok(DataHandle { jobs, stop })
    }
}

struct Channel {
    thread: DataThread,
    ring: Box<dyn Ring>,
    file: FileId,
    kind: FileKind,
    zeros: Vec<u8>,
    /// An error that came after bytes in one chunk; the next read answers with it.
    pending: Option<i32>,
    /// The last read found nothing, in PRE_COPY: only a poll shows now that the fd died.
    drained: bool,
    done: Vec<Done>,
    operations: u64,
    stop: Arc<AtomicBool>,
}

impl Channel {
    fn open(thread: DataThread, stop: Arc<AtomicBool>) -> io::Result<Channel> {
        let config = RingConfig { backend: thread.backend, depth: 2, files: 1, zero_copy: None };
        let mut ring = open(&config).map_err(io::Error::other)?.ring;
        let kind = class(thread.fd.as_fd())?;
        let file = ring.add_file(Arc::clone(&thread.fd), kind)?;
        Ok(Channel {
            ring,
            file,
            kind,
            zeros: Vec::new(),
            pending: None,
            drained: false,
            done: Vec::new(),
            operations: 0,
            stop,
            thread,
        })
    }

    fn run(mut self, queue: &JobQueue) {
        let (device, epoch) = (self.thread.device, self.thread.epoch);
        loop {
            let watched =
                (self.drained && self.kind == FileKind::Pollable).then_some(&self.thread.fd);
            let job = match queue.next(watched.map(|fd| fd.as_fd())) {
                Next::Job(job) => job,
                Next::HungUp => {
                    self.drained = false;
                    self.thread.inbox.send(Input::HungUp { device, epoch });
                    continue;
                }
                Next::End => return,
            };
            let start = Instant::now();
            match job {
                Job::Read { slot, phase } => {
                    let (slot, result) = self.read_chunk(slot, phase);
                    self.drained = result == ReadResult::Empty;
                    let ns = start.elapsed().as_nanos() as u64;
                    self.thread.inbox.send(Input::Read { device, epoch, slot, result, ns });
                }
                Job::Write { header, slot } => {
                    let (slot, result) = self.write_chunk(&header, slot);
                    let ns = start.elapsed().as_nanos() as u64;
                    let raw_bytes = header.raw_bytes;
                    let input = Input::Written { device, epoch, raw_bytes, slot, result, ns };
                    self.thread.inbox.send(input);
                }
            }
        }
    }

    /// Fills a slot: one read, and on an fd that polls, more of them for as long as there is data,
    /// so that drivers with small segments do not make small frames.
    fn read_chunk(&mut self, slot: Slot, phase: DataPhase) -> (Slot, ReadResult) {
        if self.stopped() {
            return (slot, ReadResult::Cancelled);
        }
        if let Some(errno) = self.pending.take() {
            return (slot, ReadResult::Failed(errno));
        }
        let end = HEADER_BYTES + self.thread.chunk_bytes;
        let mut filled = HEADER_BYTES;
        let mut buffer = Buffer::Slot(slot);
        let mut first = None;
        // In PRE_COPY an fd that polls is tried before it is waited for, so that a device double
        // that cannot say ENOMSG can put it in place of EAGAIN. EAGAIN itself does not mean drained:
        // mlx5 says so while it saves, and a poll tells when there is more.
        let mut patient = self.kind != FileKind::Pollable || phase == DataPhase::StopCopy;
        while filled < end {
            let result;
            let kind = if patient { OpKind::Read } else { OpKind::TryRead };
            (buffer, result) = self.operate(kind, buffer, filled..end);
            match self.observe(result) {
                Ok(0) => {
                    first.get_or_insert(Ok(0));
                    break;
                }
                Ok(bytes) => {
                    first.get_or_insert(Ok(bytes));
                    filled += bytes;
                }
                Err(EAGAIN) if filled == HEADER_BYTES && !patient => {
                    patient = true;
                    continue;
                }
                Err(errno) => {
                    if filled > HEADER_BYTES && !passes(errno) {
                        self.pending = Some(errno);
                    }
                    first.get_or_insert(Err(errno));
                    break;
                }
            }
            if self.kind != FileKind::Pollable {
                break;
            }
            patient = false;
        }
        let Buffer::Slot(slot) = buffer else { unreachable!("the ring gives back what it took") };
        let result = match first {
            Some(Ok(0)) | None if phase == DataPhase::StopCopy => ReadResult::End,
            Some(Ok(0)) | None => ReadResult::Empty,
            Some(Ok(_)) => {
                let chunk = &slot.body()[..filled - HEADER_BYTES];
                ReadResult::Chunk {
                    bytes: chunk.len() as u32,
                    zero: is_zero(chunk),
                    hash: chunk_hash(chunk),
                }
            }
            Some(Err(ENOMSG)) if phase == DataPhase::PreCopy => ReadResult::Empty,
            Some(Err(errno)) if is_interruption(errno) && self.stopped() => ReadResult::Cancelled,
            Some(Err(errno)) => ReadResult::Failed(errno),
        };
        (slot, result)
    }

    /// Verifies a chunk and writes all of it.
    fn write_chunk(
        &mut self,
        header: &DataHeader,
        slot: Option<Slot>,
    ) -> (Option<Slot>, WriteResult) {
        if self.stopped() {
            return (slot, WriteResult::Cancelled);
        }
        let bytes = header.raw_bytes as usize;
        let (mut buffer, start) = match slot {
            Some(slot) => (Buffer::Slot(slot), HEADER_BYTES),
            None => {
                if self.zeros.len() < bytes {
                    self.zeros.resize(bytes, 0);
                }
                (Buffer::Small(std::mem::take(&mut self.zeros)), 0)
            }
        };
        let hash = chunk_hash(&buffer.bytes()[start..start + bytes]);
        let mut result = WriteResult::Written { hash };
        if hash != header.raw_hash {
            let place = header.place;
            let breach = match header.encoding {
                Encoding::Zero => Breach::Chunk { place, what: "its zeros have another hash" },
                _ => Breach::BodyHash { place },
            };
            result = WriteResult::Corrupt(Fault::breach(breach));
        } else {
            let mut written = 0;
            let mut patience = AGAIN_MAX;
            while written < bytes {
                let answer;
                let range = start + written..start + bytes;
                (buffer, answer) = self.operate(OpKind::Write, buffer, range);
                match self.observe(answer) {
                    // A driver that takes nothing and says nothing would be asked for ever.
                    Ok(0) => {
                        result = WriteResult::Failed(EIO);
                        break;
                    }
                    Ok(more) => {
                        written += more;
                        patience = AGAIN_MAX;
                    }
                    Err(EAGAIN) if patience > 0 && !self.stopped() => {
                        patience -= 1;
                        std::thread::sleep(AGAIN_PAUSE);
                    }
                    Err(errno) if is_interruption(errno) && self.stopped() => {
                        result = WriteResult::Cancelled;
                        break;
                    }
                    Err(errno) => {
                        result = WriteResult::Failed(errno);
                        break;
                    }
                }
            }
        }
        match buffer {
            Buffer::Slot(slot) => (Some(slot), result),
            Buffer::Small(zeros) => {
                self.zeros = zeros;
                (None, result)
            }
        }
    }

    /// Runs one operation to its completion. When the thread is to end, the operation is cancelled,
    /// and its completion still waited for. One that was interrupted by anything else starts again.
    fn operate(
        &mut self,
        kind: OpKind,
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> (Buffer, Result<usize, i32>) {
        loop {
            let result;
            (buffer, result) =
                self.operate_once(Op { kind, file: self.file, buffer, range: range.clone() });
            match result {
                Err(errno) if is_interruption(errno) && !self.stopped() => {}
                result => return (buffer, result),
            }
        }
    }

    fn operate_once(&mut self, op: Op) -> (Buffer, Result<usize, i32>) {
        self.operations += 1;
        let token = Token(self.operations);
        if let Err(rejected) = self.ring.submit(token, op) {
            return (rejected.op.buffer, Err(rejected.errno));
        }
        let mut cancelled = false;
        loop {
            if self.stopped() && !cancelled {
                cancelled = true;
                self.ring.cancel(token);
            }
            // An error here is the ring's own (EINTR, ENOMEM): the operation is still in flight,
            // and only its completion gives the buffer back.
            if let Err(error) = self.ring.wait(None, &mut self.done) {
                tracing::debug!(%error, "waiting for a data fd");
            }
            if let Some(done) = self.done.pop() {
                return (done.buffer, done.result);
            }
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn observe(&self, result: Result<usize, i32>) -> Result<usize, i32> {
        let result = result.map_err(io::Error::from_raw_os_error);
        self.thread.behind.observe(result).map_err(|error| error.raw_os_error().unwrap_or(EIO))
    }
}

/// EAGAIN and ENOMSG after bytes only end the chunk; the next read meets them again.
fn passes(errno: i32) -> bool {
    errno == EAGAIN || errno == ENOMSG
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::Arena;
    use crate::limits::CHUNK_BYTES_MIN;
    use crate::vfio::device::PrecopyInfo;
    use crate::vfio::state::{Capabilities, DeviceState};
    use crossbeam_channel::Receiver;
    use rustix::pipe::{PipeFlags, pipe_with};
    use std::os::fd::BorrowedFd;

    /// A device on a pipe: what it puts in place of EAGAIN.
    struct OnPipe(i32);

    impl MigrationDevice for OnPipe {
        fn capabilities(&self) -> io::Result<Capabilities> {
            Ok(Capabilities { p2p: false, precopy: true })
        }
        fn state(&self) -> io::Result<DeviceState> {
            Ok(DeviceState::PreCopy)
        }
        fn set_state(&self, _: DeviceState) -> io::Result<Option<OwnedFd>> {
            Ok(None)
        }
        fn precopy_info(&self, _: BorrowedFd<'_>) -> io::Result<PrecopyInfo> {
            Ok(PrecopyInfo::default())
        }
        fn stop_copy_length(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn reset(&self) -> io::Result<()> {
            Ok(())
        }
        fn observe(&self, result: io::Result<usize>) -> io::Result<usize> {
            result.map_err(|error| match error.raw_os_error() {
                Some(EAGAIN) => io::Error::from_raw_os_error(self.0),
                _ => error,
            })
        }
    }

    /// A thread that reads the pipe, the pipe's other end, what comes of it, and a slot.
    fn reading(dry: i32) -> (DataHandle, OwnedFd, Receiver<Input>, Slot) {
        let (fd, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        let (_, mut slots) = Arena::new(1, CHUNK_BYTES_MIN).expect("memory");
        let (sender, inputs) = crossbeam_channel::unbounded();
        let ring = RingConfig { backend: BackendChoice::Auto, depth: 2, files: 1, zero_copy: None };
        let waker = open(&ring).expect("a ring").ring.waker();
        let thread = DataThread {
            device: DeviceId(0),
            epoch: Epoch(0),
            fd: Arc::new(fd),
            behind: Arc::new(OnPipe(dry)),
            backend: BackendChoice::Auto,
            chunk_bytes: CHUNK_BYTES_MIN,
            inbox: Inbox::new(sender, waker),
        };
        (thread.spawn().expect("a thread"), writer, inputs, slots.remove(0))
    }

    fn result(inputs: &Receiver<Input>) -> ReadResult {
        match inputs.recv_timeout(Duration::from_secs(60)) {
            Ok(Input::Read { result, .. }) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_drained_device_on_a_pipe_says_so_before_anything_else_happens() {
        let (handle, writer, inputs, slot) = reading(ENOMSG);
        handle.submit(Job::Read { slot, phase: DataPhase::PreCopy }).expect("it lives");
        assert_eq!(result(&inputs), ReadResult::Empty);
        handle.stop();
        drop(writer);
    }

    #[test]
    fn a_device_that_is_still_saving_is_waited_for_in_every_phase() {
        for phase in [DataPhase::PreCopy, DataPhase::StopCopy] {
            let (handle, writer, inputs, slot) = reading(EAGAIN);
            handle.submit(Job::Read { slot, phase }).expect("it lives");
            std::thread::sleep(Duration::from_millis(20));
            assert!(inputs.is_empty());
            rustix::io::write(&writer, b"state").expect("the pipe is open");
            assert!(matches!(result(&inputs), ReadResult::Chunk { bytes: 5, .. }));
            handle.stop();
        }
    }
}
