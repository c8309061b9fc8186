//! A chunk that is being read from a data fd or written to it: what an answer means for it, and what
//! has become of it in the end. Without a ring, a clock or an fd.

use std::ops::Range;
use std::time::Duration;

use super::zeros::Zeros;
use crate::buffers::{Buffer, Slot};
use crate::compress::codec::is_zero;
use crate::drive::waits::{AGAIN_PAUSE, INTERRUPTED_MAX, READ_PAUSE, WRITE_AGAIN_MAX};
use crate::errno::{EAGAIN, ECANCELED, EIO, ENOMSG, is_interruption};
use crate::limits::HEADER_BYTES;
use crate::machine::{ReadResult, WriteResult};
use crate::ring::OpKind;
use crate::wire::{DataHeader, DataPhase, chunk_hash};

/// See the module's text.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) what: What,
    /// The bytes of the buffer that are still to be moved.
    pub(super) rest: Range<usize>,
    pub(super) since_ns: u64,
    interruptions: u32,
}

#[derive(Debug)]
pub(super) enum What {
    /// Patient: what it reads next is waited for.
    Read {
        phase: DataPhase,
        patient: bool,
    },
    Write {
        header: DataHeader,
        hash: u64,
        again: u32,
    },
}

/// What follows in a chunk's life.
#[derive(Debug)]
pub(super) enum Step {
    Operate(Buffer),
    Pause(Buffer, Duration, Then),
    End(Buffer, Result<(), i32>),
}

/// What follows a pause.
#[derive(Debug, Clone, Copy)]
pub(super) enum Then {
    Operate,
    /// The driver is asked again whether it has answered this.
    Observe(Result<usize, i32>),
    /// The chunk fails.
    Fail(i32),
}

/// The data fd that the chunk is of.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) has_poll: bool,
    /// It is being taken away.
    pub(super) stopped: bool,
}

impl Chunk {
    pub(super) fn new(what: What, rest: Range<usize>, since_ns: u64) -> Chunk {
        Chunk { what, rest, since_ns, interruptions: 0 }
    }

    /// What its next operation is.
    pub(super) fn operation(&self) -> OpKind {
        match self.what {
            What::Read { patient: true, .. } => OpKind::Read,
            What::Read { patient: false, .. } => OpKind::TryRead,
            What::Write { .. } => OpKind::Write,
        }
    }

    /// Whether a write that was interrupted by nobody here is begun again, and a time more. A read is
    /// asked for again by the machine, which counts.
    pub(super) fn begins_again(&mut self, result: Result<usize, i32>, fd: State) -> bool {
        let again = matches!(self.what, What::Write { .. })
            && result.is_err_and(is_interruption)
            && !fd.stopped
            && self.interruptions < INTERRUPTED_MAX;
        self.interruptions += u32::from(again);
        again
    }

    /// What follows what the device has observed.
    pub(super) fn goes_on(
        &mut self,
        buffer: Buffer,
        observed: Result<usize, i32>,
        fd: State,
    ) -> Step {
        // A cancel that met the operation in the driver's hands: nobody would cancel another one.
        if fd.stopped && observed == Err(EAGAIN) {
            return Step::End(buffer, Err(ECANCELED));
        }
        let rest = &mut self.rest;
        match &mut self.what {
            What::Read { patient, .. } => {
                let first = rest.start == HEADER_BYTES;
                match observed {
                    Err(EAGAIN) if first && !*patient => {
                        *patient = true;
                        Step::Operate(buffer)
                    }
                    // Nothing tells when there is more: the next try comes a little later.
                    Err(errno)
                        if first
                            && !fd.stopped
                            && ((errno == EAGAIN && !fd.has_poll) || is_interruption(errno)) =>
                    {
                        Step::Pause(buffer, READ_PAUSE, Then::Fail(errno))
                    }
                    // On an fd that polls, more is read for as long as there is data, so that
                    // drivers with small segments do not make small frames.
                    Ok(bytes) if bytes > 0 => {
                        rest.start += bytes;
                        *patient = false;
                        match fd.has_poll && !Range::is_empty(rest) && !fd.stopped {
                            true => Step::Operate(buffer),
                            false => Step::End(buffer, Ok(())),
                        }
                    }
                    result => Step::End(buffer, result.map(drop)),
                }
            }
            What::Write { again, .. } => match observed {
                // A driver that takes nothing and says nothing would be asked for ever.
                Ok(0) => Step::End(buffer, Err(EIO)),
                Ok(bytes) => {
                    rest.start += bytes;
                    *again = 0;
                    match Range::is_empty(rest) {
                        true => Step::End(buffer, Ok(())),
                        false if fd.stopped => Step::End(buffer, Err(ECANCELED)),
                        false => Step::Operate(buffer),
                    }
                }
                Err(EAGAIN) if *again < WRITE_AGAIN_MAX => {
                    *again += 1;
                    Step::Pause(buffer, AGAIN_PAUSE, Then::Operate)
                }
                Err(errno) => Step::End(buffer, Err(errno)),
            },
        }
    }
}

/// What was read into the slot, and how that ended; and an error that the next read is to answer
/// with, for it came after bytes.
pub(super) fn was_read(
    (slot, bytes): (&Slot, usize),
    last: Result<(), i32>,
    phase: DataPhase,
    fd: State,
    zeros: &mut Zeros,
) -> (ReadResult, Option<i32>) {
    let cancelled = |errno| is_interruption(errno) && fd.stopped;
    if bytes > 0 {
        // These only end the chunk; the next read meets them again.
        let pending = last.err().filter(|e| !matches!(*e, EAGAIN | ENOMSG) && !cancelled(*e));
        let chunk = &slot.body()[..bytes];
        let zero = is_zero(chunk);
        let hash = if zero { zeros.hash(bytes) } else { chunk_hash(chunk) };
        return (ReadResult::Chunk { bytes: bytes as u32, zero, hash }, pending);
    }
    let result = match last {
        Ok(()) if phase == DataPhase::StopCopy => ReadResult::End,
        Ok(()) => ReadResult::Empty,
        Err(ENOMSG) if phase == DataPhase::PreCopy => ReadResult::Empty,
        Err(errno) if cancelled(errno) => ReadResult::Cancelled,
        Err(errno) => ReadResult::Failed(errno),
    };
    (result, None)
}

/// How a write has ended.
pub(super) fn was_written(hash: u64, result: Result<(), i32>, fd: State) -> WriteResult {
    match result {
        Ok(()) => WriteResult::Written { hash },
        Err(errno) if is_interruption(errno) && fd.stopped => WriteResult::Cancelled,
        Err(errno) => WriteResult::Failed(errno),
    }
}
