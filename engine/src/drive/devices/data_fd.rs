//! A device's data fds, one after another on one ring: a chunk is read into a slot or written from
//! one, with one operation in flight.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::buffers::{Buffer, Slot};
use crate::compress::codec::is_zero;
use crate::drive::guarded::guarded;
use crate::drive::waits::{AGAIN_PAUSE, INTERRUPTED_MAX, READ_PAUSE, WRITE_AGAIN_MAX};
use crate::errno::{EAGAIN, EBADF, EIO, ENOMSG, is_interruption};
use crate::limits::HEADER_BYTES;
use crate::machine::{ReadResult, WriteResult};
use crate::outcome::{Breach, Fault};
use crate::ring::{
    Backend, BackendChoice, Classes, Done, FileId, FileKind, Op, OpKind, Ring, RingConfig, Token,
    Waker, open,
};
use crate::vfio::device::MigrationDevice;
use crate::wire::{DataHeader, DataPhase, Encoding, chunk_hash};

/// See the module's text. Used on the thread that opened it.
pub(super) struct DataFd {
    /// Has the last say over what an operation answered.
    device: Arc<dyn MigrationDevice>,
    ring: Box<dyn Ring>,
    classes: Classes,
    attached: Option<Attached>,
    /// What is written of chunks of zeros.
    zeros: Vec<u8>,
    done: Vec<Done>,
    operations: u64,
    /// Set by another thread: up to which data fd, by number, what is in flight is cancelled and
    /// nothing more is begun.
    stop: Arc<AtomicU64>,
    /// What the device's code said when it panicked.
    panicked: Option<String>,
}

/// The data fd of an epoch.
struct Attached {
    number: u64,
    fd: Arc<OwnedFd>,
    file: FileId,
    kind: FileKind,
    chunk_bytes: usize,
    /// An error that came after bytes in one chunk; the next read answers with it.
    pending: Option<i32>,
}

impl DataFd {
    /// Opens a ring. Whoever sets `stop` uses the ring's waker after it.
    pub(super) fn open(
        device: Arc<dyn MigrationDevice>,
        backend: BackendChoice,
        stop: Arc<AtomicU64>,
    ) -> io::Result<DataFd> {
        let config = RingConfig { backend, depth: 2, files: 1, zero_copy: None };
        Ok(DataFd {
            device,
            ring: open(&config).map_err(io::Error::other)?.ring,
            classes: Classes::new()?,
            attached: None,
            zeros: Vec::new(),
            done: Vec::new(),
            operations: 0,
            stop,
            panicked: None,
        })
    }

    /// Takes a data fd, whose number is above those before it.
    pub(super) fn attach(
        &mut self,
        number: u64,
        fd: Arc<OwnedFd>,
        chunk_bytes: usize,
    ) -> io::Result<()> {
        self.detach();
        let kind = self.classes.class(fd.as_fd())?;
        let file = self.ring.add_file(Arc::clone(&fd), kind)?;
        self.attached = Some(Attached { number, fd, file, kind, chunk_bytes, pending: None });
        Ok(())
    }

    /// Closes the data fd. Nothing is in flight on it: every operation is waited for.
    pub(super) fn detach(&mut self) {
        if let Some(attached) = self.attached.take()
            && let Err(error) = self.ring.remove_file(attached.file)
        {
            tracing::warn!(%error, "a data fd stays open until its ring ends");
        }
    }

