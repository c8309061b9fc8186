//! The ring on io_uring.
//!
//! - `setup` makes it and finds out what the kernel has;
//! - `submit` turns operations into submission entries;
//! - `complete` turns completion entries into the next step or a completion;
//! - `pieces` knows how much of a long send or receive is asked for at once;
//! - `turn` goes to the kernel and back, cancels, and ends the ring;
//! - `zero_copy` knows when a send may be zero-copy.
//!
//! An operation's buffer and file stay in the table until its last completion entry has been
//! taken: nothing that the kernel may still touch is freed, however the ring ends.

mod complete;
mod pieces;
mod setup;
#[allow(unsafe_code)]
mod submit;
mod turn;
#[allow(unsafe_code)]
mod zero_copy;

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, squeue};

use self::pieces::Pieces;
use self::setup::Setup;
use self::zero_copy::ZeroCopy;
use super::refusal::{OpenError, refusal};
use super::table::{Key, Table};
use super::workers::Workers;
use super::{
    Backend, Done, FileId, FileKind, Op, Rejected, Ring, RingConfig, Token, Waker, ZeroCopyStats,
};

/// `user_data` of the read of the waker's eventfd; no key looks like it, for a table is never that long.
const WAKE: u64 = u64::MAX;
/// `user_data` of completions that nobody waits for.
const IGNORED: u64 = u64::MAX - 1;

/// Which of an operation's submission entries is under way. There is only ever one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Transfer { zero_copy: bool },
    Poll,
}

/// What this backend keeps for an operation.
#[derive(Debug)]
struct Progress {
    step: Step,
    /// A receive has looked what there is, and waits for what is missing.
    looked: bool,
    /// Notifications of zero-copy sends still to come.
    notifications: u32,
    interruptions: u8,
    /// How it ended; told when no notification is outstanding.
    outcome: Option<Result<usize, i32>>,
}

impl Default for Progress {
    fn default() -> Progress {
        let step = Step::Transfer { zero_copy: false };
        Progress { step, looked: false, notifications: 0, interruptions: 0, outcome: None }
    }
}

/// What this backend keeps for a file.
#[derive(Debug)]
struct FileState {
    /// Its place in the registered table; none: it is used by its descriptor.
    fixed: Option<u32>,
    /// Sends are tried with SEND_ZC.
    zero_copy: bool,
    /// Sends are asked for as a whole: the kernel's TLS knows no MSG_WAITALL there.
    whole_sends: bool,
    /// Of a socket.
    receives: Pieces,
    sends: Pieces,
}

impl FileState {
    fn new(zero_copy: bool) -> FileState {
        let (receives, sends) = (Pieces::new(), Pieces::new());
        FileState { fixed: None, zero_copy, whole_sends: true, receives, sends }
    }
}

/// See the module's text.
pub(super) struct UringRing {
    ring: IoUring,
    table: Table<FileState, Progress>,
    waker: Waker,
    /// They run what the kernel would run on this thread, and a driver might hold.
    workers: Workers,
    /// What they get with the next `wait`.
    for_workers: Vec<Key>,
    zero_copy: ZeroCopy,
    fixed_files: bool,
    /// How many files there may be.
    files: u32,
    /// Entries on their way into the submission ring, which takes them in order.
    queued: VecDeque<squeue::Entry>,
    /// Completion entries between reaping and reacting; empty outside `reap`.
    reaped: Vec<(u64, i32, u32)>,
    /// When cancelled operations that are still in flight are cancelled again.
    cancel_again: Option<Instant>,
    /// What the waker's eventfd is read into: always by one read, which is in flight or about to be.
    wake_count: Vec<u8>,
    /// The kernel has that read.
    wake_in_flight: bool,
    /// The ring is being dropped.
    ending: bool,
    /// Operations are submitted by the thread that made the ring (SINGLE_ISSUER).
    _not_send: PhantomData<*const ()>,
}

