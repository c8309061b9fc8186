//! From operations to submission entries.
//!
//! | file | operation | how it is submitted |
//! |---|---|---|
//! | pollable | read, try-read, write | on a thread of `workers`; where it answers EAGAIN, POLL_ADD and again |
//! | blocking | read, write | IOSQE_ASYNC: on a kernel worker, which may sleep in the driver |
//! | socket | send, receive | MSG_WAITALL (sends: until a socket refuses it, as the kernel's TLS does), in pieces; resumed where it came short |
//!
//! Never READV_FIXED, which overwrites its iovec on files that have only `.read`; nor READ_FIXED,
//! which gains nothing there.

use std::os::fd::AsRawFd;
use std::time::Instant;

use io_uring::{opcode, squeue, types};

use super::{IGNORED, UringRing, WAKE};
use crate::ring::op::Direction;
use crate::ring::table::{File, Key};
use crate::ring::uring::{FileState, Step};
use crate::ring::{FileKind, OpKind};

/// Reads and writes go on at the file's own position; streams have none and do not care.
const CURRENT_POSITION: u64 = u64::MAX;
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
const SHORT_SEND_FLAGS: i32 = libc::MSG_NOSIGNAL;
const RECV_FLAGS: i32 = libc::MSG_WAITALL;
const POLL_IN: libc::c_short = libc::POLLIN | libc::POLLRDHUP;
const POLL_OUT: libc::c_short = libc::POLLOUT;

impl UringRing {
    /// Queues an operation's next transfer.
    pub(super) fn queue_transfer(&mut self, key: Key) {
        let Some((flight, file)) = self.table.flight(key) else {
            return;
        };
        // The kernel would begin it on this thread, and O_NONBLOCK keeps no driver from sleeping:
        // xe does, and others wait for a lock.
        if file.kind == FileKind::Pollable && flight.op.kind != OpKind::HangUp {
            flight.state.step = Step::Transfer { zero_copy: false };
            self.for_workers.push(key);
            return;
        }
        let fd = file.target();
        let moved = flight.moved;
        flight.state.step = Step::Transfer { zero_copy: false };
        // Lengths fit a u32: an operation's range is checked to.
        let entry = match flight.op.kind {
            OpKind::Read | OpKind::TryRead => {
                let rest = flight.op.rest_mut(moved);
                opcode::Read::new(fd, rest.as_mut_ptr(), rest.len() as u32)
                    .offset(CURRENT_POSITION)
                    .build()
            }
            OpKind::Write => {
                let rest = flight.op.rest(moved);
                opcode::Write::new(fd, rest.as_ptr(), rest.len() as u32)
                    .offset(CURRENT_POSITION)
                    .build()
            }
            OpKind::Send => {
                let rest = flight.op.rest(moved);
                let rest = &rest[..file.state.sends.next(rest.len(), Instant::now())];
                if file.state.zero_copy && self.zero_copy.suits(&flight.op.buffer, rest.len()) {
                    flight.state.step = Step::Transfer { zero_copy: true };
                    self.zero_copy.send(fd, rest, SEND_FLAGS)
                } else {
                    let send = opcode::Send::new(fd, rest.as_ptr(), rest.len() as u32);
                    let whole = file.state.whole_sends;
                    send.flags(if whole { SEND_FLAGS } else { SHORT_SEND_FLAGS }).build()
                }
            }
            OpKind::Recv => {
                // Where more than enough is welcome, it takes what is there, and only if that is not
                // enough waits for the rest: mostly one receive brings a body and the next header.
                let (missing, whole) = (flight.op.enough - moved, flight.op.len() - moved);
                let look = missing < whole && !std::mem::replace(&mut flight.state.looked, true);
                let (most, flags) = if look { (whole, 0) } else { (missing, RECV_FLAGS) };
                let piece = file.state.receives.next(most, Instant::now());
                let rest = &mut flight.op.rest_mut(moved)[..piece];
                let recv = opcode::Recv::new(fd, rest.as_mut_ptr(), rest.len() as u32);
                recv.flags(flags).build()
            }
            OpKind::HangUp => return self.queue_poll(key),
        };
        let worker = match file.kind {
            FileKind::Blocking => squeue::Flags::ASYNC,
            FileKind::Pollable | FileKind::Socket => squeue::Flags::empty(),
        };
        let entry = entry.flags(file.target_flags() | worker).user_data(key.to_user_data());
        // The kernel takes entries in order, and does a send's copy on the way: the worker begins
        // before that.
        match file.kind {
            FileKind::Blocking => self.queued.push_front(entry),
            FileKind::Pollable | FileKind::Socket => self.queued.push_back(entry),
        }
    }