    /// The fd, if a poll of it tells of its death.
    pub(super) fn to_be_watched(&self) -> Option<BorrowedFd<'_>> {
        self.attached.as_ref().filter(|_| self.has_poll()).map(|attached| attached.fd.as_fd())
    }

    fn has_poll(&self) -> bool {
        self.attached.as_ref().is_some_and(|attached| attached.kind == FileKind::Pollable)
    }

    pub(super) fn backend(&self) -> Backend {
        self.ring.backend()
    }

    pub(super) fn waker(&self) -> Waker {
        self.ring.waker()
    }

    /// Lets go of the device, whose last reference may run the embedder's code, and then of the
    /// ring, which waits for what is in flight.
    pub(super) fn end(self, released: impl FnOnce()) {
        let DataFd { device, ring, attached, .. } = self;
        if let Err(said) = guarded(move || drop(device)) {
            tracing::warn!(said, "a device panicked when it was dropped");
        }
        released();
        drop((ring, attached));
    }

    /// What the device's code said when it panicked since this was last asked.
    pub(super) fn take_panic(&mut self) -> Option<String> {
        self.panicked.take()
    }

    /// Reads a chunk into a slot.
    pub(super) fn read_chunk(&mut self, slot: Slot, phase: DataPhase) -> (Slot, ReadResult) {
        if self.stopped() {
            return (slot, ReadResult::Cancelled);
        }
        if let Some(errno) = self.attached.as_mut().and_then(|attached| attached.pending.take()) {
            return (slot, ReadResult::Failed(errno));
        }
        let (slot, filled) = self.fill(slot, phase);
        let result = match filled {
            Ok(0) if phase == DataPhase::StopCopy => ReadResult::End,
            Ok(0) => ReadResult::Empty,
            Ok(bytes) => {
                let chunk = &slot.body()[..bytes];
                let (zero, hash) = (is_zero(chunk), chunk_hash(chunk));
                ReadResult::Chunk { bytes: bytes as u32, zero, hash }
            }
            Err(ENOMSG) if phase == DataPhase::PreCopy => ReadResult::Empty,
            Err(errno) if is_interruption(errno) && self.stopped() => ReadResult::Cancelled,
            Err(errno) => ReadResult::Failed(errno),
        };
        (slot, result)
    }

    /// Fills a slot: one read, and on an fd that polls, more of them for as long as there is data,
    /// so that drivers with small segments do not make small frames. The bytes that came, 0 at the
    /// end, or the errno of the first read.
    fn fill(&mut self, slot: Slot, phase: DataPhase) -> (Slot, Result<usize, i32>) {
        let chunk_bytes = self.attached.as_ref().map_or(0, |attached| attached.chunk_bytes);
        let mut rest = HEADER_BYTES..HEADER_BYTES + chunk_bytes;
        let mut buffer = Buffer::Slot(slot);
        // In PRE_COPY an fd that polls is tried before it is waited for, so that a device double
        // that cannot say ENOMSG can put it in place of EAGAIN. EAGAIN itself does not mean drained:
        // mlx5 says so while it saves, and a poll tells when there is more.
        let mut patient = !self.has_poll() || phase == DataPhase::StopCopy;
        let last = loop {
            let kind = if patient { OpKind::Read } else { OpKind::TryRead };
            let result;
            (buffer, result) = self.operate(kind, buffer, rest.clone());
            match self.observe(result) {
                Err(EAGAIN) if rest.start == HEADER_BYTES && !patient => patient = true,
                Ok(bytes) if bytes > 0 => {
                    rest.start += bytes;
                    patient = false;
                    if rest.is_empty() || !self.has_poll() {
                        break Ok(());
                    }
                }
                result => break result.map(drop),
            }
        };
        let bytes = rest.start - HEADER_BYTES;
        let unpolled = last == Err(EAGAIN) && !self.has_poll();
        let interrupted = last.is_err_and(is_interruption) && !self.stopped();
        if bytes == 0 && (unpolled || interrupted) {
            // Nothing tells when there is more: the next try comes a little later.
            std::thread::sleep(READ_PAUSE);
        }
        let filled = match last {
            Err(errno) if bytes == 0 => Err(errno),
            // These two only end the chunk; the next read meets them again.
            Ok(()) | Err(EAGAIN | ENOMSG) => Ok(bytes),
            Err(errno) => {
                if let Some(attached) = &mut self.attached {
                    attached.pending = Some(errno);
                }
                Ok(bytes)
            }
        };
        let Buffer::Slot(slot) = buffer else { unreachable!("the ring gives back what it took") };
        (slot, filled)
    }

    /// Verifies a chunk and writes all of it.
    pub(super) fn write_chunk(
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
        let range = start..start + bytes;
        let hash = chunk_hash(&buffer.bytes()[range.clone()]);
        let result = if hash == header.raw_hash {
            let written;
            (buffer, written) = self.write_all(buffer, range);
            match written {
                Ok(()) => WriteResult::Written { hash },
                Err(errno) if is_interruption(errno) && self.stopped() => WriteResult::Cancelled,
                Err(errno) => WriteResult::Failed(errno),
            }
        } else {
            let place = header.place;
            WriteResult::Corrupt(Fault::breach(match header.encoding {
                Encoding::Zero => Breach::Chunk { place, what: "its zeros have another hash" },
                _ => Breach::BodyHash { place },
            }))
        };
        match buffer {
            Buffer::Slot(slot) => (Some(slot), result),
            Buffer::Small(zeros) => {
                self.zeros = zeros;
                (None, result)
            }
        }
    }

    /// Writes all of a range, in as many writes as the driver wants.
    fn write_all(
        &mut self,
        mut buffer: Buffer,
        mut rest: Range<usize>,
    ) -> (Buffer, Result<(), i32>) {
        let mut again = 0;
        while !rest.is_empty() {
            let result;
            (buffer, result) = self.operate(OpKind::Write, buffer, rest.clone());
            match self.observe(result) {
                // A driver that takes nothing and says nothing would be asked for ever.
                Ok(0) => return (buffer, Err(EIO)),
                Ok(bytes) => {
                    rest.start += bytes;
                    again = 0;
                }
                Err(EAGAIN) if again < WRITE_AGAIN_MAX && !self.stopped() => {
                    again += 1;
                    std::thread::sleep(AGAIN_PAUSE);
                }
                Err(errno) => return (buffer, Err(errno)),
            }
        }
        (buffer, Ok(()))
    }

    /// Runs one operation to its completion. When the thread is to end, the operation is cancelled,
    /// and its completion still waited for. A write that was interrupted by anything else starts again.
    fn operate(
        &mut self,
        kind: OpKind,
        mut buffer: Buffer,
        range: Range<usize>,
    ) -> (Buffer, Result<usize, i32>) {
        let mut interruptions = 0;
        loop {
            let result;
            let Some(file) = self.attached.as_ref().map(|attached| attached.file) else {
                return (buffer, Err(EBADF));
            };
            let op = Op { kind, file, buffer, range: range.clone() };
            (buffer, result) = self.operate_once(op);
            match result {
                // A read is asked for again by the machine, which counts.
                Err(errno)
                    if kind == OpKind::Write
                        && is_interruption(errno)
                        && interruptions < INTERRUPTED_MAX
                        && !self.stopped() =>
                {
                    interruptions += 1;
                    std::thread::sleep(AGAIN_PAUSE);
                }
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

    /// Whether the data fd is to be closed, or there is none.
    fn stopped(&self) -> bool {
        let stop = self.stop.load(Ordering::Acquire);
        self.attached.as_ref().is_none_or(|attached| attached.number <= stop)
    }

    fn observe(&mut self, result: Result<usize, i32>) -> Result<usize, i32> {
        let result = result.map_err(io::Error::from_raw_os_error);
        let Some(Attached { fd, .. }) = &self.attached else { return Err(EBADF) };
        let device = &self.device;
        match guarded(|| device.observe(fd.as_fd(), result)) {
            Ok(result) => result.map_err(|error| error.raw_os_error().unwrap_or(EIO)),
            Err(said) => {
                self.panicked = Some(said);
                Err(EIO)
            }
        }
    }
}
