//! Asynchronous operations on fds: one trait, two backends. `uring` is io_uring; `syscalls` is
//! the same on plain system calls, for hosts where io_uring is refused, and the oracle in tests.
//! [`open()`] chooses between them and says what it chose.
//!
//! An operation owns its buffer and a reference to its fd from `submit` until its completion gives
//! them back, on success and on failure. Cancelling only asks; the completion still comes. A ring
//! is used by the thread that opened it; only its [`Waker`] may go to other threads.
//!
//! Both backends answer alike, and a test runs the same operations on both to see that they do:
//! what may be submitted is decided by one table, and [`Op`] says what each completion means.

mod class;
mod nonblock;
mod op;
mod open;
mod refusal;
mod syscalls;
mod table;
#[cfg(test)]
mod tests;
mod uring;
mod waker;
mod workers;

pub use class::Classes;
pub use op::{Op, OpKind};
pub use open::{DEPTH_MAX, FILES_MAX, Opened, open};
pub use refusal::OpenError;
pub use waker::Waker;
pub use workers::BlockingThreads;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crate::buffers::Buffer;

/// Which mechanism a ring runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// io_uring.
    IoUring,
    /// read, write, send, recv and poll.
    Syscalls,
}

/// Which backend the embedder wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BackendChoice {
    /// io_uring where the kernel grants it, plain system calls otherwise.
    #[default]
    Auto,
    /// io_uring or an error.
    IoUring,
    /// Plain system calls.
    Syscalls,
}

/// The submitter's own name for an operation; comes back with its completion. Unique among the
/// operations in flight on one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// A file that was added to a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileId(pub u32);

/// How reads and writes of a file are submitted; found out by [`Classes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// A connected stream socket.
    Socket,
    /// A data fd with `->poll` (mlx5's save fd): O_NONBLOCK is set on it, EAGAIN parks on poll. Its
    /// driver may sleep all the same, so reads and writes run on a thread of the ring's own.
    /// The flag sits on the open file description, which others may share: it is taken off again
    /// by `remove_file` and at the ring's end, if it was not set before.
    Pollable,
    /// A data fd without `->poll`: its driver may sleep in a read or write. Under io_uring those run
    /// on a kernel worker (IOSQE_ASYNC), with plain system calls on a thread of the ring's own, so
    /// that such a driver holds nothing but that.
    Blocking,
}

/// A completion.
#[derive(Debug)]
pub struct Done {
    /// The operation's token.
    pub token: Token,
    /// Bytes moved, or the positive errno (see
    /// [`is_interruption`](crate::errno::is_interruption) for those of a cancel).
    pub result: Result<usize, i32>,
    /// The operation's buffer.
    pub buffer: Buffer,
}

/// An operation that was not taken: it comes back whole.
#[derive(Debug)]
pub struct Rejected {
    /// The operation.
    pub op: Op,
    /// The positive errno. EBUSY: the ring is full, or the file has an operation of this direction
    /// in flight. EBADF: no such file. EEXIST: the token is in flight. EINVAL: a bad range, or
    /// a read or write on a socket. ENOTSOCK: a send or receive on something else.
    pub errno: i32,
}

/// What became of zero-copy sends on a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroCopyStats {
    /// Whether the arena is registered and the kernel knows SEND_ZC.
    pub registered: bool,
    /// Sockets of the ring whose sends would be tried with SEND_ZC now.
    pub sockets_on: usize,
    /// SEND_ZC operations that were submitted.
    pub zero_copy_sends: u64,
    /// Those of which the kernel reported that it copied after all.
    pub copied_sends: u64,
}

/// What a ring is opened with.
#[derive(Debug, Clone)]
pub struct RingConfig {
    /// Which backend.
    pub backend: BackendChoice,
    /// Most operations in flight.
    pub depth: u32,
    /// Most files.
    pub files: u32,
    /// What runs reads and writes where no kernel worker does: of [`FileKind::Pollable`] files, and with
    /// plain system calls of [`FileKind::Blocking`] ones. They are made with the ring.
    pub blocking: BlockingThreads,
    /// The arena whose slots this ring may send from with SEND_ZC, registered as fixed buffers
    /// where RLIMIT_MEMLOCK allows; none: plain sends.
    pub zero_copy: Option<Arc<crate::buffers::Arena>>,
}

/// See the module's text.
///
/// Dropping a ring cancels what is in flight and waits for it, however long a driver takes: memory
/// that the kernel may still write into is never freed.
pub trait Ring {
    /// Which backend this is.
    fn backend(&self) -> Backend;
    /// Adds a file; the ring holds the reference until `remove_file` or its own end.
    fn add_file(&mut self, fd: Arc<OwnedFd>, kind: FileKind) -> std::io::Result<FileId>;
    /// Takes a file out again; nothing may be in flight on it (EBUSY otherwise). Once the last file
    /// of a ring was taken out, the kernel holds none of them any more.
    fn remove_file(&mut self, file: FileId) -> std::io::Result<()>;
    /// Takes an operation; it is handed to the kernel at the latest by the next `wait`.
    fn submit(&mut self, token: Token, op: Op) -> Result<(), Rejected>;
    /// Asks for an operation to end; it completes in any case, early, with an
    /// [interruption](crate::errno::is_interruption), or with its result. A token that is not in flight is ignored.
    fn cancel(&mut self, token: Token);
    /// Waits until something completes, the waker is used or `timeout` is over (none: for ever),
    /// and appends the completions, in no particular order.
    fn wait(&mut self, timeout: Option<Duration>, done: &mut Vec<Done>) -> std::io::Result<()>;
    /// How many bytes of a send or receive in flight have moved so far; 0 for anything else. On a
    /// slow path they are seen in small pieces, on a fast one in large ones.
    fn moved(&self, token: Token) -> usize;
    /// Operations that have not completed.
    fn in_flight(&self) -> usize;
    /// A handle that ends a `wait` from any thread.
    fn waker(&self) -> Waker;
    /// What became of zero-copy sends; all zero where there are none.
    fn zero_copy(&self) -> ZeroCopyStats {
        ZeroCopyStats::default()
    }
}