impl UringRing {
    /// Makes a ring for the calling thread.
    pub(super) fn open(config: &RingConfig) -> Result<UringRing, OpenError> {
        let Setup { ring, fixed_files, send_zc } = setup::setup(config)?;
        let zero_copy = ZeroCopy::new(&ring, send_zc, config.zero_copy.as_ref());
        let waker = Waker::new()?;
        let mut opened = UringRing {
            ring,
            table: Table::new(config.files, config.depth),
            workers: Workers::start(&config.blocking, Backend::IoUring, waker.clone())?,
            for_workers: Vec::new(),
            waker,
            zero_copy,
            fixed_files,
            files: config.files,
            queued: VecDeque::new(),
            reaped: Vec::new(),
            cancel_again: None,
            wake_count: vec![0; 8],
            wake_in_flight: false,
            ending: false,
            _not_send: PhantomData,
        };
        // A filter may allow io_uring_setup and refuse io_uring_enter: better known now.
        opened.queue_wake_read();
        opened.queue_first_worker();
        opened.fill_submissions();
        opened.ring.submit().map_err(refusal)?;
        Ok(opened)
    }
}

impl Ring for UringRing {
    fn backend(&self) -> Backend {
        Backend::IoUring
    }

    fn add_file(&mut self, fd: Arc<OwnedFd>, kind: FileKind) -> io::Result<FileId> {
        let raw = fd.as_raw_fd();
        let socket = kind == FileKind::Socket;
        let zero_copy = socket && self.zero_copy.registered();
        // This sets O_NONBLOCK, which the kernel samples when the file is registered.
        let id = self.table.add_file(fd, kind, FileState::new(zero_copy))?;
        if self.fixed_files && socket {
            match (
                self.ring.submitter().register_files_update(id.0, &[raw]),
                self.table.file_mut(id),
            ) {
                (Ok(_), Some(file)) => file.state.fixed = Some(id.0),
                (Err(error), _) => tracing::debug!(%error, "a file is used unregistered"),
                (Ok(_), None) => {}
            }
        }
        Ok(id)
    }

    /// A registered file that is taken out of its place stays open in the kernel for up to a
    /// second on kernels before 6.3 or so; only a table that goes as a whole takes its files along.
    /// A data fd must be closed before its device goes on: only sockets are registered.
    fn remove_file(&mut self, id: FileId) -> io::Result<()> {
        let file = self.table.remove_file(id)?;
        let Some(index) = file.state.fixed else { return Ok(()) };
        let submitter = self.ring.submitter();
        if self.table.files().any(|file| file.state.fixed.is_some()) {
            return submitter.register_files_update(index, &[-1]).map(drop);
        }
        submitter.unregister_files()?;
        self.fixed_files = setup::register_file_table(&self.ring, self.files);
        Ok(())
    }

    fn submit(&mut self, token: Token, op: Op) -> Result<(), Rejected> {
        let key = self.table.admit(token, op)?;
        self.queue_transfer(key);
        Ok(())
    }

    fn cancel(&mut self, token: Token) {
        if let Some(key) = self.table.key(token) {
            self.cancel_key(key);
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, done: &mut Vec<Done>) -> io::Result<()> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let before = done.len();
        let mut woken = self.waker.get_up();
        loop {
            self.take_worked(done);
            self.give_work(done);
            self.cancel_late();
            let until = deadline.into_iter().chain(self.cancel_again).min();
            let sleep = done.len() == before && !woken && self.waker.fall_asleep();
            let entered = self.enter(sleep, until);
            woken |= self.waker.get_up();
            entered?;
            self.reap(done);
            let over = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if done.len() > before || woken || over {
                return Ok(());
            }
        }
    }

    fn moved(&self, token: Token) -> usize {
        self.table.moved(token)
    }

    fn in_flight(&self) -> usize {
        self.table.in_flight()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn zero_copy(&self) -> ZeroCopyStats {
        self.zero_copy.stats(self.table.files().filter(|file| file.state.zero_copy).count())
    }
}