    /// Queues a wait for the operation's file.
    pub(super) fn queue_poll(&mut self, key: Key) {
        let Some((flight, file)) = self.table.flight(key) else {
            return;
        };
        flight.state.step = Step::Poll;
        let events = match flight.op.kind.direction() {
            Direction::In => POLL_IN,
            Direction::Out => POLL_OUT,
            Direction::Nowhere => libc::POLLRDHUP,
        };
        let entry = opcode::PollAdd::new(file.target(), events.cast_unsigned().into())
            .build()
            .flags(file.target_flags())
            .user_data(key.to_user_data());
        self.queued.push_back(entry);
    }

    /// Queues a request that an operation's current step end. Its answer is of no use: whatever it
    /// is, the operation completes.
    pub(super) fn queue_cancel(&mut self, key: Key) {
        let entry = opcode::AsyncCancel::new(key.to_user_data()).build().user_data(IGNORED);
        self.queued.push_back(entry);
    }

    /// Queues the read that ends a sleep when the waker is used: one operation that needs no system
    /// call of its own. By its plain descriptor: on older kernels a request on a registered file
    /// delays the release of all files that are taken out after it.
    pub(super) fn queue_wake_read(&mut self) {
        if self.ending {
            return;
        }
        self.wake_in_flight = true;
        let eventfd = types::Fd(self.waker.eventfd().as_raw_fd());
        let length = self.wake_count.len() as u32;
        let entry = opcode::Read::new(eventfd, self.wake_count.as_mut_ptr(), length)
            .build()
            .user_data(WAKE);
        self.queued.push_back(entry);
    }

    /// Queues the end of that read, for good.
    pub(super) fn queue_end_of_wakes(&mut self) {
        self.ending = true;
        self.queued.push_back(opcode::AsyncCancel::new(WAKE).build().user_data(IGNORED));
    }

    /// Queues an operation that does nothing, on a kernel worker: the first of them is made with the
    /// ring, and not while a VM stands still. The kernel keeps one.
    pub(super) fn queue_first_worker(&mut self) {
        let nothing = opcode::Nop::new().build().flags(squeue::Flags::ASYNC).user_data(IGNORED);
        self.queued.push_back(nothing);
    }

    /// Moves what is queued into the submission ring, as far as there is room.
    pub(super) fn fill_submissions(&mut self) {
        while let Some(entry) = self.queued.front() {
            let mut submissions = self.ring.submission();
            // SAFETY: needed because an entry carries raw addresses and descriptors. They are of a
            // flight's buffer, which the table neither moves, touches nor frees before the flight
            // is finished, that is before the last completion of this entry (`Drop` waits for
            // them too), and of a file that the table holds for at least as long. Those of the
            // waker's read are of fields of the ring that stay as they are until it has completed.
            let pushed = unsafe { submissions.push(entry) };
            if pushed.is_err() {
                return;
            }
            drop(submissions);
            self.queued.pop_front();
        }
    }
}

impl File<FileState> {
    /// How entries name the file: its place in the registered table, or its descriptor.
    fn target(&self) -> types::Fd {
        match self.state.fixed {
            Some(index) => types::Fd(index.cast_signed()),
            None => types::Fd(self.fd.as_raw_fd()),
        }
    }

    fn target_flags(&self) -> squeue::Flags {
        match self.state.fixed {
            Some(_) => squeue::Flags::FIXED_FILE,
            None => squeue::Flags::empty(),
        }
    }
}
